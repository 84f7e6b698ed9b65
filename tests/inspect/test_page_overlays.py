"""Boxes and cells are where they belong: measured in pixels of screenshots. And the page can be read by everybody."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from helpers import page_documents as documents
from PIL import Image

from vpt_data.inspect.view import page

#: Pixels of CSS that a line may be away from the edge that it names.
TOLERANCE = 1.5
WEB = Path(page.__file__).parent / "web"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(page.render(documents.document()), encoding="utf-8")
    return f"file://{path}"


@pytest.fixture(scope="module")
def windows(browser: Any) -> Iterator[Any]:
    """Opens a window of a width, a density, a colour scheme; windows are kept for later tests."""
    kept: dict[str, Any] = {}

    def window(address: str, **given: Any) -> Any:
        size = {"width": given.pop("width", 1280), "height": 900}
        key = f"{size} {given}"
        if key not in kept:
            kept[key] = browser.new_context(viewport=size, reduced_motion="reduce", **given).new_page()
            kept[key].set_default_timeout(5000)
        kept[key].goto("about:blank")
        kept[key].goto(address)
        kept[key].wait_for_selector("html[data-ready]")
        return kept[key]

    yield window
    for tab in kept.values():
        tab.context.close()


def edges_of_ink(tab: Any, area: str, inks: list[str], scale: float) -> np.ndarray[Any, Any]:
    """Where the area of some colours is on the screen: x0, y0, x1, y1 in pixels of CSS.

    A pixel counts for the colour that it is nearest to, so a blurred edge is where both are equally strong.
    """
    place = tab.locator(area).bounding_box()
    clip = {"x": int(place["x"]), "y": int(place["y"]), "width": int(place["width"]), "height": int(place["height"])}
    shot = np.asarray(Image.open(io.BytesIO(tab.screenshot(clip=clip))).convert("RGB"), np.int16)
    colours = {**documents.INK, "paper": documents.PAPER}
    distance = np.stack([np.abs(shot - np.array(colour, np.int16)).sum(axis=2) for colour in colours.values()])
    found = np.isin(distance.argmin(axis=0), [list(colours).index(ink) for ink in inks])
    columns, lines = np.flatnonzero(found.sum(axis=0) > 2), np.flatnonzero(found.sum(axis=1) > 2)
    edges = np.array([columns[0], lines[0], columns[-1] + 1, lines[-1] + 1]) / scale
    return edges + np.array([clip["x"], clip["y"]] * 2)


def edges_of_line(tab: Any, selector: str) -> np.ndarray[Any, Any]:
    """Where a rectangle is drawn, the same way."""
    corners = tab.locator(selector).evaluate(
        """rect => {
          const matrix = rect.getScreenCTM(), box = rect.getBBox();
          const at = (x, y) => new DOMPoint(x, y).matrixTransform(matrix);
          const [a, b] = [at(box.x, box.y), at(box.x + box.width, box.y + box.height)];
          return [a.x, a.y, b.x, b.y];
        }"""
    )
    return np.array(corners)


@pytest.mark.parametrize("where", ["#id=gqa%2Ffirst", ""], ids=["sample", "gallery"])
@pytest.mark.parametrize(("width", "scale"), [(390, 3), (700, 1), (1280, 1), (1280, 2), (1920, 1.5)])
def test_lines_are_on_the_edges_of_what_they_name(
    windows: Any, address: str, where: str, width: int, scale: float
) -> None:
    tab = windows(address + where, width=width, device_scale_factor=scale)
    stage = ".stage >> nth=0"
    tab.wait_for_selector(f"{stage} >> img[src]")
    tab.evaluate("document.querySelector('.stage img').decode()")
    drawn = {kind: edges_of_line(tab, f"{stage} >> rect.{kind}.line") for kind in ("box", "cells")}
    # The lines are hidden now, so that the colours of the picture below them can be found.
    for key in "bc":
        tab.keyboard.press(key)
    tab.evaluate("document.documentElement.dataset.grid = 'off'")
    inks = {"box": ["box"], "cells": ["box", "cells"]}
    painted = {kind: edges_of_ink(tab, stage, inks[kind], scale) for kind in drawn}
    off = {kind: np.abs(drawn[kind] - painted[kind]).max() for kind in drawn}
    assert max(off.values()) <= TOLERANCE, off


def test_the_page_follows_the_geometry_of_the_toolkit(windows: Any, address: str) -> None:
    """Cells of many grids and sizes, odd ones included: the page gives the pixels that `geometry.crop` gives."""
    from vpt_data import geometry

    random = np.random.default_rng(0)
    cases = []
    for _ in range(300):
        k = int(random.integers(1, 33))
        near = random.integers(0, k, 2)
        far = [int(random.integers(low, k)) for low in near]
        cases.append(([*map(int, near), *far], random.integers(1, 5000, 2).tolist(), k))
    wanted = [geometry.crop([cells], [size], k)[0].tolist() for cells, size, k in cases]
    code = (WEB / "picture.js").read_text(encoding="utf-8")
    functions = "".join(re.findall(r"^function (?:span|cellPixels)\b.*?^}\n", code, re.MULTILINE | re.DOTALL))
    window = windows(address)
    window.goto("about:blank")
    script = functions + "return cases.map(([cells, [width, height], k]) => cellPixels(cells, k, {width, height}));"
    assert window.evaluate(f"cases => {{ {script} }}", cases) == wanted


PAGES = [
    "",
    "#id=gqa%2Ffirst",
    f"#id={quote(documents.rows()[5].id)}",
    "#id=talk%2Fseventh",
    "#tab=dropped",
    "#tab=plots",
]


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(windows: Any, address: str, width: int) -> None:
    for where in PAGES:
        tab = windows(address + where, width=width)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, where
        tab.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, f"{where}, all details open"


def test_pictures_that_can_be_seen_are_there(windows: Any, address: str) -> None:
    tab = windows(address)
    for picture in tab.locator(".card img").all():
        picture.scroll_into_view_if_needed()
        assert picture.evaluate("img => img.decode().then(() => img.naturalWidth)") > 0


#: Elements with text: its colour, and the colour behind it, mixed from all that is not transparent.
CONTRAST = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const paint = (colours) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255).map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = {};
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest("script, :disabled")) continue;
    const behind = [];
    for (let one = element; one; one = one.parentElement) behind.unshift(getComputedStyle(one).backgroundColor);
    const [text, ground] = [paint([...behind, getComputedStyle(element).color]), paint(behind)].map(light);
    const ratio = (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
    const name = element.closest("[class]")?.className ?? element.tagName;
    found[name] = Math.min(found[name] ?? 99, ratio);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_what_is_behind_it(windows: Any, address: str, scheme: str) -> None:
    """The contrast that WCAG 2.2 AA wants of text of ordinary size: 4.5."""
    for where in [*PAGES, "#id=coco%2Fsecond", "#id=vsr%2Fthird"]:
        found = windows(address + where, color_scheme=scheme).evaluate(CONTRAST)
        assert len(found) > 5
        weak = {name: round(ratio, 2) for name, ratio in found.items() if ratio < 4.5}
        assert not weak, f"{scheme} {where}"


#: Things that can be used and have no name, ids that stand twice, pictures without a text.
NAMELESS = """() => [
  ...[...document.querySelectorAll("a[href], button, input, select, summary, [role=img]")]
    .filter((one) => !(one.innerText?.trim() || one.getAttribute("aria-label") || one.labels?.[0]?.innerText.trim()))
    .map((one) => one.outerHTML),
  ...[...document.querySelectorAll("img:not([alt])")].map((one) => one.outerHTML.slice(0, 80)),
  ...[...document.querySelectorAll("[id]")].map((one) => one.id).filter((id, n, all) => all.indexOf(id) !== n),
  ...(document.querySelectorAll("h1").length === 1 ? [] : ["h1"]),
]"""


def test_everything_that_can_be_used_has_a_name(windows: Any, address: str) -> None:
    for where in PAGES:
        assert windows(address + where).evaluate(NAMELESS) == [], where


def test_focus_can_be_seen_and_follows_the_page(windows: Any, address: str) -> None:
    tab = windows(address)
    order = []
    for _ in range(14):
        tab.keyboard.press("Tab")
        name, outline = tab.evaluate(
            "[document.activeElement.id || document.activeElement.dataset.tab || document.activeElement.dataset.id,"
            " parseFloat(getComputedStyle(document.activeElement).outlineWidth)]"
        )
        order.append(name or "link")
        assert outline >= 2, f"the focus on {name} cannot be seen"
    filters = [f"by-{name}" for name in ("take", "template", "look", "expected", "repaired", "problem", "sort")]
    head = ["link", "theme", "ask", "rows", "dropped", "plots", "search"]
    assert order == [*head, *filters]


def test_the_switch_of_themes(windows: Any, address: str) -> None:
    tab = windows(address, color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = tab.evaluate(ground)
    tab.click("#theme")
    dark = tab.evaluate(ground)
    assert light != dark
    for _ in range(5):  # a browser stores the choice behind the click; on busy cores the first reload can be faster
        tab.reload()
        tab.wait_for_selector("html[data-ready]")
        if kept := tab.evaluate(ground) == dark:
            break
    assert kept, "the choice is kept"
    tab.click("#theme")
    assert tab.evaluate(ground) == light
    tab.click("#theme")
    assert tab.inner_text("#theme") == "Theme: system"
    assert windows(address, color_scheme="dark").evaluate(ground) == dark


def test_lines_differ_without_colour(windows: Any, address: str) -> None:
    tab = windows(f"{address}#id=gqa%2Ffirst")
    dashes = {kind: tab.evaluate(f"getComputedStyle(document.querySelector('.stage .{kind}.line')).strokeDasharray")
              for kind in ("box", "cells", "grid")}  # fmt: skip
    assert len(set(dashes.values())) == 3, dashes
    assert [text.strip() for text in tab.locator(".tag").all_inner_texts()] == ["box: sign", "cells"]
    tokens = {kind: tab.evaluate(f"getComputedStyle(document.querySelector('.turn.{kind}')).borderLeftStyle")
              for kind in ("loss", "noloss")}  # fmt: skip
    assert tokens == {"loss": "solid", "noloss": "dotted"}


def test_printing_leaves_controls_out(windows: Any, address: str) -> None:
    tab = windows(f"{address}#id=gqa%2Ffirst", width=800)
    tab.emulate_media(media="print")
    assert not tab.is_visible(".steps") and not tab.is_visible("#theme")
    assert tab.is_visible(".turn.loss") and tab.is_visible(".stage rect.box.line")
    tab.emulate_media(media="screen")
