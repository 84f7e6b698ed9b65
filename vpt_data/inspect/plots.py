"""The plots of a corpus: each is a function from its statistics to a figure, with the same numbers as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from vpt_data.inspect import figures, stats_tables
from vpt_data.inspect.figures import COLORS, HATCHES, INK, MARKS, Plot, Ticks
from vpt_data.inspect.stats import Statistics, TakeStatistics
from vpt_data.inspect.tally import GRIDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Takes that are drawn, those with the most rows; the tables have all.
MOST_TAKES: Final = 16
_LINE: Final = 0.36  # inches a line of a plot
_STRIP: Final = 0.47  # inches a line with a histogram
_MAP: Final = 2.4  # inches of a heat map at most
_FRAME: Final = 0.85  # inches for its axis and legend


def plots(found: Statistics) -> list[Plot]:
    """The plots that a corpus has something for, in the order in which they are read; each is drawn when asked for."""
    functions: list[Callable[[Statistics], Plot]] = [rows, box_area, iou, heat, answers, image_tokens]
    made = [function(found) for function in functions]
    if len(found.takes) > MOST_TAKES:
        more = f" Drawn are the {MOST_TAKES} takes with the most rows; the table has all {len(found.takes)}."
        made = [replace(plot, note=plot.note + more) for plot in made]
    return [plot for plot in (*made, row_groups(found)) if plot.table.rows]


def rows(found: Statistics) -> Plot:
    """Rows by take and source."""
    takes = _drawn(found, found.takes)
    counts: Counter[tuple[str, str]] = Counter()
    for part in found.sources:
        counts[part.take, part.source] += part.rows
    sources = sorted({source for _, source in counts})

    def figure() -> Figure:
        drawn, [axes] = figures.new(_FRAME + _LINE * len(takes))
        left = [0] * len(takes)
        for number, source in enumerate(sources):
            widths = [counts[name, source] for name in takes]
            style: dict[str, Any] = {"color": COLORS[number % len(COLORS)], "hatch": HATCHES[number % len(HATCHES)]}
            axes.barh(range(len(takes)), widths, 0.7, left, label=figures.label(source), edgecolor=INK, **style)
            left = [before + width for before, width in zip(left, widths, strict=True)]
        for line, total in enumerate(left):
            text = f"{total:,} ({total / found.rows:.1%})"
            axes.annotate(text, (total, line), (4, 0), textcoords="offset points", va="center")
        figures.names_at_left(axes, takes)
        axes.set_xlabel("rows")
        axes.set_xlim(0, 1.15 * max(left))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        figures.legend(drawn, len(sources))
        return drawn

    return Plot(
        name="rows",
        title="Rows by take and source",
        note="The longer a bar, the more rows the take has; colours and hatches say which source reads them.",
        table=stats_tables.sources(found),
        figure=figure,
    )


def box_area(found: Statistics) -> Plot:
    """Histograms of the area of boxes by take, as a share of the image and in cells."""
    boxed = stats_tables.boxed(found)
    takes = _drawn(found, boxed)
    grids = {name: [int(k) for k in boxed[name].heat] for name in takes}
    about = Ticks("area of the box as a share of the image", 1, _fraction)

    def figure() -> Figure:
        drawn, [axes] = figures.new(_FRAME + 0.3 + _STRIP * len(takes))
        shares = [boxed[name].area_histogram for name in takes]
        figures.strips(axes, shares, [stats_tables.middle(boxed[name].area_share) for name in takes], about)
        for line, name in enumerate(takes):
            for k in grids[name]:
                at = figures.place(1 / k**2, shares[line].edges)
                axes.plot([at, at], [line - 0.5, line + 0.4], color=COLORS[5], linestyle="dashed", linewidth=1.5)
        figures.names_at_left(axes, takes)
        if len(one := {k for name in takes for k in grids[name]}) == 1:
            _cells_above(axes, one.pop(), shares[0].edges)
        return drawn

    return Plot(
        name="box_area",
        title="Area of the boxes",
        note=(
            "Bins double in size to the right, the triangle is the median; boxes on the left of the dashed line are "
            "smaller than one cell, so their crops show more surroundings than box."
        ),
        table=stats_tables.areas(found),
        figure=figure,
    )


def iou(found: Statistics) -> Plot:
    """How well cells fit the boxes, on the grid of the rows and on GRIDS."""
    boxed = stats_tables.boxed(found)
    takes = _drawn(found, boxed)

    def figure() -> Figure:
        drawn, [axes] = figures.new(_FRAME + _LINE * len(takes))
        lines = range(len(takes))
        fits = [[boxed[name].grids[str(k)].mean_iou for name in takes] for k in GRIDS]
        axes.hlines(lines, fits[0], fits[-1], color=INK, linewidth=0.6, alpha=0.5, zorder=1)
        edge: dict[str, Any] = {"linestyle": "", "markeredgecolor": INK}
        for k, fit, color, mark in zip(GRIDS, fits, COLORS, MARKS, strict=False):
            axes.plot(fit, lines, mark, color=color, markersize=7, label=f"{k} x {k}", **edge)
        own = [boxed[name].mean_iou_of_cells for name in takes]
        axes.plot(own, lines, "o", markersize=13, markerfacecolor="none", label="grid of the rows", **edge)
        figures.names_at_left(axes, takes)
        axes.set_xlim(0, 1)
        axes.set_xlabel("mean IoU of the box and the cells that it touches")
        figures.legend(drawn, len(GRIDS))
        return drawn

    return Plot(
        name="iou",
        title="IoU of cells and box",
        note=(
            "The ring is what a model reaches that names exactly the cells which the rows teach; the other marks are "
            "what the same boxes would give on a coarser or finer grid."
        ),
        table=stats_tables.grids(found),
        figure=figure,
    )


def heat(found: Statistics) -> Plot:
    """How many boxes touch each cell, of all takes and by take."""
    boxed = stats_tables.boxed(found)
    maps = [(name, k, grid) for name in _drawn(found, boxed) for k, grid in boxed[name].heat.items()]
    if len(maps) > 1:
        maps = [*(("all takes", k, grid) for k, grid in found.heat.items()), *maps]

    def figure() -> Figure:
        lines = -(-len(maps) // 4)
        columns = -(-len(maps) // lines)
        drawn, places = figures.new(_FRAME + (min(_MAP, figures.WIDTH / columns) + 0.3) * lines, columns, lines)
        for axes in places:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        for axes, (name, k, grid) in zip(places, maps, strict=False):
            shown = axes.imshow(grid, "cividis", vmin=0, interpolation="none")
            axes.set_title(f"{figures.label(name)}\n{k} x {k}, at most {max(map(max, grid)):,}")
        bar = drawn.colorbar(shown, ax=places, location="bottom", aspect=40, shrink=0.6, ticks=shown.get_clim())
        bar.ax.set_xticklabels(["no box", "most boxes"])
        return drawn

    return Plot(
        name="heat",
        title="Cells that boxes touch",
        note=(
            "The lighter a cell, the more boxes touch it, each map on a scale of its own; light cells along one border "
            "or in one corner mean that boxes are shifted or in another unit."
        ),
        table=stats_tables.heat(found),
        figure=figure,
    )


def answers(found: Statistics) -> Plot:
    """Histograms of the lengths of answers by take."""
    takes = _drawn(found, found.takes)
    about = Ticks("characters of the answer", 1, "{:,.0f}".format)

    def figure() -> Figure:
        drawn, [axes] = figures.new(_FRAME + _STRIP * len(takes))
        shown = [found.takes[name] for name in takes]
        middles = [stats_tables.middle(take.answer_characters) for take in shown]
        figures.strips(axes, [take.answer_histogram for take in shown], middles, about)
        figures.names_at_left(axes, takes)
        return drawn

    return Plot(
        name="answers",
        title="Length of the answers",
        note="Bins double in size to the right, the triangle is the median: words at the left, prose at the right.",
        table=stats_tables.texts(found),
        figure=figure,
    )


def image_tokens(found: Statistics) -> Plot:
    """Histograms of the image tokens of a row for Qwen2-VL by take, for each longer side of a picture."""
    tokens = {name: take.image_tokens for name, take in found.takes.items() if _sized(take)}
    takes = _drawn(found, tokens)
    presets = list(tokens[takes[0]]) if takes else []

    def figure() -> Figure:
        drawn, places = figures.new(_FRAME + _STRIP * len(takes), len(presets), sharey=True)
        for axes, preset in zip(places, presets, strict=True):
            shown = [tokens[name][preset] for name in takes]
            middles = [stats_tables.middle(at.quantiles) for at in shown]
            about = Ticks(f"image tokens a row, {preset} pixels", 0, "{:,.0f}".format)
            figures.strips(axes, [at.histogram for at in shown], middles, about)
            figures.names_at_left(axes, takes)
        return drawn

    return Plot(
        name="image_tokens",
        title="Image tokens of a row",
        note=(
            "Tokens that all views of a row take together in Qwen2-VL where the longer side of a picture is at most "
            "224 or 512 pixels; the triangle is the median, text is not counted."
        ),
        table=stats_tables.image_tokens(found),
        figure=figure,
    )


def row_groups(found: Statistics) -> Plot:
    """Distinct images and bytes of each row group by split."""
    splits = stats_tables.by_split(found)

    def figure() -> Figure:
        drawn, [axes] = figures.new(2.8)
        for number, (split, groups) in enumerate(splits.items()):
            at = [group.distinct_images for group in groups], [group.bytes / 1e6 for group in groups]
            style: dict[str, Any] = {"color": COLORS[number % len(COLORS)], "markeredgecolor": INK, "alpha": 0.7}
            axes.plot(*at, MARKS[number % len(MARKS)], linestyle="", label=figures.label(split), clip_on=False, **style)
        axes.set_xlabel("distinct images of a row group")
        axes.set_ylabel("MB in the file")
        axes.set_xlim(0, 1.05 * max(1, *(group.distinct_images for group in found.row_groups)))
        axes.set_ylim(0, 1.05 * max(group.bytes / 1e6 for group in found.row_groups))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.grid(alpha=0.2, color=INK)
        figures.legend(drawn, len(splits))
        return drawn

    return Plot(
        name="row_groups",
        title="Images of a row group",
        note="Each mark is a row group, which a reader loads as a whole; marks far up take more memory and time.",
        table=stats_tables.row_groups(found),
        figure=figure,
    )


def _drawn(found: Statistics, having: Iterable[str]) -> list[str]:
    """Those of some takes that are drawn, with the most rows first."""
    return sorted(having, key=lambda name: -found.takes[name].rows)[:MOST_TAKES]


def _sized(take: TakeStatistics) -> bool:
    """Whether the image tokens of any of its rows are known."""
    return all(at.rows for at in take.image_tokens.values())


def _fraction(value: float) -> str:
    """A power of two as it is read: 4, 1, 1/64."""
    return f"{value:,.0f}" if value >= 1 else f"1/{1 / value:,.0f}"


def _cells_above(axes: Axes, k: int, edges: Sequence[float]) -> None:
    """A second axis above, in cells of the grid."""
    low, high = axes.get_xlim()
    at = {4.0**power: figures.place(4.0**power / k**2, edges) for power in range(-8, 8)}
    shown = {cells: place for cells, place in at.items() if low <= place <= high and cells <= k * k}
    above = axes.secondary_xaxis("top")
    above.set_xticks(list(shown.values()), [_fraction(cells) for cells in shown])
    above.set_xlabel(f"area in cells of the {k} x {k} grid")
