"""Files in zip and tar archives: found, read and refused where they lie."""

from __future__ import annotations

import io
import os
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers.packed import FILES, SHORT, content, cut, one, opened, tarred, zipped
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import fs

from vpt_data.errors import RawError
from vpt_data.images import archives
from vpt_data.images.archives import Archive
from vpt_data.store import RemotePath

MADE: dict[str, Callable[[], list[bytes]]] = {
    "zip stored": lambda: [zipped(FILES)],
    "zip deflated": lambda: [zipped(FILES, zipfile.ZIP_DEFLATED)],
    "zip in parts": lambda: cut(zipped(FILES, zipfile.ZIP_DEFLATED), 5, 100, 100, 90_000),
    "zip behind other bytes": lambda: [b"PK, and then some" + zipped(FILES)],
    "tar gnu": lambda: [tarred(FILES)],
    "tar pax": lambda: [tarred(FILES, tarfile.PAX_FORMAT)],
    "tar of a folder": lambda: [tarred(FILES, before="./")],
    "tar in parts": lambda: cut(tarred(FILES), 1, 300, 300, 512, 1_000, 152_000, 200_001),
}


@pytest.mark.parametrize("made", MADE)
def test_every_file_is_read_as_it_was_put_in(made: str, tmp_path: Path) -> None:
    archive = opened(tmp_path, *MADE[made]())
    assert content(archive) == FILES
    assert (len(archive), archive.problem, archive.skipped) == (len(FILES), "", 0)
    for name, data in FILES.items():
        member = archive.find(name)
        assert member is not None
        with archive.open(member) as file:
            assert file.read(10) + file.read() == data
    assert archive.find("images/4.jpg") is None and archive.find("images") is None


def test_a_ustar_has_short_names(tmp_path: Path) -> None:
    assert content(opened(tmp_path, tarred(SHORT, tarfile.USTAR_FORMAT))) == SHORT


def test_a_zip_of_the_large_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With limits that low, zipfile writes all numbers as it does beyond 4 GB and 65,535 members."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 10)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    data = zipped(FILES)
    assert b"PK\6\6" in data
    assert content(opened(tmp_path, data)) == FILES


def test_many_members_in_a_directory_read_in_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vpt_data.images.archive_members._WINDOW", 1_000)
    monkeypatch.setattr("vpt_data.images.archive_members._TAIL", 300)
    files = {f"images/{number:05d}.jpg": b"%d" % number for number in range(500)}
    assert content(opened(tmp_path, zipped(files))) == files


@given(
    files=st.dictionaries(
        st.text(st.characters(categories=("L", "N"), max_codepoint=0x3000), min_size=1, max_size=20),
        st.binary(max_size=1_500),
        min_size=1,
        max_size=6,
    ),
    cuts=st.lists(st.integers(0, 12_000), max_size=4),
    kind=st.sampled_from(["zip", "tar"]),
)
def test_any_names_contents_and_cuts(
    files: dict[str, bytes], cuts: list[int], kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = zipped(files, zipfile.ZIP_DEFLATED) if kind == "zip" else tarred(files)
    assert content(opened(tmp_path_factory.mktemp("any"), *cut(data, *cuts))) == files


def test_the_last_of_two_members_of_a_name_wins(tmp_path: Path) -> None:
    both = [("images/1.jpg", b"old")] * 40 + [(f"images/{n}.jpg", b"other") for n in range(2, 40)]
    both.append(("images/1.jpg", b"new"))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made, pytest.warns(UserWarning, match="Duplicate name"):
        for name, data in both:
            made.writestr(name, data)
    assert one(opened(tmp_path / "zip", out.getvalue()), "images/1.jpg") == b"new"
    data = tarred({"images/1.jpg": b"old"})[:1024] + tarred({"images/1.jpg": b"new"})
    assert one(opened(tmp_path / "tar", data), "images/1.jpg") == b"new"


def test_other_extensions_stand_for_the_one_asked_for(tmp_path: Path) -> None:
    files = {
        name: name.encode() for name in ("a/1.png", "a/1.gif", "a/2.JPG", "a/2.jpeg", "a/3.tif", "a/4", "a.b/4.TXT")
    }
    archive = opened(tmp_path, zipped(files))
    found = {
        asked: (member := archive.find(asked)) and member.name.decode()
        for asked in ("a/1.jpg", "a/1.gif", "a/2.jpg", "a/3.jpg", "a/3.TIF", "a/4", "a/4.jpg", "a/1", "a.b/4.txt", "a")
    }
    assert found == {
        "a/1.jpg": "a/1.png", "a/1.gif": "a/1.gif", "a/2.jpg": "a/2.JPG", "a/3.jpg": None, "a/3.TIF": "a/3.tif",
        "a/4": "a/4", "a/4.jpg": None, "a/1": None, "a.b/4.txt": "a.b/4.TXT", "a": None,
    }  # fmt: skip


UNSAFE = ["/etc/passwd", "../up.jpg", "a/../../up.jpg", "a\\b.jpg", "C:/x.jpg", "..", "a/.."]


def test_members_that_are_no_plain_file_inside_are_left_out_and_counted(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for name in UNSAFE:
            made.addfile(tarfile.TarInfo(name))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            entry = tarfile.TarInfo("a/odd.jpg")
            entry.type, entry.linkname, entry.size = kind, "/etc/passwd", 700
            made.addfile(entry)
        folder = tarfile.TarInfo("a")
        folder.type = tarfile.DIRTYPE
        made.addfile(folder)
        made.addfile(tarfile.TarInfo("a/good.jpg"))
    archive = opened(tmp_path / "tar", out.getvalue())
    assert (list(archive.names()), archive.skipped) == (["a/good.jpg"], len(UNSAFE) + 4)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made_zip:
        for name in [*UNSAFE, "a/nul\0.jpg", "a/link.jpg", "a/good.jpg"]:
            info = zipfile.ZipInfo("x")
            info.filename, info.create_system = name, 3
            info.external_attr = (0o120777 if "link" in name else 0o100644) << 16
            made_zip.writestr(info, b"/etc/passwd")
    archive = opened(tmp_path / "zip", out.getvalue())
    assert (list(archive.names()), archive.skipped) == (["a/good.jpg"], len(UNSAFE) + 2)


def test_files_with_holes_are_left_out(tmp_path: Path) -> None:
    """GNU tar stores them in pieces under a pax header of its own."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as made:
        entry = tarfile.TarInfo("GNUSparseFile.0/a.jpg")
        entry.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.name": "a.jpg"}
        made.addfile(entry)
        made.addfile(tarfile.TarInfo("b.jpg"))
    archive = opened(tmp_path, out.getvalue())
    assert (list(archive.names()), archive.skipped) == (["b.jpg"], 1)


def test_headers_that_state_too_much_or_never_end_are_damage(tmp_path: Path) -> None:
    """A long name of gigabytes is not read, and name behind name behind name not followed for ever."""

    def note(size: int) -> bytes:
        entry = tarfile.TarInfo("././@LongLink")
        entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, size
        return entry.tobuf()

    good = tarred({"1.jpg": b"1"})[:1024]
    for odd in (note(1 << 33), (note(5) + b"name".ljust(512, b"\0")) * 2_000):
        archive = opened(tmp_path / str(len(odd)), good + odd)
        assert list(archive.names()) == ["1.jpg"]
        assert "the archive is damaged at byte 1,024 behind '1.jpg'" in archive.problem


def test_members_that_cannot_be_read_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def why(data: bytes, name: str = "1.jpg") -> str:
        archive = opened(tmp_path / str(random.random()), data)
        member = archive.find(name)
        assert member is not None
        with pytest.raises(RawError) as error:
            archive.read(member)
        return str(error.value)

    locked = bytearray(zipped({"1.jpg": b"secret"}))
    locked[locked.rindex(b"PK\1\2") + 8] |= 1
    assert why(bytes(locked)) == "own/images keeps this image encrypted; extract it with its password."
    packed = zipped({"1.jpg": b"text" * 99}, zipfile.ZIP_BZIP2)
    assert why(packed) == "own/images keeps this image compressed by method 12; extract it."
    damaged = "own/images: the archive is damaged at this image; download it again."
    good = zipped({"1.jpg": b"some bytes"})
    assert why(good.replace(b"some bytes", b"same bytes")) == damaged  # the checksum
    assert why(good.replace(b"PK\3\4\x14\0\0\0\0\0", b"PK\3\5\x14\0\0\0\0\0", 3)) == damaged
    bomb = bytearray(zipped({"1.jpg": bytes(1 << 20)}, zipfile.ZIP_DEFLATED))
    struct.pack_into("<L", bomb, bomb.rindex(b"PK\1\2") + 24, 100)
    assert why(bytes(bomb)) == damaged  # more than its header says
    monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 5)
    assert why(good) == "own/images says this image has 10 bytes; at most 5 do."


def test_what_is_no_archive_is_refused_in_one_sentence(tmp_path: Path) -> None:
    packed = {
        "gzip": zlib.compress(tarred(SHORT), wbits=31),
        "bzip2": b"BZh91AY",
        "xz": b"\xfd7zXZ\0",
        "zstd": b"(\xb5/\xfd",
    }
    for kind, data in packed.items():
        with pytest.raises(RawError) as error:
            opened(tmp_path / kind, data)
        assert str(error.value) == (
            f"own/images: a tar compressed by {kind} cannot be read in place; extract it into its folder."
        )
    again = "download it again."
    whole = zipped(FILES)
    for data, said in (
        (b"<html>404</html>" * 99, f"own/images: not a tar file (invalid header); {again}"),
        (b"", f"own/images: not a tar file (empty file); {again}"),
        (b"x", f"own/images: not a tar file (truncated header); {again}"),
        (whole[:-40], f"own/images: not a zip, or cut (it has no central directory at its end); {again}"),
        (
            b"PK" + whole[len(whole) - 300 :],
            f"own/images: the zip is cut at its start, or damaged; expected a whole one: {again[:-1]}, or extract it.",
        ),
    ):
        folder = tmp_path / str(random.random())
        with pytest.raises(RawError) as error:
            opened(folder, data)
        assert str(error.value) == said


def test_a_tar_that_was_cut_gives_what_is_whole(tmp_path: Path) -> None:
    """150,000 bytes of the first file, then the second; the third lies beyond the cut."""
    data = tarred({"1.jpg": b"1" * 150_000, "2.jpg": b"2" * 50_000, "3.jpg": b"3"})
    second = 512 + 150_016
    archive = opened(tmp_path / "in a member", data[: second + 1_000])
    assert one(archive, "1.jpg") == b"1" * 150_000
    assert archive.problem == "own/images: the archive is cut behind '2.jpg'; get what is missing, or download it again"
    member = archive.find("2.jpg")
    assert member is not None and archive.find("3.jpg") is None
    cut_off = "own/images: the archive is cut before the end of this image; download it again."
    with pytest.raises(RawError) as error:
        archive.read(member)
    assert str(error.value) == cut_off
    with archive.open(member) as file, pytest.raises(RawError) as error:
        file.read()
    assert str(error.value) == cut_off
    archive = opened(tmp_path / "in a header", data[: second + 100])
    assert list(archive.names()) == ["1.jpg"] and "cut behind '1.jpg'" in archive.problem
    archive = opened(tmp_path / "at a border", data[:second])
    assert list(archive.names()) == ["1.jpg"] and "cut behind '1.jpg'" in archive.problem
    archive = opened(tmp_path / "damaged", data[:second] + b"?" + data[second + 1 :])
    assert archive.problem == (
        "own/images: the archive is damaged at byte 150,528 behind '1.jpg'; get what is missing, or download it again"
    )


def test_a_file_that_shrinks_after_it_was_listed(tmp_path: Path) -> None:
    archive = opened(tmp_path, tarred({"1.jpg": b"1" * 9_000}))
    os.truncate(tmp_path / "images.00", 3_000)
    with pytest.raises(RawError, match="the archive was changed while it was in use"):
        one(archive, "1.jpg")


def test_threads_read_at_once(tmp_path: Path) -> None:
    files = {f"{number}.jpg": random.Random(number).randbytes(5_000) for number in range(50)}
    archive = opened(tmp_path, *cut(tarred(files), *range(0, 300_000, 9_999)))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda name: one(archive, name), list(files) * 4))
    assert found == list(files.values()) * 4


def test_an_archive_in_an_object_store(tmp_path: Path) -> None:
    for number, part in enumerate(cut(tarred(FILES), 700, 160_000)):
        (tmp_path / f"images.{number}").write_bytes(part)
    files = [RemotePath(fs.LocalFileSystem(), "test", f"{tmp_path}/images.{number}") for number in range(3)]
    assert content(Archive("own/images", files)) == FILES
    (tmp_path / "images.zip").write_bytes(zipped(FILES, zipfile.ZIP_DEFLATED))
    assert content(Archive("own/images", [RemotePath(fs.LocalFileSystem(), "test", f"{tmp_path}/images.zip")])) == FILES
