"""The statistics of a corpus as one HTML file: every plot with its numbers beside it, without any script."""

from __future__ import annotations

from typing import Final

from markupsafe import Markup

from vpt_data.inspect.plots import plots
from vpt_data.inspect.stats import Statistics
from vpt_data.inspect.view import page

_TEMPLATE: Final = "stats.html.j2"


def render(found: Statistics) -> str:
    """One HTML file with the plots of a corpus, in the look of the page of its rows.

    Names and texts of the corpus are escaped. The content-security policy allows this one style and pictures from data
    URIs, and nothing else.
    """
    style = page.style() + page.text("stats.css")
    return page.template(page.text(_TEMPLATE)).render(
        found=found, plots=plots(found), style=Markup(style), policy=page.policy(style)
    )
