"""Row groups: cut along images, small enough, each image stored once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vpt_data import groups, hashing, shards, templates
from vpt_data.groups import Bucket, text_bytes
from vpt_data.images import ImageRoot, identity
from vpt_data.schema import ANNOTATION


def _bucket(paths: list[str], rows_each: int, size: tuple[int, int]) -> Bucket:
    rows = [
        {
            "source": "table", "dataset": "d", "split": None, "key": f"{path}-{n}", "source_id": None,
            "images": [{"path": path, "width": size[0], "height": size[1]}], "question": f"What {n}?",
            "answers": ["a"], "regions": [], "region_status": "none_needed", "turns": None, "meta": None,
        }
        for path in paths
        for n in range(rows_each)
    ]  # fmt: skip
    rule = templates.Rule(take="t", template="plain", task="general")
    samples = templates.render(pa.Table.from_pylist(rows, schema=ANNOTATION), rule)
    who = hashing.seeded(identity(pa.array([row["images"][0]["path"] for row in rows])), 0)  # type: ignore[index]
    order = hashing.seeded(samples["id"].combine_chunks(), 0)
    return Bucket(samples, who, order, text_bytes(samples))


def _noise(path: Path, seed: int, size: tuple[int, int] = (64, 48)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path.read_bytes()


def test_groups_hold_whole_images_in_hash_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {f"{n}.png": len(_noise(tmp_path / f"{n}.png", n)) for n in range(12)}
    monkeypatch.setattr(groups, "GROUP_DISTINCT_BYTES", 3 * max(sizes.values()) + 100)
    bucket = _bucket(list(sizes), 5, (64, 48))
    report = shards.write_shard(tmp_path / "s.parquet", bucket, bucket.ranked(), ImageRoot(tmp_path), True)
    file = pq.ParquetFile(tmp_path / "s.parquet")
    assert report.rows == 60 and report.outcome.embedded == 12
    assert file.num_row_groups == 4
    seen: list[str] = []
    for number in range(file.num_row_groups):
        group = file.read_row_group(number)
        paths = [images[0]["path"] for images in group["images"].to_pylist()]
        assert sum(sizes[path] for path in set(paths)) <= groups.GROUP_DISTINCT_BYTES
        ids = group["id"].combine_chunks()
        assert hashing.seeded(ids, 0).tolist() == sorted(hashing.seeded(ids, 0).tolist())
        assert not set(paths) & set(seen)
        seen += sorted(set(paths))
    hashes = hashing.seeded(identity(pa.array(list(sizes))), 0)
    by_group = np.argsort(hashes)
    assert set(seen[:3]) == {list(sizes)[place] for place in by_group[:3]}


def test_a_group_decodes_to_no_more_than_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(_noise(tmp_path / "0.png", 0))
    for n in range(1, 6):
        _noise(tmp_path / f"{n}.png", n)
    monkeypatch.setattr(groups, "GROUP_DECODED_BYTES", 10 * (size + 1000))
    bucket = _bucket([f"{n}.png" for n in range(6)], 5, (64, 48))
    shards.write_shard(tmp_path / "s.parquet", bucket, bucket.ranked(), ImageRoot(tmp_path), True)
    assert pq.ParquetFile(tmp_path / "s.parquet").num_row_groups == 3
    shards.write_shard(tmp_path / "r.parquet", bucket, bucket.ranked(), ImageRoot(tmp_path), False)
    assert pq.ParquetFile(tmp_path / "r.parquet").num_row_groups == 1


def test_text_alone_is_cut_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = _bucket([f"{n}.png" for n in range(10)], 2, (64, 48))
    monkeypatch.setattr(groups, "GROUP_DECODED_BYTES", int(bucket.text[:6].sum()))
    shards.write_shard(tmp_path / "r.parquet", bucket, bucket.ranked(), ImageRoot(tmp_path), False)
    file = pq.ParquetFile(tmp_path / "r.parquet")
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [6, 6, 6, 2]
    monkeypatch.setattr(groups, "GROUP_DECODED_BYTES", 1)
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
