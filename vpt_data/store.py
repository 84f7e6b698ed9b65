"""Folders on a disk or in an object store, behind the part of `pathlib` that the project uses.

A place is a `Path`, or a `RemotePath` over one of pyarrow's file systems (`s3://`, `gs://`, ...), or over that of the
Hugging Face Hub (`hf://datasets/ORG/NAME`, to read only). Files are made in one step: on a disk under another name and
then renamed, in an object store by the end of an upload of the whole.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal, NamedTuple, cast

import msgspec
import pyarrow as pa
from pyarrow import fs

from vpt_data import hub_files
from vpt_data.errors import UsageError


class Stat(NamedTuple):
    """Size in bytes and time of the last change, as `os.stat` names them."""

    st_size: int
    st_mtime_ns: int


class RemotePath:
    """A place in an object store. `query` are options of the URL (`endpoint_override`, `region`, ...)."""

    def __init__(self, system: fs.FileSystem, scheme: str, path: str, query: str = "") -> None:
        self._system, self._scheme, self._path, self._query = system, scheme, PurePosixPath(path), query

    def _other(self, path: PurePosixPath) -> RemotePath:
        return RemotePath(self._system, self._scheme, str(path), self._query)

    def __truediv__(self, name: str | PurePosixPath) -> RemotePath:
        return self._other(self._path / name)

    def __str__(self) -> str:
        return f"{self._scheme}://{self._path}{self._query}"

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __reduce__(self) -> tuple[Any, ...]:
        # The file system pickles with its options; a URL could not say every name (blanks, `?`, `%`).
        return (RemotePath, (self._system, self._scheme, str(self._path), self._query))

    @property
    def name(self) -> str:
        """The last part."""
        return self._path.name

    @property
    def parent(self) -> RemotePath:
        """The folder that holds it."""
        return self._other(self._path.parent)

    def with_name(self, name: str) -> RemotePath:
        """Its neighbour of that name."""
        return self._other(self._path.with_name(name))

    def relative_to(self, folder: RemotePath) -> PurePosixPath:
        """The path below a folder."""
        return self._path.relative_to(folder._path)

    def resolve(self) -> RemotePath:
        """Itself: there are no links."""
        return self

    def _info(self) -> fs.FileInfo:
        return self._system.get_file_info([str(self._path)])[0]

    def is_file(self) -> bool:
        """Whether there is an object of that name."""
        return bool(self._info().type == fs.FileType.File)

    def is_dir(self) -> bool:
        """Whether there is anything under that name."""
        return bool(self._info().type == fs.FileType.Directory)

    def is_symlink(self) -> bool:
        """Never."""
        return False

    def exists(self) -> bool:
        """Whether it is a file or a folder."""
        return bool(self._info().type != fs.FileType.NotFound)

    def stat(self) -> Stat:
        """Size and time; FileNotFoundError where there is nothing."""
        info = self._info()
        if info.type == fs.FileType.NotFound:
            raise FileNotFoundError(2, "No such file or directory", str(self))
        return Stat(info.size or 0, info.mtime_ns or 0)

    def iterdir(self) -> Iterator[RemotePath]:
        """What is directly in this folder; nothing where there is none."""
        for info in self._system.get_file_info(fs.FileSelector(str(self._path), allow_not_found=True)):
            yield self / info.base_name

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """What is directly or, with `/` in the pattern, deeper below this folder and fits it."""
        selector = fs.FileSelector(str(self._path), allow_not_found=True, recursive="/" in pattern)
        for info in self._system.get_file_info(selector):
            found = PurePosixPath(info.path)
            if _fits(found.relative_to(self._path).parts, PurePosixPath(pattern).parts):
                yield self._other(found)

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: a folder is there when something is in it."""

    def open(self, mode: str = "rb", buffering: int = -1) -> BinaryIO:
        """A seekable stream of the object's bytes."""
        if mode != "rb":
            raise ValueError(f"a remote file is opened with 'rb', not {mode!r}; write through `creating`")
        return cast("BinaryIO", self._system.open_input_file(str(self._path)))

    def read_bytes(self) -> bytes:
        """All of it."""
        with self._system.open_input_stream(str(self._path)) as stream:
            return cast("bytes", stream.readall())

    def read_text(self, encoding: str = "utf-8") -> str:
        """All of it as text."""
        return self.read_bytes().decode(encoding)

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object."""
        try:
            self._system.delete_file(str(self._path))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def random_access(self) -> pa.NativeFile:
        """The object for pyarrow's readers."""
        return self._system.open_input_file(str(self._path))

    def upload(self) -> pa.NativeFile:
        """A stream whose closing makes the object."""
        return self._system.open_output_stream(str(self._path))

    def remove_tree(self) -> None:
        """Remove everything below."""
        if self.is_dir():
            self._system.delete_dir(str(self._path))


def _fits(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_fits(parts[left:], pattern[1:]) for left in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


AnyPath = Path | RemotePath
#: So many bytes of an upload are in memory at a time.
_PIECE = 64 << 20
#: What decoding damaged JSON can raise.
DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

#: A relative path that may lead out of its folder: absolute, with a drive letter, `..`, a backslash, a NUL, or nothing
#: at all. A pattern, and one that RE2 reads as well, because Arrow applies it to whole columns.
UNSAFE_PATH = r"^/|^[A-Za-z]:|\\|\x00|(^|/)\.\.(/|$)|^$"
# In Python alone `$` also stands before a line break at the end.
_UNSAFE_TEXT = re.compile(UNSAFE_PATH.replace("$", r"\Z"))
_UNSAFE_BYTES = re.compile(UNSAFE_PATH.replace("$", r"\Z").encode())


def is_unsafe(path: str | bytes) -> bool:
    """Whether a relative path may lead out of its folder. This is the only rule for that: nothing else decides it.

    >>> [is_unsafe(path) for path in ("a/b.jpg", "a/../b.jpg", "/a", "C:a", "")]
    [False, True, True, True, True]
    """
    return bool(_UNSAFE_TEXT.search(path) if isinstance(path, str) else _UNSAFE_BYTES.search(path))


def is_plain(path: str) -> bool:
    """Whether a path is safe and written in the one way that names and folders joined by `/` can be.

    >>> [is_plain(path) for path in ("a/b.jpg", "./a", "a//b", "a/")]
    [True, False, False, False]
    """
    return not is_unsafe(path) and not {"", "."}.intersection(path.split("/"))


def at(text: str) -> AnyPath:
    """The place that a path or a URL names; UsageError where no file system knows the URL.

    >>> at("raw/coco").name
    'coco'
    """
    scheme, mark, rest = text.partition("://")
    if not mark:
        return Path(text)
    if scheme == "hf":
        return RemotePath(*hub_files.opened(text, rest))
    bare, question, query = rest.partition("?")
    if scheme == "file":
        return Path(f"/{bare.lstrip('/')}")
    try:
        system, path = fs.FileSystem.from_uri(f"{scheme}://{bare.rstrip('/')}{question}{query}")
    except (pa.ArrowException, OSError, ValueError) as error:
        why = str(error).partition("\n")[0]
        raise UsageError(
            f"{text}: not a place that can be opened ({why}); give a folder, or s3://BUCKET/PREFIX."
        ) from error
    if not path:
        raise UsageError(f"{text}: names no bucket; give a folder, or s3://BUCKET/PREFIX.")
    return RemotePath(system, scheme, path, f"{question}{query}")


def cache() -> Path:
    """This package's part of the user's cache folder: the sample root, archive indexes, the sample corpus."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vpt-data"


def below(path: AnyPath, folder: AnyPath) -> str:
    """The posix path of `path` relative to a folder that holds it."""
    if isinstance(path, RemotePath):
        assert isinstance(folder, RemotePath)
        return path.relative_to(folder).as_posix()
    assert isinstance(folder, Path)
    return path.relative_to(folder).as_posix()


def names(folder: AnyPath) -> frozenset[str]:
    """The names in a folder, read once; none where there is no such folder."""
    if isinstance(folder, RemotePath):
        return frozenset(found.name for found in folder.iterdir())
    try:
        return frozenset(os.listdir(folder))  # noqa: PTH208 - a set of names, not of Path objects
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()


@contextmanager
def creating(path: AnyPath, durable: bool = False) -> Iterator[BinaryIO]:
    """A file to write that appears under its name when the block ends well, and not at all when it does not.

    durable   on a disk, wait until the bytes are on it
    """
    if isinstance(path, RemotePath):
        with tempfile.TemporaryFile() as file:
            yield cast("BinaryIO", file)
            _upload(path, cast("BinaryIO", file))
        return
    # Two processes may make the same file at once (both right): each under a name of its own. Their ids would not
    # do, since two machines, or containers, may share the folder.
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder of a disk are on it: a rename is durable only then."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _upload(path: RemotePath, file: BinaryIO) -> None:
    """Make an object of all bytes of a local file, or leave what has its name as it is.

    Closing or dropping a stream publishes what was written to it, so an interrupt must not come between two pieces:
    it reaches the main thread only, and the upload is done by another. The store refuses one that has failed.
    """
    file.flush()

    def send() -> None:
        size = os.fstat(file.fileno()).st_size
        data = pa.py_buffer(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)) if size else pa.py_buffer(b"")
        pieces = [data.slice(start, min(_PIECE, size - start)) for start in range(0, size, _PIECE)]
        stream = path.upload()
        try:
            for piece in pieces:
                stream.write(piece)
                stream.flush()  # else all of it would wait in memory
        finally:
            stream.close()  # fails again, and publishes nothing, where a piece has failed

    with ThreadPoolExecutor(1) as thread:
        thread.submit(send).result()


def write(path: AnyPath, data: bytes, durable: bool = False) -> None:
    """Make a small file in one step."""
    with creating(path, durable) as file:
        file.write(data)


def readable(path: AnyPath) -> pa.NativeFile:
    """A file for pyarrow's readers: memory mapped on a disk, ranged reads in an object store."""
    return path.random_access() if isinstance(path, RemotePath) else pa.memory_map(str(path))


def parquet_source(path: AnyPath) -> Path | pa.NativeFile:
    """What pyarrow's Parquet readers take for a file."""
    return path.random_access() if isinstance(path, RemotePath) else path


def read_arrow(path: AnyPath) -> pa.Table:
    """An Arrow file as a table; on a disk nothing is copied."""
    with readable(path) as source:
        return pa.ipc.open_file(source).read_all()


def write_arrow(path: AnyPath, table: pa.Table) -> None:
    """Write an Arrow file in one step."""
    with creating(path) as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def remove_tree(path: AnyPath) -> None:
    """Remove a folder and all that is in it, if it is there."""
    if isinstance(path, RemotePath):
        path.remove_tree()
    else:
        shutil.rmtree(path, ignore_errors=True)


def sha256(path: AnyPath) -> str:
    """The sha256 of a file's bytes.

    Two places hash while they do something else with the same bytes: downloads move a progress bar and compare git's
    id as well (upstream/download), and an annotation file is hashed as it is read (upstream/rawfile).
    """
    with path.open("rb") as file:
        return hashlib.file_digest(cast("Any", file), "sha256").hexdigest()


def shipped(folder: Literal["recipes", "manifests"]) -> Path:
    """Where the recipes or manifests that come with the package are located (in a wheel, or beside the source)."""
    package = Path(str(resources.files("vpt_data")))
    packed = package / f"_{folder}"
    return packed if packed.is_dir() else package.parent / folder
