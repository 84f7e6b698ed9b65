"""A build in progress: what its tasks need to know, and where under OUT/.work their results lie.

Every task is a pure function of a `Work` and a number, and leaves its result in files, the last of which says that it
is done. So any process on any machine may run it, and run it again.
"""

from __future__ import annotations

import functools
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data import store
from vpt_data.images.decode import Verify
from vpt_data.pipeline.reading import Prepared
from vpt_data.recipe import Recipe
from vpt_data.selection.index import INDEX
from vpt_data.selection.take_counts import Input
from vpt_data.store import AnyPath
from vpt_data.upstream.licenses import Policy


class WorkInput(NamedTuple):
    """One input of the build.

    keep    False where only its images matter, since it belongs to the excluded recipe
    window  whether it is one window of a file; its first window has `first`
    """

    pool: str
    source: str
    dataset: str
    file: str
    keep: bool
    window: bool = False
    first: bool = False


class Offset(NamedTuple):
    """Records and lines of the same file before a window."""

    row: int = 0
    line: int = 0


@dataclass(frozen=True, slots=True)
class Work:
    """A planned build, as its tasks see it.

    pools     which pool each take of the recipe draws from; `excluded_pools` the same for the excluded recipe
    shards    how many shards each split gets
    run       tells one build from the next in a process that keeps files open between tasks
    """

    out: AnyPath
    root: AnyPath
    recipe: Recipe
    pools: dict[str, str]
    excluded: Recipe | None
    excluded_pools: dict[str, str]
    inputs: tuple[WorkInput, ...]
    partitions: int
    shards: dict[str, int]
    embed: bool
    verify: Verify
    policy: Policy
    run: int

    @property
    def folder(self) -> AnyPath:
        """Where work in progress lies."""
        return self.out / ".work"

    def prepared(self, number: int) -> Prepared:
        """The files of an input after pass 1."""
        return Prepared(self.folder / "inputs" / f"{number:05d}")

    def quota(self, name: str) -> AnyPath:
        """A file of the stage that settles the quotas."""
        return self.folder / "quotas" / name

    def part(self, partition: int, kind: str) -> AnyPath:
        """A file of a decided partition: `picks`, `drops`, or `json`, which is written last."""
        return self.folder / "parts" / f"{partition:05d}.{kind}"

    def shard(self, name: str, kind: str) -> AnyPath:
        """A file beside a finished shard: its `arrow` side table, or `json`, which is written last."""
        return self.folder / "shards" / f"{name}.{kind}"


def make_folders(work: Work) -> None:
    """The folders that tasks write to."""
    for name in ("inputs", "quotas", "parts", "shards"):
        (work.folder / name).mkdir(parents=True, exist_ok=True)
    (work.out / "data").mkdir(parents=True, exist_ok=True)


def find_offsets(work: Work) -> None:
    """Write down where the windows of each file begin, when pass 1 is done."""
    found: list[Offset] = []
    lines: list[int] = []
    rows = 0
    for number, given in enumerate(work.inputs):
        if not given.window:
            found.append(Offset())
            continue
        if given.first:
            lines, rows = list(msgspec.json.decode(work.prepared(number).survey.read_bytes())["lines"]), 0
        found.append(Offset(rows, lines.pop(0)))
        rows += msgspec.json.decode(work.prepared(number).record.read_bytes())["records"]
    store.write(work.quota("offsets.json"), msgspec.json.encode(found))


@functools.lru_cache(maxsize=1)
def _offsets(path: AnyPath, run: int) -> list[Offset]:
    del run
    return msgspec.json.decode(path.read_bytes(), type=list[Offset])


def offset(work: Work, number: int) -> Offset:
    """The records and lines before an input that is a window."""
    return _offsets(work.quota("offsets.json"), work.run)[number]


class _Opened(NamedTuple):
    """An Arrow file with one batch for each flush and partition, and where each batch begins: int64[batches + 1]."""

    batches: pa.ipc.RecordBatchFileReader
    starts: npt.NDArray[np.int64]
    mapped: mmap.mmap | None


@functools.lru_cache(maxsize=256)
def _opened(path: AnyPath, record: AnyPath, run: int) -> _Opened:
    del run
    flushes = msgspec.json.decode(record.read_bytes())["flushes"]
    starts = np.concatenate([[0], np.cumsum(np.asarray(flushes, np.int64).ravel())]).astype(np.int64)
    if not isinstance(path, Path):
        return _Opened(pa.ipc.open_file(store.readable(path)), starts, None)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return _Opened(pa.ipc.open_file(pa.py_buffer(mapped)), starts, mapped)


class Stretch(NamedTuple):
    """Neighbouring batches of a prepared file, and where the first of them begins in it."""

    table: pa.Table
    start: int


def records(work: Work, number: int, positions: npt.NDArray[np.int64]) -> Iterator[tuple[Stretch, slice]]:
    """The batches of an input that hold some of the `positions` (sorted), with which of the positions those are."""
    prepared = work.prepared(number)
    batches, starts, mapped = _opened(prepared.annotations, prepared.record, work.run)
    batch = np.searchsorted(starts, positions, side="right") - 1
    # Batches that follow each other are taken in one go: small tables cost as much as large ones.
    needed = np.unique(batch)
    for run in np.split(needed, np.flatnonzero(np.diff(needed) > 1) + 1):
        if not len(run):
            continue
        first, last = int(run[0]), int(run[-1])
        low, high = np.searchsorted(batch, [first, last + 1])
        table = pa.Table.from_batches([batches.get_batch(number) for number in range(first, last + 1)])
        yield Stretch(table, int(starts[first])), slice(int(low), int(high))
    if mapped is not None:
        # What was needed is copied; without this, every page ever read would count as memory of this process.
        mapped.madvise(mmap.MADV_DONTNEED)


def index(work: Work, partition: int, main: bool) -> list[Input]:
    """The index of one partition of every input; those of the excluded recipe alone are left out with `main`."""
    found = []
    for number, given in enumerate(work.inputs):
        if main and not given.keep:
            continue
        prepared = work.prepared(number)
        batches, starts, mapped = _opened(prepared.index, prepared.record, work.run)
        wanted = [n for n in range(partition, len(starts) - 1, work.partitions) if starts[n + 1] > starts[n]]
        table = pa.Table.from_batches([batches.get_batch(n) for n in wanted], schema=INDEX)
        if mapped is not None:
            # The mapping is dropped page by page, so what is kept of it must be ours.
            table = _copied(table)
            mapped.madvise(mmap.MADV_DONTNEED)
        table = shifted(table, offset(work, number))
        place = np.concatenate([np.zeros(0, np.int64), *(np.arange(starts[n], starts[n + 1]) for n in wanted)])
        found.append(Input(number, given.pool, given.source, given.dataset, given.file, table, place))
    return found


def _copied(table: pa.Table) -> pa.Table:
    return table.take(pa.array(np.arange(len(table)))) if len(table) else table


def shifted(table: pa.Table, by: Offset) -> pa.Table:
    """Records and lines of a window counted from the start of its file."""
    for name, count in zip(("row", "line"), by, strict=True):
        if count:
            place = table.schema.get_field_index(name)
            table = table.set_column(place, table.schema.field(name), pc.add(table[name], count))
    return table
