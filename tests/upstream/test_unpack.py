"""Archives that try to leave their folder, to fill the disk, or to be something else than they seem."""

from __future__ import annotations

import random
import tarfile
import zipfile
from pathlib import Path

import pytest
from helpers.fetching import tar_of, zip_of
from hypothesis import given, settings
from hypothesis import strategies as st

from vpt_data.errors import OutputError, RawError
from vpt_data.upstream.download.unpack import Limits, check_free, place, unpack

REFUSED = "; the archive is refused as a whole, nothing of it was unpacked."


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def refused(archive: Path, folder: Path, limits: Limits = Limits()) -> str:  # noqa: B008 - frozen
    before = sorted(path.name for path in folder.parent.iterdir())
    with pytest.raises(RawError) as raised:
        unpack(archive, folder, "x", limits)
    assert not folder.exists()
    assert sorted(path.name for path in folder.parent.iterdir()) == before
    return str(raised.value)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tgz"])
def test_files_and_folders_come_out(tmp_path: Path, kind: str) -> None:
    members = (("./a.txt", b"a"), ("b/c/d.txt", b"d" * 5000), ("b/e", b""))
    archive = tmp_path / f"x.{kind}"
    if kind == "zip":
        zip_of(archive, ("a.txt", b"a"), *members[1:], ("f/", b""))
    else:
        tar_of(archive, *members, (special("f", tarfile.DIRTYPE), b""), mode="w" if kind == "tar" else "w:gz")
    assert unpack(archive, tmp_path / "out", "x") == ["a.txt", "b"]
    assert (tmp_path / "out/a.txt").read_bytes() == b"a"
    assert (tmp_path / "out/b/c/d.txt").read_bytes() == b"d" * 5000
    assert (tmp_path / "out/b/e").read_bytes() == b""


BAD_NAMES = ["../evil", "a/../../evil", "/etc/evil", "a//b", "a/./b", "..", "a\\..\\evil", "C:/evil", "a/.."]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_no_member_leaves_the_folder(tmp_path: Path, kind: str, name: str) -> None:
    (tmp_path / "in").mkdir()
    archive = (zip_of if kind == "zip" else tar_of)(tmp_path / f"x.{kind}", ("good", b""), (name, b"evil"))
    said = refused(archive, tmp_path / "in/out")
    assert said == f"x: member {name!r} would not be inside its folder{REFUSED}"
    assert not list(tmp_path.rglob("evil"))


def test_a_name_cut_at_a_zero_byte_is_seen_through(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "x.zip", ("goodXevil", b""))
    archive.write_bytes(archive.read_bytes().replace(b"goodXevil", b"good\0evil"))
    assert "member 'good\\x00evil' would not be inside" in refused(archive, tmp_path / "out")


@pytest.mark.parametrize(
    "entry",
    [
        special("link", tarfile.SYMTYPE, "/etc/passwd"),
        special("link", tarfile.LNKTYPE, "../../secret"),
        special("link", tarfile.FIFOTYPE),
        special("link", tarfile.CHRTYPE),
        special("link", tarfile.BLKTYPE),
    ],
    ids=["symlink", "hard link", "fifo", "character device", "block device"],
)
def test_links_and_devices_are_refused(tmp_path: Path, entry: tarfile.TarInfo) -> None:
    archive = tar_of(tmp_path / "x.tar", ("good", b"g"), (entry, b""), ("link/passwd", b"evil"))
    assert refused(archive, tmp_path / "out") == f"x: member 'link' is a link, a device or sparse{REFUSED}"


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    archive = zip_of(tmp_path / "x.zip", (link, b"/etc/passwd"))
    assert refused(archive, tmp_path / "out") == f"x: member 'link' is a link or a device{REFUSED}"


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "x.zip", ("a", b"a"))
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    assert refused(archive, tmp_path / "out") == f"x: member 'a' is encrypted{REFUSED}"


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_member_that_is_in_it_twice_is_refused(tmp_path: Path, kind: str) -> None:
    if kind == "zip":
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive = zip_of(tmp_path / "x.zip", ("a", b"1"), ("a", b"2"))
    else:
        archive = tar_of(tmp_path / "x.tar", ("a", b"1"), ("./a", b"2"))
    assert refused(archive, tmp_path / "out") == f"x: member 'a' is in it twice{REFUSED}"


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_bomb_is_refused(tmp_path: Path, kind: str) -> None:
    zeros = (("zeros", b"\0" * 20_000_000),)
    path = tmp_path / f"x.{kind}"
    archive = zip_of(path, *zeros, deflated=True) if kind == "zip" else tar_of(path, *zeros, mode="w:gz")
    most = int(archive.stat().st_size * 200)
    assert refused(archive, tmp_path / "out") == f"x: it would become more than {most:,} bytes{REFUSED}"


def test_the_limits_hold(tmp_path: Path) -> None:
    members = [(f"{number}", b"x" * 1000) for number in range(6)]
    for archive in (zip_of(tmp_path / "x.zip", *members), tar_of(tmp_path / "x.tar", *members)):
        assert "more than 5,999 bytes" in refused(archive, tmp_path / "out", Limits(total=5999))
        assert f"more than 5{' members' if archive.suffix == '.tar' else REFUSED}" in refused(
            archive, tmp_path / "out", Limits(members=5)
        )
        assert len(unpack(archive, tmp_path / "fits", "x", Limits(members=6, total=6000))) == 6


@pytest.mark.parametrize("off", [-500, 500])
def test_the_size_a_zip_states_is_not_believed(tmp_path: Path, off: int) -> None:
    archive = zip_of(tmp_path / "x.zip", ("a", b"x" * 1000))
    said = (1000 + off).to_bytes(4, "little")
    data = bytearray(archive.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = said
    archive.write_bytes(data)
    wrong = {
        -500: "x: the archive is damaged (Bad CRC-32 for file 'a'); remove it and run the same command again.",
        500: f"x: member 'a' has 1,000 bytes, not the 1,500 it states{REFUSED}",
    }
    assert refused(archive, tmp_path / "out") == wrong[off]


def test_an_archive_without_files_is_refused(tmp_path: Path) -> None:
    assert refused(zip_of(tmp_path / "x.zip"), tmp_path / "out") == f"x: it holds no files{REFUSED}"


@settings(max_examples=60)
@given(
    kind=st.sampled_from(["zip", "tar", "tar.gz"]),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=4),
    kept=st.floats(0.01, 1),
)
def test_a_damaged_archive_gives_one_sentence_or_the_files(
    kind: str, changes: list[tuple[float, int]], kept: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    members = (("a/b.txt", b"hello" * 100), ("c.txt", random.Random(0).randbytes(300)))
    path = folder / f"x.{kind}"
    archive = zip_of(path, *members) if kind == "zip" else tar_of(path, *members, mode="w:gz" if "gz" in kind else "w")
    damaged = bytearray(archive.read_bytes())
    for where, value in changes:
        damaged[int(where * len(damaged))] = value
    archive.write_bytes(damaged[: int(kept * len(damaged))])
    (folder / "in").mkdir()
    try:
        unpack(archive, folder / "in/out", "x")
    except RawError as error:
        assert str(error).startswith("x: ") and str(error).endswith(".")
    assert {path.name for path in folder.iterdir()} == {"in", path.name}
    assert {path.name for path in (folder / "in").iterdir()} <= {"out"}


@pytest.mark.parametrize(("kind", "cut"), [("tar.gz", 60), ("tar", 700), ("zip", 60)])
def test_a_cut_archive_is_said_to_be_damaged(tmp_path: Path, kind: str, cut: int) -> None:
    member = ("a", random.Random(0).randbytes(2000))
    path = tmp_path / f"x.{kind}"
    archive = zip_of(path, member) if kind == "zip" else tar_of(path, member, mode="w:gz" if "gz" in kind else "w")
    archive.write_bytes(archive.read_bytes()[:cut])
    assert refused(archive, tmp_path / "out").startswith("x: the archive is damaged (")


# Where it goes ---------------------------------------------------------------------------------------------


def test_what_is_there_already_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("precious")
    with pytest.raises(OutputError) as raised:
        check_free(tmp_path, ["a", "b"], [], "x.zip")
    assert str(raised.value) == f"{tmp_path / 'a'}: is there already; move it away to have x.zip unpacked."
    check_free(tmp_path, ["a", "b"], ["a"], "x.zip")


def test_a_move_that_was_killed_half_way_is_made_again(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "x.zip", ("a/1", b"1"), ("b", b"2"))
    names = unpack(archive, tmp_path / "scratch", "x")
    (tmp_path / "to/a").mkdir(parents=True)
    (tmp_path / "to/a/old").write_text("of the killed run")
    place(tmp_path / "scratch", tmp_path / "to", names)
    assert sorted(path.relative_to(tmp_path / "to").as_posix() for path in (tmp_path / "to").rglob("*")) == [
        "a", "a/1", "b",
    ]  # fmt: skip
    assert not (tmp_path / "scratch").exists()
