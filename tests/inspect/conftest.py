"""A browser for the tests of the page, and pages without the drawing of plots, which takes most of their time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers import undrawn
from helpers.browsing import browser as browser


@pytest.fixture(scope="module", autouse=True)
def plain_plots(request: pytest.FixtureRequest) -> Iterator[None]:
    """Plots are drawn in the modules that look at them, which say `PLOTS_ARE_DRAWN = True`."""
    if getattr(request.module, "PLOTS_ARE_DRAWN", False):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        undrawn.undraw_plots(patch.setattr)
        yield
