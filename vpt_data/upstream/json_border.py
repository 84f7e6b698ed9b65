"""Where one record of a JSON array ends and the next begins, found without decoding what is before.

A quote inside a string is always escaped, so `}, {"id":` cannot be text. It can still stand between two objects of a
list inside a record, whose first key may be that of the records. What comes behind it decides: a list inside a record
is closed by a bracket soon, the array of the records only at the end of the file.
"""

from __future__ import annotations

import json
import mmap
import re

import msgspec

#: A record that is longer than this is not read, and neither is what follows it.
MAX_RECORD_BYTES = 32 << 20
_BEHIND = re.compile(rb'\}\s*,\s*\{\s*"(?:[^"\\]|\\.)*"\s*:')
_NEAR = 64 << 10
#: So many borders that cannot be used in a row mean that no other will be of use.
_TRIES = 200


def border_behind(text: bytes | bytearray, end: int) -> bytes:
    """What stands behind the record that ends at `end`, from its brace up to the colon behind the next one's first key.

    Empty where no other object follows.

    >>> border_behind(b'[{"id": 1}, {"id": 2}]', 10)
    b'}, {"id":'
    """
    found = _BEHIND.match(text, end - 1)
    return b"" if found is None else found[0]


def first_border(head: bytes) -> bytes:
    """The border behind the first record of an array that begins with `head`; empty where that record is not whole."""
    # Brackets, quotes and blanks are ASCII, and in Latin-1 each byte is one character.
    text = head.decode("latin-1")
    start = text.find("{")
    if text[:start].strip() != "[":
        return b""
    try:
        return border_behind(head, json.JSONDecoder(strict=False).raw_decode(text, start)[1])
    except (ValueError, RecursionError):
        return b""


def is_nested(data: bytes | bytearray | mmap.mmap, start: int, end: int) -> bool | None:
    """Whether the object at `start` stands in a list inside a record; None where damage before `end` hides it."""
    for reach in (_NEAR, MAX_RECORD_BYTES):
        seen = min(start + reach, end)
        try:
            msgspec.json.decode(b"[" + data[start:seen], type=list[msgspec.Raw])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            if "trailing characters" in str(error):
                return True
            if str(error) != "Input data was truncated":
                return None
            found = False
        else:
            found = seen < end  # else this is the last bracket of the file
        if seen == end:
            break
    return found


def next_border(
    data: bytes | bytearray | mmap.mmap, border: bytes, start: int, reach: int, end: int, certain: bool = True
) -> int:
    """The first border in `data[start:reach]` behind which records follow up to `end`, or -1.

    border    or the last part of one, with its opening brace
    certain   damage behind a border makes it unusable: nobody knows then what the next closing bracket closes
    """
    at, opening = data.find(border, start, reach), border.index(b"{")
    for _ in range(_TRIES):
        if at < 0 or (not (nested := is_nested(data, at + opening, end)) and not (certain and nested is None)):
            return at
        at = data.find(border, at + 1, reach)
    return -1
