"""Three raw roots with the same images and rows: a folder of files, a zip, a tar in parts.

    python -m bench.images_raw --out DIR [--images 20000] [--rows-each 3] [--seed 0]

`DIR/folder`, `DIR/zip` and `DIR/tar` hold the same `own/rows.jsonl` (a question, an answer, a box and the image's size
for each row) and the same JPEGs of about 100 KB. A few dozen pictures are drawn; a comment segment makes every file
another one, so that 2 GB cost seconds. Same arguments, same bytes. Beside them is `own.toml`, the recipe.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

PICTURES = 40
SIZES = ((640, 480), (480, 640), (1024, 400), (500, 500))
PART_BYTES = 256_000_000
LAYOUTS = ("folder", "zip", "tar")
RECIPE = """
name = "own"
description = "Three questions about each of many pictures."
shards = {shards}

[take.own]
source = "table"
template = "region"
task = "general"
license = "CC0-1.0"
files = ["own/rows.jsonl"]
images = "own/images"
columns = {{ box = "box", width = "width", height = "height", id = "id" }}
"""


def main(argv: list[str] | None = None) -> int:
    """Write the roots and say how much it was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--rows-each", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    start = time.perf_counter()
    size = make_raw(args.out, args.images, args.rows_each, args.seed)
    print(f"{args.images} images, {size} bytes, in {len(LAYOUTS)} layouts, {time.perf_counter() - start:.1f} s")
    return 0


def make_raw(out: Path, images: int, rows_each: int = 3, seed: int = 0, part_bytes: int = PART_BYTES) -> int:
    """Write the three roots and the recipe under `out`; returns the bytes of all distinct images."""
    if images < 1:
        raise ValueError(f"images_raw: images is {images}, expected at least 1")
    drawn = pictures(seed)
    names = [f"{number:012d}.jpg" for number in range(images)]
    rows = "".join(f"{json.dumps(row)}\n" for row in _rows(names, rows_each, seed))
    for layout in LAYOUTS:
        (out / layout / "own").mkdir(parents=True)
        (out / layout / "own/rows.jsonl").write_text(rows, encoding="utf-8")
    folder = out / "folder/own/images"
    folder.mkdir()
    total = 0
    for number, name in enumerate(names):
        head, rest = drawn[number % PICTURES]
        comment = f"number {number}, seed {seed}".encode()
        data = b"".join([head, b"\xff\xfe", (len(comment) + 2).to_bytes(2, "big"), comment, rest])
        (folder / name).write_bytes(data)
        total += len(data)
    _zip(folder, out / "zip/own/images.zip")
    _split_tar(folder, out / "tar/own", part_bytes)
    # Shards aim at 500 MB; at least two, so that two workers have work, and a power of two.
    shards = 2 ** max(1, round(np.log2(total / 500_000_000))) if total > 10_000_000 else 2
    (out / "own.toml").write_text(RECIPE.format(shards=shards), encoding="utf-8")
    return total


def pictures(seed: int) -> list[tuple[bytes, bytes]]:
    """Drawn JPEGs of about 100 KB, each cut after its first marker, where a comment may be placed."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(PICTURES):
        size = SIZES[number % len(SIZES)]
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
        fine = rng.integers(-20, 21, (size[1], size[0], 3))
        pixels = np.clip(np.asarray(coarse, np.int64) + fine, 0, 255).astype(np.uint8)
        found.append(_of_size(Image.fromarray(pixels), 90_000 + int(rng.integers(0, 40_000))))
    return found


def _of_size(image: Image.Image, wanted: int) -> tuple[bytes, bytes]:
    """The JPEG of the highest quality that has at most `wanted` bytes."""
    for quality in range(95, 5, -5):
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality)
        if out.tell() <= wanted:
            break
    return out.getvalue()[:2], out.getvalue()[2:]


def _rows(names: list[str], each: int, seed: int) -> Iterator[dict[str, object]]:
    rng = random.Random(seed)
    for turn in range(each):
        for number, name in enumerate(names):
            width, height = SIZES[number % PICTURES % len(SIZES)]
            x0, y0 = rng.randrange(width - 20), rng.randrange(height - 20)
            box = [x0, y0, rng.randrange(x0 + 10, width), rng.randrange(y0 + 10, height)]
            yield {
                "id": f"{number}-{turn}", "image": name, "question": f"What is thing {turn} of picture {number}?",
                "answer": f"thing {rng.randrange(1000)}", "box": box, "width": width, "height": height,
            }  # fmt: skip


def _zip(folder: Path, path: Path) -> None:
    """As owners ship JPEGs: stored, or deflated to no avail; here stored."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as made:
        for file in sorted(folder.iterdir()):
            made.writestr(zipfile.ZipInfo(f"images/{file.name}"), file.read_bytes())


def _split_tar(folder: Path, out: Path, part_bytes: int) -> None:
    """`images_tar_part_00`, ...: one tar cut anywhere, as Visual-CoT's."""
    with tarfile.open(fileobj=_Parts(out, part_bytes), mode="w|") as made:
        for file in sorted(folder.iterdir()):
            entry = tarfile.TarInfo(f"images/{file.name}")
            entry.size = file.stat().st_size
            with file.open("rb") as data:
                made.addfile(entry, data)


class _Parts(io.RawIOBase):
    """A file that continues in the next part when one is full."""

    def __init__(self, folder: Path, part_bytes: int) -> None:
        self._folder, self._limit, self._count, self._room = folder, part_bytes, 0, 0

    def write(self, data: object) -> int:
        rest = memoryview(data)  # type: ignore[arg-type]
        size = rest.nbytes
        while rest.nbytes:
            if not self._room:
                self._path = self._folder / f"images.tar.{self._count:02d}"
                self._count, self._room = self._count + 1, self._limit
            with self._path.open("ab") as part:
                part.write(rest[: self._room])
            taken = min(self._room, rest.nbytes)
            rest, self._room = rest[taken:], self._room - taken
        return size


if __name__ == "__main__":
    sys.exit(main())
