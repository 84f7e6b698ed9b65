"""A depth map from a file: PNG of 8 or 16 bits, or NPY, as uint8[H, W] in which higher is closer.

That is what Depth Anything writes, and what AURORA's tokens are made of. 0 is the farthest pixel, or one without depth.
"""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from vpt_data.images import formats, policy
from vpt_data.images.exif import Broken
from vpt_data.images.policy import Failure
from vpt_data.schema import Reason

Map: TypeAlias = npt.NDArray[np.uint8]
#: What the numbers of a file mean: `inverse` is any scale on which higher is closer (Depth Anything); `disparity` the
#: same with 0 and less for pixels without depth; `metric` is a distance, 0 and less for pixels without depth.
Convention: TypeAlias = Literal["inverse", "disparity", "metric"]
CONVENTIONS: Final[tuple[Convention, ...]] = get_args(Convention)
SUFFIXES: Final = (".png", ".npy")
#: A map of more pixels is refused before it is decoded.
MAX_PIXELS: Final = 64_000_000
#: Width and height of the picture that AURORA shows, asks about and draws on.
SIDE: Final = 336

_MAGIC: Final = b"\x93NUMPY"
#: The header as NumPy writes it. Read by a pattern and not by NumPy, which evaluates it: nothing but an array of
#: numbers fits, so that no object is unpickled and no size is believed before it is looked at.
_HEADER: Final = re.compile(
    rb"\x93NUMPY(?:\x01\x00..|\x02\x00....)\{'descr': '(?P<kind>[<>|][fiu][1248])', "
    rb"'fortran_order': (?P<order>True|False), 'shape': \((?P<shape>(?:[0-9]{1,9},? ?){1,4})\), \} *\n",
    re.DOTALL,
)


class _Refused(Exception):
    """Why a file is no depth map."""


def read(data: bytes, name: str, convention: Convention = "inverse") -> Map | Failure:
    """The depth map of a file's bytes, uint8[H, W], or why there is none; raises nothing for whatever bytes it gets.

    An `inverse` PNG of 8 bits is taken as it is. Everything else is stretched so that the farthest pixel with depth is
    0 and the closest one 255; pixels without depth become 0.
    """
    try:
        values = _npy(data) if data.startswith(_MAGIC) else _png(data)
        if values.dtype == np.uint8 and convention == "inverse":
            _check_relief(values)
            return values.astype(np.uint8)
        return _closeness(values.astype(np.float64), convention)
    except (_Refused, Broken, *policy.UNDECODABLE) as error:
        return Failure(Reason.BAD_IMAGE, f"{name}: {error or type(error).__name__}")


def squashed(depth: Map) -> Map:
    """The map resized to 336 x 336, whatever its shape, as the points of AURORA are chosen on it."""
    return np.asarray(Image.fromarray(depth).resize((SIDE, SIDE)))


def _closeness(values: npt.NDArray[np.float64], convention: Convention) -> Map:
    there = np.isfinite(values)
    if convention != "inverse":
        there &= values > 0
    if convention == "metric":
        values = np.divide(1.0, values, out=np.zeros_like(values), where=there)
        there &= np.isfinite(values)
    _check_relief(values[there])
    low, high = values[there].min(), values[there].max()
    with np.errstate(over="ignore"):
        span = high - low
    if not np.isfinite(span):
        raise _Refused(f"its numbers reach from {low:g} to {high:g}, which is no depth")
    found = np.zeros(values.shape, np.uint8)
    found[there] = ((values[there] - low) / span * 255).astype(np.uint8)
    return found


def _check_relief(values: npt.NDArray[np.generic]) -> None:
    if not values.size:
        raise _Refused("no pixel has a depth")
    if values.min() == values.max():
        raise _Refused("all pixels have the same depth")


def _check_size(width: int, height: int) -> None:
    if min(width, height) < 1 or width * height > MAX_PIXELS:
        raise _Refused(f"the map is {width}x{height}; expected 1 to {MAX_PIXELS:,} pixels")


def _png(data: bytes) -> npt.NDArray[np.generic]:
    seen = formats.scan(data)
    if seen.format != "PNG":
        raise _Refused(f"the file is a {seen.format}; expected a PNG or NPY file")
    _check_size(seen.width, seen.height)
    pixels = np.asarray(image := policy.decoded(data))
    if image.mode == "RGB" and (pixels == pixels[..., :1]).all():
        return pixels[..., 0]
    if image.mode == "L" or image.mode.startswith("I"):
        return pixels
    raise _Refused(f"the picture is not grey (mode {image.mode}); expected depth and not colours that stand for it")


def _npy(data: bytes) -> npt.NDArray[np.generic]:
    found = _HEADER.match(data)
    if not found:
        head = data[10:80].decode("latin-1").strip()
        raise _Refused(f"the NPY file begins with {head!r}; expected an array of numbers [height, width]")
    kind, by_column = np.dtype(found["kind"].decode()), found["order"] == b"True"
    shape = [int(side) for side in found["shape"].split(b",") if side.strip()]
    sides = [side for side in shape if side != 1] if len(shape) == 3 else shape
    if len(sides) != 2:
        raise _Refused(f"the array has shape {shape}; expected [height, width]")
    _check_size(sides[1], sides[0])
    values = np.frombuffer(data, kind, count=sides[0] * sides[1], offset=found.end())
    return values.reshape(sides, order="F" if by_column else "C")
