"""What a corpus is like: rows, box sizes, cells, text lengths, answers, image tokens, row groups.

Only the columns that are needed are read, row group by row group; `tally` adds them up, `stats_text` prints them,
`plots` draws them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa

from vpt_data.columns import Ints
from vpt_data.corpus.reader import IMAGE_LEAF, Shard, open_corpus, stored
from vpt_data.errors import CorpusError
from vpt_data.inspect import tally
from vpt_data.inspect.tally import CELLS, CHARACTERS, COLUMNS, GRIDS, SHARES, TOKENS, Histogram, Tally
from vpt_data.store import AnyPath

TOP_ANSWERS: Final = 10


class GridFit(msgspec.Struct, frozen=True):
    """How the cells of one grid would fit the boxes of a take."""

    mean_iou: float
    smaller_than_a_cell: float


class BoxStatistics(msgspec.Struct, frozen=True):
    """The boxes of a take.

    rows                 rows with a box
    area_share           area as a share of the image: QUANTILES
    smaller_than_a_cell  share of the boxes with less area than a cell of the row's grid
    mean_iou_of_cells    mean IoU of the box and the cells of the row's grid that it touches
    grids                the same two numbers for other grids, by their side
    area_histogram       area as a share of the image
    cells_histogram      area in cells of the row's grid
    heat                 by side of the grid, how many boxes touch each cell, by row and column
    """

    rows: int
    area_share: list[float] | None
    smaller_than_a_cell: float
    mean_iou_of_cells: float
    grids: dict[str, GridFit]
    area_histogram: Histogram
    cells_histogram: Histogram
    heat: dict[str, list[list[int]]]


class TokenStatistics(msgspec.Struct, frozen=True):
    """Image tokens of a row, of all its views together; `rows` are those whose images all have a size."""

    rows: int
    mean: float
    quantiles: list[float] | None
    histogram: Histogram


class TakeStatistics(msgspec.Struct, frozen=True):
    """One take; lengths of texts are QUANTILES of characters, `image_tokens` is by the longer side of a picture."""

    rows: int
    boxes: BoxStatistics | None
    question_characters: list[float] | None
    answer_characters: list[float] | None
    answer_histogram: Histogram
    top_answers: dict[str, int]
    yes: int
    no: int
    image_tokens: dict[str, TokenStatistics]


class SourceStatistics(msgspec.Struct, frozen=True):
    """Rows that a take has from one data set of a source."""

    take: str
    source: str
    dataset: str
    rows: int


class RowGroupStatistics(msgspec.Struct, frozen=True):
    """One row group of a shard; `bytes` are those in the file, `image_bytes` the part of them that is pixels."""

    shard: str
    split: str
    number: int
    rows: int
    distinct_images: int
    bytes: int
    image_bytes: int


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
    sources: list[SourceStatistics]
    row_groups: list[RowGroupStatistics]


def stats(corpus: AnyPath) -> Statistics:
    """The statistics of a finished corpus.

    Raises CorpusError for a folder that is no corpus or a damaged shard.
    """
    opened = open_corpus(corpus)
    made = opened.manifest
    sums, groups = Tally(), []
    for shard in opened.shards():
        for group, samples in _row_groups(shard):
            groups.append(msgspec.structs.replace(group, distinct_images=sums.add(samples)))
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
        heat=_heat([take.boxes for take in sums.takes.values()]),
        sources=[
            SourceStatistics(name, source, dataset, rows)
            for name in takes
            for (source, dataset), rows in sums.takes[name].sources.most_common()
        ],
        row_groups=groups,
    )


def _row_groups(shard: Shard) -> Iterator[tuple[RowGroupStatistics, pa.Table]]:
    """The row groups of a shard: what its footer says of them (no images counted yet), and their columns."""
    with shard.opened() as file:
        missing = [name for name in COLUMNS if name not in file.schema_arrow.names]
        if missing:
            raise CorpusError(f"{shard.name}: no column {missing[0]}; run `vpt-data check` on the corpus.")
        for number in range(file.num_row_groups):
            about = file.metadata.row_group(number)
            chunks = [about.column(at) for at in range(about.num_columns)]
            sizes = {chunk.path_in_schema: chunk.total_compressed_size for chunk in chunks}
            pixels = sizes[IMAGE_LEAF] if shard.embed else 0
            group = RowGroupStatistics(shard.name, shard.split, number, about.num_rows, 0, sum(sizes.values()), pixels)
            yield group, file.read_row_group(number, columns=stored(COLUMNS, False))


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _take(sums: tally.Take) -> TakeStatistics:
    return TakeStatistics(
        rows=sums.rows,
        boxes=_boxes(sums.boxes) if sums.boxes.rows else None,
        question_characters=sums.question.quantiles(),
        answer_characters=sums.answer.quantiles(),
        answer_histogram=sums.answer.histogram(CHARACTERS),
        top_answers=dict(list(_sorted(sums.answers).items())[:TOP_ANSWERS]),
        yes=sums.yes,
        no=sums.no,
        image_tokens={
            str(longest): TokenStatistics(
                found.counts.total(), round(found.mean(), 3), found.quantiles(), found.histogram(TOKENS)
            )
            for longest, found in sums.tokens.items()
        },
    )


def _boxes(sums: tally.Boxes) -> BoxStatistics:
    fits = zip(GRIDS, sums.overlap_at.tolist(), sums.small_at.tolist(), strict=True)
    return BoxStatistics(
        rows=sums.rows,
        area_share=tally.quantiles(np.concatenate(sums.area)),
        smaller_than_a_cell=sums.small / sums.rows,
        mean_iou_of_cells=sums.overlap / sums.rows,
        grids={str(k): GridFit(overlap / sums.rows, small / sums.rows) for k, overlap, small in fits},
        area_histogram=Histogram(list(SHARES), sums.shares.tolist()),
        cells_histogram=Histogram(list(CELLS), sums.cells.tolist()),
        heat=_heat([sums]),
    )


def _heat(parts: list[tally.Boxes]) -> dict[str, list[list[int]]]:
    """The heat maps of some boxes together, by side of the grid."""
    total: dict[int, Ints] = {}
    for part in parts:
        for k, grid in part.heat.items():
            total[k] = total.get(k, 0) + grid
    return {str(k): grid.tolist() for k, grid in sorted(total.items())}
