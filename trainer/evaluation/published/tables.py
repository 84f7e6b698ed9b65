"""The tables of papers as they are printed: one TOML file a paper, with its known misprints marked."""

from __future__ import annotations

import functools
from importlib import resources
from typing import Final

import msgspec

PAPERS: Final = ("vpt", "aurora")


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A printed row.

    name    what `--published` calls it; the model where it is not given
    values  one for each column of its table, NaN where the value is not known to us
    pixels  longer side of the pictures that the model saw
    expand  cells by which crops grew on every side; None for a model that crops nothing, or where nobody knows
    """

    model: str
    values: list[float]
    name: str = ""
    pixels: int | None = None
    expand: int | None = None


class Misprint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A value that cannot be what the paper means; of a whole column where no row is given."""

    column: str
    why: str
    row: str | None = None


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A printed table.

    about    what is in it, and what to know before it is compared
    figure   the figure of our results that it has: `judge`, `iou_box`, `iogt_box`; others are none of ours
    items    column -> questions of the set, where the values are percent of them that are right
    highest  column -> the highest value that can be
    """

    about: str
    figure: str
    columns: list[str]
    rows: list[Row]
    misprints: list[Misprint] = []
    items: dict[str, int] = {}
    highest: dict[str, float] = {}

    def value(self, row: Row, column: str) -> float | None:
        """The printed value; None where the table has no such column."""
        return row.values[self.columns.index(column)] if column in self.columns else None


class Published(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of our splits in a paper: its column, and of how many rows it is, or why it can never be the same rows."""

    column: str
    rows: int | None = None
    why: str = ""


class Paper(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All tables of a paper by their number.

    judges  names of the judge that gave its scores
    prompt  the id of what that judge was asked
    splits  our splits that it has figures of
    """

    arxiv: str
    tables: dict[str, Table]
    judges: list[str] = []
    prompt: str = ""
    splits: dict[str, Published] = {}


@functools.cache
def paper(name: str) -> Paper:
    """A paper of PAPERS."""
    return msgspec.toml.decode((resources.files(__package__) / f"{name}.toml").read_bytes(), type=Paper)


def rows() -> dict[str, tuple[Paper, str, Row]]:
    """`PAPER:ROW` -> the paper, the number of the table and the row, of tables with a column for one of our splits."""
    found: dict[str, tuple[Paper, str, Row]] = {}
    for name in PAPERS:
        known = paper(name)
        columns = {split.column for split in known.splits.values()}
        for number, table in known.tables.items():
            if columns.intersection(table.columns):
                found |= {f"{name}:{row.name or row.model}": (known, number, row) for row in table.rows}
    return found
