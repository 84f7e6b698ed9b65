"""PNG: its chunks from header to end, and those in them that keep a decoder from the pixels or turn them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from vpt_data.images.exif import EXIF, Broken, Edit, Metadata, Scan

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PICTURE = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_ANIMATION = {b"acTL", b"fcTL", b"fdAT"}
_PACKED = {b"zTXt", b"iTXt", b"iCCP", b"tEXt"}
#: Pillow refuses a PNG with a text or profile that unpacks to more than this.
_MAX_TEXT = 1 << 20


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and stop of the chunks of a PNG up to its end; checksums of all but the pixels are compared."""
    at = len(SIGNATURE)
    kind = b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        stop = at + 12 + length
        (crc,) = struct.unpack_from(">I", data, stop - 4)
        if not kind.isalpha() or (kind != b"IDAT" and zlib.crc32(data[at + 4 : stop - 4]) != crc):
            raise Broken("a chunk of the PNG is damaged")
        yield kind, at, stop
        at = stop


def _ihdr(data: bytes) -> tuple[int, int, int, int]:
    """Width, height, bit depth, colour type."""
    length, kind, width, height, depth, colour = struct.unpack_from(">I4sIIBB", data, len(SIGNATURE))
    if (length, kind) != (13, b"IHDR"):
        raise Broken("a PNG with a damaged header")
    return width, height, depth, colour


def size(data: bytes) -> tuple[int, int]:
    """Width and height from the header."""
    width, height, _, _ = _ihdr(data)
    return width, height


def scan(data: bytes) -> Scan:
    """Describe a whole PNG."""
    width, height, depth, colour = _ihdr(data)
    meta, spare, kinds, text = Metadata(), [], set(), 0
    for kind, start, stop in _chunks(data):
        kinds.add(kind)
        if kind in _PICTURE:
            continue
        spare.append(Edit(start, stop, b""))
        if kind in _ANIMATION:
            meta.drop(start, stop, "animation")
        elif kind == b"eXIf":
            _exif(data, start, stop, meta)
        elif kind in _PACKED:
            text += _text(kind, data, start, stop, meta, _MAX_TEXT - text)
    if b"IDAT" not in kinds or depth not in {1, 2, 4, 8, 16} or colour not in {0, 2, 3, 4, 6}:
        raise Broken("a PNG without pixels that can be read")
    odd = "16 bits a sample" if depth == 16 else ""
    alpha = colour in {4, 6} or b"tRNS" in kinds
    return Scan("PNG", width, height, meta.turn, tuple(meta.edits), tuple(spare), odd, alpha)


def _exif(data: bytes, start: int, stop: int, meta: Metadata) -> None:
    old = data[start + 8 : stop - 4]
    new = meta.exif("exif", old.removeprefix(EXIF))
    if new is None:
        meta.drop(start, stop, "unreadable EXIF")
    elif new != old.removeprefix(EXIF):
        body = b"eXIf" + new
        chunk = struct.pack(">I", len(new)) + body + struct.pack(">I", zlib.crc32(body))
        meta.edits.append(Edit(start, stop, chunk, "orientation tag"))


def _text(kind: bytes, data: bytes, start: int, stop: int, meta: Metadata, room: int) -> int:
    """Look into a text or profile chunk, and drop it where it would keep a decoder from the pixels.

    Returns the bytes that it unpacks to and that stay.
    """
    keyword, _, rest = data[start + 8 : stop - 4].partition(b"\0")
    text = _unpacked(kind, rest, room)
    if text is None:
        meta.drop(start, stop, "text or profile that decoders refuse")
        return 0
    if keyword == b"XML:com.adobe.xmp":
        neutral = meta.xmp(text) == text
    elif keyword == b"Raw profile type exif":
        tiff = _hex(text).removeprefix(EXIF)
        neutral = meta.exif("profile", tiff) == tiff
    else:
        neutral = True
    if not neutral:
        meta.drop(start, stop, "orientation tag")
    return len(text)


def _hex(text: bytes) -> bytes:
    """The bytes of a profile that ImageMagick writes as hexadecimal digits behind three lines; empty if it is none."""
    try:
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
    except ValueError:
        return b""


def _unpacked(kind: bytes, rest: bytes, room: int) -> bytes | None:
    """The text behind the keyword of a chunk; None where it is packed in no known way or too large."""
    packed = True
    if kind == b"tEXt":
        packed = False
    elif kind == b"iTXt":
        packed = rest[:1] != b"\0"
        rest = rest[1:2] + rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    if packed and rest[:1] != b"\0":
        return None
    if kind != b"tEXt":
        rest = rest[1:]
    if packed:
        try:
            rest = zlib.decompressobj().decompress(rest, room + 1)
        except zlib.error:
            rest = b""
    return rest if len(rest) <= room else None
