"""What is kept while a corpus is read: counts by take, that tables of rows are added to.

Boxes are the unions that a region look would show (edge `floor`), of every row with a region, whether or not its
template looks at it. What is kept does not grow with the rows, but for 4 bytes for each box and 8 for each distinct
image of a row group.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data import geometry, hashing
from vpt_data.columns import Bools, Ints, column, first, flags, numbers, quads, sizes_of_images, unlist
from vpt_data.dialogue.regions import Regions, regions_of
from vpt_data.dialogue.tokens.reencode import ENCODERS
from vpt_data.images import tokens as image_tokens

Floats = npt.NDArray[np.float64]

COLUMNS: Final = (
    "take", "source", "dataset", "task", "template", "looks", "messages", "views", "images", "image_info", "question",
    "answers", "regions", "k",
)  # fmt: skip
QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
#: Grids whose cells are compared with every box, whatever the grid of its row.
GRIDS: Final = (4, 8, 16, 32)
#: Answers of more characters are prose: their lengths are reported, and they are not counted by value.
SHORT_ANSWER: Final = 40
#: Edges of bins; what is below the second or above the last but one is in the first or the last bin.
SHARES: Final = (0.0, *(2.0**power for power in range(-16, 1)))
CELLS: Final = (0.0, *(2.0**power for power in range(-8, 13)))
CHARACTERS: Final = (0, *(2**power for power in range(18)))
TOKENS: Final = tuple(range(0, 1025, 16))
_UNKNOWN: Final = -(2**40)  # of a view; the tokens of a row with one are below 0 whatever else it shows


class Histogram(msgspec.Struct, frozen=True):
    """How many values are in each bin: `counts[i]` are at least `edges[i]` and less than `edges[i + 1]`.

    The first bin also holds what is smaller, the last one what is larger.
    """

    edges: list[float]
    counts: list[int]


def binned(values: npt.ArrayLike, edges: tuple[float, ...]) -> Ints:
    """How many values are in each bin: values [N] -> int64 [len(edges) - 1].

    >>> binned([-1, 0, 1, 3, 9], (0, 1, 2, 4))
    array([2, 1, 2])
    """
    return np.bincount(np.searchsorted(edges[1:-1], values, side="right"), minlength=len(edges) - 1)


def quantiles(values: npt.NDArray[Any]) -> list[float] | None:
    """QUANTILES of values [N]: for each the smallest value that at least this share is not larger than."""
    if not len(values):
        return None
    return [round(float(value), 6) for value in np.quantile(values, QUANTILES, method="inverted_cdf")]


@dataclass(slots=True)
class Numbers:
    """Whole numbers by how often each occurs: few differ, however many rows there are."""

    counts: Counter[int] = field(default_factory=Counter)

    def add(self, values: npt.NDArray[Any]) -> None:
        """Add values [N]."""
        for value, count in zip(*(part.tolist() for part in np.unique(values, return_counts=True)), strict=True):
            self.counts[value] += count

    def mean(self) -> float:
        """The mean, 0 of nothing."""
        return sum(value * count for value, count in self.counts.items()) / max(1, self.counts.total())

    def quantiles(self) -> list[float] | None:
        """QUANTILES, as the function of this name gives them for all values."""
        ordered, total = sorted(self.counts), self.counts.total()
        upto = np.cumsum([self.counts[value] for value in ordered])
        # numpy counts the same way; `total * quantile` alone would be one too far where it is whole.
        places = [max(0, math.ceil(total * quantile - 1)) for quantile in QUANTILES]
        return [float(ordered[np.searchsorted(upto, place, side="right")]) for place in places] if total else None

    def histogram(self, edges: tuple[float, ...]) -> Histogram:
        """How many are in each bin."""
        ordered = sorted(self.counts)
        weights = [self.counts[value] for value in ordered]
        bins = np.searchsorted(edges[1:-1], ordered, side="right")
        counts = np.bincount(bins, weights, len(edges) - 1).astype(int)
        return Histogram(list(edges), counts.tolist())


@dataclass(slots=True)
class Boxes:
    """The boxes of a take.

    area          their shares of the image, float32
    shares, cells  how many are in each bin of SHARES and CELLS (area in cells of the row's own grid)
    small, overlap how many are smaller than a cell, and the sum of IoU of cells and box, on the row's own grid
    small_at, overlap_at   the same on each of GRIDS
    heat          by side of a grid, how many boxes touch each cell: int64 [k, k], by row and column
    """

    rows: int = 0
    area: list[npt.NDArray[np.float32]] = field(default_factory=list)
    shares: Ints = field(default_factory=lambda: np.zeros(len(SHARES) - 1, np.int64))
    cells: Ints = field(default_factory=lambda: np.zeros(len(CELLS) - 1, np.int64))
    small: int = 0
    overlap: float = 0.0
    small_at: Ints = field(default_factory=lambda: np.zeros(len(GRIDS), np.int64))
    overlap_at: Floats = field(default_factory=lambda: np.zeros(len(GRIDS)))
    heat: dict[int, Ints] = field(default_factory=dict)

    def add(self, found: Fitted, which: Bools) -> None:
        """Add some of the boxes of a table."""
        if not which.any():
            return
        share, sides, own = found.share[which], found.sides[which], found.own[which]
        self.rows += len(share)
        self.area.append(share.astype(np.float32))
        self.shares += binned(share, SHARES)
        self.cells += binned(share * sides**2, CELLS)
        self.small += int((share * sides**2 < 1).sum())
        self.overlap += float(own.sum())
        self.small_at += (share[:, None] * np.square(GRIDS) < 1).sum(axis=0)
        self.overlap_at += found.at_grids[which].sum(axis=0)
        for k in np.unique(sides).tolist():
            self.heat[k] = self.heat.get(k, np.zeros((k, k), np.int64)) + coverage(found.cells[which][sides == k], k)


@dataclass(slots=True)
class Fitted:
    """The boxes of a table beside the cells that they touch.

    share     area [M] as a share of the image
    sides     k [M] of the row
    cells     int32 [M, 4] on that grid
    own       IoU [M] of these cells and the box
    at_grids  the same [M, len(GRIDS)] on each of GRIDS
    """

    share: Floats
    sides: Ints
    cells: npt.NDArray[np.int32]
    own: Floats
    at_grids: Floats


def fit(found: Regions, sides: Ints) -> Fitted:
    """Compare boxes with the cells that they touch; `sides` [M] is k of the row of each."""
    boxes, sizes = found.boxes, found.sizes
    share = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) / np.prod(sizes.astype(np.float64), axis=1)
    own, cells, at_grids = np.zeros(len(boxes)), np.zeros((len(boxes), 4), np.int32), np.zeros((len(boxes), len(GRIDS)))
    for k in sorted({*GRIDS, *np.unique(sides).tolist()}):
        mine = sides == k
        which = np.ones_like(mine) if k in GRIDS else mine
        touched = geometry.cells(boxes[which], sizes[which], k)
        overlap = geometry.iou(geometry.crop(touched, sizes[which], k), boxes[which])
        cells[mine], own[mine] = touched[mine[which]], overlap[mine[which]]
        if k in GRIDS:
            at_grids[:, GRIDS.index(k)] = overlap
    return Fitted(share, sides, cells, own, at_grids)


def coverage(cells: npt.NDArray[np.int32], k: int) -> Ints:
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


@dataclass(slots=True)
class Take:
    """What is kept of a take; `tokens` are the image tokens of a row, by the longer side of a picture in pixels."""

    rows: int = 0
    sources: Counter[tuple[str, str]] = field(default_factory=Counter)
    boxes: Boxes = field(default_factory=Boxes)
    question: Numbers = field(default_factory=Numbers)
    answer: Numbers = field(default_factory=Numbers)
    answers: Counter[str] = field(default_factory=Counter)
    yes: int = 0
    no: int = 0
    tokens: dict[int, Numbers] = field(default_factory=lambda: {longest: Numbers() for longest in image_tokens.PRESETS})

    def add(self, samples: pa.Table, which: Bools) -> None:
        """Add some of the rows of a table."""
        mine = samples.select(["question", "answers"]).filter(pa.array(which))
        self.rows += mine.num_rows
        answers = first(unlist(column(mine, "answers")))
        for values, lengths in ((column(mine, "question"), self.question), (answers, self.answer)):
            lengths.add(pc.utf8_length(values).drop_null().to_numpy())
        short = answers.filter(pc.less_equal(pc.utf8_length(answers), SHORT_ANSWER))
        for entry in short.value_counts().to_pylist():
            self.answers[entry["values"]] += entry["counts"]
        word = pc.utf8_lower(pc.utf8_trim(short, " ."))
        self.yes += pc.sum(pc.equal(word, "yes")).as_py() or 0
        self.no += pc.sum(pc.equal(word, "no")).as_py() or 0

    def add_tokens(self, found: dict[int, Ints], which: Bools) -> None:
        """Add the image tokens of rows by preset; -1 is a row whose images have no size."""
        for longest, counts in found.items():
            mine = counts[which]
            self.tokens[longest].add(mine[mine >= 0])


@dataclass(slots=True)
class Tally:
    """What is kept of a corpus; `paths` are hashes of the distinct images of each row group."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    takes: dict[str, Take] = field(default_factory=dict)
    paths: list[hashing.UInt64] = field(default_factory=list)

    def add(self, samples: pa.Table) -> int:
        """Add a row group with COLUMNS; how many distinct images it shows."""
        for name in ("task", "template"):
            self._count(name, column(samples, name))
        looks = column(samples, "looks")
        self._count("looks", pc.if_else(pc.equal(pc.list_value_length(looks), 0), "none", pc.binary_join(looks, "+")))
        self._count("turns", pc.list_value_length(column(samples, "messages")))
        images = unlist(column(samples, "images"))
        self.paths.append(hashing.hashes(pc.unique(pc.struct_field(images.values, "path")).drop_null()))
        found = regions_of(samples)
        fitted = fit(found, np.maximum(numbers(column(samples, "k"), 8), 1)[found.row])
        counted = tokens_of_rows(samples)
        takes = column(samples, "take").dictionary_encode()
        for number, name in enumerate(takes.dictionary.to_pylist()):
            mine = pc.equal(takes.indices, number).to_numpy(zero_copy_only=False)
            into = self.takes.setdefault(str(name), Take())
            into.add(samples, mine)
            into.add_tokens(counted, mine)
            into.boxes.add(fitted, mine[found.row])
        parts = samples.group_by(["take", "source", "dataset"], use_threads=False).aggregate([([], "count_all")])
        for part in parts.to_pylist():
            self.takes[str(part["take"])].sources[str(part["source"]), str(part["dataset"])] += part["count_all"]
        return len(self.paths[-1])

    def _count(self, name: str, values: pa.Array) -> None:
        for entry in values.value_counts().to_pylist():
            self.counts.setdefault(name, Counter())[str(entry["values"])] += entry["counts"]


def tokens_of_rows(samples: pa.Table) -> dict[int, Ints]:
    """Image tokens of each row, of all its views together: int64 [N], -1 where the size of an image is not known.

    By the longer side of a picture for the model's own tower in pixels (PRESETS).
    """
    views, info = unlist(column(samples, "views")), unlist(column(samples, "image_info"))
    box, cut = quads(views.values, "box", 0)
    size = np.where(cut[:, None], box[:, 2:] - box[:, :2], sizes_of_images(views, info))
    unknown = (size < 1).any(axis=1)
    encoders = pc.struct_field(views.values, "encoder")
    fixed = [
        (encoder.image_tokens, flags(pc.equal(encoders, name)))
        for name, encoder in ENCODERS.items()
        if encoder.image_tokens is not None
    ]
    found = {}
    for longest in image_tokens.PRESETS:
        counts = image_tokens.tokens(np.maximum(size, 1), longest)
        counts[unknown] = _UNKNOWN
        for count, which in fixed:
            counts[which] = count
        total = np.bincount(views.rows, counts, len(views.lengths)).astype(np.int64)
        found[longest] = np.where(total < 0, -1, total)
    return found
