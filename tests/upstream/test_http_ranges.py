"""A row of a shard that lies on a web server costs its row group, not the shard."""

from __future__ import annotations

import io
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import end_to_end
from helpers.hostile_server import HostileServer
from PIL import Image

from vpt_data.corpus import row_groups

#: What pyarrow reads of the end of a file to find the footer in it.
FOOTER = 64 << 10
#: pyarrow fetches two stretches as one where less than this lies between them.
GAP = 8 << 10
IMAGES = 12


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One shard of twelve images with three rows each, in row groups of at most three images."""
    folder = tmp_path_factory.mktemp("ranges")
    root = end_to_end.own_root(folder / "raw", end_to_end.own_rows(3 * IMAGES))
    (root / "own/images").mkdir()
    for number in range(IMAGES):
        pixels = np.random.default_rng(number).integers(0, 256, (480, 640, 3), np.uint8)
        Image.fromarray(pixels).save(root / f"own/images/{number:03d}.jpg", quality=60)
    largest = max(path.stat().st_size for path in (root / "own/images").iterdir())
    recipe = end_to_end.recipe_file(folder, end_to_end.OWN.replace("shards = 4", "shards = 1"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_groups, "GROUP_DISTINCT_BYTES", 3 * largest)
        corpus = end_to_end.build(recipe, root, folder / "corpus", mode="embed")
    (found,) = (corpus / "data").glob("*.parquet")
    assert pq.ParquetFile(found).num_row_groups == IMAGES / 3
    return found


class Ranged(io.RawIOBase):
    """A file on a web server, read by ranges."""

    def __init__(self, url: str) -> None:
        self._url, self._at = url, 0
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD")) as reply:
            self._size = int(reply.headers["Content-Length"])

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        end = min(self._at + len(view), self._size)
        if end <= self._at:
            return 0
        asked = urllib.request.Request(self._url, headers={"Range": f"bytes={self._at}-{end - 1}"})
        with urllib.request.urlopen(asked) as reply:
            assert reply.status == 206
            data = reply.read()
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


@pytest.fixture
def remote(shard: Path) -> Iterator[tuple[HostileServer, str]]:
    with HostileServer() as server:
        yield server, server.serve("/shard.parquet", shard.read_bytes())


def fetched(server: HostileServer) -> int:
    return sum(seen.sent for seen in server.asked("/shard.parquet"))


def stored(shard: Path, group: int, names: set[str] | None = None) -> int:
    """Bytes of a row group, or of some of its columns."""
    found = pq.ParquetFile(shard).metadata.row_group(group)
    columns = [found.column(number) for number in range(found.num_columns)]
    return sum(c.total_compressed_size for c in columns if not names or c.path_in_schema.split(".")[0] in names)


def row(file: pq.ParquetFile, number: int) -> dict[str, Any]:
    """A row by its number in the shard."""
    for group in range(file.num_row_groups):
        size = file.metadata.row_group(group).num_rows
        if number < size:
            return dict(file.read_row_group(group).slice(number, 1).to_pylist()[0])
        number -= size
    raise AssertionError("no such row")


@pytest.mark.parametrize("number", [0, 13, 35])
def test_a_row_by_its_number_costs_the_footer_and_its_group(
    shard: Path, remote: tuple[HostileServer, str], number: int
) -> None:
    server, url = remote
    with pq.ParquetFile(pa.PythonFile(Ranged(url), "r")) as file:
        found = row(file, number)
        groups_bytes = [stored(shard, group) for group in range(file.num_row_groups)]
    assert found == pq.read_table(shard).slice(number, 1).to_pylist()[0]
    assert len(found["images"][0]["bytes"]) > 50_000
    assert fetched(server) <= FOOTER + max(groups_bytes)
    assert fetched(server) < shard.stat().st_size / 2


def test_a_row_by_its_id_costs_the_ids_and_one_group(shard: Path, remote: tuple[HostileServer, str]) -> None:
    """Ids are in no order that a reader knows of, so it looks through them all; they are a small column."""
    server, url = remote
    wanted = pq.read_table(shard, columns=["id"])["id"][20].as_py()
    with pq.ParquetFile(pa.PythonFile(Ranged(url), "r")) as file:
        ids = [file.read_row_group(group, columns=["id"])["id"].to_pylist() for group in range(file.num_row_groups)]
        assert fetched(server) <= FOOTER + sum(stored(shard, group, {"id"}) for group in range(len(ids)))
        found = row(file, [name for names in ids for name in names].index(wanted))
        largest = max(stored(shard, group) for group in range(len(ids)))
        all_ids = sum(stored(shard, group, {"id"}) for group in range(len(ids)))
    assert found["id"] == wanted
    assert fetched(server) <= FOOTER + all_ids + largest


def test_text_costs_no_pixels(shard: Path, remote: tuple[HostileServer, str]) -> None:
    server, url = remote
    with pq.ParquetFile(pa.PythonFile(Ranged(url), "r")) as file:
        for group in range(file.num_row_groups):
            assert file.read_row_group(group, columns=["id", "messages"]).num_rows == 9
        text = sum(stored(shard, group, {"id", "messages"}) for group in range(file.num_row_groups))
    assert fetched(server) <= FOOTER + text + file.num_row_groups * GAP
