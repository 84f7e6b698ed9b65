"""The statistics of a corpus as one HTML file: every plot with its numbers beside it, without any script."""

from __future__ import annotations

from typing import Final

import jinja2
from markupsafe import Markup

from vpt_data.inspect.plots import plots
from vpt_data.inspect.stats import Statistics
from vpt_data.inspect.view import page
from vpt_data.report import visible_line

_TEMPLATE: Final = "stats.html.j2"


def render(found: Statistics) -> str:
    """One HTML file with the plots of a corpus, in the look of the page of its rows.

    Names and texts of the corpus are escaped. The content-security policy allows this one style and pictures from data
    URIs, and nothing else.
    """
    style = page.style() + page.text("stats.css")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["shown"] = visible_line
    template = environment.from_string(page.text(_TEMPLATE))
    return template.render(found=found, plots=plots(found), style=Markup(style), policy=page.policy(style))
