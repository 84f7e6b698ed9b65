"""What a corpus is like: counts, box sizes, cells, text lengths, answers.

Only the columns that are needed are read, row group by row group. Boxes are the unions that a region look
would show (edge `floor`), of every row with a region, whether or not its template looks at it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data import geometry, hashing
from vpt_data.columns import Ints, column, first, numbers, relist, structs, unlist
from vpt_data.corpus.reader import open_corpus
from vpt_data.dialogue.regions import Regions, regions_px
from vpt_data.errors import CorpusError
from vpt_data.report import table
from vpt_data.schema import ANNOTATION
from vpt_data.store import AnyPath

QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
#: Answers of more characters are prose: their lengths are reported, and they are not counted by value.
SHORT_ANSWER: Final = 40
TOP_ANSWERS: Final = 10
_COLUMNS: Final = (
    "take", "task", "template", "looks", "messages", "images", "image_info", "question", "answers", "regions",
    "k",
)  # fmt: skip
_SHADES: Final = " .:-=+*#%@"


class BoxStatistics(msgspec.Struct, frozen=True):
    """The boxes of a take: rows with one, its share of the image (QUANTILES), how its cells fit it."""

    rows: int
    area_share: list[float] | None
    smaller_than_a_cell: float
    mean_iou_of_cells: float


class TakeStatistics(msgspec.Struct, frozen=True):
    """One take; lengths of texts are QUANTILES of characters."""

    rows: int
    boxes: BoxStatistics | None
    question_characters: list[float] | None
    answer_characters: list[float] | None
    top_answers: dict[str, int]
    yes: int
    no: int


class Statistics(msgspec.Struct, frozen=True):
    """A corpus. Counters are by name, the most frequent first; `heat` is, by k, how many boxes touch each cell."""

    recipe: str
    fingerprint: str
    rows: int
    splits: dict[str, int]
    task: dict[str, int]
    template: dict[str, int]
    looks: dict[str, int]
    turns: dict[str, int]
    distinct_images: int
    takes: dict[str, TakeStatistics]
    heat: dict[str, list[list[int]]]


@dataclass(slots=True)
class _Take:
    """What is kept of a take: numbers a row, counters of short answers."""

    rows: int = 0
    regions: int = 0
    area: list[npt.NDArray[np.float32]] = field(default_factory=list)  # share of the image
    small: int = 0
    overlap: float = 0.0  # sum over rows
    question: list[npt.NDArray[np.int32]] = field(default_factory=list)
    answer: list[npt.NDArray[np.int32]] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    yes: int = 0
    no: int = 0


@dataclass(slots=True)
class _Sums:
    """What is kept of the whole corpus."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    takes: dict[str, _Take] = field(default_factory=dict)
    paths: list[hashing.UInt64] = field(default_factory=list)
    heat: dict[int, Ints] = field(default_factory=dict)

    def count(self, name: str, values: pa.Array) -> None:
        """Add how often each value of a column occurs."""
        for entry in values.value_counts().to_pylist():
            self.counts.setdefault(name, Counter())[str(entry["values"])] += entry["counts"]


def stats(corpus: AnyPath) -> Statistics:
    """The statistics of a finished corpus.

    Raises CorpusError for a folder that is no corpus or a damaged shard.
    """
    opened = open_corpus(corpus)
    made = opened.manifest
    sums = _Sums()
    for shard in opened.shards():
        for samples in shard.tables(_COLUMNS):
            _add(samples, sums, shard.name)
    takes = {name: _take(sums.takes[name]) for name in sorted(sums.takes)}
    counts = {name: _sorted(sums.counts.get(name, Counter())) for name in ("task", "template", "looks", "turns")}
    return Statistics(
        recipe=made.recipe.name,
        fingerprint=made.fingerprint,
        rows=sum(part.rows for part in made.splits.values()),
        splits={split: part.rows for split, part in made.splits.items()},
        **counts,
        distinct_images=len(np.unique(np.concatenate([np.zeros(0, np.uint64), *sums.paths]))),
        takes=takes,
        heat={str(k): grid.tolist() for k, grid in sorted(sums.heat.items())},
    )


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _add(samples: pa.Table, sums: _Sums, file: str) -> None:
    missing = [name for name in _COLUMNS if name not in samples.column_names]
    if missing:
        raise CorpusError(f"{file}: no column {missing[0]}; run `vpt-data check` on the corpus.")
    for name in ("task", "template"):
        sums.count(name, column(samples, name))
    looks = column(samples, "looks")
    sums.count("looks", pc.if_else(pc.equal(pc.list_value_length(looks), 0), "none", pc.binary_join(looks, "+")))
    sums.count("turns", pc.list_value_length(column(samples, "messages")))
    images = unlist(column(samples, "images"))
    sums.paths.append(hashing.hashes(pc.unique(pc.struct_field(images.values, "path")).drop_null()))
    found = regions_px(_annotations(samples))
    cells = _cells(samples, found, sums.heat)
    takes = column(samples, "take").dictionary_encode()
    for number, name in enumerate(takes.dictionary.to_pylist()):
        mine = pc.equal(takes.indices, number).to_numpy(zero_copy_only=False)
        into = sums.takes.setdefault(str(name), _Take())
        into.rows += int(mine.sum())
        _texts(samples.select(["question", "answers"]).filter(pa.array(mine)), into)
        which = mine[found.row]
        _boxes(found, cells, numbers(column(samples, "k"), 8)[found.row], which, into)


def _annotations(samples: pa.Table) -> pa.Table:
    """The columns that the region rule looks at: regions, and images with their sizes."""
    images, info = unlist(column(samples, "images")), unlist(column(samples, "image_info"))
    kind = ANNOTATION.field("images").type
    fields = [
        pc.struct_field(images.values, "path"),
        *(pc.struct_field(info.values, name) for name in ("width", "height")),
    ]
    listed = relist(images.lengths, structs(kind.value_type, fields), kind)
    return pa.table({"images": listed, "regions": column(samples, "regions")})


def _cells(samples: pa.Table, found: Regions, heat: dict[int, Ints]) -> npt.NDArray[np.int32]:
    """Cells [M, 4] of each box on its row's grid, which also go to the heat map of that grid."""
    sides = numbers(column(samples, "k"), 8)[found.row]
    cells = np.zeros((len(sides), 4), np.int32)
    for k in np.unique(sides).tolist():
        mine = sides == k
        cells[mine] = geometry.cells(found.boxes[mine], found.sizes[mine], k)
        heat[k] = heat.get(k, np.zeros((k, k), np.int64)) + _coverage(cells[mine], k)
    return cells


def _coverage(cells: npt.NDArray[np.int32], k: int) -> Ints:
    """How many of the rectangles hold each cell: int64 [k, k], by row and column.

    Each rectangle adds 1 at its near corner and takes it back behind its far ones; sums fill it.
    """
    edges = np.zeros((k + 1, k + 1), np.int64)
    col0, row0, col1, row1 = cells.T
    for row, col, step in (
        (row0, col0, 1),
        (row0, col1 + 1, -1),
        (row1 + 1, col0, -1),
        (row1 + 1, col1 + 1, 1),
    ):
        np.add.at(edges, (row, col), step)
    return edges.cumsum(axis=0).cumsum(axis=1)[:k, :k]


def _boxes(
    found: Regions, cells: npt.NDArray[np.int32], sides: Ints, which: npt.NDArray[np.bool_], into: _Take
) -> None:
    if not which.any():
        return
    boxes, sizes, k = found.boxes[which], found.sizes[which].astype(np.float64), sides[which]
    share = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) / np.prod(sizes, axis=1)
    into.regions += len(share)
    into.area.append(share.astype(np.float32))
    into.small += int((share * k * k < 1).sum())
    for side in np.unique(k).tolist():
        on_grid = k == side
        crops = geometry.crop(cells[which][on_grid], sizes[on_grid], side)
        into.overlap += float(geometry.iou(crops, boxes[on_grid]).sum())


def _texts(samples: pa.Table, into: _Take) -> None:
    answers = first(unlist(column(samples, "answers")))
    for values, lengths in ((column(samples, "question"), into.question), (answers, into.answer)):
        lengths.append(pc.utf8_length(values).drop_null().to_numpy().astype(np.int32))
    short = answers.filter(pc.less_equal(pc.utf8_length(answers), SHORT_ANSWER))
    for entry in short.value_counts().to_pylist():
        into.answers[entry["values"]] += entry["counts"]
    word = pc.utf8_lower(pc.utf8_trim(short, " ."))
    into.yes += pc.sum(pc.equal(word, "yes")).as_py() or 0
    into.no += pc.sum(pc.equal(word, "no")).as_py() or 0


def _take(sums: _Take) -> TakeStatistics:
    boxes = None
    if sums.regions:
        boxes = BoxStatistics(
            sums.regions, _quantiles(sums.area), sums.small / sums.regions, sums.overlap / sums.regions
        )
    top = dict(sorted(sums.answers.items(), key=lambda item: (-item[1], item[0]))[:TOP_ANSWERS])
    return TakeStatistics(sums.rows, boxes, _quantiles(sums.question), _quantiles(sums.answer), top, sums.yes, sums.no)


def _quantiles(parts: list[npt.NDArray[Any]]) -> list[float] | None:
    values = np.concatenate(parts) if parts else np.zeros(0)
    return (
        [round(float(value), 6) for value in np.quantile(values, QUANTILES, method="inverted_cdf")]
        if len(values)
        else None
    )


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
