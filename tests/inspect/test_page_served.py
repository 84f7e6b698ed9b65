"""The page that asks a server for its rows: what it asks, page by page, and what it shows when the server refuses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from helpers import page_documents as documents

from vpt_data.inspect.view import page

ADDRESS = "http://127.0.0.1:1/"
FACETS = {
    "take": {"gqa": 70, "vsr": 80}, "look": {"region": 150}, "problem": {"small": 3, "flat": 2},
    "repaired": {"none": 149, "clipped": 1},
}  # fmt: skip


@dataclass
class Answers:
    """Answers the requests of a page, without a network; notes what was asked."""

    refuse: set[str] = field(default_factory=set)
    asked: list[tuple[str, dict[str, list[str]]]] = field(default_factory=list)

    def __call__(self, route: Any) -> None:
        parts = urlsplit(route.request.url)
        query = parse_qs(parts.query)
        name = parts.path.rpartition("/")[2]
        self.asked.append((parts.path, query))
        if parts.path == "/":
            document = documents.document(items=[], dropped=[], pictures={}, api="/api")
            route.fulfill(body=page.render(document), content_type="text/html; charset=utf-8")
        elif name in self.refuse:
            route.fulfill(status=400, body='{"error": "The index is <b>broken</b>."}', content_type="application/json")
        elif parts.path.startswith("/api/"):
            status, found = self.answer(name, query)
            route.fulfill(status=status, body=msgspec.json.encode(found), content_type="application/json")
        else:
            route.fulfill(body=PNG, content_type="image/png")

    def answer(self, name: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        if name == "facets":
            return 200, FACETS
        if name == "row":
            place = int(query["id"][0].split("-")[1])
            return (200, row(place)) if place < 150 else (404, {"error": "no such row"})
        if name == "dropped":
            return 200, {"total": 3, "dropped": documents.drops()}
        first = int(query["offset"][0])
        total = 70 if "take" in query else 150
        return 200, {"total": total, "items": [row(n) for n in range(first, min(first + 60, total))]}


PNG = documents.png(documents.painted())


def row(number: int) -> Any:
    shown = documents.image(src=f"/picture/0/{number}/image/0", boxes=[documents.items.Box(documents.BOX)])
    return documents.region_row(f"gqa/row-{number}", images=[shown])


@pytest.fixture(scope="module")
def window(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    tab = context.new_page()
    tab.set_default_timeout(5000)
    yield tab
    context.close()


@pytest.fixture
def answers(window: Any) -> Iterator[Answers]:
    given = Answers()
    window.route("**/*", given)
    said: list[str] = []
    window.on("pageerror", lambda error: said.append(str(error)))
    yield given
    window.unroute("**/*")
    assert not said


def opened(window: Any, where: str = "") -> Any:
    window.goto("about:blank")
    window.goto(ADDRESS + where)
    window.wait_for_selector("html[data-ready]")
    return window


def test_rows_come_page_by_page(window: Any, answers: Answers) -> None:
    tab = opened(window)
    assert tab.locator(".card").count() == 60
    assert tab.inner_text("#count") == "150 of 2,000 rows"
    tab.wait_for_selector("#by-take")
    for loaded in (120, 150):
        tab.locator("button.more").scroll_into_view_if_needed()
        tab.wait_for_selector(f".gallery > li:nth-child({loaded})")
    assert not tab.is_visible("button.more")
    offsets = [query["offset"] for path, query in answers.asked if path == "/api/rows"]
    assert offsets == [["0"], ["60"], ["120"]], "each page is asked for once"
    thumbnails = [query for path, query in answers.asked if path.startswith("/picture/")]
    assert thumbnails and all(query == {"side": ["320"]} for query in thumbnails)


def test_filters_and_sorts_are_questions_to_the_server(window: Any, answers: Answers) -> None:
    tab = opened(window)
    tab.wait_for_selector("#by-take")
    tab.select_option("#by-take", "gqa")
    tab.wait_for_selector("#count >> text=70 of 2,000 rows")
    tab.select_option("#by-problem", "any")
    tab.select_option("#by-sort", "iou-")
    tab.fill("#search", "sign")
    tab.wait_for_url("**text=sign**")
    tab.wait_for_selector(".card")
    _, query = [asked for asked in answers.asked if asked[0] == "/api/rows"][-1]
    assert query == {
        "offset": ["0"], "limit": ["60"], "take": ["gqa"], "problem": ["small", "flat"], "text": ["sign"],
        "sort": ["iou"], "descending": ["1"],
    }  # fmt: skip


def test_a_link_to_any_row_of_the_corpus(window: Any, answers: Answers) -> None:
    tab = opened(window, "#id=gqa%2Frow-149")
    assert tab.inner_text("#heading") == "gqa/row-149"
    assert "not among the rows" in tab.inner_text(".steps")
    assert tab.locator(".stage img").evaluate("img => img.decode().then(() => img.naturalWidth)") == 500
    assert opened(window, "#id=gqa%2Frow-999").inner_text("#heading") == "No such row"


def test_walking_on_asks_for_the_next_page(window: Any, answers: Answers) -> None:
    tab = opened(window, "#id=gqa%2Frow-59")
    tab.keyboard.press("j")
    tab.wait_for_selector("#heading >> text=gqa/row-60")
    assert tab.inner_text(".steps [role=status]") == "61 of 150"


def test_what_the_server_refuses_is_said(window: Any, answers: Answers) -> None:
    answers.refuse = {"rows", "facets"}
    tab = opened(window)
    assert tab.inner_text("#error") == "The index is <b>broken</b>."
    answers.refuse = set()
    tab = opened(window, "#tab=dropped")
    assert not tab.is_visible("#error")
    assert tab.locator(".drop").count() == 3


def test_a_server_that_is_gone(window: Any, answers: Answers) -> None:
    tab = opened(window)
    tab.wait_for_selector("#by-take")
    tab.unroute("**/*")
    tab.select_option("#by-take", "gqa")
    tab.wait_for_selector("#error:has-text('The server does not answer')")


def test_a_picture_that_does_not_come(window: Any, answers: Answers) -> None:
    answers.refuse = {"0"}
    tab = opened(window, "#id=gqa%2Frow-3")
    tab.wait_for_selector(".stage >> text=This picture cannot be shown.")
