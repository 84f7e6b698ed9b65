"""The page of the sample corpus, as `make demo` makes it: small enough to send, every row can be opened."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vpt_data.corpus.reader import open_corpus
from vpt_data.inspect.view import document as documents
from vpt_data.inspect.view import page
from vpt_data.inspect.view.choose import Choice

ROOT = Path(__file__).resolve().parents[2]
PLOTS_ARE_DRAWN = True
#: What the sample page shows as soon as it has followed its address: id, place in the list, turns that carry loss.
SHOWN = """async () => {
  const root = document.documentElement;
  while (root.dataset.ready !== location.hash) await new Promise(requestAnimationFrame);
  const text = (selector) => document.querySelector(selector).innerText;
  return [text("#heading"), text(".steps [role=status]"), document.querySelectorAll(".turn.loss").length];
}"""


@pytest.fixture(scope="module")
def file(embedded_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "sample.html"
    shown = documents.Shown(open_corpus(embedded_corpus), None)
    path.write_text(page.render(documents.document(shown, Choice(200))), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tab(browser: Any, file: Path) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    opened.set_default_timeout(5000)
    opened.said = []
    opened.on("console", lambda message: opened.said.append(message.text))
    opened.on("pageerror", lambda error: opened.said.append(str(error)))
    opened.goto(f"file://{file}")
    opened.wait_for_selector("html[data-ready]")
    yield opened
    context.close()


def test_the_page_is_small_and_every_row_can_be_opened(tab: Any, file: Path) -> None:
    assert file.stat().st_size < 10_000_000
    ids = tab.eval_on_selector_all(".card", "cards => cards.map((card) => card.dataset.id)")
    assert len(set(ids)) == 200
    tab.click(".card >> nth=0")
    for place, name in enumerate(ids):
        heading, position, taught = tab.evaluate(SHOWN)
        assert (heading, position) == (name, f"{place + 1} of 200")
        assert taught >= 1
        tab.keyboard.press("j")
    assert tab.said == []


def test_every_plot_is_drawn(tab: Any) -> None:
    tab.click("#tabs >> text=Plots")
    tab.wait_for_selector(".plot")
    assert tab.locator(".plot").count() == tab.locator(".plot svg").count() >= 5
    assert tab.said == []


def test_the_picture_in_the_documentation_is_of_this_page(browser: Any, tab: Any, file: Path, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("draw_page", ROOT / "docs" / "draw_page.py")
    assert spec is not None and spec.loader is not None
    drawing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawing)
    drawing.shoot(browser, file, tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as new, Image.open(drawing.TARGET) as committed:
        assert new.size == committed.size
    assert 30_000 < drawing.TARGET.stat().st_size < 400_000
