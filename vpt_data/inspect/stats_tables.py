"""The statistics of a corpus as tables of text: each stands once, for the terminal and beside its plot."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median
from typing import Final, NamedTuple

from vpt_data.inspect.stats import BoxStatistics, RowGroupStatistics, Statistics
from vpt_data.inspect.tally import GRIDS, QUANTILES

#: What a cell with several numbers holds: `5/25/50/75/95 %`.
MARKS: Final = f"{'/'.join(f'{100 * quantile:g}' for quantile in QUANTILES)} %"


class Table(NamedTuple):
    """A table of text, one row a take or another thing that is counted; names are as they are stored."""

    header: list[str]
    rows: list[list[str]]


def sources(found: Statistics) -> Table:
    """Rows by take, source and data set."""
    rows = [[part.take, part.source, part.dataset, f"{part.rows:,}"] for part in found.sources]
    return Table(["take", "source", "data set", "rows"], rows)


def texts(found: Statistics) -> Table:
    """Lengths of questions and answers, and the most frequent answers."""
    header = [
        "take",
        "rows",
        f"question characters, {MARKS}",
        f"answer characters, {MARKS}",
        "yes",
        "no",
        "top answers",
    ]
    rows = [
        [
            name,
            f"{take.rows:,}",
            _joined(take.question_characters, "{:g}"),
            _joined(take.answer_characters, "{:g}"),
            f"{take.yes:,}",
            f"{take.no:,}",
            ", ".join(f"{answer} ({count:,})" for answer, count in list(take.top_answers.items())[:3]) or "-",
        ]
        for name, take in found.takes.items()
    ]
    return Table(header, rows)


def boxed(found: Statistics) -> dict[str, BoxStatistics]:
    """The takes that have boxes."""
    return {name: take.boxes for name, take in found.takes.items() if take.boxes}


def areas(found: Statistics) -> Table:
    """Areas of boxes, as a share of the image and in cells."""
    header = ["take", "rows with a box", f"% of the image, {MARKS}", "median in cells", "smaller than a cell"]
    rows = [
        [
            name,
            f"{boxes.rows:,}",
            _joined([100 * share for share in boxes.area_share or []], "{:.2g}"),
            ", ".join(f"{middle(boxes.area_share) * int(k) ** 2:.2f}" for k in boxes.heat),
            f"{100 * boxes.smaller_than_a_cell:.1f}%",
        ]
        for name, boxes in boxed(found).items()
    ]
    return Table(header, rows)


def grids(found: Statistics) -> Table:
    """Mean IoU of cells and box on the grid of the rows and on GRIDS."""
    rows = [
        [name, f"{boxes.mean_iou_of_cells:.3f}", *(f"{fit.mean_iou:.3f}" for fit in boxes.grids.values())]
        for name, boxes in boxed(found).items()
    ]
    return Table(["take", "grid of the rows", *(f"{k} x {k}" for k in GRIDS)], rows)


def heat(found: Statistics) -> Table:
    """How many boxes touch each cell, by row of the grid."""
    maps = [("all takes", k, grid) for k, grid in found.heat.items()]
    maps += [(name, k, grid) for name, boxes in boxed(found).items() for k, grid in boxes.heat.items()]
    rows = [
        [name, f"{k} x {k}", str(line), " ".join(f"{count:,}" for count in counts)]
        for name, k, grid in maps
        for line, counts in enumerate(grid)
    ]
    return Table(["take", "grid", "row", "boxes by column"], rows)


def image_tokens(found: Statistics) -> Table:
    """Image tokens of a row for Qwen2-VL, for each longer side of a picture; only of rows whose images have sizes."""
    rows = [
        [name, f"{preset} px", f"{at.rows:,}", f"{at.mean:,.1f}", _joined(at.quantiles, "{:g}")]
        for name, take in found.takes.items()
        for preset, at in take.image_tokens.items()
        if at.rows
    ]
    return Table(["take", "longer side", "rows with sizes", "mean", MARKS], rows)


def row_groups(found: Statistics) -> Table:
    """Rows, distinct images and bytes of the row groups of each split: least / median / most."""
    rows = [
        [
            split,
            f"{len(groups):,}",
            _spread((group.rows for group in groups), "{:,.0f}"),
            _spread((group.distinct_images for group in groups), "{:,.0f}"),
            _spread((group.bytes / 1e6 for group in groups), "{:,.2f}"),
            _spread((group.image_bytes / 1e6 for group in groups), "{:,.2f}"),
        ]
        for split, groups in by_split(found).items()
    ]
    return Table(["split", "row groups", "rows", "distinct images", "MB", "MB of images"], rows)


def by_split(found: Statistics) -> dict[str, list[RowGroupStatistics]]:
    """The row groups of each split."""
    splits: dict[str, list[RowGroupStatistics]] = {}
    for group in found.row_groups:
        splits.setdefault(group.split, []).append(group)
    return splits


def middle(quantiles: list[float] | None) -> float:
    """The median among QUANTILES, 0 of nothing."""
    return quantiles[QUANTILES.index(0.5)] if quantiles else 0.0


def _joined(quantiles: list[float] | None, form: str) -> str:
    return "/".join(form.format(value) for value in quantiles) if quantiles else "-"


def _spread(values: Iterable[float], form: str) -> str:
    """Least / median / most, or the one value that all have."""
    given = list(values)
    least, half, most = (form.format(value) for value in (min(given), median(given), max(given)))
    return least if least == most else f"{least} / {half} / {most}"
