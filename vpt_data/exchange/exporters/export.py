"""A corpus in the form of a trainer: records row by row, files beside them, and an account of it.

Rows come row group by row group, so that memory does not grow with the corpus; bytes are the same for the same corpus
and options. `export.json` is written last: a folder without it is no export.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import BinaryIO

import msgspec
import pyarrow as pa

from vpt_data import store
from vpt_data.corpus import manifest
from vpt_data.corpus.manifest import ShardRecord, Tool
from vpt_data.corpus.reader import Corpus
from vpt_data.errors import CorpusError
from vpt_data.exchange.exporters import EXPORTERS
from vpt_data.exchange.exporters.exporter import Exporter, Unsayable
from vpt_data.exchange.exporters.pictures import Files
from vpt_data.exchange.out_folder import finish, settle
from vpt_data.inspect.view.flat import with_bytes
from vpt_data.pipeline.sealing import write_parquet
from vpt_data.schema import ORIGIN
from vpt_data.store import AnyPath, sha256

_MARK = ".export.json"
NAME = "export.json"


class Export(msgspec.Struct, frozen=True):
    """export.json: what was exported.

    files     the records of each split, with sha256
    left_out  rows that are not in it: those that the format cannot hold, by what of them
    """

    format: str
    follows: str
    tool: Tool
    fingerprint: str
    limited: bool
    files: list[ShardRecord]
    left_out: dict[str, int]

    @property
    def rows(self) -> int:
        """The rows of all files."""
        return sum(file.rows for file in self.files)

    def text(self) -> str:
        """The result for people."""
        lines = [f"{file.file}  {file.rows:,} rows" for file in self.files]
        lines += [f"left out: {count:,} rows ({why})" for why, count in self.left_out.items()]
        exporter = EXPORTERS[self.format]
        return "\n".join([*lines, f"crops: {exporter.crops}", f"not in the format: {exporter.loss}"])


def export(
    corpus: Corpus, name: str, out: AnyPath, pictures: Files, split: str | None = None, limit: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Export:  # fmt: skip
    """Write a corpus in the format `name` of EXPORTERS to `out`; gives what is in export.json.

    split   one split; None: all of them, a file each
    limit   the first rows of each split only

    Raises UsageError for an unknown split and for images that are nowhere, OutputError if `out` holds anything else,
    CorpusError where no row can be exported.
    """
    corpus.shards(split)  # an unknown split is reported before anything is made
    made_by = {"corpus": corpus.manifest.fingerprint, "format": name, "split": split, "limit": limit}
    settle(out, _MARK, "the export", made_by | pictures.options)
    splits = [split] if split is not None else list(corpus.manifest.splits)
    work = _Work(corpus, EXPORTERS[name], out, pictures, progress)
    files = [work.write(each, limit) for each in splits]
    if not any(file.rows for file in files):
        why = next(iter(work.left_out), "it has no rows")
        raise CorpusError(f"{corpus.place}: no row can be exported to {name} ({why}); choose another format.")
    for beside, content in EXPORTERS[name].beside(splits).items():
        store.write(out / beside, content)
    write_parquet(out / "origins.parquet", ORIGIN, iter(work.origins))
    made = Export(
        name, EXPORTERS[name].follows, manifest.tool(), corpus.manifest.fingerprint, limit is not None, files,
        dict(sorted(work.left_out.items())),
    )  # fmt: skip
    store.write(out / NAME, msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n")
    finish(out, _MARK)
    return made


class _Work:
    """An export in progress: what was left out, and which row each record was."""

    def __init__(
        self, corpus: Corpus, exporter: Exporter, out: AnyPath, pictures: Files, progress: Callable[[int, int], None]
    ) -> None:
        self._corpus, self._exporter, self._out = corpus, exporter, out
        self._pictures, self._progress = pictures, progress
        self._total = sum(part.rows for part in corpus.manifest.splits.values())
        self._done = 0
        self.left_out: Counter[str] = Counter()
        self.origins: list[pa.Table] = []

    def write(self, split: str, limit: int | None) -> ShardRecord:
        """Write the records of one split."""
        name, ids = self._exporter.file(split), []
        with store.creating(self._out / name) as file:
            for number, (row_id, content) in enumerate(self._records(split, limit)):
                _put(file, content, number, self._exporter.lines)
                ids.append(row_id)
            if not self._exporter.lines:
                file.write(b"\n]\n" if ids else b"[]\n")
        nothing = pa.array([[]] * len(ids), ORIGIN.field("repaired").type)
        columns = [
            pa.array(ids, pa.string()),
            pa.repeat(name, len(ids)),
            pa.array(range(len(ids)), pa.int64()),
            nothing,
        ]
        self.origins.append(pa.table(columns, schema=ORIGIN))
        path = self._out / name
        return ShardRecord(name, len(ids), path.stat().st_size, sha256(path))

    def _records(self, split: str, limit: int | None) -> Iterator[tuple[str, bytes]]:
        rows = self._corpus.rows(split, images=self._corpus.embed)
        for row in map(with_bytes, islice(rows, limit)):
            self._done += 1
            self._progress(self._done, self._total)
            try:
                yield row["id"], msgspec.json.encode(self._exporter.record(row, self._pictures))
            except Unsayable as error:
                self.left_out[str(error)] += 1


def _put(file: BinaryIO, content: bytes, number: int, lines: bool) -> None:
    if lines:
        file.write(content + b"\n")
    else:
        file.write((b",\n" if number else b"[\n") + content)
