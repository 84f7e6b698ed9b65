"""The page in a browser: every filter, sort and key is used, and nothing is asked for or complained about."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from helpers import page_documents as documents

from vpt_data.inspect.view import page
from vpt_data.inspect.view.item import Document

IDS = [item.id for item in documents.rows()]
#: Each row by the number word in its id.
FIRST, SECOND, THIRD, FOURTH, FIFTH, SIXTH, SEVENTH, EIGHTH, NINTH = IDS

Opened = Callable[..., Any]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Document], Path]:
    """A page as a file."""
    folder = tmp_path_factory.mktemp("page")

    def write(document: Document) -> Path:
        html = page.render(document)
        path = folder / f"{hash(html)}.html"
        path.write_text(html, encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="module")
def window(browser: Any) -> Iterator[Any]:
    """One window for all tests; what the page complains about and asks for is noted in it."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    tab = context.new_page()
    tab.set_default_timeout(5000)
    tab.noted = Noted([], [])
    tab.on("console", lambda message: tab.noted.said.append(message.text))
    tab.on("pageerror", lambda error: tab.noted.said.append(str(error)))
    tab.on("request", lambda request: tab.noted.asked.append(request.url))
    yield tab
    context.close()


@dataclass(frozen=True)
class Noted:
    said: list[str]
    asked: list[str]


@pytest.fixture
def opened(window: Any, files: Callable[[Document], Path]) -> Iterator[Opened]:
    """Opens a document; at the end nothing was complained about or asked for but the file, and no hostile text ran."""

    def open_page(document: Document | None = None, where: dict[str, str] | None = None) -> Any:
        window.goto("about:blank")
        window.goto(f"file://{files(document or documents.document())}#{urlencode(where or {})}")
        window.wait_for_selector("html[data-ready]")
        return window

    yield open_page
    assert window.evaluate("window.hit") is None
    assert not window.noted.said
    assert {url.split(":")[0] for url in window.noted.asked} <= {"about", "file", "data"}


#: True when the page shows what its address says.
SETTLED = "document.documentElement.dataset.ready === location.hash"


def settle(tab: Any) -> Any:
    """Wait until the page has followed its address."""
    tab.evaluate(f"async () => {{ while (!({SETTLED})) await new Promise(requestAnimationFrame); }}")
    return tab


def click(tab: Any, selector: str) -> None:
    tab.click(selector)
    settle(tab)


def press(tab: Any, key: str) -> None:
    tab.keyboard.press(key)
    settle(tab)


def shown(tab: Any) -> list[str]:
    """The ids of the cards, in order."""
    found: list[str] = tab.eval_on_selector_all(".card", "cards => cards.map((card) => card.dataset.id)")
    return found


def choose(tab: Any, name: str, value: str) -> None:
    tab.select_option(f"#by-{name}", value)
    settle(tab)


def heading(tab: Any) -> str:
    return str(tab.inner_text("#heading"))


def test_the_gallery_shows_every_row_once(opened: Opened) -> None:
    tab = opened()
    assert shown(tab) == IDS
    assert tab.inner_text("#count") == "9 rows"
    assert tab.title() == "A corpus <b>&amp; its page"


def test_each_filter(opened: Opened) -> None:
    tab = opened()
    for name, value, expected in [
        ("take", "vsr", [THIRD, FOURTH]),
        ("template", "reencode", [SECOND]),
        ("look", "region", [FIRST, THIRD, NINTH]),
        ("look", "none", [FOURTH, FIFTH, SIXTH, SEVENTH, EIGHTH]),
        ("expected", "region", [FOURTH]),
        ("repaired", "clipped", [THIRD]),
        ("repaired", "any", [THIRD]),
        ("problem", "any", [THIRD]),
        ("problem", "iou_below_0.1", [THIRD]),
    ]:
        choose(tab, name, value)
        assert shown(tab) == expected
        assert tab.inner_text("#count") == f"{len(expected)} of 9 rows"
        assert f"{name}={value}" in tab.url
        tab.reload()
        settle(tab)
        assert shown(tab) == expected, "the link shows the same"
        click(tab, "#clear")
        assert shown(tab) == IDS


def test_each_sort(opened: Opened) -> None:
    tab = opened()
    for sort, first in [
        ("problems-", [THIRD, FIRST]),
        ("area", [THIRD, FIRST, NINTH]),
        ("area-", [NINTH, FIRST, THIRD]),
        ("iou", [THIRD, FIRST, NINTH]),
        ("iou-", [NINTH, FIRST, THIRD]),
        ("text-", [SEVENTH, SIXTH, NINTH]),
        ("text", [THIRD, FOURTH, FIFTH]),
        ("order", IDS),
    ]:
        choose(tab, "sort", sort)
        assert shown(tab)[: len(first)] == first
        assert sorted(shown(tab)) == sorted(IDS), "no row is lost, with or without the number"


def test_search_finds_questions_answers_ids_and_dialogues(opened: Opened) -> None:
    tab = opened()
    for text, expected in {
        "70982": [FIRST, THIRD, NINTH],
        "NO PLAY": [SEVENTH],
        "coco/": [SECOND, EIGHTH],
        "</script": [SIXTH],
    }.items():
        tab.fill("#search", text)
        tab.wait_for_selector(f".gallery > li:nth-child({len(expected)}):last-child")
        assert shown(tab) == expected
        assert tab.evaluate("document.activeElement.id") == "search", "one can go on writing"
    tab.fill("#search", "nothing has this")
    tab.wait_for_selector("text=No row fits these filters.")
    assert tab.inner_text("#count") == "0 of 9 rows"


def test_filters_add_up_and_the_sample_page_walks_what_they_show(opened: Opened) -> None:
    tab = opened(where={"look": "region", "sort": "iou-"})
    assert shown(tab) == [NINTH, FIRST, THIRD]
    choose(tab, "take", "gqa")
    click(tab, ".card >> nth=0")
    assert heading(tab) == NINTH
    assert tab.inner_text(".steps [role=status]") == "1 of 2"
    press(tab, "j")
    assert heading(tab) == FIRST
    press(tab, "j")
    assert heading(tab) == FIRST, "the list ends here"


def test_keys_of_the_sample_page(opened: Opened) -> None:
    tab = opened(where={"id": FIRST})
    for key, expected in [("j", SECOND), ("ArrowRight", THIRD), ("k", SECOND), ("ArrowLeft", FIRST), ("k", FIRST)]:
        press(tab, key)
        assert heading(tab) == expected
        assert tab.evaluate("document.activeElement.id") == "heading", "screen readers go on at the new row"
    for key, layer in [("b", ".stage .box"), ("c", ".stage .cells")]:
        press(tab, key)
        assert not tab.is_visible(f"{layer} >> nth=0")
        press(tab, key)
        assert tab.is_visible(f"{layer} >> nth=0")
    press(tab, "g")
    assert shown(tab) == IDS
    assert tab.evaluate("document.activeElement.dataset.id") == FIRST, "the card that one came from"


def test_keys_of_the_gallery(opened: Opened) -> None:
    tab = opened()
    for key, expected in [("j", FIRST), ("j", SECOND), ("ArrowRight", THIRD), ("k", SECOND), ("ArrowLeft", FIRST)]:
        press(tab, key)
        assert tab.evaluate("document.activeElement.dataset.id") == expected
    press(tab, "/")
    tab.keyboard.type("jkbcg?")
    assert tab.input_value("#search") == "jkbcg?", "in a field keys are letters"
    press(tab, "Escape")
    assert tab.evaluate("document.activeElement.tagName") == "BODY"
    press(tab, "?")
    assert tab.is_visible("#help")
    press(tab, "Escape")
    assert not tab.is_visible("#help")
    click(tab, "#ask")
    click(tab, "#help button")
    assert not tab.is_visible("#help")
    tab.fill("#search", "")
    press(tab, "Escape")
    tab.wait_for_selector(".gallery > li:nth-child(9)")
    press(tab, "j")
    press(tab, "Enter")
    assert heading(tab) == FIRST
    press(tab, "Escape")
    assert shown(tab) == IDS


def test_the_way_back_of_the_browser(opened: Opened) -> None:
    tab = opened()
    click(tab, ".card >> nth=1")
    press(tab, "j")
    settle(tab).go_back()
    assert heading(settle(tab)) == SECOND
    tab.go_back()
    assert shown(settle(tab)) == IDS
    tab.go_forward()
    assert heading(settle(tab)) == SECOND


def test_a_link_to_a_row_that_is_not_here(opened: Opened) -> None:
    tab = opened(where={"id": "gqa/\u202enone", "sort": "nonsense", "tab": "nonsense"})
    assert heading(tab) == "No such row"
    assert "gqa/‹RLO›none" in tab.inner_text("main")
    click(tab, "text=See the rows that it holds")
    assert shown(tab) == IDS


def test_hovering_tokens_marks_their_cells(opened: Opened) -> None:
    tab = opened(where={"id": FIRST})
    tokens = tab.locator("button.tokens")
    assert tokens.get_attribute("aria-label") == "Tokens that ask for cells x 2, y 2–3"
    assert tab.locator(".mark").count() == 0
    tokens.hover()
    assert tab.locator(".mark").count() == 1
    tab.hover("h1")
    assert tab.locator(".mark").count() == 0
    tokens.locator("code >> nth=4").hover()
    band = tab.locator(".band")
    assert [band.get_attribute(name) for name in ("x", "y", "width", "height")] == ["0", "274", "1000", "91"], "row 3"
    tokens.click()
    tab.hover("h1")
    assert tab.locator(".mark").count() == 1, "pressed, the mark stays"
    press(tab, "Space")
    assert tokens.get_attribute("aria-pressed") == "false"


def test_turns_views_and_loss(opened: Opened) -> None:
    tab = opened(where={"id": SECOND})
    assert tab.locator(".lossword").all_inner_texts() == ["no loss", "carries loss"] * 2
    assert tab.locator(".turn.loss").count() == 2
    assert tab.locator(".token.action").count() == 3
    assert tab.inner_text(".token.quiet") == "<|detection_action|>", "the control token carries no loss"
    assert tab.locator(".view figcaption strong").all_inner_texts() == ["Whole image", "Whole image through DINOv2"]
    tab.hover("button.tokens")
    assert tab.locator(".view.marked figcaption").inner_text().startswith("Whole image through DINOv2")


def test_the_crop_is_shown_as_the_model_gets_it(opened: Opened) -> None:
    tab = opened(where={"id": FIRST})
    crop = tab.locator(".view.cropped")
    assert "cells x 2, y 2–3 · 125 × 183 px" in crop.inner_text()
    assert crop.locator("img").evaluate("img => [img.naturalWidth, img.naturalHeight]") == [60, 90]
    text = tab.inner_text("main")
    for part in (
        "viscot/gqa.jsonl, record 5 counted from 0",
        "CC-BY-4.0",
        "A. Painter",
        "0.340",
        "1.0 %",
        "1000 × 731 px",
    ):
        assert part in text
    click(tab, "text=The row as it is stored")
    tab.wait_for_selector(".raw pre bdi")
    assert '"id": "gqa/first"' in tab.inner_text(".raw pre")


def test_problems_first_is_one_click(opened: Opened) -> None:
    tab = opened()
    click(tab, "text=Show problems first")
    assert shown(tab)[0] == THIRD
    click(tab, ".card >> nth=0")
    said = tab.inner_text(".problems")
    for part in (
        "IoU below 0.1",
        "The crop covers the box badly: IoU 0.04.",
        "box below one cell",
        "The box was clipped to the image.",
    ):
        assert part in said
    assert "repaired: clipped" in tab.inner_text("main")


def test_missing_pictures_say_why(opened: Opened) -> None:
    tab = opened(where={"id": NINTH})
    assert "gqa/images/3.jpg is not under the raw root." in tab.inner_text(".stage")
    box = tab.locator(".stage rect.box.line")
    assert [box.get_attribute(name) for name in ("x", "y", "width", "height")] == ["800", "600", "100", "100"], (
        "corners in order"
    )
    assert opened(where={"id": FIFTH}).is_visible("text=This row has no image.")


def test_hostile_text_is_text(opened: Opened) -> None:
    tab = opened(where={"id": SIXTH})
    answer = tab.inner_text(".turn.loss .content")
    assert answer.startswith('</script><script>window.hit=1</script><img src=x onerror="window.hit=1"> &')
    assert "‹BEL›‹ESC›[31m abc‹RLO›def‹LRI›ghi‹PDI›" in answer
    for part in ("main", "header"):
        assert not set("\u202e\u2066\u2069\x07\x1b\u2028") & set(tab.locator(part).evaluate("one => one.outerHTML"))
    isolated = tab.eval_on_selector_all("bdi", "all => all.map((one) => getComputedStyle(one).unicodeBidi)")
    assert set(isolated) == {"isolate"}
    assert tab.locator("main script, main img[src='x'], main [onerror]").count() == 0


def test_long_text_is_folded(opened: Opened) -> None:
    tab = opened(where={"id": SEVENTH})
    size = "document.querySelector('.turn.loss').innerText.length"
    assert tab.evaluate(size) < 2000
    click(tab, ".turn.loss button.more")
    assert tab.evaluate(size) > len(documents.LONG)
    click(tab, ".turn.loss button.more")
    assert tab.evaluate(size) < 2000


def test_dropped_records(opened: Opened) -> None:
    tab = opened()
    click(tab, "#tabs >> text=Dropped")
    assert tab.locator(".reasons tr").all_inner_texts() == ["duplicate\t12\t", "malformed\t1\t"]
    assert tab.locator(".drop").count() == 3
    assert "viscot/gqa.jsonl · line 7" in tab.inner_text(".drop >> nth=0")
    assert tab.locator(".drop >> nth=0").locator("rect.box.line").count() == 1
    click(tab, ".reasons >> text=malformed")
    assert tab.locator(".drop").count() == 1
    click(tab, ".reasons >> text=malformed")
    choose(tab, "take", "gqa")
    assert tab.locator(".drop").count() == 1
    assert tab.locator(".reasons tr").all_inner_texts() == ["duplicate\t1\t"]


def test_plots_are_drawn_with_their_numbers(opened: Opened) -> None:
    tab = opened(where={"tab": "plots"})
    assert tab.locator(".plot svg rect").bounding_box()["width"] > 100
    assert tab.locator(".plot").locator("script, style, [style], [onload]").count() == 0
    click(tab, "text=Numbers")
    assert "vsr\t2" in tab.inner_text(".plot table")


def test_two_corpora_side_by_side(opened: Opened) -> None:
    tab = opened(documents.pair(), where={"id": "gqa/changed"})
    assert tab.locator(".panel > h3").all_inner_texts() == ["before", "after"]
    assert tab.locator(".turn.changed").count() == 2
    assert tab.locator("mark").all_inner_texts() == ["2", "3"]
    assert "differs: dialogue" in tab.inner_text("main").split("\n")
    tab.keyboard.press("j")
    assert "differs: boxes" in settle(tab).inner_text("main").split("\n")
    press(tab, "g")
    choose(tab, "differs", "1")
    assert shown(tab) == ["gqa/changed", "gqa/moved", "gqa/alone"]
    click(tab, "[data-id='gqa/alone']")
    assert "This corpus has no row with this id." in tab.inner_text(".panel >> nth=1")


def test_marks_stay_in_the_panel_of_their_tokens(opened: Opened) -> None:
    tab = opened(documents.pair(), where={"id": "gqa/same"})
    assert tab.locator(".changed").count() == 0
    tab.hover(".panel >> nth=1 >> button.tokens")
    assert [tab.locator(f".panel >> nth={n} >> .mark").count() for n in range(2)] == [0, 1]
