"""Plots of results: figures with their intervals one below the other, beside other values or a line of no change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from trainer.evaluation.metrics.table import METRICS
from trainer.evaluation.report import ALPHA, Section
from trainer.evaluation.results import Compared, Results, Value
from vpt_data.inspect import figures
from vpt_data.inspect.figures import BLUE, COLORS, INK, MARKS, Plot
from vpt_data.inspect.stats_tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LINE: Final = 0.3  # inches
_FRAME: Final = 0.9  # for axis and legend


@dataclass(frozen=True)
class Line:
    """A line of a forest plot.

    value   a figure with its interval; None: the line is a heading
    filled  whether its mark is filled
    marks   other values on the same line, by the name that the legend gives them
    """

    name: str
    value: Value | Compared | None = None
    filled: bool = True
    marks: Mapping[str, float] = field(default_factory=dict)


def plots(results: Results, section: Section) -> Iterator[Plot]:
    """The plots of a section of the report; none of most."""
    drawn = {
        "answers": _answers,
        "interventions": _interventions,
        "published": _published,
        "sizes": _sizes,
        "against": _against,
    }
    if section.name in drawn:
        yield from drawn[section.name](results, Table(section.head, section.rows))


def _answers(results: Results, table: Table) -> Iterator[Plot]:
    """Scores that end at 1; that of captions does not."""
    lines = [
        Line(name, score)
        for name, split in results.splits.items()
        if METRICS[split.metric].highest == 1.0 and (score := split.figures.get("score")) is not None
    ]
    if (whole := results.averages.get("score")) is not None:
        lines.append(Line("mean of the splits", whole))
    note = "The mark is the mean of the metric, the line its 95 % interval over images."
    yield from _forest("answers-plot", "Scores by split", note, table, lines, "score")


def _published(results: Results, table: Table) -> Iterator[Plot]:
    if (beside := results.published) is None:
        return
    lines = [
        Line(name, one.ours, one.verdict in {"within", "above", "below"}, {"published": one.paper})
        for name, one in beside.splits.items()
        if one.ours is not None and one.paper is not None
    ]
    note = "The mark is our figure with its 95 % interval; it is hollow where the two cannot be compared."
    yield from _forest("published-plot", f"Beside {beside.model}", note, table, lines, beside.figure)


def _sizes(results: Results, table: Table) -> Iterator[Plot]:
    lines = []
    for name, split in results.splits.items():
        if split.sizes:
            lines.append(Line(name))
        for size, values in split.sizes.items():
            marks = {
                label: value
                for label, figure in (("right tokens", "gold_iou"), ("best cells", "best_iou"))
                if (value := values[figure].value) is not None
            }
            lines.append(Line(size, values["iou_box"], marks=marks))
    note = (
        "IoU of the region that was named with the annotated box, by the area of the box; beside it what the right "
        "tokens get, and what no rectangle of cells can exceed."
    )
    yield from _forest("sizes-plot", "IoU by size of the box", note, table, lines, "IoU")


def _interventions(results: Results, table: Table) -> Iterator[Plot]:
    lines = []
    for split in dict.fromkeys(split for splits in results.interventions.values() for split in splits):
        lines.append(Line(split))
        for arm, splits in results.interventions.items():
            if split in splits and (one := splits[split].difference) is not None:
                lines.append(Line(arm, one, _found(one)))
    axis = "score minus that of the model as it is"
    note = (
        "Left of the line the answers are worse than those of the same model that sees what it asked for; the mark is "
        f"filled where the adjusted p is below {ALPHA}."
    )
    yield from _forest("interventions-plot", "What the look is worth", note, table, lines, axis, zero=True)


def _against(results: Results, table: Table) -> Iterator[Plot]:
    lines = []
    for run, splits in results.against.items():
        lines += [Line(run), *(Line(split, one, _found(one)) for split, one in splits.items())]
    note = (
        "Right of the line this run is better than the other on the same rows; the mark is filled where the adjusted p "
        f"is below {ALPHA}."
    )
    axis = "score of this run minus that of the other"
    yield from _forest("against-plot", "Differences from other runs", note, table, lines, axis, zero=True)


def _found(one: Compared) -> bool:
    return one.p_holm is not None and one.p_holm < ALPHA


def _forest(
    name: str, title: str, note: str, table: Table, lines: Sequence[Line], axis: str, zero: bool = False
) -> Iterator[Plot]:
    """A forest plot, where any line has a figure; from 0 to 1, or with `zero` on both sides of 0."""
    drawn = [line for line in lines if line.value is None or line.value.value is not None]
    if any(line.value is not None for line in drawn):
        yield Plot(name, title, note, table, lambda: _figure(drawn, axis, zero))


def _figure(lines: Sequence[Line], axis: str, zero: bool) -> Figure:
    drawn, [axes] = figures.new(_FRAME + _LINE * len(lines))
    reach = _reach(lines) if zero else 1.0
    axes.set_xlim(-reach if zero else 0, reach)
    if zero:
        axes.axvline(0, color=INK, linewidth=1)
    axes.grid(axis="x", alpha=0.2, color=INK)
    known = list(dict.fromkeys(label for line in lines for label in line.marks))
    for place, line in enumerate(lines):
        if line.value is None or line.value.value is None:
            continue
        if line.value.low is not None and line.value.high is not None:
            axes.hlines(place, line.value.low, line.value.high, color=BLUE, linewidth=2.5)
        style: dict[str, Any] = {"markeredgecolor": BLUE, "markerfacecolor": BLUE if line.filled else "white"}
        axes.plot(line.value.value, place, MARKS[0], markersize=7, clip_on=False, **style)
        for number, label in enumerate(known, 1):
            if label in line.marks:
                style = {"color": COLORS[number], "markeredgecolor": INK, "markeredgewidth": 0.6}
                axes.plot(line.marks[label], place, MARKS[number], markersize=6, clip_on=False, **style)
        number_text = f"{line.value.value:{'+' if zero else ''}.3f}"
        axes.annotate(number_text, (1.01, place), xycoords=("axes fraction", "data"), va="center")
    for number, label in enumerate(known, 1):
        style = {"color": COLORS[number], "markeredgecolor": INK, "markeredgewidth": 0.6}
        axes.plot([], [], MARKS[number], linestyle="", label=label, **style)
    figures.names_at_left(axes, [line.name for line in lines])
    for text, line in zip(axes.get_yticklabels(), lines, strict=True):
        text.set_fontweight("bold" if line.value is None else "normal")
    axes.set_xlabel(axis)
    if known:
        drawn.legend(loc="outside upper right", ncols=len(known))
    return drawn


def _reach(lines: Sequence[Line]) -> float:
    """How far the intervals go from 0, with a little room."""
    ends = [
        abs(end)
        for line in lines
        if line.value is not None
        for end in (line.value.value, line.value.low, line.value.high)
        if end is not None
    ]
    return 1.08 * max(*ends, 0.05)
