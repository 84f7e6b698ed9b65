"""What the tests of own data share: write a file, read it with a take, look at what came out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from vpt_data.errors import VptDataError
from vpt_data.schema import ANNOTATION, Reason
from vpt_data.sources import table
from vpt_data.sources.base import Chunk, Job
from vpt_data.sources.boxes import BoxGuard, in_pixels
from vpt_data.take import Take
from vpt_data.upstream.rawfile import RawFile

BASE = {"source": "table", "template": "region", "task": "text_ocr"}


def take(**values: Any) -> Take:
    return msgspec.convert(BASE | values, Take)


def write(folder: Path, name: str, content: str | bytes) -> RawFile:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return RawFile(path, name.removesuffix(".gz"))


def chunks(raw: RawFile, limit: int | None = None, turned: bool = False, **values: Any) -> list[Chunk]:
    """What pass 1 makes of a file whose images are not there (`turned`: which an EXIF orientation turns)."""
    chosen, found = take(**values), []
    guard = BoxGuard(raw.name, chosen)
    for chunk in table.read(Job("table", "own", {"rows": raw}, chosen, limit)):
        frame = np.full((len(chunk.row), 2), np.nan) if chunk.frame is None else chunk.frame
        guard.add(chunk.annotations, frame)
        found.append(chunk._replace(annotations=in_pixels(chunk.annotations, frame)))
    guard.check(lambda path: turned)
    return found


def rows_of(found: list[Chunk]) -> list[dict[str, Any]]:
    for chunk in found:
        assert chunk.annotations.schema == ANNOTATION
        assert len(chunk.row) == chunk.annotations.num_rows
    return [row for chunk in found for row in chunk.annotations.to_pylist()]


def drops_of(found: list[Chunk]) -> list[tuple[int, int | None, str]]:
    drops = [drop for chunk in found for drop in chunk.drops]
    assert {drop.reason for drop in drops} <= {Reason.MALFORMED}
    return [(drop.row, drop.line, drop.detail) for drop in drops]


def boxes(row: dict[str, Any]) -> list[list[float]]:
    return [region["box"] for region in row["regions"]]


def failure(kind: type[VptDataError], raw: RawFile, **values: Any) -> str:
    with pytest.raises(kind) as caught:
        chunks(raw, **values)
    return str(caught.value)
