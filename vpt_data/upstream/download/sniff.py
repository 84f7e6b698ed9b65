"""Whether bytes are what the name of their file promises.

A server that is down or wants a login answers with a page, often as 200 OK; and a transfer without a length may end
early unnoticed. Both show in the first and in the last bytes.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

#: How many bytes from the beginning are looked at.
HEAD = 512
_TAIL = 4096


def kind(path: str) -> str:
    """The format that a name promises: zip, tar, gz, json, jsonl, or "" where it promises none."""
    name = PurePosixPath(path).name.lower()
    if name.endswith((".gz", ".tgz")):
        return "gz"
    ending = PurePosixPath(name).suffix.removeprefix(".")
    return ending if ending in _HEADS else ""


def wrong_head(path: str, head: bytes, content_type: str = "") -> str | None:
    """What is wrong with the first bytes of a file, or None; `head` has HEAD bytes, or all where there are fewer."""
    expected = kind(path)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text[:1] == b"<":
        return f"a web page ({content_type or 'it begins with <'})" if _is_page(text) else "markup that begins with <"
    if not head:
        return "nothing at all"
    if expected and not _HEADS[expected](head, text):
        return f"something else that begins with {head[:16]!r}"
    if not expected and content_type.startswith("text/html"):
        return "a web page (text/html)"
    return None


def _is_page(text: bytes) -> bool:
    return text[:9].lower() == b"<!doctype" or b"<html" in text.lower()


_HEADS: dict[str, Callable[[bytes, bytes], bool]] = {
    "zip": lambda head, text: head[:4] in {b"PK\x03\x04", b"PK\x05\x06"},
    "tar": lambda head, text: head[257:262] == b"ustar",
    "gz": lambda head, text: head[:2] == b"\x1f\x8b",
    "json": lambda head, text: text[:1] in {b"[", b"{"},
    "jsonl": lambda head, text: text[:1] == b"{",
}


def wrong(path: Path, name: str) -> str | None:
    """What is wrong with a file that is there, from its two ends, or None; `name` promises the format."""
    with path.open("rb") as file:
        head = file.read(HEAD)
        file.seek(max(0, path.stat().st_size - _TAIL))
        tail = file.read().rstrip()
    if (found := wrong_head(name, head)) is not None:
        return found
    expected = kind(name)
    if expected == "zip" and not zipfile.is_zipfile(path):
        return "a zip file without its end"
    if expected in {"json", "jsonl"} and tail[-1:] not in {b"}", b"]"}:
        return "JSON that stops in the middle"
    return None
