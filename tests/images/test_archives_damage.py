"""Damaged archives and damaged indexes of archives: refused or made again, never a crash."""

from __future__ import annotations

import os
import random
import tarfile
import zipfile
from pathlib import Path

import pytest
from helpers.packed import FILES, SHORT, content, opened, tarred, zipped

from vpt_data.errors import RawError
from vpt_data.images import archives
from vpt_data.images.archives import Archive, cache_folder


@pytest.mark.parametrize("kind", ["zip", "deflated", "tar", "pax"])
def test_damage_is_refused_and_never_a_crash(kind: str, tmp_path: Path) -> None:
    """Seeded flips, cuts and swaps; what a zip gives is right or refused, for it has checksums."""
    form = {"zip": zipped(SHORT), "deflated": zipped(SHORT, zipfile.ZIP_DEFLATED), "tar": tarred(FILES)}
    whole = form.get(kind) or tarred(FILES, tarfile.PAX_FORMAT)
    plan = random.Random(kind)
    outcomes = set()
    for _ in range(250):
        data = bytearray(whole)
        # Most of an archive is data; headers are where a reader can stumble.
        near = [at for mark in (b"PK", b"ustar") for at in _all(whole, mark)]
        for _ in range(plan.randrange(1, 4)):
            at = min(len(data) - 1, max(0, plan.choice(near) + plan.randrange(-250, 250)))
            data[at] = plan.randrange(256)
        if plan.random() < 0.2:
            del data[plan.randrange(len(data)) :]
        try:
            archive = opened(tmp_path, bytes(data))
        except RawError:
            outcomes.add("refused")
            continue
        for name in list(archive.names()):
            member = archive.find(name)
            assert member is not None
            try:
                found = archive.read(member)
            except RawError:
                outcomes.add("bad")
                continue
            outcomes.add("good")
            if name in SHORT and "zip" in kind:
                assert found == SHORT[name]
    assert outcomes >= {"refused", "good"}


def _all(data: bytes, mark: bytes) -> list[int]:
    found, at = [], data.find(mark)
    while at >= 0:
        found.append(at)
        at = data.find(mark, at + 1)
    return found


def _index_file(folder: Path, data: bytes) -> Path:
    before = set(cache_folder().glob("*"))
    opened(folder, data)
    made = set(cache_folder().glob("*")) - before
    assert len(made) == 1
    return made.pop()


def test_the_index_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = _index_file(tmp_path, tarred(FILES))
    assert index.suffix == ".arrow"

    def scan(*_: object) -> None:
        raise AssertionError("the index was made again")

    monkeypatch.setattr(archives, "scan_tar", scan)
    assert content(Archive("own/images", [tmp_path / "images.00"])) == FILES
    os.utime(tmp_path / "images.00", ns=(1, 1))
    with pytest.raises(AssertionError, match="made again"):
        Archive("own/images", [tmp_path / "images.00"])


def test_an_archive_that_was_replaced_is_looked_through_again(tmp_path: Path) -> None:
    index = _index_file(tmp_path, tarred({"old.jpg": b"old"}))
    archive = opened(tmp_path, tarred({"new.jpg": b"new", "newer.jpg": b"newer" * 999}))
    assert content(archive) == {"new.jpg": b"new", "newer.jpg": b"newer" * 999}
    assert list(cache_folder().glob(index.name))


def test_a_damaged_index_is_made_again(tmp_path: Path) -> None:
    index = _index_file(tmp_path, zipped(FILES))
    good, plan = index.read_bytes(), random.Random(7)
    for turn in range(200):
        data = bytearray(good)
        if turn % 4 == 0:
            del data[plan.randrange(len(data)) :]
        else:
            data[plan.randrange(len(data))] ^= 1 << plan.randrange(8)
        index.unlink()
        index.write_bytes(data)
        assert content(Archive("own/images", [tmp_path / "images.00"])) == FILES


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert content(opened(tmp_path, zipped(FILES))) == FILES
