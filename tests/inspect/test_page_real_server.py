"""The page in a browser, with its rows from `vpt-data view --serve`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vpt_data.corpus.reader import open_corpus
from vpt_data.inspect.view.browse import Browser
from vpt_data.inspect.view.document import Shown
from vpt_data.inspect.view.serve import Server


@pytest.fixture(scope="module")
def address(embedded_corpus: Path) -> Iterator[str]:
    server = Server(Browser(Shown(open_corpus(embedded_corpus), None)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.address
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_whole_corpus_can_be_browsed(browser: Any, address: str, embedded_corpus: Path) -> None:
    total = sum(part.rows for part in open_corpus(embedded_corpus).manifest.splits.values())
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    tab = context.new_page()
    tab.set_default_timeout(10_000)
    said: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto(address)
    tab.wait_for_selector(f"#count >> text={total} rows")
    tab.wait_for_selector("#by-take")
    tab.select_option("#by-take", "docvqa")
    tab.select_option("#by-problem", "any")
    tab.select_option("#by-sort", "iou-")
    tab.wait_for_url("**sort=iou-**")
    tab.evaluate("async () => { while (document.documentElement.dataset.ready !== location.hash)"
                 " await new Promise(requestAnimationFrame); }")  # fmt: skip
    found = tab.eval_on_selector_all(".card", "cards => cards.map((card) => card.dataset.id)")
    assert found and all(name.startswith("docvqa/") for name in found)
    tab.click(".card >> nth=0")
    tab.wait_for_selector(".stage img[src^='/picture/']")
    sizes = tab.evaluate("Promise.all([...document.querySelectorAll('main img')]"
                         ".map((img) => img.decode().then(() => img.naturalWidth)))")  # fmt: skip
    assert len(sizes) >= 3 and min(sizes) > 0, "the image, its thumbnail, the crop"
    tab.click("#tabs >> text=Dropped")
    tab.wait_for_selector(".drop")
    assert said == []
    context.close()
