"""Pass 1: one input file in, its annotations grouped by partition and an index of them out.

The index holds all that selection needs (the key of the record, which image, whether a region is left), so that the mix
is decided without reading the annotations again. Each input's files appear when they are whole and its record last: an
input is either done or not begun.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data import store
from vpt_data.columns import column, flags, unlist
from vpt_data.corpus.manifest import InputRecord
from vpt_data.errors import RawError
from vpt_data.hashing import partition_of
from vpt_data.images.identity import schemes as image_schemes
from vpt_data.images.policy import Failure
from vpt_data.images.root import ImageRoot, probe
from vpt_data.pipeline.prepared import Flush, Prepared, PreparedFiles, SurveyRecord
from vpt_data.schema import ANNOTATION, Reason
from vpt_data.selection.bad_records import REJECTS, faults
from vpt_data.selection.index import INDEX, index_of
from vpt_data.sources import SOURCES
from vpt_data.sources.base import Chunk, Drop, Job
from vpt_data.sources.boxes import BoxGuard, in_pixels
from vpt_data.store import AnyPath
from vpt_data.upstream import licenses
from vpt_data.upstream.rawfile import RawFile

#: Annotations are collected up to this many bytes of text before they are grouped by partition and written.
FLUSH_BYTES = 32 << 20
#: At many partitions up to as many bytes as give each partition this many ...
PARTITION_BYTES = 16 << 10
#: ... but never more than this, which is two windows of a file.
MAX_FLUSH_BYTES = 256 << 20
#: A batch holds at least this many rows, where there are so many: of small partitions several share one.
BATCH_ROWS = 64


@dataclass(frozen=True, slots=True)
class ReadSettings:
    """What pass 1 needs to know of the plan."""

    root: AnyPath
    seed: int
    partitions: int
    keep: bool  # False: only the index is wanted (an input of the excluded evaluation recipe)
    policy: licenses.Policy = "any"


def prepare(
    job: Job,
    out: PreparedFiles,
    settings: ReadSettings,
    row_bytes: float | None = None,
    report: Callable[[int], None] | None = None,
) -> None:
    """Read one input and write its annotations, index, rejects and, last, its record.

    row_bytes  bytes of the file for each of its rows, where they were counted
    report     is called with the bytes of the rows that were read, after each chunk, where that is known
    """
    # Decoding makes millions of small objects that form no cycles: the collector would only look at them again.
    collecting = gc.isenabled()
    gc.disable()
    try:
        _prepare(job, out, settings, lambda rows: report(int(rows * row_bytes)) if report and row_bytes else None)
    except MemoryError as error:
        what = "reading it takes more memory than there is; split the file, or run on a larger machine."
        raise RawError(f"{job.rows.name}: {what}") from error
    finally:
        if collecting:
            gc.enable()


def _prepare(job: Job, out: PreparedFiles, settings: ReadSettings, read: Callable[[int], None]) -> None:
    rejects: list[pa.Table] = []
    problems: set[str] = set()
    schemes: set[str] = set()
    tokenizers: set[str] = set()
    records = owned = 0
    with ExitStack() as files:
        writer = _Writer(out, settings, files)
        root = ImageRoot(settings.root)
        guard = BoxGuard(job.files.get("boxes", job.rows).name, job.take) if job.take is not None else None
        for chunk in SOURCES[job.source].read(job):
            annotations, index, bad, failures, known = _prepare_chunk(chunk, job, settings, root, guard)
            schemes |= known
            tokenizers |= chunk.tokenizers
            rejects.append(bad)
            problems.update(problem for failure in failures for problem in failure.problems)
            rows = (pc.max(index["row"]).as_py(), pc.max(bad["row"]).as_py())
            records = max(records, *(row + 1 for row in rows if row is not None))
            owned += pc.sum(index["owned"]).as_py() or 0
            writer.add(annotations, index)
            read(len(index) + len(bad))
        if guard is not None:
            guard.check(root.turned)
        writer.flush()
    store.write_arrow(out.rejects, pa.concat_tables([REJECTS.empty_table(), *rejects]))
    record = Prepared(
        files=[InputRecord(raw.name, raw.size, raw.sha256) for raw in job.files.values() if raw.sha256],
        flushes=writer.flushes,
        records=records,
        owned=owned,
        problems=sorted(problems),
        schemes=sorted(schemes),
        tokenizers=sorted(tokenizers),
    )
    store.write(out.record, msgspec.json.encode(record))


def survey(windows: list[RawFile], out: PreparedFiles) -> None:
    """Write what is known of a file that is read in windows only when all of it has been read: a SurveyRecord."""
    found = windows[0].survey([window.window.start if window.window else 0 for window in windows])
    record = SurveyRecord(InputRecord(found.file, found.bytes, found.sha256), found.lines)
    store.write(out.survey, msgspec.json.encode(record))


class _Writer:
    """Collects annotations and their index, and writes both sorted by partition: see `batches_of`."""

    def __init__(self, out: PreparedFiles, settings: ReadSettings, files: ExitStack) -> None:
        self._settings = settings
        self._annotations, self._index = (
            files.enter_context(pa.ipc.new_file(files.enter_context(store.creating(path)), schema))
            for path, schema in ((out.annotations, ANNOTATION), (out.index, INDEX))
        )
        self._pending: list[tuple[pa.Table, pa.Table]] = []
        self._bytes = 0
        # At many partitions a batch of each would hold few rows under a long header: write less often.
        self._flush_bytes = min(max(FLUSH_BYTES, settings.partitions * PARTITION_BYTES), MAX_FLUSH_BYTES)
        self.flushes: list[Flush] = []

    def add(self, annotations: pa.Table, index: pa.Table) -> None:
        """Take a chunk; where that fills the buffer, write it."""
        self._pending.append((annotations, index))
        self._bytes += annotations.nbytes
        if self._bytes >= self._flush_bytes:
            self.flush()

    def flush(self) -> None:
        """Write what is pending."""
        if not self._pending:
            return
        annotations = pa.concat_tables([pair[0] for pair in self._pending])
        index = pa.concat_tables([pair[1] for pair in self._pending], promote_options="default")
        self._pending, self._bytes = [], 0
        partition = partition_of(index["identity"].to_numpy(), self._settings.partitions)
        order = np.argsort(partition, kind="stable")
        flush = batches_of(partition[order])
        self.flushes.append(flush)
        _write_batches(self._index, index, order, flush.rows)
        if self._settings.keep:
            _write_batches(self._annotations, annotations, order, flush.rows)


def batches_of(partition: np.ndarray) -> Flush:
    """How rows are cut into batches, from the partition of each (ascending).

    A batch holds whole partitions, so that who reads one partition reads one batch, and as many of them as it takes
    to reach BATCH_ROWS.

    >>> batches_of(np.repeat([0, 1, 2, 5], [100, 10, 60, 3]))
    Flush(rows=[100, 70, 3], partitions=[0, 1, 5])
    """
    first = np.flatnonzero(np.diff(partition, prepend=-1))
    ends = np.append(first, len(partition))[1:].tolist()
    rows, partitions, start = [], [], 0
    for end in ends:
        if end - start >= BATCH_ROWS or end == len(partition):
            rows.append(end - start)
            partitions.append(int(partition[start]))
            start = end
    return Flush(rows, partitions)


def _write_batches(file: pa.ipc.RecordBatchFileWriter, table: pa.Table, order: np.ndarray, rows: list[int]) -> None:
    # Indices must be 64 bit and columns whole: take on chunked nested columns is slow.
    whole = table.combine_chunks().take(pa.array(order)).combine_chunks()
    start = 0
    for count in rows:
        [batch] = whole.slice(start, count).to_batches()
        file.write_batch(batch)
        start += count


class _Chunk(NamedTuple):
    """A chunk as pass 1 keeps it: annotations and their index row by row, rejects, sizes not known, image schemes."""

    annotations: pa.Table
    index: pa.Table
    rejects: pa.Table
    failures: list[Failure]
    schemes: set[str]


def _prepare_chunk(chunk: Chunk, job: Job, settings: ReadSettings, root: ImageRoot, guard: BoxGuard | None) -> _Chunk:
    lines = chunk.line if chunk.line is not None else np.full(len(chunk.row), -1)
    table = chunk.annotations.append_column("row", pa.array(chunk.row, pa.int64()))
    table = table.append_column("line", pc.if_else(pa.array(lines < 0), None, pa.array(lines, pa.int64())))
    form = chunk.form if chunk.form is not None else pa.nulls(len(chunk.row), pa.string())
    table = table.append_column("form", form)
    frame = np.full((len(table), 2), np.nan) if chunk.frame is None else chunk.frame
    rejects = [_rejected(chunk.drops, job)]
    faulty = np.zeros(len(table), bool)
    found, unanswered = faults(table)
    for reason, detail, bad in found:
        if bad.any():
            rejects.append(_reject(table.filter(pa.array(bad)), reason, detail))
            faulty |= bad
    if settings.keep and settings.policy != "any":
        for reason, detail, bad in _forbidden(table, settings.policy):
            rejects.append(_reject(table.filter(pa.array(bad & ~faulty)), reason, detail))
            faulty |= bad
    good = table.filter(pa.array(~faulty)) if faulty.any() else table
    frame = frame[~faulty]
    sized, failures = with_sizes(good, root)
    if guard is not None:
        guard.add(sized, frame)
    if chunk.frame is not None:
        sized = in_pixels(sized, frame)
    identity = root.identity(column(sized, "images").flatten().field("path"))
    annotations, index = index_of(
        sized,
        identity=identity,
        unanswered=unanswered[~faulty],
        seed=settings.seed,
        failures=failures,
        with_id=job.take is not None and job.take.columns.id is not None,
    )
    return _Chunk(annotations, index, pa.concat_tables(rejects), list(failures.values()), image_schemes(identity))


def _forbidden(table: pa.Table, policy: licenses.Policy) -> Iterator[tuple[Reason, str, np.ndarray]]:
    """Rows that show an image whose licence the policy does not let in, licence by licence."""
    listed = unlist(column(table, "images"))
    refused = licenses.refused(pc.struct_field(listed.values, "path"), policy)
    for license_id in pc.unique(refused.drop_null()).to_pylist():
        hit = pc.fill_null(pc.equal(refused, license_id), False).to_numpy(zero_copy_only=False)
        bad = np.zeros(len(table), bool)
        bad[listed.rows[hit]] = True
        yield Reason.LICENSE, licenses.refusal(policy, license_id), bad


def _rejected(drops: list[Drop], job: Job) -> pa.Table:
    columns = {
        "dataset": [drop.dataset or job.dataset or None for drop in drops],
        "row": [drop.row for drop in drops],
        "line": [drop.line for drop in drops],
        "key": [None] * len(drops),
        "reason": [str(drop.reason) for drop in drops],
        "detail": [drop.detail[:500] for drop in drops],
    }
    return pa.table(columns, schema=REJECTS)


def _reject(rows: pa.Table, reason: Reason, detail: str) -> pa.Table:
    count = len(rows)
    columns = [rows["dataset"], rows["row"], rows["line"], pa.nulls(count, pa.string())]
    columns += [pa.array([str(reason)] * count), pa.array([detail] * count)]
    return pa.table(columns, schema=REJECTS)


def with_sizes(table: pa.Table, root: ImageRoot) -> tuple[pa.Table, dict[str, Failure]]:
    """Annotations with the image sizes that boxes need, and why some of them are not known."""
    # Only boxes need sizes; probing every image of a conversation source would cost a stat each.
    boxed = flags(pc.greater(pc.list_value_length(column(table, "regions")), 0))
    listed, failures = probe(column(table, "images"), boxed, root)
    return table.set_column(table.schema.get_field_index("images"), ANNOTATION.field("images"), listed), failures
