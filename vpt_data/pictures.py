"""What is in an image file: its size, whether it is whole, and the bytes that go into a shard.

Sizes and boxes are those of the stored pixels, EXIF orientation ignored.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageOps

from vpt_data.schema import Reason

#: An image of more pixels is refused: a decompression bomb, or a mistake.
MAX_PIXELS = 400_000_000
_ORIENTATION = 274


class Failure(NamedTuple):
    """Why an image cannot be used, as a drop reason and one sentence."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as it goes into a shard: bytes, stored size (width, height), sha256 of the bytes."""

    data: bytes
    width: int
    height: int
    sha256: str
    reencoded: bool


def header(path: str, file: Path) -> tuple[int, int] | Failure:
    """Width and height of the stored pixels, from the header alone."""
    with Image.open(file) as image:
        return _too_large(path, image) or image.size


def _too_large(path: str, image: Image.Image) -> Failure | None:
    width, height = image.size
    if width * height <= MAX_PIXELS:
        return None
    return Failure(Reason.BAD_IMAGE, f"{path}: {width}x{height} is more than {MAX_PIXELS} pixels")


def check(path: str, data: bytes, width: int | None, height: int | None) -> Picture | Failure:
    """The picture of a file's bytes, or why they cannot be used; width and height are what the annotation says."""
    if not data:
        return Failure(Reason.BAD_IMAGE, f"{path}: the file is empty")
    with Image.open(io.BytesIO(data)) as image:
        if (refused := _too_large(path, image)) is not None:
            return refused
        found = image.size
        expected = (width, height) if width and height else found
        turned = image.getexif().get(_ORIENTATION, 1) not in {0, 1}
        image.load()
        reencoded = False
        if turned:
            data, found = _upright(image, expected)
            reencoded = True
    if found != expected:
        detail = f"{path}: the file is {found[0]}x{found[1]}, the annotation says {expected[0]}x{expected[1]}"
        return Failure(Reason.SIZE_MISMATCH, detail)
    return Picture(data, *found, hashlib.sha256(data).hexdigest(), reencoded)


def _upright(image: Image.Image, expected: tuple[int, int]) -> tuple[bytes, tuple[int, int]]:
    """Pixels without an EXIF orientation, since readers disagree on whether to apply it.

    The stored pixels are kept as they are where they have the annotation's size, transposed where only the
    transposed size agrees.
    """
    upright = image if image.size == expected else ImageOps.exif_transpose(image)
    plain = Image.frombytes(upright.mode, upright.size, upright.tobytes())
    if upright.palette is not None:
        plain.putpalette(upright.palette)
    out = io.BytesIO()
    if image.format == "JPEG":
        plain.save(out, "JPEG", quality=95, subsampling=0)
    else:
        plain.save(out, "PNG")
    return out.getvalue(), plain.size
