"""Image files of every kind that the policy in docs/images.md names, made in memory."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

#: Width and height of all files here.
SIZE = (32, 24)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6"/></x:xmpmeta>'


def picture(mode: str = "RGB", size: tuple[int, int] = SIZE, seed: int = 0) -> Image.Image:
    """Noise that a decoder cannot guess, in eight blocks a side so that JPEG keeps it."""
    cells = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(cells).resize(size, Image.Resampling.NEAREST).convert(mode)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def exif(orientation: object = None, kind: int = 3, count: int = 1) -> bytes:
    """An EXIF block as JPEG holds it, with a maker and an orientation of any type."""
    entries = [struct.pack("<HHI4s", 271, 2, 3, b"us\0\0")]
    if orientation is not None:
        raw = orientation if isinstance(orientation, bytes) else struct.pack("<I", orientation)
        entries.append(struct.pack("<HHI4s", 274, kind, count, raw))
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunk(png: bytes, kind: bytes, body: bytes) -> bytes:
    """A PNG with one chunk more behind its header."""
    return png[:33] + chunk(kind, body) + png[33:]


def jpeg(**options: Any) -> bytes:
    return encoded(picture(), "JPEG", quality=95, **options)


def png(mode: str = "RGB", **options: Any) -> bytes:
    return encoded(picture(mode), "PNG", **options)


def animated(kind: str) -> bytes:
    return encoded(picture(), kind, save_all=True, append_images=[picture(seed=1), picture(seed=2)], duration=100)


def raw_profile(orientation: int) -> bytes:
    """A PNG as ImageMagick writes it: EXIF as hexadecimal text."""
    info = PngImagePlugin.PngInfo()
    block = exif(orientation)
    info.add_text("Raw profile type exif", f"\nexif\n{len(block):8}\n{block.hex()}\n", zip=True)
    return png(pnginfo=info)


def translucent(mode: str = "RGBA", alpha: int = 0) -> Image.Image:
    """The left half is transparent, over black."""
    image = picture("RGBA")
    image.paste((0, 0, 0, alpha), (0, 0, SIZE[0] // 2, SIZE[1]))
    return image.convert(mode)


def sixteen() -> bytes:
    """A grey ramp over all 16 bits."""
    ramp = np.linspace(0, 65535, SIZE[0] * SIZE[1]).astype(np.uint16).reshape(SIZE[::-1])
    return encoded(Image.fromarray(ramp), "PNG")


def small_frame() -> bytes:
    """A GIF whose only frame covers a part of its screen."""
    data = bytearray(encoded(picture("P"), "GIF"))
    struct.pack_into("<HH", data, 6, 40, 30)
    return bytes(data)


UNTOUCHED = ""
TAG = "orientation tag"


def xmp_png(packed: bool) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", XMP.decode(), zip=packed)
    return png(pnginfo=info)


def comment_bomb() -> bytes:
    return with_chunk(png(), b"zTXt", b"Comment\0\0" + zlib.compress(bytes(3_000_000)))


def profile_bomb() -> bytes:
    return with_chunk(png(), b"iCCP", b"icc\0\0" + zlib.compress(bytes(3_000_000)))


def wide_tiff(orientation: int) -> bytes:
    return encoded(picture(), "TIFF", tiffinfo={274: orientation})


#: Row of the table in docs/images.md -> (a file of its kind, what was changed and why).
KEPT: dict[str, list[tuple[bytes, str]]] = {
    "JPEG: grey or colour, baseline or progressive": [
        (jpeg(), UNTOUCHED),
        (jpeg(progressive=True), UNTOUCHED),
        (encoded(picture("L"), "JPEG"), UNTOUCHED),
    ],
    "JPEG with a large colour profile": [(jpeg(icc_profile=bytes(300_000)), UNTOUCHED)],
    "JPEG with bytes behind its end mark": [(jpeg() + bytes(1000), UNTOUCHED)],
    "PNG of up to 8 bits: grey, colour or palette": [(png(mode), UNTOUCHED) for mode in ("1", "L", "P", "RGB")],
    "PNG or WebP with alpha, opaque everywhere": [
        (png("RGBA"), UNTOUCHED),
        (png("LA"), UNTOUCHED),
        (encoded(picture("RGBA"), "WEBP", exact=True, lossless=True), UNTOUCHED),
    ],
    "GIF with one picture": [(encoded(picture("P"), "GIF"), UNTOUCHED)],
    "WebP, lossy or lossless": [
        (encoded(picture(), "WEBP", lossless=lossless), UNTOUCHED) for lossless in (False, True)
    ],
    "name with the extension of another format": [(png(), UNTOUCHED)],
    "EXIF orientation 0 or 1": [
        *((jpeg(exif=exif(turn)), UNTOUCHED) for turn in (0, 1, None)),
        (png(exif=exif(1)), UNTOUCHED),
        (encoded(picture(), "WEBP", exif=exif(0)), UNTOUCHED),
    ],
    "any other orientation, and the stored size fits": [
        *((jpeg(exif=exif(turn)), TAG) for turn in (2, 3, 4, 5, 6, 7, 8, 9)),
        (jpeg(exif=exif(6, kind=4)), TAG),
        (jpeg(exif=exif(b"6\0\0\0", kind=2, count=2)), TAG),
        (jpeg(exif=exif(6, count=2)), TAG),
        (jpeg(xmp=XMP), TAG),
        (png(exif=exif(6)), TAG),
        (xmp_png(False), TAG),
        (xmp_png(True), TAG),
        (raw_profile(3), TAG),
        (encoded(picture(), "WEBP", exif=exif(8)), TAG),
        (encoded(picture(), "WEBP", exif=exif(8)[6:], xmp=XMP), TAG),
    ],
    "EXIF that cannot be read": [
        (jpeg(exif=b"Exif\0\0II*\0\xff\xff\0\0"), "unreadable EXIF"),
        (png(exif=b"Exif\0\0nothing like it"), "unreadable EXIF"),
        (encoded(picture(), "WEBP", exif=b"Exif\0\0nothing like it"), "unreadable EXIF"),
    ],
    "animated PNG": [(animated("PNG"), "animation")],
    "PNG with a text or profile above 1 MB unpacked": [
        (comment_bomb(), "text or profile that decoders refuse"),
        (profile_bomb(), "text or profile that decoders refuse"),
    ],
}
REENCODED: dict[str, list[tuple[bytes, str]]] = {
    "BMP": [(encoded(picture(), "BMP"), "BMP")],
    "TIFF": [
        (encoded(picture(), "TIFF"), "TIFF"),
        (encoded(picture("1"), "TIFF", compression="group4"), "TIFF"),
        (wide_tiff(6), "TIFF"),
        (animated("TIFF"), "TIFF"),
    ],
    "16 bits a sample": [(sixteen(), "16 bits a sample")],
    "CMYK JPEG": [(encoded(picture("CMYK"), "JPEG"), "CMYK")],
    "transparent pixels": [
        (encoded(translucent(), "PNG"), "transparent"),
        (encoded(translucent("LA"), "PNG"), "transparent"),
        (png("P", transparency=picture("P").getpixel((0, 0))), "transparent"),
        (encoded(translucent(), "WEBP", lossless=True, exact=True), "transparent"),
        (encoded(translucent(), "GIF"), "transparent"),
    ],
    "animated GIF or WebP": [(animated("GIF"), "animation"), (animated("WEBP"), "animation")],
}
BAD: dict[str, list[tuple[bytes, str]]] = {
    "cut off: no end mark": [
        (jpeg()[:-2], "the JPEG is cut off (its end marker is missing)"),
        (jpeg()[:100], "the file is cut off"),
        (png()[:-12], "the file is cut off"),
        (png()[:60], "the file is cut off"),
        (encoded(picture("P"), "GIF")[:-1], "the file is cut off"),
        (encoded(picture(), "WEBP")[:-1], "the file is cut off"),
        (encoded(picture(), "TIFF")[:7], "the TIFF directory is cut off"),
        (encoded(picture(), "BMP")[:20], "the file is cut off"),
    ],
    "PNG chunk with a wrong checksum": [
        (png().replace(b"IHDR\0\0\0\x20", b"IHDR\0\0\0\x21"), "a chunk of the PNG is damaged")
    ],
    "empty, or nothing but zero bytes": [(b"", "the file is empty"), (bytes(9000), "nothing but zero bytes")],
    "Git LFS or git-annex pointer": [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
            "a Git LFS pointer in place of the image; fetch it with `git lfs pull`",
        ),
        (
            b"/annex/objects/SHA256E-s1--00.jpg\n",
            "a git-annex pointer in place of the image; fetch it with `git annex get`",
        ),
    ],
    "HTML, JSON, XML or SVG, PDF, zip": [
        (b"\n <!DOCTYPE html><p>404", "an HTML page in place of the image; download it again"),
        (b"<HTML>", "an HTML page in place of the image; download it again"),
        (b'{"error": 404}', "JSON in place of the image; download it again"),
        (b"<?xml version='1.0'?><svg/>", "XML or SVG, not an image of pixels"),
        (b"%PDF-1.7", "a PDF, not an image"),
        (b"PK\3\4\0\0", "a zip archive, not an image"),
    ],
    "AVIF, HEIC and unknown formats": [
        (b"\0\0\0\x1cftypavif", "AVIF, HEIC or a video, which is not read; convert it to PNG or JPEG"),
        (b"P6 1 1 255 abc", "not an image of a known format"),
        (b"RIFF\4\0\0\0WAVE", "not an image of a known format"),
    ],
    "no fixed range of values": [
        (
            encoded(Image.fromarray(np.zeros((24, 32), np.float32)), "TIFF"),
            "cannot be decoded (its pixels have no fixed range, so nobody can say what is white)",
        ),
    ],
}
