"""How many rows an own file has, counted without reading its cells: enough to choose the number of shards by.

The count depends on the contents alone, not on how rows are distributed over files or on compression. It is exact
but for CSV cells with line breaks and JSON records with the counted key inside other objects, which count twice.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import replace
from gzip import BadGzipFile
from pathlib import PurePosixPath
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq

from vpt_data import store
from vpt_data.upstream.rawfile import RawFile

_BLOCK = 4 << 20
#: A key with the blanks behind it is not longer than this, or it is not counted.
_LONGEST_KEY = 4 << 10


def count_rows(raw: RawFile, column: str) -> int:
    """The rows of a CSV, JSON or Parquet file; `column` is one that every JSON record has.

    A damaged file counts as far as it can be read: what is wrong with it is reported when it is read.
    """
    suffix = PurePosixPath(raw.name).suffix.lower()
    try:
        if suffix == ".parquet":
            return int(pq.read_metadata(store.parquet_source(raw.path)).num_rows)
    except (OSError, pa.ArrowException):
        return 0
    if suffix == ".json":
        return _count_keys(raw, column)
    lines, last = 0, b"\n"
    for block in _blocks(raw):
        lines, last = lines + block.count(b"\n"), block[-1:]
    lines += last != b"\n"
    return max(0, lines - 1) if suffix in {".csv", ".tsv"} else lines


def _count_keys(raw: RawFile, column: str) -> int:
    key, count, rest = re.compile(re.escape(f'"{column}"'.encode()) + rb"\s*:"), 0, b""
    for block in _blocks(raw):
        text, end = rest + block, 0
        for found in key.finditer(text):
            count, end = count + 1, found.end()
        # What may be the begin of a key; there may be no end of blanks, and they are not kept.
        rest = text[max(end, len(text) - _LONGEST_KEY) :]
    return count


def _blocks(raw: RawFile) -> Iterator[bytes]:
    try:
        with cast("io.BufferedReader", replace(raw).open()) as file:
            while block := file.read1(_BLOCK):  # what precedes damage counts
                yield block
    except (EOFError, OSError, zlib.error, BadGzipFile):
        return
