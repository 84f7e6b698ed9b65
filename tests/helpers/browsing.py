"""A browser for tests of pages, and what a page holds as a parser sees it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest

#: Nothing in the background, so that every request is one of the page.
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--force-color-profile=srgb",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium, one for each module of tests; they are skipped where there is none."""
    found = [path for name in ("chromium-headless-shell", "chromium", "google-chrome") if (path := shutil.which(name))]
    if not found:
        pytest.skip("no Chromium on the PATH (Debian: apt-get install chromium-headless-shell)")
    api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    with api.sync_playwright() as player:
        running = player.chromium.launch(executable_path=found[0], args=ARGUMENTS)
        yield running
        running.close()


class Elements(HTMLParser):
    """Every element of a page with its attributes, and the text of scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self.inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.inside = str(dict(attrs).get("type", tag))

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        self.texts[self.inside] = self.texts.get(self.inside, "") + data

    @property
    def policy(self) -> dict[str, str]:
        [text] = [str(given["content"]) for tag, given in self.found if given.get("http-equiv")]
        return dict(rule.split(" ", 1) for rule in text.split("; "))
