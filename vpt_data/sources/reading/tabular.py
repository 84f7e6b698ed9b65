"""Rows of a CSV, JSON or Parquet file as records: column name -> cell, whatever the columns are.

CSV cells are text; JSON and Parquet cells have the types of the file. What a column means is said in `table`.
"""

from __future__ import annotations

import csv
import difflib
import io
import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from gzip import BadGzipFile
from pathlib import PurePosixPath
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from vpt_data.errors import RawError, UsageError
from vpt_data.schema import Reason
from vpt_data.sources.base import Drop
from vpt_data.sources.reading.json_records import read_records
from vpt_data.upstream.json_border import MAX_RECORD_BYTES
from vpt_data.upstream.rawfile import RawFile, most_bytes

#: So many rows are read at once, and of a Parquet file about so many bytes of them.
STRETCH, STRETCH_BYTES = 16_384, 64 << 20
_NOT_UTF8 = "not UTF-8; save the file as UTF-8"

Record: TypeAlias = Mapping[str, Any]
CsvRow: TypeAlias = tuple[int, list[str] | str]


class WantedColumns(NamedTuple):
    """Columns to read: (key of the recipe, column) pairs, and the keys whose column may be absent."""

    pairs: list[tuple[str, str]]
    optional: frozenset[str] = frozenset()

    @property
    def needed(self) -> list[tuple[str, str]]:
        """The pairs whose column the file must have."""
        return [pair for pair in self.pairs if pair[0] not in self.optional]


class TableRecords(NamedTuple):
    """Some records of a file: column -> cell, record index, 1-based line (Parquet: None), what is damaged."""

    records: Sequence[Any]
    row: Sequence[int]
    line: Sequence[int] | None
    drops: list[Drop]


def read_table(raw: RawFile, wanted: WantedColumns, limit: int | None = None) -> Iterator[TableRecords]:
    """The records of a CSV, JSON or Parquet file, by the suffix of `raw.name`.

    Raises UsageError for another suffix and for a wanted column that is not there, RawError for a file that
    is not what its suffix says.
    """
    suffix = PurePosixPath(raw.name).suffix.lower()
    if suffix not in _READERS:
        known = " ".join(_READERS)
        raise UsageError(f"{raw.name}: rows cannot be read from this kind of file; expected one of {known}.")
    yield from _READERS[suffix](raw, wanted, limit)


def check_columns(file: str, pairs: Iterable[tuple[str, str]], present: Iterable[str]) -> None:
    """Raise a UsageError for the first pair whose column is not among those present."""
    names = list(present)
    for key, column in pairs:
        if column not in names:
            near = difflib.get_close_matches(column, names, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}? Set" if near else "set"
            has = ", ".join(names[:30]) + (", ..." if len(names) > 30 else "")
            raise UsageError(
                f"{file}: {key} of the take is {column!r} and the file has no such column, only {has}; "
                f"{hint} {key} in the recipe."
            )


def _read_csv(raw: RawFile, wanted: WantedColumns, limit: int | None) -> Iterator[TableRecords]:
    with raw.open() as stream, io.TextIOWrapper(stream, "utf-8-sig", "surrogateescape", newline="") as text:
        rows = _csv_rows(raw.name, text, {column for _, column in wanted.pairs})
        _, header = next(rows, (0, "the file is empty"))
        if isinstance(header, str):
            raise RawError(f"{raw.name}: {header}; expected a header line with the names of the columns.")
        header = [name.strip() for name in header]
        check_columns(raw.name, wanted.needed, header)
        for _, column in wanted.pairs:
            if header.count(column) > 1:
                raise UsageError(f"{raw.name}: the header has two columns {column!r}; rename one of them.")
        numbered = enumerate(itertools.islice(rows, limit))
        while part := list(itertools.islice(numbered, STRETCH)):
            yield _csv_records(part, header)


def _csv_records(part: list[tuple[int, CsvRow]], header: list[str]) -> TableRecords:
    records: list[Record] = []
    numbers: list[tuple[int, int]] = []
    drops = []
    for row, (line, cells) in part:
        if isinstance(cells, str):
            drops.append(Drop(row, line, Reason.MALFORMED, cells))
        else:
            records.append(dict(zip(header, cells, strict=True)))
            numbers.append((row, line))
    return TableRecords(records, [row for row, _ in numbers], [line for _, line in numbers], drops)


def _csv_rows(name: str, text: io.TextIOWrapper, columns: set[str]) -> Iterator[CsvRow]:
    """Line and cells of each row, header first, or line and what is damaged; blank lines are nothing."""
    line, width = 1, 0
    try:
        first = _header_lines(text)
        reader = _reader(first, text, columns)
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                yield line, f"{error}{_extent(line, reader.line_num)}"
                continue
            if cells is None:
                return
            if cells and cells != [""]:
                yield line, _checked(cells, width or len(cells), line, reader.line_num)
                width = width or len(cells)
    except (EOFError, zlib.error, BadGzipFile) as error:
        yield line, f"truncated: {error}"
    except OSError as error:
        raise RawError(f"{name}: cannot be read ({error.strerror}); expected a file.") from error


def _checked(cells: list[str], width: int, first: int, last: int) -> list[str] | str:
    """The cells of a row on the lines `first` to `last`, or what is wrong with them."""
    if not _is_text(cells):
        return f"{_NOT_UTF8}{_extent(first, last)}"
    if len(cells) != width:
        return f"{len(cells)} cells, expected {width} as in the header{_extent(first, last)}"
    return cells


def _extent(first: int, last: int) -> str:
    """How far a damaged record runs, where that is more than a line: a quote that nothing closes takes many with it."""
    return f"; the record runs from line {first} to {last}, look for a quote that is not closed" if last > first else ""


def _header_lines(text: io.TextIOWrapper) -> list[str]:
    """The lines up to the end of the header: blank lines and quoted line breaks belong to it."""
    lines: list[str] = []
    for line in _lines(text):
        lines.append(line)
        joined = "".join(lines)
        if len(lines) == 100 or (joined.strip() and joined.count('"') % 2 == 0):
            break
    return lines


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    while line := text.readline(MAX_RECORD_BYTES):
        if len(line) == MAX_RECORD_BYTES:
            raise EOFError(f"no line ends within {MAX_RECORD_BYTES} characters, the rest of the file is not read")
        yield line


def _reader(first: list[str], text: io.TextIOWrapper, columns: set[str]) -> Any:
    """A csv reader with the delimiter that finds most columns in the header, else cuts it most often."""
    kinds = []
    for delimiter in ",;\t":
        header = next(filter(None, csv.reader(first, delimiter=delimiter)), [])
        found = len(columns.intersection(name.strip() for name in header))
        kinds.append((found, len(header), delimiter, any(name.startswith(" ") for name in header)))
    _, _, delimiter, spaced = max(kinds, key=lambda kind: kind[:2])
    lines = itertools.chain(first, _lines(text))
    return csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=spaced)


def _is_text(cells: list[str]) -> bool:
    """Whether all bytes were UTF-8: those that were not are lone surrogates now."""
    joined = "".join(cells)
    try:
        return joined.isascii() or bool(joined.encode())
    except UnicodeEncodeError:
        return False


def _read_json(raw: RawFile, wanted: WantedColumns, limit: int | None) -> Iterator[TableRecords]:
    seen: dict[str, None] = {}
    for part in read_records(raw, dict[str, Any], limit=limit):
        begun = bool(seen)
        for record in part.values:
            seen.update(dict.fromkeys(record))
        if seen and not begun:
            # Boxes may begin late in a file; a missing image, question or answer is reported at once.
            check_columns(raw.name, (pair for pair in wanted.needed if pair[0] in _ALWAYS), seen)
        yield TableRecords(part.values, part.row.tolist(), part.line.tolist(), part.bad)
    if seen:
        check_columns(raw.name, wanted.needed, seen)


def _read_parquet(raw: RawFile, wanted: WantedColumns, limit: int | None) -> Iterator[TableRecords]:
    with raw.open():
        pass  # closing reads and hashes the whole file; Parquet itself is read out of order, by its path
    try:
        with pq.ParquetFile(raw.path) as file:
            schema = file.schema_arrow
            check_columns(raw.name, wanted.needed, schema.names)
            for key, column in wanted.pairs:
                if key == "columns.image" and pa.types.is_struct(schema.field(column).type):
                    raise UsageError(
                        f"{raw.name}: the column {column!r} holds the images themselves; save them as files "
                        f"under the raw root and set columns.image to a column with their names."
                    )
            columns = [column for _, column in wanted.pairs if column in schema.names]
            yield from _parquet_records(_expanding(raw, _batches(file, columns)), limit)
    except (pa.ArrowInvalid, OSError) as error:
        what = f"{raw.name}: cannot be read as Parquet ({error}); expected a whole Parquet file."
        raise RawError(what) from error


def _batches(file: pq.ParquetFile, columns: list[str]) -> Iterator[pa.Table]:
    """Up to STRETCH rows at a time, and fewer of long ones: a few bytes of a file can stand for any number of them."""
    parts: list[pa.RecordBatch] = []
    for batch in file.iter_batches(STRETCH // 16, columns=columns):
        # A column of categories, as pandas has them, would come with all its categories in each batch.
        parts.append(batch.cast(pa.schema([_without_categories(field) for field in batch.schema])))
        if sum(part.num_rows for part in parts) >= STRETCH or sum(part.nbytes for part in parts) >= STRETCH_BYTES:
            yield pa.Table.from_batches(parts)
            parts = []
    if parts:
        yield pa.Table.from_batches(parts)


def _without_categories(field: pa.Field) -> pa.Field:
    return field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field


def _expanding(raw: RawFile, batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The batches; RawError where they become too long for what is stored."""
    size, most = 0, most_bytes(raw.size)
    for batch in batches:
        size += batch.nbytes
        if size > most:
            raise RawError(
                f"{raw.name}: it expands to more than {most:,} bytes, which no annotations do; if it is what it should "
                "be, write it without compression and dictionaries."
            )
        yield batch


def _parquet_records(batches: Iterable[pa.Table], limit: int | None) -> Iterator[TableRecords]:
    start = 0
    for batch in batches:
        part = batch if limit is None else batch.slice(0, limit - start)
        if part.num_rows:
            yield TableRecords(_as_written(part).to_pylist(), range(start, start + part.num_rows), None, [])
        start += part.num_rows
        if start == limit:
            return


def _as_written(batch: pa.Table) -> pa.Table:
    """The batch with float32 columns as the float64 of the same digits, so that 0.1 becomes the text 0.1."""
    for index, field in enumerate(batch.schema):
        if field.type == pa.float32():
            digits = batch.column(index).cast(pa.string()).cast(pa.float64())
            batch = batch.set_column(index, field.name, digits)
    return batch


_READERS: Mapping[str, Callable[[RawFile, WantedColumns, int | None], Iterator[TableRecords]]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".json": _read_json,
    ".jsonl": _read_json,
    ".ndjson": _read_json,
    ".parquet": _read_parquet,
}
_ALWAYS = {"columns.image", "columns.question", "columns.answer", "columns.id", "columns.category"}
