"""How a plot is drawn: matplotlib figures as SVG for pages and PNG for cards, the same bytes each time.

Nothing depends on the settings of a user's matplotlib, and pyplot's list of open figures is not used. Colours are
those of Okabe and Ito, which the colour-blind can tell apart, and never stand alone: bars have hatches, marks shapes.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree

from vpt_data.report import visible_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vpt_data.inspect.stats_tables import Table
    from vpt_data.inspect.tally import Histogram

BLUE: Final = "#0072B2"
ORANGE: Final = "#E69F00"
#: Colours and hatches of bars, and shapes of marks, in the order in which they are taken.
COLORS: Final = (BLUE, ORANGE, "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
HATCHES: Final = ("", "//", "xx", "--", "\\\\", "||")
MARKS: Final = ("o", "s", "^", "D", "v", "P")
#: Text and lines; in an SVG it becomes the text colour of the page, so that a plot is readable on light and dark.
INK: Final = "#1a1b1c"
WIDTH: Final = 7.2  # inches of 100 SVG units, about the width of a card
_DOTS: Final = 200  # of a PNG an inch: twice what a card shows, for sharp screens
_LABEL: Final = 30  # characters of a name at most
_TICKS: Final = 8  # labels of an axis of bins at most
_SETTINGS: Final = {
    "svg.fonttype": "none",
    "svg.hashsalt": "vpt-data",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "hatch.linewidth": 0.5,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}
# Settings of matplotlib are global while a figure is drawn; a page may be served by several threads.
_LOCK = threading.Lock()
_XLINK: Final = "{http://www.w3.org/1999/xlink}href"


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot and the numbers in it.

    name    names its file: `box_area`
    title   one line
    note    one sentence that says how to read it
    table   the numbers; names are as they are stored
    figure  draws it; names are made harmless
    """

    name: str
    title: str
    note: str
    table: Table
    figure: Callable[[], Figure]

    def svg(self) -> str:
        """The plot as one `<svg>` element to stand inside a page: no style, script, link or id that another plot has.

        Its text is text, in the text colour of the page; the background is that of the page.
        """
        return _inline(self._file("svg").decode(), self.name, self.title)

    def png(self) -> bytes:
        """The plot as a PNG on white."""
        return self._file("png")

    def _file(self, form: str) -> bytes:
        with _settings():
            drawn, target = self.figure(), io.BytesIO()
            if form == "svg":
                drawn.savefig(target, format="svg", dpi=100, transparent=True, metadata={"Date": None, "Creator": None})
            else:
                drawn.savefig(target, format="png", dpi=_DOTS, facecolor="white", metadata={"Software": None})
        return target.getvalue()


@contextmanager
def _settings() -> Iterator[None]:
    import matplotlib

    with _LOCK, matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        settings: Any = matplotlib.rcParams  # its keys are typed as literals of one version
        settings.update(_SETTINGS)
        # A name may hold letters that the font lacks; a browser has them.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


def _inline(text: str, name: str, title: str) -> str:
    """The SVG of matplotlib as an element of a page.

    Styles become attributes, because a content-security policy forbids them; ids that nothing refers to go, because
    those of two plots are the same.
    """
    root = ElementTree.fromstring(text)
    used = {part for element in root.iter() for value in element.attrib.values() for part in _references(value)}
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        given = dict(element.attrib)
        element.attrib.clear()
        for key, value in [*given.items(), *_declarations(given.pop("style", ""))]:
            _set(element, key, value, name, used)
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in {"metadata", "style"}]:
            parent.remove(child)
    root.attrib.update(xmlns="http://www.w3.org/2000/svg", role="img", **{"aria-label": title})
    return ElementTree.tostring(root, encoding="unicode")


def _references(value: str) -> list[str]:
    """The ids that an attribute refers to: `#id`, `url(#id)` anywhere in it."""
    return [part.partition(")")[0] for part in value.split("#")[1:]]


def _declarations(style: str) -> list[tuple[str, str]]:
    """`fill: none; font: 9px 'DejaVu Sans'` -> attributes with the same meaning."""
    found = []
    for declaration in filter(None, map(str.strip, style.split(";"))):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if key == "font":
            size, _, family = value.partition(" ")
            found += [("font-size", size), ("font-family", family)]
        else:
            found.append((key, value))
    return found


def _set(element: ElementTree.Element, key: str, value: str, name: str, used: set[str]) -> None:
    """Set an attribute; ids get the name of the plot in front."""
    if key == "style" or (key == "id" and value not in used):
        return
    value = value.replace("url(#", f"url(#{name}-").replace(INK, "currentColor")
    if key == "id":
        value = f"{name}-{value}"
    elif key == _XLINK:
        key, value = "href", value.replace("#", f"#{name}-") if value.startswith("#") else value
    element.set(key, value)


# What plots are made of -------------------------------------------------------------------------------------


def new(height: float, columns: int = 1, rows: int = 1, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of WIDTH and a height in inches, and its axes from left to right, from above to below."""
    from matplotlib.figure import Figure

    figure = Figure((WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).flat)


def label(name: str) -> str:
    """A name as it can be drawn: short, on one line, of characters with a shape."""
    shown = visible_line(name)
    return shown if len(shown) <= _LABEL else f"{shown[: _LABEL - 1]}…"


def names_at_left(axes: Axes, names: Sequence[str]) -> None:
    """One line of a plot for each name, the first at the top."""
    axes.set_yticks(range(len(names)), [label(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def strips(axes: Axes, histograms: Sequence[Histogram], middles: Sequence[float], about: Ticks) -> None:
    """A small histogram for each line of a plot, as high as its fullest bin, with a mark at its median.

    All have the same edges; bins are equally wide, empty ones at both ends are left out.
    """
    edges = histograms[0].edges
    filled = [at for at in range(len(edges) - 1) if any(found.counts[at] for found in histograms)] or [0]
    start, end = filled[0], filled[-1] + 1
    for line, (found, middle) in enumerate(zip(histograms, middles, strict=True)):
        most = max(found.counts) or 1
        heights = [-0.8 * count / most for count in found.counts[start:end]]  # the axis of lines points down
        axes.axhline(line + 0.4, color=INK, linewidth=0.4, alpha=0.5)
        axes.bar(range(start, end), heights, 1, line + 0.4, align="edge", color=BLUE, edgecolor=INK, linewidth=0.3)
        if not any(found.counts):
            continue
        axes.plot(place(middle, edges), line + 0.4, "^", color=ORANGE, markeredgecolor=INK, markersize=6, clip_on=False)
    step = next(step for step in (1, 2, 4, 8, 16) if (end - start) / step <= _TICKS)
    shown = [edge for edge in range(start, end + 1) if edge % step == about.first % step]
    axes.set_xticks(shown, [about.text(edges[edge]) for edge in shown])
    axes.set_xlim(start, end)
    axes.set_xlabel(about.name)


def place(value: float, edges: Sequence[float]) -> float:
    """Where a value is on an axis with equally wide bins.

    >>> place(3, [0, 1, 2, 4])
    2.5
    """
    import numpy as np

    return float(np.interp(value, edges, range(len(edges))))


@dataclass(frozen=True, slots=True)
class Ticks:
    """The axis of histograms: its name, an edge that is labelled and others by steps from it, and as what."""

    name: str
    first: int
    text: Callable[[float], str]


def legend(figure: Figure, entries: int) -> None:
    """A legend above the plot, if there is more than one thing to tell apart."""
    if entries > 1:
        figure.legend(loc="outside upper right", ncols=5)
