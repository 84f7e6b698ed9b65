"""The page as a file: one HTML file that holds everything, and text that stays text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

import msgspec
from helpers import page_documents as documents
from helpers.browsing import Elements

from vpt_data.inspect.view import page
from vpt_data.inspect.view.item import Document, Numbers

WEB = Path(page.__file__).parent / "web"


def test_the_document_comes_back_as_it_was() -> None:
    given = documents.document()
    text = Elements(page.render(given)).texts["application/json"]
    assert msgspec.json.decode(text, type=Document) == given


def test_hostile_text_opens_no_element() -> None:
    harmless = Elements(page.render(documents.document(items=[], dropped=[], title="A corpus")))
    hostile = Elements(page.render(documents.document(title=documents.HOSTILE)))
    assert [tag for tag, _ in hostile.found] == [tag for tag, _ in harmless.found]
    raw = re.search(r'id="document">(.*?)</script>', page.render(documents.document()), re.DOTALL)
    assert raw and not set("<>&\u2028\u2029") & set(raw[1])


def test_numbers_that_json_lacks_are_null() -> None:
    row = documents.region_row("gqa/nan", numbers=Numbers(iou=float("nan")), raw={"weight": float("inf")})
    [item] = json.loads(Elements(page.render(documents.document(items=[row]))).texts["application/json"])["items"]
    assert item["numbers"]["iou"] is None
    assert item["raw"] == {"weight": None}


def test_the_policy_allows_this_script_and_style_and_data_pictures_alone() -> None:
    elements = Elements(page.render(documents.document()))
    for rule, kind in (("script-src", "module"), ("style-src", "style")):
        digest = base64.b64encode(hashlib.sha256(elements.texts[kind].encode()).digest()).decode()
        assert elements.policy[rule] == f"'sha256-{digest}'"
    rest = {rule: allowed for rule, allowed in elements.policy.items() if rule not in {"script-src", "style-src"}}
    nothing = dict.fromkeys(("default-src", "connect-src", "base-uri", "form-action"), "'none'")
    assert rest == {**nothing, "img-src": "data:"}


def test_a_served_page_may_ask_its_own_server() -> None:
    policy = Elements(page.render(documents.document(items=[], dropped=[], api="/api"))).policy
    assert policy["connect-src"] == "'self'"
    assert policy["img-src"] == "data: 'self'"


def test_nothing_is_fetched_from_elsewhere() -> None:
    elements = Elements(page.render(documents.document()))
    named = [value for _, given in elements.found for name, value in given.items() if name in {"src", "href"}]
    assert set(named) == {"data:,", "#main"}
    code = "".join(path.read_text(encoding="utf-8") for path in WEB.iterdir())
    assert set(re.findall(r"https?://[^\"'\s]+", code)) == {"http://www.w3.org/2000/svg"}, "the name of SVG, no address"


def test_the_same_document_gives_the_same_page() -> None:
    assert page.render(documents.document()) == page.render(documents.document())


def test_every_file_of_the_page_is_in_it() -> None:
    assert {path.name for path in WEB.iterdir()} == {
        *page.SCRIPTS, *page.STYLES, "page.html.j2", "stats.css", "stats.html.j2",
    }  # fmt: skip


def test_scripts_set_text_and_never_html() -> None:
    for path in WEB.glob("*.js"):
        code = path.read_text(encoding="utf-8")
        assert not re.findall(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc", code
        ), path
