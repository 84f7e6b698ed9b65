"""Reading back what pass 1 left: the index of a partition, and annotations by their position.

A process keeps a reader for every input of its build: the readers know where each batch is, and open the file only
while they read, so that their number is bounded by memory and not by how many files a process may have open.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data import store
from vpt_data.hashing import partition_of
from vpt_data.images.policy import Verify
from vpt_data.images.root import ImageRoot
from vpt_data.pipeline.prepared import PreparedFiles
from vpt_data.pipeline.workspace import RunId, Work
from vpt_data.selection.index import INDEX, InputIndex
from vpt_data.store import AnyPath


class Offset(NamedTuple):
    """Records and lines of the same file before a window."""

    row: int = 0
    line: int = 0


class _OpenedLater(io.RawIOBase):
    """A file on a disk that is open only while something is read from it."""

    def __init__(self, path: Path) -> None:
        self._path, self._at, self._size = path, 0, path.stat().st_size

    def readable(self) -> bool:
        """Always true; nothing is written through it."""
        return True

    def seekable(self) -> bool:
        """Always true."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a place."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        """As many bytes as asked for, fewer at the end of the file."""
        with self._path.open("rb") as file:
            file.seek(self._at)
            data = file.read(size)
        self._at += len(data)
        return data


class _Batches:
    """An Arrow file that pass 1 wrote, and where each of its batches begins."""

    def __init__(self, path: AnyPath, files: PreparedFiles) -> None:
        record = files.read_record()
        source = pa.PythonFile(_OpenedLater(path), "r") if isinstance(path, Path) else store.readable(path)
        self._reader = pa.ipc.open_file(source)
        rows = [np.asarray(flush.rows, np.int64) for flush in record.flushes]
        self.starts = np.concatenate([[0], np.cumsum(np.concatenate([np.zeros(0, np.int64), *rows]))])
        self._first = np.cumsum([0, *map(len, rows)]).tolist()
        self._partitions = [np.asarray(flush.partitions, np.int64) for flush in record.flushes]

    def table(self, first: int, last: int) -> pa.Table:
        """Batches `first` to `last` as one table."""
        return pa.Table.from_batches([self._reader.get_batch(number) for number in range(first, last + 1)])

    def of_partition(self, partition: int) -> list[int]:
        """The batches that hold rows of a partition, if there are any: one of each flush."""
        found = []
        for first, partitions in zip(self._first, self._partitions, strict=False):
            place = int(np.searchsorted(partitions, partition, side="right")) - 1
            if place >= 0:
                found.append(first + place)
        return found


class OpenFiles:
    """What a process keeps between the tasks of one build: readers, offsets, and folders of images once listed."""

    def __init__(self, run: RunId) -> None:
        self.run = run
        self._batches: dict[AnyPath, _Batches] = {}
        self._offsets: list[Offset] | None = None
        self._images: ImageRoot | None = None

    def batches(self, path: AnyPath, files: PreparedFiles) -> _Batches:
        """The reader of the annotations or of the index of an input."""
        if path not in self._batches:
            self._batches[path] = _Batches(path, files)
        return self._batches[path]

    def offsets(self, path: AnyPath) -> list[Offset]:
        """What `find_offsets` wrote."""
        if self._offsets is None:
            self._offsets = msgspec.json.decode(path.read_bytes(), type=list[Offset])
        return self._offsets

    def images(self, root: AnyPath, verify: Verify) -> ImageRoot:
        """The images of the raw root: a folder is listed once, and not for every shard."""
        if self._images is None:
            self._images = ImageRoot(root, verify)
        return self._images


@functools.lru_cache(maxsize=1)
def open_files(run: RunId) -> OpenFiles:
    """What this process keeps open for a build; the files of an earlier build are let go of."""
    return OpenFiles(run)


def find_offsets(work: Work) -> None:
    """Write down where the windows of each file begin, when pass 1 is done."""
    found: list[Offset] = []
    lines: list[int] = []
    rows = 0
    for number, given in enumerate(work.plan.inputs):
        if not given.in_windows:
            found.append(Offset())
            continue
        if given.begins_file:
            lines, rows = list(work.prepared(number).read_survey().lines), 0
        found.append(Offset(rows, lines.pop(0)))
        rows += work.prepared(number).read_record().records
    store.write(work.quota("offsets.json"), msgspec.json.encode(found))


def offset(work: Work, number: int) -> Offset:
    """The records and lines before an input that is a window."""
    return open_files(work.run).offsets(work.quota("offsets.json"))[number]


class Stretch(NamedTuple):
    """Neighbouring batches of a prepared file, and the position of their first row in it."""

    table: pa.Table
    start: int


def records(work: Work, number: int, positions: npt.NDArray[np.int64]) -> Iterator[tuple[Stretch, slice]]:
    """The batches of an input that hold some of the `positions` (sorted), with which of the positions those are."""
    files = work.prepared(number)
    batches = open_files(work.run).batches(files.annotations, files)
    batch = np.searchsorted(batches.starts, positions, side="right") - 1
    # Batches that follow each other are taken in one go: small tables cost as much as large ones.
    needed = np.unique(batch)
    for run in np.split(needed, np.flatnonzero(np.diff(needed) > 1) + 1):
        if not len(run):
            continue
        first, last = int(run[0]), int(run[-1])
        low, high = np.searchsorted(batch, [first, last + 1])
        yield Stretch(batches.table(first, last), int(batches.starts[first])), slice(int(low), int(high))


def index(work: Work, partition: int, main: bool) -> list[InputIndex]:
    """The index of one partition of every input; those of the excluded recipes alone are left out with `main`."""
    found, count = [], work.plan.partitions
    for number, given in enumerate(work.plan.inputs):
        if main and not given.keep:
            continue
        table, position = _index_of(work, number, partition, count)
        found.append(
            InputIndex(
                number=number,
                pool=given.pool,
                source=given.job.source,
                dataset=given.job.dataset,
                file=given.job.rows.name,
                table=shifted(table, offset(work, number)),
                position=position,
            )
        )
    return found


def _index_of(work: Work, number: int, partition: int, count: int) -> tuple[pa.Table, npt.NDArray[np.int64]]:
    """The rows of the index of an input that belong to one of `count` partitions, and their positions."""
    files = work.prepared(number)
    batches = open_files(work.run).batches(files.index, files)
    tables, positions = [INDEX.empty_table()], [np.zeros(0, np.int64)]
    for batch in batches.of_partition(partition):
        whole = batches.table(batch, batch)
        of_row = partition_of(whole["identity"].to_numpy(), count)
        low, high = np.searchsorted(of_row, [partition, partition + 1]).tolist()
        tables.append(whole.slice(low, high - low))
        positions.append(np.arange(low, high) + batches.starts[batch])
    return pa.concat_tables(tables), np.concatenate(positions)


def shifted(table: pa.Table, by: Offset) -> pa.Table:
    """Records and lines of a window counted from the start of its file."""
    for name, count in zip(("row", "line"), by, strict=True):
        if count:
            place = table.schema.get_field_index(name)
            table = table.set_column(place, table.schema.field(name), pc.add(table[name], count))
    return table
