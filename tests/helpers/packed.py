"""Archives for tests: made in memory, opened, read back."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from itertools import pairwise
from pathlib import Path

from vpt_data.images.archives import Archive
from vpt_data.images.policy import Failure
from vpt_data.images.root import ImageRoot

LONG = "/".join(["a folder of a long name"] * 12)
FILES = {
    "images/1.jpg": b"one" * 50_000,
    "images/2.jpg": b"",
    "images/ü/日本.png": os.urandom(3_000),
    f"{LONG}/3.jpg": b"three",
    f"{'n' * 120}.gif": b"long name",
    "top.jpg": os.urandom(200_000),
}


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as made:
        made.mkdir("images")
        for name, data in files.items():
            made.writestr(name, data)
    return out.getvalue()


def tarred(files: dict[str, bytes], form: int = tarfile.GNU_FORMAT, before: str = "") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as made:
        for name, data in files.items():
            entry = tarfile.TarInfo(before + name)
            entry.size = len(data)
            made.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def opened(folder: Path, *parts: bytes) -> Archive:
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"images.{number:02d}" for number in range(len(parts))]
    for file, data in zip(files, parts, strict=True):
        file.write_bytes(data)
    return Archive("own/images", files)


def cut(data: bytes, *places: int) -> list[bytes]:
    edges = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def content(archive: Archive) -> dict[str, bytes]:
    found = {}
    for name in archive.names():
        member = archive.find(name)
        assert member is not None
        found[name] = archive.read(member)
    return found


def one(archive: Archive, name: str) -> bytes:
    member = archive.find(name)
    assert member is not None
    return archive.read(member)


SHORT = {name: data for name, data in FILES.items() if len(name) < 100}


def put(path: Path, data: bytes = b"bytes") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def why(root: Path | ImageRoot, path: str) -> str:
    found = (root if isinstance(root, ImageRoot) else ImageRoot(root)).find(path)
    assert isinstance(found, Failure)
    return f"{found.reason}: {found.detail}"
