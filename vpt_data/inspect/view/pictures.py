"""The pictures of a page that is one file: small copies as data URIs, each image once."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any, Final

from PIL import Image

from vpt_data.errors import VptDataError
from vpt_data.images import policy, views
from vpt_data.images.root import ImageRoot
from vpt_data.inspect.view.item import Picture

#: The longer side of the copy of an image, and of a crop, in pixels.
IMAGE_SIDE: Final = 512
CROP_SIDE: Final = 384
_QUALITY: Final = 75


def encoded(picture: Image.Image, side: int) -> bytes:
    """A copy as WebP whose longer side has at most `side` pixels."""
    copy = picture.copy()
    copy.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    copy.save(out, "WEBP", quality=_QUALITY)
    return out.getvalue()


class Embedded:
    """Pictures as data URIs (`found`, by key).

    raw      the raw root that images of a corpus in reference mode are read from
    prefix   what keys begin with, where a page has pictures of several corpora
    """

    def __init__(self, raw: ImageRoot | None, prefix: str = "") -> None:
        self._raw, self._prefix = raw, prefix
        self._last: tuple[tuple[Any, ...], Image.Image | str] = ((), "")
        self._keys: dict[tuple[Any, ...], str] = {}
        self.found: dict[str, str] = {}

    def image(self, row: Mapping[str, Any], which: int) -> Picture:
        """The whole image of a row."""
        whole = self._whole(row, which)
        if isinstance(whole, str):
            return Picture(missing=whole)
        return Picture(self._stored((*_use(row, which, whole), None), whole, IMAGE_SIDE), size=whole.size)

    def crop(self, row: Mapping[str, Any], number: int) -> Picture:
        """What `views[number]` of a row cuts out of its image."""
        which, box = row["views"][number]["image"], tuple(row["views"][number]["box"])
        if not 0 <= which < len(row["images"] or []):
            return Picture(missing=f"View {number} shows image {which}, which the row does not have.")
        whole = self._whole(row, which)
        if isinstance(whole, str):
            return Picture(missing=whole)
        try:
            cut = views.pixels(whole, box)
        except VptDataError as error:
            return Picture(missing=str(error))
        return Picture(self._stored((*_use(row, which, whole), box), cut, CROP_SIDE), size=cut.size)

    def _whole(self, row: Mapping[str, Any], which: int) -> Image.Image | str:
        """The decoded image, or why there is none; the last one is kept, since its crops come next."""
        use = (row["id"], which)
        if self._last[0] != use:
            self._last = (use, loaded(row, which, self._raw))
        return self._last[1]

    def _stored(self, use: tuple[Any, ...], picture: Image.Image, side: int) -> str:
        if use not in self._keys:
            key = self._keys[use] = f"{self._prefix}{len(self._keys)}"
            self.found[key] = f"data:image/webp;base64,{base64.b64encode(encoded(picture, side)).decode()}"
        return self._keys[use]


def loaded(row: Mapping[str, Any], which: int, raw: ImageRoot | None) -> Image.Image | str:
    """An image of a row as RGB, or one sentence on why it cannot be shown; also of a row that `check` objects to."""
    if row["images"][which]["path"] is None or which >= len(row["image_info"] or []):
        return f"{row['id']}: image {which} has no path or no image_info; run `vpt-data check` on the corpus."
    try:
        return views.pixels(views.image(row, which, raw))
    except (VptDataError, *policy.UNDECODABLE) as error:
        return str(error)


def _use(row: Mapping[str, Any], which: int, whole: Image.Image) -> tuple[Any, ...]:
    """What makes pictures the same: rows may have one path and images of different sizes, where copies were resized."""
    return row["images"][which]["path"], row["image_info"][which]["sha256"], whole.size
