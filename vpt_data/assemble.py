"""Pass 2: shards out of the prepared inputs. Pure: the same task gives the same bytes, wherever it runs.

A block of neighbouring shards covers a range of partitions. Its rows are taken from every input and rendered take by
take (for the whole block, since small tables cost as much as large ones), then each shard is written by itself.
Beside each shard a small Arrow table (`side`) keeps what the account needs of each row.
"""

from __future__ import annotations

import functools
import mmap
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data import columns, shards, templates
from vpt_data.groups import Bucket, Outcome, text_bytes
from vpt_data.images import ImageRoot
from vpt_data.prepare import Prepared, partition_of
from vpt_data.schema import DROP, SAMPLE, Repair
from vpt_data.templates import Rule

SIDE = pa.schema(
    [
        ("id", pa.string()),
        ("hash", pa.binary(16)),
        ("file", pa.string()),
        ("row", pa.int64()),
        ("identity", pa.uint64()),
        ("imaged", pa.bool_()),
    ]
)


@dataclass(frozen=True, slots=True)
class BlockTask:
    """Neighbouring shards to make: `size` of the `count` of a split from number `first` on.

    takes    the recipe's takes that belong to the split, as numbers into `rules`
    inputs   number and name of each input that has picks
    """

    work: Path
    out: Path
    split: str
    first: int
    size: int
    count: int
    partitions: int
    takes: tuple[int, ...]
    inputs: tuple[tuple[int, str], ...]
    rules: tuple[Rule, ...]
    root: Path
    embed: bool
    run: int  # tells one build from the next in a process that keeps files open between tasks

    @property
    def names(self) -> list[str]:
        """The file names without extension."""
        return [f"{self.split}-{n:05d}-of-{self.count:05d}" for n in range(self.first, self.first + self.size)]

    def record(self, name: str) -> Path:
        """Where the record of a finished shard lies."""
        return self.work / "shards" / f"{name}.json"


@dataclass(slots=True)
class ShardDone:
    """The record of a finished shard, as kept under OUT/.work/shards."""

    name: str
    file: str
    rows: int
    bytes: int
    sha256: str
    embedded: int
    missing: int
    repaired: dict[str, dict[str, int]] = field(default_factory=dict)
    dropped: list[dict[str, str | int | None]] = field(default_factory=list)  # rows of DROP

    @property
    def dropped_takes(self) -> list[str]:
        """The take of each row that could not be written."""
        return [str(drop["take"]) for drop in self.dropped]

    @property
    def dropped_reasons(self) -> list[str]:
        """Why each of them could not be written."""
        return [str(drop["reason"]) for drop in self.dropped]

    def drops(self) -> pa.Table:
        """They as rows of the drop table."""
        return pa.Table.from_pylist(self.dropped, schema=DROP)

    def side(self, work: Path) -> pa.Table:
        """SIDE of every row in the shard, in its order."""
        return read_arrow(work / "shards" / f"{self.name}.arrow")


def read_arrow(path: Path) -> pa.Table:
    """A memory-mapped Arrow file as a table."""
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def write_arrow(path: Path, table: pa.Table) -> None:
    """Write an Arrow file in one step."""
    temporary = path.with_name(f"{path.name}.tmp")
    with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    temporary.replace(path)


def make_block(task: BlockTask) -> list[ShardDone]:
    """Write the shards of a block that are not done yet, each with its side table and, last, its record."""
    if not all(task.record(name).is_file() for name in task.names):
        bucket, side = _gather(task)
        rows = bucket.ranked()
        shard = partition_of(bucket.identity[rows], task.count)
        ends = np.searchsorted(shard, np.arange(task.first, task.first + task.size + 1))
        for name, start, end in zip(task.names, ends, ends[1:], strict=False):
            if not task.record(name).is_file():
                _make_shard(task, name, bucket, side, rows[start:end])
    return [msgspec.json.decode(task.record(name).read_bytes(), type=ShardDone) for name in task.names]


def _make_shard(task: BlockTask, name: str, bucket: Bucket, side: pa.Table, rows: npt.NDArray[np.int64]) -> None:
    file = f"data/{name}.parquet"
    report = shards.write_shard(task.out / file, bucket, rows, _image_root(task.root, task.run), task.embed)
    mine = side.take(pa.array(rows))
    kept = mine.take(pc.index_in(report.ids, value_set=columns.column(mine, "id")))
    hashed = kept.set_column(1, SIDE.field("hash"), report.hashes)
    write_arrow(task.work / "shards" / f"{name}.arrow", hashed.select(SIDE.names))
    outcome = report.outcome
    done = ShardDone(
        name, file, report.rows, report.bytes, report.sha256, outcome.embedded, outcome.missing,
        _repaired(kept, outcome), _dropped(outcome, bucket.samples, side),
    )  # fmt: skip
    temporary = task.record(name).with_suffix(".tmp")
    temporary.write_bytes(msgspec.json.encode(done))
    temporary.replace(task.record(name))


@functools.lru_cache(maxsize=1)
def _image_root(root: Path, run: int) -> ImageRoot:
    """One per process, so that a folder is listed once and not for every shard."""
    del run
    return ImageRoot(root)


def _gather(task: BlockTask) -> tuple[Bucket, pa.Table]:
    """The samples of the block in any order, and their SIDE columns with take and repairs (hash still null)."""
    by_take: dict[int, list[tuple[pa.Table, pa.Table, str]]] = {}
    for number, name in task.inputs:
        for take, rows, picks in _picked(task, number):
            by_take.setdefault(take, []).append((rows, picks, name))
    samples, sides, orders = [SAMPLE.empty_table()], [_side_schema().empty_table()], [np.zeros(0, np.uint64)]
    for take in sorted(by_take):
        parts = by_take[take]
        annotations = pa.concat_tables([part[0] for part in parts]).combine_chunks()
        picks = pa.concat_tables([part[1] for part in parts]).combine_chunks()
        rule = task.rules[take]
        turn = picks["turn"].to_numpy() if rule.turns == "each" else None
        rendered = templates.render(annotations, rule, turn)
        files = pa.concat_arrays([pa.repeat(name, len(picked)) for _, picked, name in parts])
        sides.append(_side(rendered, picks, files, rule.take))
        samples.append(rendered)
        orders.append(picks["order"].to_numpy())
    side = pa.concat_tables(sides).combine_chunks()
    whole = pa.concat_tables(samples).combine_chunks()
    return Bucket(whole, side["identity"].to_numpy(), np.concatenate(orders), text_bytes(whole)), side


def _side_schema() -> pa.Schema:
    return pa.schema([*SIDE, ("take", pa.string()), ("repairs", pa.uint16()), ("line", pa.int64())])


def _side(rendered: pa.Table, picks: pa.Table, files: pa.Array, take: str) -> pa.Table:
    count = len(rendered)
    imaged = pc.greater(pc.list_value_length(rendered["images"]), 0)
    values = [rendered["id"], pa.nulls(count, pa.binary(16)), files, picks["row"], picks["identity"], imaged]
    return pa.table([*values, pa.repeat(take, count), picks["repairs"], picks["line"]], schema=_side_schema())


class _Opened(NamedTuple):
    """A prepared input. starts: where each batch begins in the index, int64[flushes * partitions + 1]."""

    mapped: mmap.mmap
    batches: pa.ipc.RecordBatchFileReader
    starts: npt.NDArray[np.int64]
    picks: pa.Table


@functools.lru_cache(maxsize=64)
def _opened(work: Path, number: int, run: int) -> _Opened:
    del run
    prepared = Prepared(work / "inputs" / f"{number:05d}")
    flushes = msgspec.json.decode(prepared.record.read_bytes())["flushes"]
    starts = np.concatenate([[0], np.cumsum(np.asarray(flushes, np.int64).ravel())])
    picks = read_arrow(work / "picks" / f"{number:05d}.arrow").combine_chunks()
    with prepared.annotations.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return _Opened(mapped, pa.ipc.open_file(pa.py_buffer(mapped)), starts, picks)


def _picked(task: BlockTask, number: int) -> list[tuple[int, pa.Table, pa.Table]]:
    """(take, annotations, picks) of one input for this block, row by row in step."""
    mapped, batches, starts, picks = _opened(task.work, number, task.run)
    positions = picks["position"].to_numpy()
    width = task.partitions * task.size // task.count
    found = []
    for flush in range((len(starts) - 1) // task.partitions):
        first = flush * task.partitions + task.first * task.partitions // task.count
        low, high = np.searchsorted(positions, [starts[first], starts[first + width]])
        if low == high:
            continue
        stretch = pa.Table.from_batches([batches.get_batch(batch) for batch in range(first, first + width)])
        chosen = picks.slice(low, high - low)
        takes = chosen["take"].to_numpy()
        for take in np.unique(takes):
            if take in task.takes:
                mine = chosen.filter(pa.array(takes == take))
                rows = stretch.take(pa.array(mine["position"].to_numpy() - starts[first]))
                found.append((int(take), rows, mine))
    # What was needed is copied; without this, every page ever read would count as memory of this process.
    mapped.madvise(mmap.MADV_DONTNEED)
    return found


def _repaired(kept: pa.Table, outcome: Outcome) -> dict[str, dict[str, int]]:
    counts = {take: Counter(kinds) for take, kinds in outcome.repaired.items()}
    takes, repairs = kept["take"], kept["repairs"].to_numpy()
    for repair in Repair:
        hit = (
            kept.filter(pa.array((repairs & repair.value) != 0))["take"]
            if (repairs & repair.value).any()
            else takes[:0]
        )
        for entry in hit.value_counts().to_pylist():
            counts.setdefault(entry["values"], Counter())[str(repair.name).lower()] += entry["counts"]
    return {take: dict(sorted(kinds.items())) for take, kinds in sorted(counts.items())}


def _dropped(outcome: Outcome, samples: pa.Table, side: pa.Table) -> list[dict[str, str | int | None]]:
    if not outcome.dropped:
        return []
    place = {sample: number for number, sample in enumerate(samples["id"].to_pylist())}
    found: list[dict[str, str | int | None]] = []
    for drop in outcome.dropped:
        row = place[drop["id"]]
        take, _, key = drop["id"].partition("/")
        found.append(
            {
                "take": take,
                "source": samples["source"][row].as_py(),
                "dataset": samples["dataset"][row].as_py(),
                "key": key,
                "file": side["file"][row].as_py(),
                "line": side["line"][row].as_py(),
                "reason": drop["reason"],
                "detail": drop["detail"],
            }
        )
    return found
