"""The rows of a corpus as the arms of `looks` are shown them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from vpt_data import geometry

ARMS = ("plain", "whole", "random", "own")


def shown(row: dict[str, Any], arm: str) -> dict[str, Any]:
    """A row with a crop as an arm is shown it: only the pixels of the second look differ, but for `plain`."""
    if arm == "plain":
        return row | {"messages": [row["messages"][0], row["messages"][-1]], "views": row["views"][:1]}
    first, crop = row["views"]
    boxes = {"whole": None, "random": random_box(row), "own": crop["box"]}
    return row | {"views": [first, crop | {"box": boxes[arm]}]}


def random_box(row: dict[str, Any]) -> list[int]:
    """A box as large as the row's crop at another place of the grid, drawn by the row's id."""
    k, (x0, y0, x1, y1) = row["k"], row["views"][1]["cells"]
    wide, high = x1 - x0, y1 - y0
    places = [(x, y) for y in range(k - high) for x in range(k - wide) if (x, y) != (x0, y0)]
    x, y = places[xxhash.xxh3_64_intdigest(row["id"].encode()) % len(places)]
    size = row["image_info"][0]
    box = geometry.crop([(x, y, x + wide, y + high)], [(size["width"], size["height"])], k)[0]
    return [int(side) for side in box]


def write_arm(source: Path, out: Path, arm: str) -> None:
    """Shards of one arm: the pattern rows of each shard of a corpus, in its order."""
    fresh = out.with_name(f".{arm}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for shard in sorted(source.glob("*.parquet")):
        table = pq.read_table(shard)
        rows = [shown(row, arm) for row in table.to_pylist() if row["looks"] == ["region"]]
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), fresh / shard.name)
    fresh.rename(out)
