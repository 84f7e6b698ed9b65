"""What is in an image file: its size, whether it is whole, and the bytes that go into a shard.

Sizes and boxes are those of the stored pixels, EXIF orientation ignored. docs/images.md is the policy in words. All
functions may run in several threads at once and raise nothing for whatever bytes they get.
"""

from __future__ import annotations

import hashlib
import io
import struct
import threading
import warnings
import zlib
from dataclasses import dataclass
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from vpt_data import geometry
from vpt_data.images import formats
from vpt_data.images.exif import Broken, Scan, apply
from vpt_data.schema import Reason

#: An image of more pixels is refused before it is decoded: a bomb, or a mistake. Real pages reach 213 million.
MAX_PIXELS = 250_000_000
#: Twice Pillow's limit: an image of more pixels ends the program of everybody who opens it with Pillow, such as
#: `datasets`. It is not put into a shard as it is.
MAX_EMBEDDED_PIXELS = 178_956_970
Verify = Literal["markers", "full"]

#: What Pillow raises on damaged files.
UNDECODABLE = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError, MemoryError,
    RuntimeError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip

# The classes of the formats, and not Image.open: it tries formats that nobody asked for, and warns about sizes that
# scanned pages have.
_READERS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "GIF": GifImageFile,
    "WEBP": WebPImageFile,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
}
#: Readers that warn about damaged tags. Of the other formats Pillow sees no metadata, so there is nothing to warn of.
_TALKATIVE = {"GIF", "TIFF"}
# Filters of warnings belong to the process and not to a thread; the lock keeps our own changes of them in order.
_QUIET = threading.Lock()
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Failure(NamedTuple):
    """Why an image cannot be used, as a drop reason and one sentence.

    problems  what is wrong with folders and archives that may hold it, a sentence each without its full stop
    """

    reason: Reason
    detail: str
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as it goes into a shard: bytes, stored size (width, height), sha256 of the bytes.

    reencoded  the pixels were decoded and encoded again
    why        what was changed in the file's bytes; empty where they are as they were
    """

    data: bytes
    width: int
    height: int
    sha256: str
    reencoded: bool
    why: str = ""

    @property
    def rewritten(self) -> bool:
        """Whether metadata were changed and the coded pixels were not."""
        return bool(self.why) and not self.reencoded


def header(path: str, file: BinaryIO) -> tuple[int, int] | Failure:
    """Width and height of the stored pixels, from the beginning of a file; only `read` is called on it."""
    data = file.read(4096)
    try:
        while (found := formats.size(data)) is None:
            more = file.read(7 * len(data))
            if not more:
                return _bad(path, "the file is cut off")
            data += more
    except Broken as error:
        return _bad(path, error)
    if min(found) <= 0:
        return _bad(path, "an image without pixels")
    return _too_large(path, *found) or found


def check(
    path: str, data: bytes, width: int | None, height: int | None, verify: Verify = "markers", rescale: bool = False,
    limit: int = MAX_PIXELS,
) -> Picture | Failure:  # fmt: skip
    """The picture of a file's bytes, or why they cannot be used; width and height are what the annotation says.

    With "markers" a file has to be whole from its header to its end mark; with "full" its pixels are decoded too. With
    `rescale` a copy that was resized by one factor will do; the picture then has the size of the copy. An image of more
    than `limit` pixels is refused or, with `rescale`, reduced to half its sides.
    """
    try:
        seen = formats.scan(data)
    except Broken as error:
        return _bad(path, error)
    if (refused := _too_large(path, seen.width, seen.height)) is not None:
        return refused
    found = (seen.width, seen.height)
    expected = (width, height) if width and height else found
    turned = found != expected and seen.turn >= 5 and found[::-1] == expected
    if found != expected and not turned and not (rescale and _resized(expected, found)):
        detail = f"{path}: the file is {found[0]}x{found[1]}, the annotation says {expected[0]}x{expected[1]}"
        return Failure(Reason.SIZE_MISMATCH, detail)
    large = seen.width * seen.height > limit
    if large and not rescale:
        what = f"{path}: {seen.width}x{seen.height} is more than {limit:,} pixels, which Pillow and `datasets` refuse"
        return Failure(Reason.BAD_IMAGE, f"{what}; set `rescale = true` in its take to embed it at half its sides")
    try:
        if large:
            smaller = plain(_decoded(data, seen)).reduce(2)
            return _reencoded(smaller, seen, seen.turn if turned else 1, "reduced to half its sides")
        # The stored pixels are kept where they have the annotation's size, turned where only the turned size agrees.
        return _picture(data, seen, seen.turn if turned else 1, verify)
    except UNDECODABLE as error:
        return _bad(path, f"cannot be decoded ({error or type(error).__name__})")


def is_turned(data: bytes) -> bool:
    """Whether the EXIF orientation of an image file turns it by a quarter, so that its sides change places."""
    try:
        return formats.scan(data).turn >= 5
    except Broken:
        return False


def _resized(size: tuple[int, int], other: tuple[int, int]) -> bool:
    return min(*size, *other) > 0 and not np.isnan(geometry.common_factor([size], [other])[0])


def _bad(path: str, why: object) -> Failure:
    return Failure(Reason.BAD_IMAGE, f"{path}: {why}")


def _too_large(path: str, width: int, height: int) -> Failure | None:
    if width * height <= MAX_PIXELS:
        return None
    return _bad(path, f"{width}x{height} is more than {MAX_PIXELS} pixels")


def _picture(data: bytes, seen: Scan, turn: int, verify: Verify) -> Picture:
    """The picture, with as little changed as its scan allows."""
    odd = seen.odd
    if odd or seen.alpha or turn != 1 or verify == "full":
        image = _decoded(data, seen)
        odd = odd or ("transparent" if seen.alpha and not _opaque(image) else "")
        if odd or turn != 1:
            return _reencoded(image, seen, turn, odd)
    kept = apply(data, seen.edits)
    why = ", ".join(dict.fromkeys(edit.why for edit in seen.edits))
    return Picture(kept, seen.width, seen.height, hashlib.sha256(kept).hexdigest(), False, why)


def _reencoded(image: Image.Image, seen: Scan, turn: int, odd: str) -> Picture:
    """A picture of 8 bit grey or RGB, without metadata: JPEG stays JPEG, all else becomes PNG."""
    image = plain(image)
    if turn != 1:
        image = image.transpose(_TURNS[turn])
    out = io.BytesIO()
    bare = Image.frombytes(image.mode, image.size, image.tobytes())
    if seen.format == "JPEG":
        bare.save(out, "JPEG", quality=95, subsampling=0)
    else:
        bare.save(out, "PNG")
    data = out.getvalue()
    why = ", ".join(filter(None, [odd, f"turned by EXIF orientation {turn}" if turn != 1 else ""]))
    return Picture(data, *bare.size, hashlib.sha256(data).hexdigest(), True, why)


def decoded(data: bytes, at_least: int | None = None) -> Image.Image:
    """The stored pixels of an image file, EXIF orientation ignored; of an animation the first picture.

    With `at_least` a JPEG may come in grey and smaller, but its sides not smaller than that. Raises one of UNDECODABLE.
    """
    seen = formats.scan(data)
    if seen.width * seen.height > MAX_PIXELS:
        raise Broken(f"{seen.width}x{seen.height} is more than {MAX_PIXELS} pixels")
    return _decoded(data, seen, at_least)


def _decoded(data: bytes, seen: Scan, at_least: int | None = None) -> Image.Image:
    file = io.BytesIO(apply(data, seen.spare or seen.edits))
    if seen.format in _TALKATIVE:
        with _QUIET, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = _READERS[seen.format](file)
            image.load()
    else:
        image = _READERS[seen.format](file)
        if at_least:
            image.draft("L", (at_least, at_least))
        image.load()
    if not at_least and image.size != (seen.width, seen.height):
        raise Broken(f"it decodes to {image.width}x{image.height}, its header says {seen.width}x{seen.height}")
    return image


def _opaque(image: Image.Image) -> bool:
    if image.mode not in {"LA", "PA", "RGBA"}:
        image = image.convert("RGBA")
    return image.getchannel("A").getextrema() == (255, 255)


def plain(image: Image.Image) -> Image.Image:
    """The same picture as 8 bit grey or RGB.

    What is transparent becomes white; of 16 bits the upper 8 count, from black to white without stretching; CMYK is
    converted without its colour profile. Raises ValueError for pixels without a fixed range (32 bit integers, floats).
    """
    if image.mode in {"L", "RGB"} and not image.has_transparency_data:
        return image
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if image.mode in {"I", "F"}:
        raise ValueError("its pixels have no fixed range, so nobody can say what is white")
    if not image.has_transparency_data:
        return image.convert("L" if image.mode == "1" else "RGB")
    pixels = image.convert("RGBA")
    white = Image.new("RGBA", pixels.size, "white")
    return Image.alpha_composite(white, pixels).convert("RGB")
