"""The pixels of a view: what the n-th placeholder of a row shows.

`pixels` is the one place where an image is cut and made RGB; trainer, exporters and page all use it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from PIL import Image

from vpt_data.errors import CorpusError, RawError, UsageError
from vpt_data.images import policy
from vpt_data.images.policy import Failure
from vpt_data.images.root import ImageRoot

Box = tuple[int, int, int, int]


def pixels(image: Image.Image | bytes, box: Box | None = None, *, read_only: bool = False) -> Image.Image:
    """What a view shows, as RGB, at the size it has in the image; transparent pixels become white.

    image      the stored image, decoded or as the bytes of its file; EXIF orientation is ignored
    box        `views[n].box`: x0, y0, x1, y1 in pixels of the stored image, half open; None shows all of it
    read_only  for a caller that changes no pixel: it may get the stored image itself, and a grey one stays grey ("L")

    Raises CorpusError for bytes that cannot be decoded and for a box that is empty or reaches out of the image.
    """
    if isinstance(image, bytes):
        try:
            image = policy.decoded(image)
        except policy.UNDECODABLE as error:
            raise CorpusError(
                f"An image cannot be decoded ({error}); build the corpus again from good images."
            ) from error
    cut = image
    if box is not None:
        x0, y0, x1, y1 = box
        if not (0 <= x0 < x1 <= image.width and 0 <= y0 < y1 <= image.height):
            raise CorpusError(
                f"The box {[x0, y0, x1, y1]} is empty or reaches out of its image of {image.width}x{image.height} "
                "pixels; run `vpt-data check` on the corpus."
            )
        # Not Image.crop, which warns of crops that are larger than half of a scanned page.
        cut = image.resize((x1 - x0, y1 - y0), Image.Resampling.NEAREST, (x0, y0, x1, y1))
    if read_only:
        return policy.plain(cut)
    rgb = policy.plain(cut).convert("RGB")
    # Whoever gets the pixels may draw on them.
    return rgb.copy() if rgb is image else rgb


def shown(row: Mapping[str, Any], raw: ImageRoot | None = None, *, read_only: bool = False) -> Iterator[Image.Image]:
    """The pixels of every view of a sample row, in the order of its placeholders; each image is decoded once.

    row        with the columns id, views, images and image_info as `pyarrow` or `datasets` give them
    raw        the raw root that images of a corpus in reference mode are read from
    read_only  as in `pixels`

    Raises UsageError where a raw root is needed, RawError where it has not the image of the row, and CorpusError where
    the row does not fit its images.
    """
    ready: dict[int, Image.Image] = {}
    for number, view in enumerate(row["views"]):
        which = view["image"]
        if not 0 <= which < len(row["images"]):
            raise CorpusError(
                f"{row['id']}: view {number} shows image {which}, and the row has {len(row['images'])}; build it again."
            )
        if which not in ready:
            ready[which] = image(row, which, raw)
        box = None if view["box"] is None else tuple(view["box"])
        try:
            yield pixels(ready[which], box, read_only=read_only)
        except CorpusError as error:
            raise CorpusError(f"{row['id']}: view {number}: {error}") from error


def image(row: Mapping[str, Any], which: int, raw: ImageRoot | None) -> Image.Image:
    """The stored image of a row with this number, of the size that the row says; raises what `shown` raises."""
    entry, info = row["images"][which], row["image_info"][which]
    image = entry if isinstance(entry, Image.Image) else _decoded(row, entry, info, raw)
    if info["width"] and info["height"] and image.size != (info["width"], info["height"]):
        raise CorpusError(
            f"{row['id']}: image {which} is {image.width}x{image.height}, the row says "
            f"{info['width']}x{info['height']}; build the corpus again."
        )
    return image


def _decoded(
    row: Mapping[str, Any], entry: Mapping[str, Any], info: Mapping[str, Any], raw: ImageRoot | None
) -> Image.Image:
    data = entry["bytes"]
    if data is None:
        if raw is None:
            raise UsageError(f"{row['id']}: {entry['path']} is not in the shard; give the raw root that holds it.")
        found = raw.load(entry["path"], info["width"], info["height"])
        if isinstance(found, Failure):
            raise RawError(f"{row['id']}: {found.detail}; see `vpt-data sources` for where images are looked for.")
        data = found.data
    try:
        return policy.decoded(data)
    except policy.UNDECODABLE as error:
        raise CorpusError(
            f"{row['id']}: {entry['path']} cannot be decoded ({error}); replace it and build again."
        ) from error
