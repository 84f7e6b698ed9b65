"""The records that are not in a corpus: how many for which reason, and where each of them is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vpt_data import store
from vpt_data.corpus import manifest
from vpt_data.corpus.reader import DROPPED, difference
from vpt_data.errors import CorpusError, unknown_name
from vpt_data.report import table, visible_line
from vpt_data.schema import DROP, Reason
from vpt_data.store import AnyPath


class Drop(msgspec.Struct, frozen=True):
    """A row of dropped.parquet; `line` counts from 1, and is null where the file has none."""

    take: str
    source: str | None
    dataset: str | None
    key: str | None
    file: str | None
    line: int | None
    reason: str
    detail: str | None

    def text(self) -> str:
        """Where the record is and what is wrong with it, harmless in a terminal whatever the file holds."""
        where = f"{self.file} line {self.line}" if self.line is not None else f"{self.file}"
        return visible_line(f"{where}: {self.detail}" if self.detail else where)


class Drops(NamedTuple):
    """Some of the records that are not in a corpus: how many by (take, reason), and the first of them."""

    counts: Mapping[tuple[str, str], int]
    listed: list[Drop]

    def as_dict(self) -> dict[str, Any]:
        """The drops as plain values for JSON."""
        counts: dict[str, dict[str, int]] = {}
        for (take, reason), count in sorted(self.counts.items()):
            counts.setdefault(take, {})[reason] = count
        return {"records": sum(self.counts.values()), "counts": counts, "drops": msgspec.to_builtins(self.listed)}

    def text(self) -> str:
        """The drops for people."""
        total = sum(self.counts.values())
        if not total:
            return "No record was dropped."
        rows = [(take, reason, f"{count:,}") for (take, reason), count in sorted(self.counts.items())]
        lines = [table(("take", "reason", "records"), rows), ""]
        lines += [f"{drop.take}, {drop.reason}: {drop.text()}" for drop in self.listed]
        if len(self.listed) < total:
            lines.append(f"... and {total - len(self.listed):,} more; --limit N lists more of them.")
        return "\n".join(lines).rstrip()


def drops(
    corpus: AnyPath, *, takes: Collection[str] = (), reasons: Collection[str] = (), limit: int | None = None
) -> Drops:
    """The drops of a corpus, of some takes or for some reasons only; also of a build that has not finished.

    limit   list so many; None: all

    Raises CorpusError where there is no table of drops, and UsageError for an unknown reason or take.
    """
    for reason in reasons:
        if reason not in set(map(str, Reason)):
            raise unknown_name("reason", reason, map(str, Reason))
    known, counts, listed = _takes(corpus), Counter[tuple[str, str]](), list[Drop]()
    for group in _groups(corpus):
        known |= set(pc.unique(group["take"]).to_pylist())
        wanted = _only(_only(group, "take", takes), "reason", reasons)
        for row in wanted.group_by(["take", "reason"]).aggregate([([], "count_all")]).to_pylist():
            counts[row["take"], row["reason"]] += row["count_all"]
        some = wanted if limit is None else wanted.slice(0, limit - len(listed))
        listed += [Drop(**row) for row in some.to_pylist()]
    for take in takes:
        if take not in known:
            raise unknown_name("take", take, known)
    return Drops(counts, listed)


def _takes(corpus: AnyPath) -> set[str]:
    """The takes that the manifest names; a build that has not finished has none."""
    if not (corpus / manifest.NAME).is_file():
        return set()
    return {part.take for part in manifest.read(corpus).components}


def _only(group: pa.Table, name: str, wanted: Collection[str]) -> pa.Table:
    return group.filter(pc.is_in(group[name], value_set=pa.array(sorted(wanted), pa.string()))) if wanted else group


def first_of_each(corpus: AnyPath, reasons: Collection[str]) -> list[Drop]:
    """The first record that was dropped for each of these reasons, in the order of their names."""
    found: dict[str, Drop] = {}
    for group in _groups(corpus):
        for reason in set(reasons) - set(found):
            if (place := pc.index(group["reason"], reason).as_py()) >= 0:
                found[reason] = Drop(**group.slice(place, 1).to_pylist()[0])
        if len(found) == len(reasons):
            break
    return [found[reason] for reason in sorted(found)]


def _groups(corpus: AnyPath) -> Iterator[pa.Table]:
    """The table of drops piece by piece, so that memory does not grow with it."""
    try:
        with pq.ParquetFile(store.parquet_source(corpus / DROPPED)) as file:
            if not file.schema_arrow.equals(DROP):
                raise CorpusError(
                    f"{corpus}: {DROPPED}: {difference(file.schema_arrow, DROP)}; build the corpus again."
                )
            for number in range(file.num_row_groups):
                yield file.read_row_group(number)
    except FileNotFoundError as error:
        raise CorpusError(
            f"{corpus}: no {DROPPED} here; give the output folder of `vpt-data build`, or run the build again."
        ) from error
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(f"{corpus}: {DROPPED} is not readable ({error}); build the corpus again.") from error
