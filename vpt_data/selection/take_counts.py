"""What each take read, repaired, dropped and kept, and the rows of the drop table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data.recipe import Recipe
from vpt_data.schema import DROP
from vpt_data.take import Take, datasets_of, own_dataset


class TakeCounts(msgspec.Struct):
    """The counts of one take, of a partition or of a whole corpus: read = kept + sum(dropped)."""

    take: str
    source: str
    dataset: str
    template: str
    expected: int
    read: int = 0
    repaired: dict[str, int] = {}
    dropped: dict[str, int] = {}
    kept: int = 0

    def drop(self, reason: str, count: int = 1) -> None:
        """Count records that are not in a shard."""
        self.dropped[reason] = self.dropped.get(reason, 0) + count

    def repair(self, kinds: Mapping[str, int]) -> None:
        """Count rows that were repaired, by kind."""
        for kind, count in kinds.items():
            self.repaired[kind] = self.repaired.get(kind, 0) + count

    def add(self, other: TakeCounts) -> None:
        """Add what another part of the same take counted."""
        self.read += other.read
        self.kept += other.kept
        self.repair(other.repaired)
        for reason, count in other.dropped.items():
            self.drop(reason, count)

    def in_order(self) -> TakeCounts:
        """The same counts with kinds and reasons by name, and none that are zero."""
        repaired, dropped = (
            {name: n for name, n in sorted(each.items()) if n} for each in (self.repaired, self.dropped)
        )
        return msgspec.structs.replace(self, repaired=repaired, dropped=dropped)


def empty_counts(recipe: Recipe) -> dict[str, TakeCounts]:
    """Counts of zero for each take."""
    return {name: _counts_of(name, take) for name, take in recipe.take.items()}


def _counts_of(name: str, take: Take) -> TakeCounts:
    return TakeCounts(
        take=name,
        source=take.source,
        dataset="+".join(datasets_of(take) or ([own_dataset(take)] if take.files else [])),
        template=take.template,
        expected=take.count if isinstance(take.count, int) else 0,
    )


def unmatched(counts: dict[str, TakeCounts], source: str) -> str:
    """The name under which records are counted that no take fits; its counts are added where they are not there."""
    name = f"unmatched:{source}"
    counts.setdefault(name, TakeCounts(take=name, source=source, dataset="", template="", expected=0))
    return name


def count_rejects(
    recipe: Recipe,
    takes: list[str],
    rejects: pa.Table,
    counts: dict[str, TakeCounts],
    *,
    source: str,
    dataset: str,
    file: str,
) -> Iterator[pa.Table]:
    """Count the records of an input that could not even be read, under the first take that would have read them.

    takes    those that draw from the input's pool, in order
    rejects  bad_records.REJECTS; gives their rows of the drop table
    dataset  the data set of the file, or "" where each record says its own
    """
    for named in pc.unique(rejects["dataset"]).to_pylist():
        same = pc.equal(rejects["dataset"], named) if named is not None else pc.is_null(rejects["dataset"])
        part = rejects.filter(same)
        wanted = [name for name in takes if _reads(recipe.take[name], dataset or named)]
        take = counts[wanted[0] if wanted else unmatched(counts, source)]
        take.read += len(part)
        for entry in part["reason"].value_counts().to_pylist():
            take.drop(entry["values"], entry["counts"])
        yield drop_rows(take, part, pa.repeat(file, len(part)), part["reason"], _located(part))


def _located(rejects: pa.Table) -> pa.ChunkedArray:
    """The details; in a JSON array that is written on one line, where all have line 1, they name the record as well."""
    blind = pc.and_(pc.equal(rejects["line"], 1), pc.greater(rejects["row"], 0))
    number = pc.cast(pc.add(rejects["row"], 1), pa.string())
    named = pc.binary_join_element_wise("record ", number, " of the file: ", rejects["detail"], "")
    return pc.if_else(pc.fill_null(blind, False), named, rejects["detail"])


def _reads(take: Take, dataset: str | None) -> bool:
    wanted = datasets_of(take)
    return wanted is None or dataset in wanted


def drop_rows(
    counts: TakeCounts, part: pa.Table, files: pa.Array, reason: str | pa.ChunkedArray, details: pa.Array
) -> pa.Table:
    """Rows of the drop table for records of a take; `part` has their data set, key and line."""
    take, source = (pa.repeat(text, len(part)) for text in (counts.take, counts.source))
    reasons = pa.repeat(reason, len(part)) if isinstance(reason, str) else reason
    columns = [take, source, part["dataset"], part["key"], files, part["line"], reasons, details]
    return pa.table(columns, schema=DROP)
