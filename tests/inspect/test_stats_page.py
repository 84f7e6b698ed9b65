"""The page of statistics: plots with their numbers, in a browser that runs and fetches nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from helpers import small_corpora
from helpers.plotted import HOSTILE, renamed

from vpt_data.cli.main import main
from vpt_data.inspect import stats, stats_text
from vpt_data.inspect.plots import MOST_TAKES, plots
from vpt_data.inspect.view import stats_page

PLOTS_ARE_DRAWN = True


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_corpora.build(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def found(corpus: Path) -> stats.Statistics:
    return stats.stats(corpus)


@pytest.fixture(scope="module")
def html(found: stats.Statistics) -> str:
    return stats_page.render(found)


@pytest.fixture
def shown(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Shows a page; the browser may neither complain nor ask for anything but the file."""
    said, asked, contexts = [], [], []

    def show(html: str, width: int = 1280, theme: str = "light") -> Any:
        path = tmp_path / "page.html"
        path.write_text(html, encoding="utf-8")
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme))
        tab = contexts[-1].new_page()
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(path.as_uri())
        return tab

    yield show
    for context in contexts:
        context.close()
    assert not said
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}
    assert sum(url.startswith("file:") for url in asked) == len(contexts)


def test_every_plot_is_there_with_its_numbers(found: stats.Statistics, html: str, shown: Any) -> None:
    tab = shown(html)
    assert tab.inner_text("h1") == "tiny"
    for plot in plots(found):
        assert tab.inner_text(f"#{plot.name} h2") == plot.title
        assert tab.inner_text(f"#{plot.name} figcaption") == plot.note
        assert tab.locator(f"#{plot.name} tbody tr").count() == len(plot.table.rows)
        cells = tab.locator(f"#{plot.name} tbody td").all_text_contents()
        assert cells == [cell for row in plot.table.rows for cell in row]
        assert tab.locator(f"#{plot.name} svg").bounding_box()["width"] > 500


@pytest.mark.parametrize(("theme", "ink"), [("light", "rgb(26, 32, 40)"), ("dark", "rgb(230, 235, 241)")])
def test_text_of_plots_has_the_colour_of_the_page(html: str, shown: Any, theme: str, ink: str) -> None:
    tab = shown(html, theme=theme)
    fills = tab.eval_on_selector_all("svg text", "found => found.map(one => getComputedStyle(one).fill)")
    assert fills and set(fills) == {ink}


def test_a_narrow_page_scrolls_inside_its_parts(html: str, shown: Any) -> None:
    tab = shown(html, width=390)
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    sizes = tab.eval_on_selector_all("svg text", "found => found.map(one => one.getBoundingClientRect().height)")
    assert min(sizes) >= 9, "smaller text could not be read"


def test_hostile_names_are_text(found: stats.Statistics, shown: Any) -> None:
    tab = shown(stats_page.render(renamed(found, "gqa", HOSTILE)))
    harmless = HOSTILE.replace("\x00", "\ufffd").replace("\x1b", "\ufffd").replace("\u202e", "\ufffd")
    assert tab.title() == tab.inner_text("h1") == harmless
    assert harmless in tab.locator("#rows td").all_text_contents()
    assert tab.locator("script").count() == 0 and tab.locator("style").count() == 1


def test_a_corpus_without_rows_says_so(found: stats.Statistics, shown: Any) -> None:
    empty = msgspec.structs.replace(found, rows=0, takes={}, heat={}, sources=[], row_groups=[])
    assert "This corpus has no rows, so there is nothing to draw." in shown(stats_page.render(empty)).inner_text("main")


def test_command(corpus: Path, found: stats.Statistics, html: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["stats", str(corpus), "--html", str(tmp_path / "page.html")])
    assert (done.exit_code, done.stdout) == (0, stats_text.text(found) + "\n")
    assert done.stderr == f"written: {tmp_path / 'page.html'}\n"
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == html


def test_a_page_that_cannot_be_written(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(main, ["stats", str(corpus), "--html", str(tmp_path / "file" / "page.html")])
    assert done.exit_code == 1
    assert done.stderr == f"Error: {tmp_path}/file/page.html: cannot be written (Not a directory).\n"


def test_the_page_of_the_documentation_lists_every_plot_and_key(found: stats.Statistics) -> None:
    text = (Path(__file__).parents[2] / "docs" / "statistics.md").read_text(encoding="utf-8")
    assert not [plot.title for plot in plots(found) if f"| {plot.title} |" not in text]
    for kind in (stats.Statistics, stats.TakeStatistics):
        assert not [name for name in kind.__struct_fields__ if f"`{name}`" not in text]
    assert f"at most {MOST_TAKES} of them" in text
