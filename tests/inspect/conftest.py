"""A browser for the tests of the page, and pages without the drawing of plots, which takes most of their time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from helpers import undrawn

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


@pytest.fixture(scope="module", autouse=True)
def plain_plots(request: pytest.FixtureRequest) -> Iterator[None]:
    """Plots are drawn in the modules that look at them, which say `PLOTS_ARE_DRAWN = True`."""
    if getattr(request.module, "PLOTS_ARE_DRAWN", False):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        undrawn.undraw_plots(patch.setattr)
        yield
