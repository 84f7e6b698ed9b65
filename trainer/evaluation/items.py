"""The rows of a corpus that an evaluation asks: questions, right answers, the boxes that a look should find."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trainer.evaluation.metrics import choices
from vpt_data import geometry
from vpt_data.columns import column, first, unlist
from vpt_data.corpus.reader import Corpus
from vpt_data.dialogue.regions import RegionState, regions_of
from vpt_data.errors import UsageError
from vpt_data.images.identity import identities

COLUMNS: Final = (
    "id", "take", "split", "dataset", "expected", "question", "answers", "k", "images", "image_info", "regions",
)  # fmt: skip


#: Behind the id of a record of all rotations of a question.
CIRCULAR: Final = "#circular"


@dataclass(frozen=True)
class Items:
    """N rows in the order of their corpus.

    table  the columns COLUMNS without images, and `image`: which image the row asks about, the same for all spellings
    boxes  float64 [N, 4] px, the annotated box (around all of a row), sorted and clipped; NaN where there is none
    sizes  int64 [N, 2] px, the image of the box; 1 where there is none
    """

    table: pa.Table
    boxes: npt.NDArray[np.float64]
    sizes: npt.NDArray[np.int64]

    def texts(self, name: str) -> list[Any]:
        """A column as Python values: texts, for `answers` lists of them."""
        found: list[Any] = self.table[name].to_pylist()
        return found

    def on_grids(self, sides: Sequence[int | None]) -> Items:
        """The same for answers on other grids: the cells a side for each row, None where the corpus is right."""
        column = pc.coalesce(pa.array(sides, pa.int32()), self.table["k"].cast(pa.int32()))
        return replace(self, table=self.table.set_column(self.table.column_names.index("k"), "k", column))

    def circular(self) -> Items:
        """Each question with options once for every rotation of them, with ids `ID#rotation0` and so on.

        Other rows stay as they are. UsageError where no question has options.
        """
        found = self._rotated()
        if found.table.num_rows == self.table.num_rows:
            raise UsageError("--circular: no question has options, one a line as `A. vase`; leave it out.")
        return found

    def every_id(self) -> list[str]:
        """The ids of the rows as they are, and as they are in `circular`."""
        return [*self.texts("id"), *self._rotated().texts("id")]

    def _rotated(self) -> Items:
        rows: list[tuple[int, str, str, list[str]]] = []
        columns = (self.texts(name) for name in ("id", "question", "answers"))
        for row, (name, question, right) in enumerate(zip(*columns, strict=True)):
            turns = choices.letters(question, right[0]) if right else []
            for turn, letter in enumerate(turns):
                rows.append((row, rotation(name, turn), choices.rotated(question, turn), [letter]))
            if not turns:
                rows.append((row, name, question, right))
        places = [row for row, *_ in rows]
        table = self.table.take(places)
        for at, name in enumerate(("id", "question", "answers"), 1):
            field = table.schema.get_field_index(name)
            table = table.set_column(field, name, pa.array([row[at] for row in rows], table.schema.field(name).type))
        return Items(table, self.boxes[places], self.sizes[places])

    def by_split(self, wanted: Collection[str]) -> dict[str, set[str]]:
        """Split -> the wanted ids of it."""
        found: dict[str, set[str]] = {}
        for split, name in zip(self.texts("split"), self.texts("id"), strict=True):
            if name in wanted:
                found.setdefault(split, set()).add(name)
        return found

    def gold(self, k: int) -> dict[str, tuple[int, int, int, int]]:
        """Id -> the cells of its box, `col0, row0, col1, row1`, of the rows that should look at a region."""
        wanted = np.array([kind == "region" for kind in self.texts("expected")]) & ~np.isnan(self.boxes).any(axis=1)
        cells = geometry.cells(self.boxes[wanted], self.sizes[wanted], k).tolist()
        ids = self.table["id"].filter(pa.array(wanted)).to_pylist()
        return {name: (col0, row0, col1, row1) for name, (col0, row0, col1, row1) in zip(ids, cells, strict=True)}

    def sha256(self) -> str:
        """A hash of what decides whether two evaluations asked the same: ids, questions, right answers, boxes."""
        columns = [*(self.table[name].to_pylist() for name in ("id", "question", "answers")), self.boxes.tolist()]
        lines = sorted(msgspec.json.encode(row) for row in zip(*columns, strict=True))
        return hashlib.sha256(b"\n".join(lines)).hexdigest()


def rotation(name: str, turn: int) -> str:
    """The id of a row with rotated options."""
    return f"{name}#rotation{turn}"


def of_rotation(name: str) -> tuple[str, int | None]:
    """The id of a row, and by how many places its options are rotated; None where they are not.

    >>> of_rotation("LLaVA/7#rotation2"), of_rotation("LLaVA/7")
    (('LLaVA/7', 2), ('LLaVA/7', None))
    """
    base, _, turn = name.rpartition("#rotation")
    return (base, int(turn)) if base and turn.isdecimal() else (name, None)


def in_corpus(name: str) -> str:
    """The id that the row of a record has in its corpus.

    >>> in_corpus("LLaVA/7#circular"), in_corpus("LLaVA/7#rotation2"), in_corpus("LLaVA/7")
    ('LLaVA/7', 'LLaVA/7', 'LLaVA/7')
    """
    return of_rotation(name.removesuffix(CIRCULAR))[0]


def read(corpus: Corpus, splits: Sequence[str] = (), limit: int | None = None) -> Items:
    """The evaluation rows of some splits (none named: all), each split once, the first `limit` of each.

    Rows of a corpus are in an order of hashes, so the first ones are a sample. Raises UsageError where a split is not
    there or nothing is to be asked.
    """
    parts = []
    for split in dict.fromkeys(splits or corpus.manifest.splits):
        asked = [rows.filter(pc.is_valid(rows["expected"])) for rows in corpus.tables(split, COLUMNS)]
        if asked:
            parts.append(pa.concat_tables(asked).slice(0, limit))
    if not sum(part.num_rows for part in parts):
        raise UsageError(
            f"{corpus.place}: no row of it is for evaluation (column `expected`); build a corpus with a recipe such as "
            "vpt_eval or sample_eval."
        )
    table = pa.concat_tables(parts)
    table = table.combine_chunks()
    paths = pc.struct_field(first(unlist(column(table, "images"))), "path")
    named = pc.coalesce(paths, column(table, "id"))
    found = regions_of(table)
    boxes, sizes = np.full((table.num_rows, 4), np.nan), np.ones((table.num_rows, 2), np.int64)
    boxes[found.row], sizes[found.row] = found.boxes, found.sizes
    boxes[found.status != RegionState.OK] = np.nan
    kept = table.drop_columns(["images", "image_info", "regions"]).append_column("image", identities(named))
    return Items(kept, boxes, sizes)
