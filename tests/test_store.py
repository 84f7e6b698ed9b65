"""Places on a disk and in an object store behave alike; a file is made in one step or not at all."""

from __future__ import annotations

import os
import pickle
import posixpath
import stat
import tempfile
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import fs

from vpt_data import store
from vpt_data.errors import UsageError
from vpt_data.store import AnyPath, RemotePath


def remote(folder: Path) -> RemotePath:
    """A folder of this machine as if it lay in an object store."""
    return RemotePath(fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem()), "test", "bucket")


@pytest.fixture(params=["disk", "remote"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> AnyPath:
    (tmp_path / "bucket").mkdir()
    return tmp_path / "bucket" if request.param == "disk" else remote(tmp_path)


# Paths --------------------------------------------------------------------------------------------------------

PATHS = st.one_of(
    st.lists(st.sampled_from(["a", "..", ".", "", "C:", "\\", "\n", "...", "b.jpg", "\0"]), max_size=5).map("/".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)


@given(PATHS)
def test_a_safe_path_stays_in_its_folder_and_text_bytes_and_columns_agree(path: str) -> None:
    unsafe = store.is_unsafe(path)
    assert unsafe == store.is_unsafe(path.encode())
    assert [unsafe] == pc.match_substring_regex(pa.array([path]), store.UNSAFE_PATH).to_pylist()
    reached = posixpath.normpath(posixpath.join("/folder", path))
    assert unsafe or reached == "/folder" or reached.startswith("/folder/")
    assert store.is_plain(path) <= (not unsafe)
    assert not store.is_plain(path) or reached == f"/folder/{path}"


# Files --------------------------------------------------------------------------------------------------------


def test_a_file_is_there_when_its_block_ends_well(place: AnyPath) -> None:
    with store.creating(place / "a.bin") as file:
        file.write(b"one")
        file.write(b"two")
    assert (place / "a.bin").read_bytes() == b"onetwo"
    assert store.names(place) == {"a.bin"}


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_nothing(place: AnyPath, kind: type[BaseException]) -> None:
    with pytest.raises(kind), store.creating(place / "a.bin") as file:
        file.write(b"half")
        raise kind
    assert store.names(place) == frozenset()


def test_a_block_that_fails_leaves_the_old_file(place: AnyPath) -> None:
    store.write(place / "a", b"old")
    with pytest.raises(ValueError, match="half"), store.creating(place / "a", durable=True) as file:
        file.write(b"new")
        raise ValueError("half")
    assert ((place / "a").read_bytes(), store.names(place)) == (b"old", frozenset({"a"}))


def test_a_durable_file_is_on_the_disk_under_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes before the rename, and after it the folder: a power cut would else bring back what was there before."""
    seen: list[tuple[str, bool]] = []

    def fsync(number: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(number).st_mode) else "file"
        seen.append((kind, (tmp_path / "a").exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    store.write(tmp_path / "a", b"new", durable=True)
    assert seen == [("file", False), ("folder", True)]


def test_until_its_end_a_file_does_not_have_its_name_on_a_disk(tmp_path: Path) -> None:
    with store.creating(tmp_path / "a.parquet") as file:
        file.write(b"half")
        assert not (tmp_path / "a.parquet").exists()
        assert [path.suffix for path in tmp_path.iterdir()] == [".tmp"]


def test_two_may_make_the_same_file_at_once_on_a_disk(tmp_path: Path) -> None:
    """Also two machines that share a folder, on which process ids are equal."""
    with store.creating(tmp_path / "a") as first:
        with store.creating(tmp_path / "a") as second:
            first.write(b"sa")
            second.write(b"same")
        assert (tmp_path / "a").read_bytes() == b"same"
        first.write(b"me")
    assert ((tmp_path / "a").read_bytes(), store.names(tmp_path)) == (b"same", frozenset({"a"}))


def test_names(place: AnyPath) -> None:
    assert store.names(place) == store.names(place / "not there") == frozenset()
    for name in ("b", "a", ".hidden"):
        store.write(place / name, b"")
    assert store.names(place) == {"a", "b", ".hidden"}


def test_names_of_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(folder: Path) -> list[str]:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("os.listdir", forbidden)
    with pytest.raises(PermissionError):
        store.names(tmp_path)


def test_what_is_not_there(place: AnyPath) -> None:
    gone = place / "gone"
    assert (gone.exists(), gone.is_file(), gone.is_dir(), gone.is_symlink()) == (False, False, False, False)
    with pytest.raises(FileNotFoundError):
        gone.stat()
    with pytest.raises(FileNotFoundError):
        gone.read_bytes()
    with pytest.raises(FileNotFoundError):
        gone.unlink()
    gone.unlink(missing_ok=True)
    store.remove_tree(gone)


def test_a_tree_is_removed(place: AnyPath) -> None:
    (place / "a/b").mkdir(parents=True)
    if isinstance(place, RemotePath):  # an object store has no folders to make; this stand-in has
        place._system.create_dir("bucket/a/b")
    store.write(place / "a/b/c", b"1")
    assert ((place / "a").is_dir(), (place / "a/b/c").stat().st_size) == (True, 1)
    store.remove_tree(place / "a")
    assert not (place / "a").exists()


def test_a_remote_file_is_only_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a remote file is opened with 'rb', not 'wb'; write through `creating`"):
        remote(tmp_path).open("wb")


# Names --------------------------------------------------------------------------------------------------------

NAME = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
PARTS = st.lists(NAME.filter(lambda name: name not in {".", ".."}), min_size=1, max_size=4)


@given(PARTS, NAME.filter(lambda name: name not in {".", ".."}))
def test_names_are_put_together_as_paths_are(parts: list[str], name: str) -> None:
    pure = PurePosixPath("bucket", *parts)
    there = RemotePath(fs.LocalFileSystem(), "s3", "bucket") / PurePosixPath(*parts)
    for ours, theirs in ((there, pure), (there / name, pure / name), (there.with_name(name), pure.with_name(name))):
        assert str(ours) == f"s3://{theirs}"
        assert (ours.name, str(ours.parent)) == (theirs.name, f"s3://{theirs.parent}")
        assert ours.relative_to(ours.parent) == PurePosixPath(theirs.name)
        assert store.below(ours, there.parent) == theirs.relative_to(pure.parent).as_posix()
        assert ours == pickle.loads(pickle.dumps(ours)) and hash(ours) == hash(pickle.loads(pickle.dumps(ours)))
    assert there / name != there
    assert there.resolve() == there


def test_a_place_travels_with_its_options() -> None:
    options = "?endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1"
    place = store.at(f"s3://bucket/corpora/{options}")
    assert isinstance(place, RemotePath)
    assert (str(place), place.name) == (f"s3://bucket/corpora{options}", "corpora")
    other = pickle.loads(pickle.dumps(place / "a b?c%d"))
    assert str(other) == f"s3://bucket/corpora/a b?c%d{options}"
    assert other._system == place._system


TREE = ["a.jsonl", "b.json", "own/a.jsonl", "own/b.jsonl.gz", "own/x/a.jsonl", "own/x/y/c.jsonl", "z/[a].jsonl"]
PATTERNS = ["*", "*.jsonl", "own/*", "own/*.jsonl*", "*/*/*.jsonl", "own/**/*.jsonl", "**/a.jsonl", "own/?.jsonl"]


@pytest.mark.parametrize("pattern", [*PATTERNS, "own/[!a].jsonl*", "none/*", "z/[[]a].jsonl", "data/*.parquet*"])
def test_patterns_fit_what_they_fit_on_a_disk(tmp_path: Path, pattern: str) -> None:
    for name in TREE:
        (tmp_path / "bucket" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "bucket" / name).touch()
    found = [store.below(path, remote(tmp_path)) for path in remote(tmp_path).glob(pattern)]
    there = tmp_path / "bucket"
    assert sorted(found) == sorted(store.below(path, there) for path in there.glob(pattern))


@given(st.dictionaries(NAME.filter(lambda name: name.isalnum() and name.isascii()), st.binary(max_size=99), max_size=5))
def test_both_kinds_of_places_hold_the_same(files: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as name:
        disk = Path(name) / "bucket"
        disk.mkdir()
        far = remote(Path(name))
        for file, data in files.items():
            store.write(far / file, data)
        assert store.names(far) == store.names(disk)
        assert {path.name: path.read_bytes() for path in far.iterdir()} == {
            path.name: path.read_bytes() for path in disk.iterdir()
        }
        for file in store.names(disk):
            assert (far / file).stat() == ((disk / file).stat().st_size, (disk / file).stat().st_mtime_ns)
            with (far / file).open() as stream:
                assert (stream.read(3), stream.seek(1)) == ((disk / file).read_bytes()[:3], 1)


# Places -------------------------------------------------------------------------------------------------------


def test_a_path_and_a_file_url_are_places_on_the_disk(tmp_path: Path) -> None:
    assert store.at("raw/coco") == Path("raw/coco")
    assert store.at(str(tmp_path)) == store.at(f"file://{tmp_path}") == tmp_path


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("foo://x", "not a place that can be opened (Unrecognized filesystem type in URI: foo://x)"),
        ("https://a/b", "not a place that can be opened (Unrecognized filesystem type in URI: https://a/b)"),
        ("s3://b/x?bogus=1", "not a place that can be opened (Unexpected query parameter in S3 URI: 'bogus')"),
        ("s3://", "names no bucket"),
    ],
)
def test_a_url_that_is_no_place(url: str, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        store.at(url)
    assert str(caught.value) == f"{url}: {why}; give a folder, or s3://BUCKET/PREFIX."


def test_a_long_complaint_is_cut_to_its_first_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        @staticmethod
        def from_uri(_: str) -> None:
            raise OSError("Unable to load libjvm\ndlopen(a)\ndlopen(b)")

    monkeypatch.setattr(fs, "FileSystem", Broken)
    with pytest.raises(UsageError) as caught:
        store.at("hdfs://a")
    assert str(caught.value) == (
        "hdfs://a: not a place that can be opened (Unable to load libjvm); give a folder, or s3://BUCKET/PREFIX."
    )
