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
    from matplotlib.axes import Axes
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
    """Scores as they are, the model's own first, and what is tested: paired differences from it."""
    scores, differences = [], []
    for name, split in results.splits.items():
        done = {arm: splits[name] for arm, splits in results.interventions.items() if splits[name].changed}
        scores += [Line(name), Line("its own", split.figures.get("score"))]
        scores += [Line(arm, one.score, filled=False) for arm, one in done.items()]
        differences += [Line(name), *(Line(arm, one.difference, _found(one.difference)) for arm, one in done.items())]
    note = "The first line of a split is the model that sees what it asked for; the others are given something else."
    yield from _forest("interventions-scores", "Scores under interventions", note, table, scores, "score")
    note = (
        "Left of the line the answers are worse than those of the same model that sees what it asked for; the mark is "
        f"filled where the adjusted p is below {ALPHA}."
    )
    axis = "score minus that of the model as it is"
    yield from _forest("interventions-plot", "What the look is worth", note, table, differences, axis, zero=True)


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


def _found(one: Compared | None) -> bool:
    return one is not None and one.p_holm is not None and one.p_holm < ALPHA


def _forest(
    name: str, title: str, note: str, table: Table, lines: Sequence[Line], axis: str, zero: bool = False
) -> Iterator[Plot]:
    """A forest plot, where any line has a figure: from 0 to 1 or what there is, or with `zero` on both sides of 0."""
    drawn = [line for line in lines if line.value is None or line.value.value is not None]
    if any(line.value is not None for line in drawn):
        yield Plot(name, title, note, table, lambda: _figure(drawn, axis, zero))


def _figure(lines: Sequence[Line], axis: str, zero: bool) -> Figure:
    drawn, [axes] = figures.new(_FRAME + _LINE * len(lines))
    furthest = _furthest(lines)
    reach = 1.08 * max(furthest, 0.05) if zero else max(furthest, 1.0)
    axes.set_xlim(-reach if zero else 0, reach)
    axes.set_xlabel(axis)
    axes.grid(axis="x", alpha=0.2, color=INK)
    if zero:
        axes.axvline(0, color=INK, linewidth=1)
    known = list(dict.fromkeys(label for line in lines for label in line.marks))
    for place, line in enumerate(lines):
        _interval(axes, place, line, "+" if zero else "")
    for order, label in enumerate(known, 1):
        at = [(line.marks[label], place) for place, line in enumerate(lines) if label in line.marks]
        style: dict[str, Any] = {"color": COLORS[order], "markeredgecolor": INK, "markeredgewidth": 0.6}
        axes.plot(*zip(*at, strict=True), MARKS[order], linestyle="", label=label, clip_on=False, **style)
    figures.names_at_left(axes, [line.name for line in lines])
    for name, line in zip(axes.get_yticklabels(), lines, strict=True):
        name.set_fontweight("bold" if line.value is None else "normal")
    if known:
        drawn.legend(loc="outside upper right", ncols=len(known))
    return drawn


def _interval(axes: Axes, place: int, line: Line, sign: str) -> None:
    """The figure of a line with its interval, and as a number at the right; nothing for a heading."""
    value = line.value
    if value is None or value.value is None:
        return
    if value.low is not None and value.high is not None:
        axes.hlines(place, value.low, value.high, color=BLUE, linewidth=2.5)
    face = BLUE if line.filled else "white"
    axes.plot(value.value, place, MARKS[0], markersize=7, markeredgecolor=BLUE, markerfacecolor=face, clip_on=False)
    axes.annotate(f"{value.value:{sign}.3f}", (1.03, place), xycoords=("axes fraction", "data"), va="center")


def _furthest(lines: Sequence[Line]) -> float:
    """How far figures and the ends of their intervals are from 0."""
    ends = ((line.value.value, line.value.low, line.value.high) for line in lines if line.value is not None)
    return max(abs(end) for three in ends for end in three if end is not None)
