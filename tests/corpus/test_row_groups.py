"""Row groups: cut along images, small enough, each image stored once."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vpt_data import hashing
from vpt_data.corpus import row_groups, shards
from vpt_data.corpus.row_groups import Bucket, LostRow, text_bytes
from vpt_data.dialogue.render import render
from vpt_data.dialogue.rule import RenderRule
from vpt_data.images.identity import identities
from vpt_data.images.policy import Failure
from vpt_data.images.root import ImageRoot
from vpt_data.schema import ANNOTATION, Reason


def _row(key: str, size: tuple[int, int], *paths: str) -> dict[str, Any]:
    return {
        "source": "table", "dataset": "d", "split": None, "key": key, "source_id": None,
        "images": [{"path": path, "width": size[0], "height": size[1]} for path in paths], "question": f"What {key}?",
        "answers": ["a"], "regions": [], "region_status": "none_needed", "turns": None, "meta": None,
    }  # fmt: skip


def _bucket(paths: list[str], rows_each: int, size: tuple[int, int]) -> Bucket:
    return _bucket_of([_row(f"{path}-{n}", size, path) for path in paths for n in range(rows_each)])


def _bucket_of(rows: list[dict[str, Any]]) -> Bucket:
    rule = RenderRule(take="t", template="plain", task="general")
    samples = render(pa.Table.from_pylist(rows, schema=ANNOTATION), rule)
    who = hashing.seeded(identities(pa.array([row["images"][0]["path"] for row in rows])), 0)
    order = hashing.seeded(samples["id"].combine_chunks(), 0)
    return Bucket(samples, who, order, text_bytes(samples))


def _noise(path: Path, seed: int, size: tuple[int, int] = (64, 48)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path.read_bytes()


def test_groups_hold_whole_images_in_hash_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {f"{n}.png": len(_noise(tmp_path / f"{n}.png", n)) for n in range(12)}
    monkeypatch.setattr(row_groups, "GROUP_DISTINCT_BYTES", 3 * max(sizes.values()) + 100)
    bucket = _bucket(list(sizes), 5, (64, 48))
    report = shards.write_shard(tmp_path / "s.parquet", bucket, bucket.ranked(), ImageRoot(tmp_path), True)
    file = pq.ParquetFile(tmp_path / "s.parquet")
    assert report.record.rows == 60 and len(report.images) == 12
    assert file.num_row_groups == 4
    seen: list[str] = []
    for number in range(file.num_row_groups):
        group = file.read_row_group(number)
        paths = [images[0]["path"] for images in group["images"].to_pylist()]
        assert sum(sizes[path] for path in set(paths)) <= row_groups.GROUP_DISTINCT_BYTES
        ids = group["id"].combine_chunks()
        assert hashing.seeded(ids, 0).tolist() == sorted(hashing.seeded(ids, 0).tolist())
        assert not set(paths) & set(seen)
        seen += sorted(set(paths))
    hashes = hashing.seeded(identities(pa.array(list(sizes))), 0)
    by_group = np.argsort(hashes)
    assert set(seen[:3]) == {list(sizes)[place] for place in by_group[:3]}


def test_a_group_decodes_to_no_more_than_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(_noise(tmp_path / "0.png", 0))
    for n in range(1, 6):
        _noise(tmp_path / f"{n}.png", n)
    monkeypatch.setattr(row_groups, "GROUP_DECODED_BYTES", 10 * (size + 1000))
    bucket = _bucket([f"{n}.png" for n in range(6)], 5, (64, 48))
    shards.write_shard(tmp_path / "s.parquet", bucket, bucket.ranked(), ImageRoot(tmp_path), True)
    assert pq.ParquetFile(tmp_path / "s.parquet").num_row_groups == 3
    shards.write_shard(tmp_path / "r.parquet", bucket, bucket.ranked(), ImageRoot(tmp_path), False)
    assert pq.ParquetFile(tmp_path / "r.parquet").num_row_groups == 1


def test_text_alone_is_cut_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = _bucket([f"{n}.png" for n in range(10)], 2, (64, 48))
    monkeypatch.setattr(row_groups, "GROUP_DECODED_BYTES", int(bucket.text[:6].sum()))
    shards.write_shard(tmp_path / "r.parquet", bucket, bucket.ranked(), ImageRoot(tmp_path), False)
    file = pq.ParquetFile(tmp_path / "r.parquet")
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [6, 6, 6, 2]
    monkeypatch.setattr(row_groups, "GROUP_DECODED_BYTES", 1)
    shards.write_shard(tmp_path / "r.parquet", bucket, bucket.ranked(), ImageRoot(tmp_path), False)
    assert pq.ParquetFile(tmp_path / "r.parquet").num_row_groups == 10


@pytest.mark.parametrize("same", [False, True])
def test_each_image_is_stored_once(tmp_path: Path, same: bool) -> None:
    """Also where two paths hold the same bytes, as the same COCO image of two years does."""
    paths = ["coco/train2017/000000000007.png", "coco/val2014/COCO_val2014_000000000007.png"]
    sizes = [len(_noise(tmp_path / path, 0 if same else seed, (200, 200))) for seed, path in enumerate(paths)]
    bucket = _bucket(paths, 20, (200, 200))
    shards.write_shard(tmp_path / "s.parquet", bucket, bucket.ranked(), ImageRoot(tmp_path), True)
    distinct = sizes[0] if same else sum(sizes)
    leaf = pq.ParquetFile(tmp_path / "s.parquet").metadata.row_group(0)
    stored = next(
        leaf.column(n).total_compressed_size
        for n in range(leaf.num_columns)
        if leaf.column(n).path_in_schema == "images.list.element.bytes"
    )
    assert distinct <= stored <= distinct * 1.03


def _stored(shard: Path) -> dict[str, list[bytes]]:
    """The images of each row by its id."""
    rows = pq.read_table(shard, columns=["id", "images"]).to_pylist()
    return {row["id"]: [image["bytes"] for image in row["images"]] for row in rows}


def _leaf(shard: Path) -> int:
    """Bytes of the image leaf of a shard of one group."""
    group = pq.ParquetFile(shard).metadata.row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    return sum(c.total_compressed_size for c in columns if c.path_in_schema == "images.list.element.bytes")


@pytest.mark.parametrize("first", ["right", "wrong"])
def test_each_row_is_checked_against_its_own_size(tmp_path: Path, first: str) -> None:
    """Two rows may say different sizes of one image: only the one that is right may show it."""
    data = _noise(tmp_path / "a.png", 0)
    rows = [_row("right", (64, 48), "a.png"), _row("wrong", (640, 480), "a.png")]
    bucket = _bucket_of(rows if first == "right" else rows[::-1])
    ranked = np.array([0, 1])
    report = shards.write_shard(tmp_path / "s.parquet", bucket, ranked, ImageRoot(tmp_path), True)
    assert _stored(tmp_path / "s.parquet") == {"t/right": [data]}
    detail = "a.png: the file is 64x48, the annotation says 640x480"
    assert report.outcome.dropped == [LostRow("t/wrong", Failure(Reason.SIZE_MISMATCH, detail))]
    assert len(report.images) == 1


def test_images_that_only_dropped_rows_show_are_not_stored(tmp_path: Path) -> None:
    kept, other = (_noise(tmp_path / f"{name}.png", seed) for seed, name in enumerate(("kept", "other")))
    bucket = _bucket_of([_row("good", (64, 48), "kept.png"), _row("bad", (64, 48), "other.png", "gone.png")])
    report = shards.write_shard(tmp_path / "s.parquet", bucket, bucket.ranked(), ImageRoot(tmp_path), True)
    assert [drop.id for drop in report.outcome.dropped] == ["t/bad"]
    assert _stored(tmp_path / "s.parquet") == {"t/good": [kept]}
    assert _leaf(tmp_path / "s.parquet") < len(kept) + 200
    assert other not in (tmp_path / "s.parquet").read_bytes()


def test_an_image_larger_than_a_group_is_a_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {f"{n}.png": _noise(tmp_path / f"{n}.png", n) for n in range(4)}
    monkeypatch.setattr(row_groups, "GROUP_DISTINCT_BYTES", 1000)
    bucket = _bucket(list(data), 2, (64, 48))
    shards.write_shard(tmp_path / "s.parquet", bucket, bucket.ranked(), ImageRoot(tmp_path), True)
    assert pq.ParquetFile(tmp_path / "s.parquet").num_row_groups == 4
    assert _stored(tmp_path / "s.parquet") == {f"t/{name}-{n}": [data[name]] for name in data for n in range(2)}


def test_drops_come_in_the_order_of_the_rows(tmp_path: Path) -> None:
    _noise(tmp_path / "0.png", 0)
    (tmp_path / "1.png").write_bytes(b"")
    bucket = _bucket([f"{n}.png" for n in range(6)], 2, (64, 48))
    report = shards.write_shard(tmp_path / "s.parquet", bucket, bucket.ranked(), ImageRoot(tmp_path), True)
    dropped = [drop.id for drop in report.outcome.dropped]
    ids = bucket.samples["id"].take(pa.array(np.argsort(bucket.order))).to_pylist()
    assert dropped == [name for name in ids if not name.startswith("t/0.png")]
    assert {drop.failure.reason for drop in report.outcome.dropped} == {"missing_image", "bad_image"}


def test_the_pace_of_reading_and_writing_does_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are read in one thread while another writes what was read before."""
    size = len(_noise(tmp_path / "0.png", 0))
    for n in range(1, 16):
        _noise(tmp_path / f"{n}.png", n)
    monkeypatch.setattr(row_groups, "GROUP_DISTINCT_BYTES", 3 * size)
    bucket = _bucket([f"{n}.png" for n in range(18)], 3, (64, 48))
    load, write = ImageRoot.load, pq.ParquetWriter.write_table
    made = set()
    for slow_load, slow_write in ((0.0, 0.0), (0.004, 0.0), (0.0, 0.02), (0.004, 0.02)):
        monkeypatch.setattr(ImageRoot, "load", _late(load, slow_load))
        monkeypatch.setattr(pq.ParquetWriter, "write_table", _late(write, slow_write))
        report = shards.write_shard(tmp_path / "s.parquet", bucket, bucket.ranked(), ImageRoot(tmp_path), True)
        assert (len(report.images), len(report.outcome.dropped)) == (16, 6)
        made.add(((tmp_path / "s.parquet").read_bytes(), str(report.outcome.dropped)))
    assert len(made) == 1


def _late(call: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    pause = random.Random(0)

    def late(*arguments: Any, **named: Any) -> Any:
        time.sleep(seconds * pause.random())
        return call(*arguments, **named)

    return late


def test_what_fails_while_images_are_read_fails_the_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _noise(tmp_path / "0.png", 0)
    bucket = _bucket(["0.png"], 1, (64, 48))

    def load(*arguments: object) -> None:
        raise MemoryError("none left")

    monkeypatch.setattr(ImageRoot, "load", load)
    with pytest.raises(MemoryError, match="none left"):
        shards.write_shard(tmp_path / "s.parquet", bucket, bucket.ranked(), ImageRoot(tmp_path), True)
    assert [path.name for path in tmp_path.iterdir()] == ["0.png"]
