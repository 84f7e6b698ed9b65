"""The folder of an evaluation: what it holds, how it is written so that it can be continued, how it is read back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from trainer.evaluation import predictions, report
from trainer.evaluation.predictions import Prediction
from trainer.evaluation.records import RECORD
from trainer.evaluation.results import Results
from trainer.generation.dialog import Ended
from vpt_data import store
from vpt_data.errors import CorpusError, OutputError

RESULTS: Final = "results.json"
RECORDS: Final = "records.parquet"
REPORT: Final = "report.md"
PAGE: Final = "report.html"
#: What a model of ours said, as a file of predictions, and what decides it.
ANSWERS: Final = "answers.jsonl"
ASKING: Final = "asking.json"


def check(out: Path, mark: str) -> None:
    """OutputError for a folder with files of something else; `mark` is a file that says it is ours."""
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file; name a folder.")
    # A killed process leaves files under a temporary name.
    if out.is_dir() and any(path.suffix != ".tmp" for path in out.iterdir()) and not (out / mark).is_file():
        raise OutputError(f"{out}: holds files of something else; name another folder.")


class _Known(msgspec.Struct):
    answers: str = ""


def check_results(out: Path, answers: str | None = None) -> None:
    """OutputError unless results of a file of answers can be written here; `answers` is their hash, once it is known.

    What a process that died has left can be replaced, and results of the same answers.
    """
    if (out / ASKING).is_file():
        raise OutputError(f"{out}: holds the answers of a model that was asked; name another folder.")
    check(out, RECORDS)
    if answers is None or not (out / RESULTS).is_file():
        return
    try:
        known = msgspec.json.decode((out / RESULTS).read_bytes(), type=_Known).answers
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        known = ""
    if known != answers:
        raise OutputError(f"{out}: holds results of other answers or rows; name another folder, or delete this one.")


def write(out: Path, found: Results, table: pa.Table, title: str, page: str | None = None) -> None:
    """Results, records, report and `page`; results.json comes last, so that a folder with it is whole."""
    with _writing(out):
        out.mkdir(parents=True, exist_ok=True)
        (out / RESULTS).unlink(missing_ok=True)
        with store.creating(out / RECORDS) as file:
            pq.write_table(table, file, compression="zstd")
        store.write(out / REPORT, report.as_markdown(found, title).encode())
        if page is not None:
            store.write(out / PAGE, page.encode())
        text = json.dumps(msgspec.to_builtins(found), indent=2, ensure_ascii=False) + "\n"
        store.write(out / RESULTS, text.encode())


def read_records(folder: Path) -> pa.Table:
    """The records of an evaluation that is done; CorpusError where there is none."""
    if not (folder / RESULTS).is_file():
        raise CorpusError(f"{folder}: holds no {RESULTS}; name the folder of an evaluation that is done.")
    try:
        table = pq.read_table(folder / RECORDS, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(f"{folder / RECORDS}: not readable ({error}); run that evaluation again.") from error
    if not table.schema.equals(RECORD):
        raise CorpusError(f"{folder / RECORDS}: written by another version; run that evaluation again.")
    return table


class Answers:
    """The answers of a model, written one by one; what a process that died has written is there for the next one."""

    def __init__(self, out: Path, asking: Mapping[str, Any], renewing: str | None = None) -> None:
        """Begin, or continue where the same is asked of the same model; else OutputError.

        Rows with a fault are asked again: a missing image may be there now. So are all rows where only the entry
        `renewing` of `asking` has changed.
        """
        check(out, ASKING)
        self._file = out / ANSWERS
        with _writing(out):
            self._cut()
            before = self.read()
            if before and self._stale(out / ASKING, asking, renewing):
                before = []
                self._file.unlink()
            if not before:
                out.mkdir(parents=True, exist_ok=True)
                store.write(out / ASKING, (json.dumps(asking, indent=2) + "\n").encode(), durable=True)
            kept = [one for one in before if one.ended is not Ended.FAULT]
            if len(kept) < len(before):
                store.write(self._file, b"".join(map(_line, kept)))

    @staticmethod
    def _stale(path: Path, asking: Mapping[str, Any], renewing: str | None) -> bool:
        before = json.loads(path.read_text(encoding="utf-8"))
        other = [name for name in asking if before.get(name) != asking[name]]
        if other and other != [renewing]:
            raise OutputError(
                f"{path.parent}: answers of another evaluation ({other[0]} was {before.get(other[0])!r} and is "
                f"{asking[other[0]]!r}); name another folder, or delete this one."
            )
        return bool(other)

    def _cut(self) -> None:
        """Drop a line that a killed process has not finished."""
        if self._file.is_file():
            content = self._file.read_bytes()
            if not content.endswith(b"\n"):
                with self._file.open("r+b") as file:
                    file.truncate(content.rfind(b"\n") + 1)

    def read(self) -> list[Prediction]:
        """All answers so far."""
        return predictions.read(self._file) if self._file.is_file() else []

    @contextmanager
    def adding(self) -> Iterator[BinaryIO]:
        """The file, for `add`."""
        with _writing(self._file):
            file = self._file.open("ab")
        with file:
            yield file

    def add(self, file: BinaryIO, one: Prediction) -> None:
        """Write one answer; it survives the end of this process."""
        with _writing(self._file):
            file.write(_line(one))
            file.flush()


def _line(one: Prediction) -> bytes:
    return msgspec.json.encode(one) + b"\n"


@contextmanager
def _writing(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{place}: cannot be written ({error.strerror}).") from error
