"""Boxes on nothing: their pixels are nearly all the same, as where a box was shifted off what it marks.

A shifted box is consistent with its cells, so that no rule on columns finds it. On drawn pages and scans most of them
end on blank paper; on photographs few do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from vpt_data.columns import Ints, column
from vpt_data.corpus.reader import Corpus
from vpt_data.images.root import ImageRoot
from vpt_data.inspect.view.pictures import loaded

#: Pixels are nearly the same where no channel (0 to 255) has a larger standard deviation.
SAME: Final = 3.0
_COLUMNS: Final = ("id", "images", "image_info", "regions")


def is_flat(image: Image.Image, row: Mapping[str, Any], which: int) -> bool:
    """Whether a box of a row on its image `which` (RGB) is on nothing; a box without a pixel inside it is not."""
    pixels = np.asarray(image)
    boxes = [region["box"] for region in row["regions"] or [] if region["image"] == which and region["box"]]
    return any(_same(pixels, box) for box in boxes)


def _same(pixels: npt.NDArray[np.uint8], box: list[float]) -> bool:
    if not np.isfinite(box).all():
        return False
    height, width, _ = pixels.shape
    (x0, x1), (y0, y1) = (sorted(np.clip(box[axis::2], 0, side)) for axis, side in ((0, width), (1, height)))
    inside = pixels[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))]
    # By channel: a yellow ring on grey may have one brightness.
    return inside.size > 0 and float(inside.std(axis=(0, 1)).max()) < SAME


def flat_rows(corpus: Corpus, lines: pa.Table, raw: ImageRoot | None, progress: Callable[[int, int], None]) -> Ints:
    """Which of some lines of an index are rows with a box on nothing: places in `lines`, ascending.

    progress   is called with the rows that were looked at, and how many there are
    """
    shards, shard = corpus.shards(), column(lines, "shard").to_numpy()
    found: list[int] = []
    done = 0
    with ThreadPoolExecutor() as pool:
        for number in np.unique(shard).tolist():
            here = np.flatnonzero(shard == number)
            rows = shards[number].pick(column(lines, "row").to_numpy()[here], _COLUMNS, images=corpus.embed)
            flat: list[bool] = []
            for some in _each(rows):
                flat += pool.map(lambda row: _any_flat(row, raw), some)
            found += here[flat].tolist()
            progress(done := done + len(here), len(lines))
    return np.array(found, np.int64)


def _each(rows: pa.Table) -> Iterator[list[dict[str, Any]]]:
    """Rows as Python values, a few at a time: images that rows share are copied for each of them."""
    for batch in rows.to_batches(max_chunksize=32):
        yield [with_bytes(row) for row in batch.to_pylist()]


def with_bytes(row: dict[str, Any]) -> dict[str, Any]:
    """A row that was read without the bytes of its images, with null in their place."""
    return {**row, "images": [{"bytes": None, **entry} for entry in row["images"] or []]}


def _any_flat(row: Mapping[str, Any], raw: ImageRoot | None) -> bool:
    for which in {region["image"] for region in row["regions"] or []}:
        if 0 <= which < len(row["images"] or []):
            image = loaded(row, which, raw)
            if isinstance(image, Image.Image) and is_flat(image, row, which):
                return True
    return False
