"""What embedding is measured against: the floor, and what a user would write with webdataset or `datasets`.

    python -m bench.images_peers floor|webdataset|datasets --raw RAW/folder --out DIR [--files 4] [--each row|image]

`floor` copies all images into `--files` files, hashing each file while it is written: what no build can beat by much.
The others write every row with its image: `--each row` as the rows come, so that an image is stored once for every
row that shows it, which is what both tools do with such rows; `--each image` is the same for one sample an image that
holds all its rows, which a careful user may think of. Nobody checks images or hashes them. All end with an fsync.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SHARD_BYTES = 500e6


def main(argv: list[str] | None = None) -> int:
    """Run one of the programs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", choices=["floor", "webdataset", "datasets"])
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--each", choices=["row", "image"], default="row")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True)
    if args.program == "floor":
        floor(args.raw / "own/images", args.out, args.files)
    elif args.program == "webdataset":
        webdataset(args.raw, args.out, args.each)
    else:
        with_datasets(args.raw, args.out, args.each)
    return 0


def floor(images: Path, out: Path, files: int) -> None:
    """Copy, hash and fsync; one process, one thread."""
    names = sorted(os.listdir(images))  # noqa: PTH208 - names, not paths
    for number in range(files):
        sha = hashlib.sha256()
        with (out / f"{number}.bin").open("wb") as copy:
            for name in names[number::files]:
                data = (images / name).read_bytes()
                sha.update(data)
                copy.write(data)
            copy.flush()
            os.fsync(copy.fileno())
        (out / f"{number}.sha256").write_text(sha.hexdigest(), encoding="utf-8")


def samples(raw: Path, each: str) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """Key, image name and rows of every sample, in the order of the file."""
    with (raw / "own/rows.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    if each == "row":
        yield from ((row["id"], row["image"], [row]) for row in rows)
        return
    grouped: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        grouped.setdefault(row["image"], []).append(row)
    yield from ((rows[0]["id"], image, rows) for image, rows in grouped.items())


def webdataset(raw: Path, out: Path, each: str) -> None:
    """Tar shards of about 500 MB, with `jpg` and `json` for each sample."""
    from webdataset import ShardWriter

    with ShardWriter(str(out / "%05d.tar"), maxsize=SHARD_BYTES, verbose=0) as writer:
        for key, image, rows in samples(raw, each):
            data = (raw / "own/images" / image).read_bytes()
            writer.write({"__key__": key, "jpg": data, "json": rows})
    _sync(out.glob("*.tar"))


def with_datasets(raw: Path, out: Path, each: str) -> None:
    """`Dataset.from_generator` (which writes its cache), then `to_parquet` for every shard.

    Bytes and not paths are handed over: with paths `to_parquet` would write paths, and no pixel.
    """
    import datasets

    def generate() -> Iterator[dict[str, Any]]:
        for key, image, rows in samples(raw, each):
            data = (raw / "own/images" / image).read_bytes()
            yield {"id": key, "image": {"bytes": data, "path": image}, "rows": rows}

    kinds = {name: datasets.Value("string") for name in ("id", "image", "question", "answer")}
    sizes = {name: datasets.Value("int32") for name in ("width", "height")}
    row = {**kinds, "box": datasets.List(datasets.Value("float64")), **sizes}
    features = {"id": datasets.Value("string"), "image": datasets.Image(), "rows": datasets.List(row)}
    datasets.disable_progress_bars()
    made = datasets.Dataset.from_generator(generate, datasets.Features(features), str(out / "cache"))
    count = max(1, round(made.data.nbytes / SHARD_BYTES))
    for number in range(count):
        made.shard(count, number, contiguous=True).to_parquet(out / f"{number:05d}.parquet")
    _sync(out.glob("*.parquet"))


def _sync(paths: Iterator[Path]) -> None:
    for path in paths:
        with path.open("rb+") as file:
            os.fsync(file.fileno())


if __name__ == "__main__":
    sys.exit(main())
