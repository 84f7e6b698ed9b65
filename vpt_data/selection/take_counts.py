"""The account of the takes: how many records each read, mended, dropped and kept, and the lines of the drop table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data.recipe import Recipe
from vpt_data.schema import DROP
from vpt_data.take import Take, datasets_of, own_dataset


@dataclass(frozen=True, slots=True)
class Input:
    """One prepared input, or one partition of it, as the mix sees it.

    number   which of the build's inputs
    pool     inputs of one pool are offered to the same takes, in order
    dataset  the data set of the file, or "" where each record says its own
    index    prepare.INDEX
    position int64[N], where each record lies in the prepared input
    """

    number: int
    pool: str
    source: str
    dataset: str
    file: str
    index: pa.Table
    position: npt.NDArray[np.int64]


@dataclass(slots=True)
class Component:
    """The account of one take."""

    take: str
    source: str
    dataset: str
    template: str
    expected: int
    read: int = 0
    repaired: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    kept: int = 0

    def add(self, other: Component) -> None:
        """Count what another part of the same take counted."""
        self.read += other.read
        self.kept += other.kept
        self.repaired.update(other.repaired)
        self.dropped.update(other.dropped)


def rejected(
    recipe: Recipe, takes: list[str], given: Input, rejects: pa.Table, account: dict[str, Component]
) -> Iterator[pa.Table]:
    """Account for the records of an input that could not even be read, under the first take that would have read them.

    takes     those that draw from the input's pool, in order
    rejects   prepare.REJECTS; gives their rows of the drop table
    """
    for dataset in pc.unique(rejects["dataset"]).to_pylist():
        same = pc.equal(rejects["dataset"], dataset) if dataset is not None else pc.is_null(rejects["dataset"])
        part = rejects.filter(same)
        asked = given.dataset or dataset
        wanted = [name for name in takes if _reads(recipe.take[name], asked)]
        component = account[wanted[0] if wanted else unmatched(account, given.source)]
        component.read += len(part)
        component.dropped.update(part["reason"].to_pylist())
        yield itemised(component, part, pa.repeat(given.file, len(part)), part["reason"], part["detail"])


def empty_account(recipe: Recipe) -> dict[str, Component]:
    """A component for each take."""
    return {name: _component(name, take) for name, take in recipe.take.items()}


def unmatched(account: dict[str, Component], source: str) -> str:
    """The name of the component of records that no take fits, added where it is not there."""
    name = f"unmatched:{source}"
    account.setdefault(name, Component(name, source, "", "", 0))
    return name


def itemised(
    component: Component, part: pa.Table, files: pa.Array, reason: str | pa.ChunkedArray, details: pa.Array
) -> pa.Table:
    """Rows of the drop table for records of a take; `part` has their data set, key and line."""
    take, source = (pa.repeat(text, len(part)) for text in (component.take, component.source))
    reasons = pa.repeat(reason, len(part)) if isinstance(reason, str) else reason
    columns = [take, source, part["dataset"], part["key"], files, part["line"], reasons, details]
    return pa.table(columns, schema=DROP)


def _reads(take: Take, dataset: str | None) -> bool:
    wanted = datasets_of(take)
    return wanted is None or dataset in wanted


def _component(name: str, take: Take) -> Component:
    dataset = "+".join(datasets_of(take) or ([own_dataset(take)] if take.files else []))
    expected = take.count if isinstance(take.count, int) else 0
    return Component(name, take.source, dataset, take.template, expected)
