"""What an image file says of itself: format, size, orientation, whether it ends where it should.

Only bytes are looked at, no pixel is decoded. That costs a few microseconds, gives no warnings, and may run in any
thread. What is found in the metadata and makes decoders disagree comes with the edit of the bytes that ends it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from vpt_data.images import png
from vpt_data.images.exif import CUT, EXIF, Broken, Edit, Metadata, Scan, entries, integer

# JPEG

_ADOBE_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_SOF = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_SOS, _EOI, _APP1, _APP14, _COMMENT = 0xDA, 0xD9, 0xE1, 0xEE, 0xFE
_ALONE = {0x00, *range(0xD0, 0xD9)}


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and stop of the segments of a JPEG up to its first scan."""
    at = 2
    while True:
        at = data.find(b"\xff", at)
        marker = data[at + 1] if at >= 0 else data[len(data)]
        if marker == 0xFF or marker in _ALONE:
            at += 1 if marker == 0xFF else 2
            continue
        if marker == _EOI or marker < 0xC0:
            raise Broken("a JPEG with a damaged header")
        (length,) = struct.unpack_from(">H", data, at + 2)
        yield marker, at, at + 2 + length
        if marker == _SOS:
            return
        at += 2 + length


def _frame(data: bytes, start: int) -> tuple[int, int, int, int]:
    """Precision, height, width, components."""
    precision, height, width, components = struct.unpack_from(">BHHB", data, start + 4)
    return precision, height, width, components


def _jpeg_size(data: bytes) -> tuple[int, int]:
    for marker, start, _ in _segments(data):
        if marker in _SOF:
            _, height, width, _ = _frame(data, start)
            return width, height
    raise Broken("a JPEG without a frame header")


def _jpeg(data: bytes) -> Scan:
    meta, spare, frame, kind, end = Metadata(), [], None, 0, 0
    for marker, start, stop in _segments(data):
        end = stop
        if marker in _SOF:
            kind, frame = marker, _frame(data, start)
        elif marker == _APP1:
            _app1(data, start, stop, meta)
        if (marker > 0xE0 and marker != _APP14 and marker < 0xF0) or marker == _COMMENT:
            spare.append(Edit(start, stop, b""))
    if frame is None:
        raise Broken("a JPEG without a frame header")
    if data.rfind(b"\xff\xd9", end) < 0:
        raise Broken("the JPEG is cut off (its end marker is missing)")
    precision, height, width, components = frame
    odd = ""
    if components == 4:
        odd = "CMYK"
    elif kind > 0xC2 or precision != 8 or components not in {1, 3}:
        odd = "rare kind of JPEG"
    return Scan("JPEG", width, height, meta.turn, tuple(meta.edits), tuple(spare), odd, alpha=False)


def _app1(data: bytes, start: int, stop: int, meta: Metadata) -> None:
    if data.startswith(EXIF, start + 4):
        old = data[start + 10 : stop]
        new = meta.exif("exif", old)
        if new is None:
            meta.drop(start, stop, "unreadable EXIF")
        else:
            meta.replace(start + 10, old, new)
    elif data.startswith(_ADOBE_XMP, start + 4):
        old = data[start + 4 : stop]
        meta.replace(start + 4, old, meta.xmp(old))


# GIF, WebP, BMP, TIFF


def _gif_blocks(data: bytes) -> Iterator[tuple[int, int]]:
    """Kind and start of the blocks of a GIF, up to and with its trailer."""
    flags = data[10]
    at = 13 + (6 << (flags & 7) if flags & 0x80 else 0)
    while True:
        kind = data[at]
        if kind not in {0x00, 0x21, 0x2C, 0x3B}:
            raise Broken("a GIF with a damaged block")
        if kind:
            yield kind, at
        if kind == 0x3B:
            return
        if kind == 0x2C:
            flags = data[at + 9]
            at += 11 + (6 << (flags & 7) if flags & 0x80 else 0)
        else:
            at += 2 if kind else 1
        while kind and (length := data[at]):
            at += length + 1
        at += 1 if kind else 0


def _gif_place(data: bytes, at: int) -> tuple[tuple[int, ...], tuple[int, int]]:
    """Place of a frame (x, y, width, height) and the size of the picture, which the first frame may enlarge."""
    x, y, width, height = struct.unpack_from("<HHHH", data, at + 1)
    screen = struct.unpack_from("<HH", data, 6)
    return (x, y, width, height), (max(screen[0], x + width), max(screen[1], y + height))


def _gif_size(data: bytes) -> tuple[int, int]:
    for kind, at in _gif_blocks(data):
        if kind == 0x2C:
            return _gif_place(data, at)[1]
    raise Broken("a GIF without a picture")


def _gif(data: bytes) -> Scan:
    size, odd, alpha = (0, 0), "", False
    for kind, at in _gif_blocks(data):
        if kind == 0x2C:
            if size != (0, 0):
                odd = "animation"
                break
            place, size = _gif_place(data, at)
            odd = "" if place == (0, 0, *size) else "frame smaller than the picture"
        elif kind == 0x21 and data[at + 1] == 0xF9 and size == (0, 0):
            alpha = bool(data[at + 3] & 1)
    if size == (0, 0):
        raise Broken("a GIF without a picture")
    return Scan("GIF", *size, 1, (), (), odd, alpha)


def _webp_size(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        width, low, high = struct.unpack_from("<I", data[24:27] + b"\0")[0], *struct.unpack_from("<HB", data, 27)
        return width + 1, (low | high << 16) + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise Broken("a WebP with a damaged header")


def _webp(data: bytes) -> Scan:
    width, height = _webp_size(data)
    total = 8 + struct.unpack_from("<I", data, 4)[0]
    if total > len(data):
        raise IndexError
    meta, odd, at = Metadata(), "", 12
    alpha = (data[12:16] == b"VP8X" and bool(data[20] & 0x10)) or (data[12:16] == b"VP8L" and bool(data[24] & 0x10))
    while at + 8 <= total:
        kind, length = struct.unpack_from("<4sI", data, at)
        old = data[at + 8 : at + 8 + length]
        if len(old) < length:
            raise IndexError
        if kind == b"ANIM":
            odd = "animation"
        elif kind == b"XMP ":
            meta.replace(at + 8, old, meta.xmp(old))
        elif kind == b"EXIF":
            prefix = EXIF if old.startswith(EXIF) else b""
            new = meta.exif("exif", old.removeprefix(prefix))
            if new is None:  # an unknown name hides the chunk, and no length has to change
                meta.edits.append(Edit(at, at + 4, b"NONE", "unreadable EXIF"))
            else:
                meta.replace(at + 8, old, prefix + new)
        at += 8 + length + (length & 1)
    return Scan("WEBP", width, height, meta.turn, tuple(meta.edits), (), odd, alpha)


def _bmp_size(data: bytes) -> tuple[int, int]:
    (header,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
    return width, abs(height)


def _bmp(data: bytes) -> Scan:
    return Scan("BMP", *_bmp_size(data), 1, (), (), "BMP", alpha=False)


def _tiff_size(data: bytes) -> tuple[int, int]:
    order, _, table = entries(data)
    found = {tag: integer(order, kind, count, raw) for tag, kind, count, raw in table if tag in {256, 257}}
    return found.get(256) or 0, found.get(257) or 0


def _tiff(data: bytes) -> Scan:
    meta = Metadata()
    new = meta.exif("exif", data)
    if new is None:
        raise Broken("the TIFF directory is cut off")
    meta.replace(0, data, new)
    return Scan("TIFF", *_tiff_size(data), meta.turn, tuple(meta.edits), (), "TIFF", alpha=False)


_FORMATS: tuple[tuple[bytes, Callable[[bytes], tuple[int, int]], Callable[[bytes], Scan]], ...] = (
    (b"\xff\xd8\xff", _jpeg_size, _jpeg),
    (png.SIGNATURE, png.size, png.scan),
    (b"GIF87a", _gif_size, _gif),
    (b"GIF89a", _gif_size, _gif),
    (b"RIFF", _webp_size, _webp),
    (b"BM", _bmp_size, _bmp),
    (b"II*\0", _tiff_size, _tiff),
    (b"MM\0*", _tiff_size, _tiff),
)
#: Beginnings of files that stand in place of images, and what to call them.
_OTHERS = (
    (b"version https://git-lfs", "a Git LFS pointer in place of the image; fetch it with `git lfs pull`"),
    (b"/annex/objects/", "a git-annex pointer in place of the image; fetch it with `git annex get`"),
    (b"<!doctype html", "an HTML page in place of the image; download it again"),
    (b"<html", "an HTML page in place of the image; download it again"),
    (b"<", "XML or SVG, not an image of pixels"),
    (b"{", "JSON in place of the image; download it again"),
    (b"%pdf", "a PDF, not an image"),
    (b"pk\3\4", "a zip archive, not an image"),
)


def scan(data: bytes) -> Scan:
    """Describe the bytes of a whole file; raises Broken for what is no whole image of a format that is read."""
    try:
        seen = _reader(data)[1](data)
    except CUT:
        raise Broken("the file is cut off") from None
    if seen.width <= 0 or seen.height <= 0:
        raise Broken("an image without pixels")
    return seen


def size(data: bytes) -> tuple[int, int] | None:
    """Width and height from the first bytes of a file; None where they do not reach far enough.

    Raises Broken for what is no image of a format that is read.
    """
    try:
        return _reader(data)[0](data)
    except CUT:
        return None


def _reader(data: bytes) -> tuple[Callable[[bytes], tuple[int, int]], Callable[[bytes], Scan]]:
    for magic, of_size, of_all in _FORMATS:
        if data.startswith(magic) and (magic != b"RIFF" or data[8:12] == b"WEBP"):
            return of_size, of_all
    raise Broken(_other(data))


def _other(data: bytes) -> str:
    """What a file is that is none of the formats."""
    if not data:
        return "the file is empty"
    if not data.strip(b"\0"):
        return "nothing but zero bytes"
    if data[4:8] == b"ftyp":
        return "AVIF, HEIC or a video, which is not read; convert it to PNG or JPEG"
    start = data[:64].lstrip().lower()
    return next((what for magic, what in _OTHERS if start.startswith(magic)), "not an image of a known format")
