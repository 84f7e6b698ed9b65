"""The statistics of a corpus for people, as text."""

from __future__ import annotations

from typing import Final

from vpt_data.inspect.stats import BoxStatistics, Statistics, TakeStatistics
from vpt_data.inspect.tally import QUANTILES
from vpt_data.report import table

_SHADES: Final = " .:-=+*#%@"


def text(found: Statistics) -> str:
    """The statistics for people."""
    lines = [f"{found.recipe}: {found.rows:,} rows, {found.distinct_images:,} distinct images"]
    named = {"splits": found.splits, "tasks": found.task, "templates": found.template, "looks": found.looks}
    lines += [f"{name}: {_counts(counts, '{0} {1:,}')}" for name, counts in named.items()]
    lines += [f"messages a row: {_counts(found.turns, '{0} in {1:,}')}"]
    marks = "/".join(f"{100 * quantile:g}" for quantile in QUANTILES)
    if found.takes:
        lines += ["", f"Text (quantiles {marks} %):", _texts_table(found.takes)]
    boxed = {name: take.boxes for name, take in found.takes.items() if take.boxes}
    if boxed:
        lines += ["", f"Boxes (quantiles {marks} %):", _boxes_table(boxed)]
    lines += [line for k, grid in found.heat.items() for line in ("", *_heat(int(k), grid))]
    return "\n".join(lines)


def _counts(counts: dict[str, int], form: str) -> str:
    return ", ".join(form.format(name, count) for name, count in counts.items()) or "-"


def _texts_table(takes: dict[str, TakeStatistics]) -> str:
    header = ("take", "rows", "question characters", "answer characters", "yes", "no", "top answers")
    rows = [
        (
            name,
            f"{take.rows:,}",
            _joined(take.question_characters, "{:g}"),
            _joined(take.answer_characters, "{:g}"),
            f"{take.yes:,}",
            f"{take.no:,}",
            _counts(dict(list(take.top_answers.items())[:3]), "{0} ({1:,})"),
        )
        for name, take in takes.items()
    ]
    return table(header, rows)


def _boxes_table(boxed: dict[str, BoxStatistics]) -> str:
    header = ("take", "rows with a box", "% of the image", "smaller than a cell", "mean IoU of cells and box")
    rows = [
        (
            name,
            f"{boxes.rows:,}",
            _joined([100 * share for share in boxes.area_share or []], "{:.2g}"),
            f"{100 * boxes.smaller_than_a_cell:.1f}%",
            f"{boxes.mean_iou_of_cells:.3f}",
        )
        for name, boxes in boxed.items()
    ]
    return table(header, rows)


def _joined(quantiles: list[float] | None, form: str) -> str:
    return "/".join(form.format(value) for value in quantiles) if quantiles else "-"


def _heat(k: int, grid: list[list[int]]) -> list[str]:
    """A grid as text: the darker the sign, the more boxes touch the cell."""
    most = max(max(row) for row in grid)
    lines = [f"Cells that boxes touch, {k} x {k}, at most {most:,}:"]
    for row in grid:
        shades = (_SHADES[-(-count * (len(_SHADES) - 1) // most)] if most else " " for count in row)
        lines.append("  " + "".join(2 * shade for shade in shades).rstrip())
    return lines
