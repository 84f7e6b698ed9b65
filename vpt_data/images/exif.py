"""What the readers of image formats share: their findings, and metadata that make decoders disagree.

That is an orientation in EXIF or XMP; each is found together with the edit of the bytes that ends it.

Everything works on bytes; no pixel is touched.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple


class Broken(ValueError):
    """The bytes are no whole image; the text says why, to stand behind the name of the file."""


#: What reading past the end of the bytes raises.
CUT = (struct.error, IndexError)


class Edit(NamedTuple):
    """`data[start:stop]` becomes `new`; the pixels stay as they are. `why` is empty if there is nothing to report."""

    start: int
    stop: int
    new: bytes
    why: str = ""


class Scan(NamedTuple):
    """An image file as its bytes describe it.

    width, height  of the stored pixels
    turn           the EXIF orientation that some decoders apply, 1 to 8; 1 turns nothing
    edits          take out of the metadata what decoders disagree on
    spare          take out what a decoder of pixels can do without
    odd            why standard decoders show different pixels; empty where they agree
    alpha          pixels may be transparent
    """

    format: str
    width: int
    height: int
    turn: int
    edits: tuple[Edit, ...]
    spare: tuple[Edit, ...]
    odd: str
    alpha: bool


def apply(data: bytes, edits: tuple[Edit, ...]) -> bytes:
    """The bytes with some edits made; the edits are in order and do not overlap."""
    if not edits:
        return data
    parts, at = [], 0
    for edit in edits:
        parts += [data[at : edit.start], edit.new]
        at = edit.stop
    return b"".join([*parts, data[at:]])


# EXIF and XMP: where the orientation stands

#: What stands before an EXIF block in a JPEG, and now and then elsewhere.
EXIF = b"Exif\0\0"
_ORIENTATION = 274
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
_INTEGERS = {1: "B", 3: "H", 4: "I"}


def entries(tiff: bytes) -> tuple[str, int, list[tuple[int, int, int, bytes]]]:
    """Byte order, place and entries (tag, type, count, value) of the first directory."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        raise Broken("not a TIFF directory")
    (place,) = struct.unpack_from(f"{order}I", tiff, 4)
    (count,) = struct.unpack_from(f"{order}H", tiff, place)
    table = tiff[place + 2 : place + 2 + 12 * count]
    if len(table) < 12 * count:
        raise Broken("the TIFF directory is cut off")
    return order, place + 2, list(struct.iter_unpack(f"{order}HHI4s", table))


def integer(order: str, kind: int, count: int, raw: bytes) -> int | None:
    """The value of an entry that is one unsigned integer, else None."""
    if kind not in _INTEGERS or count != 1:
        return None
    return int(struct.unpack_from(order + _INTEGERS[kind], raw)[0])


def _exif(tiff: bytes) -> tuple[int | None, bytes] | None:
    """The orientation in an EXIF block (None where there is none) and the block with 1 in its place.

    None for a block that cannot be read: Pillow raises on some of these and guesses on others.
    """
    try:
        order, place, found = entries(tiff)
    except (Broken, *CUT):
        return None
    turn, new = None, bytearray()
    for number, (tag, kind, count, raw) in enumerate(found):
        if tag == _ORIENTATION:
            turn = integer(order, kind, count, raw)
            if turn not in {0, 1}:
                new = new or bytearray(tiff)
                struct.pack_into(f"{order}HHIHH", new, place + 12 * number, tag, 3, 1, 1, 0)
            turn = turn if turn in range(2, 9) else 1
    return turn, bytes(new) or tiff


def _xmp(text: bytes) -> tuple[int | None, bytes]:
    """The orientation in an XMP text, and the text with 1 in its place."""
    found = _XMP_ORIENTATION.search(text)
    if found is None:
        return None, text
    new = _XMP_ORIENTATION.sub(lambda hit: hit[0] if hit[1] in b"01" else hit[0][:-1] + b"1", text)
    turn = int(found[1])
    return (turn if turn in range(2, 9) else 1), new


class Metadata:
    """Collects orientations, in the order in which Pillow trusts them, and edits."""

    def __init__(self) -> None:
        self._turns: dict[str, int] = {}
        self.edits: list[Edit] = []

    @property
    def turn(self) -> int:
        """The orientation that a decoder which looks for one will find."""
        return next((self._turns[kind] for kind in ("exif", "profile", "xmp") if kind in self._turns), 1)

    def exif(self, kind: str, tiff: bytes) -> bytes | None:
        """An EXIF block made neutral, or None if it has to go."""
        found = _exif(tiff)
        if found is None:
            return None
        if found[0] is not None:
            self._turns.setdefault(kind, found[0])
        return found[1]

    def xmp(self, text: bytes) -> bytes:
        """An XMP text made neutral."""
        turn, new = _xmp(text)
        if turn is not None:
            self._turns.setdefault("xmp", turn)
        return new

    def replace(self, start: int, old: bytes, new: bytes) -> None:
        """Put a neutral block in the place of the old one, if it differs."""
        if new != old:
            self.edits.append(Edit(start, start + len(old), new, "orientation tag"))

    def drop(self, start: int, stop: int, why: str) -> None:
        """Take a block out."""
        self.edits.append(Edit(start, stop, b"", why))
