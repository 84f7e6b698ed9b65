"""Images of a raw root: where they are located, how large they are, and their bytes.

An annotation names an image by its canonical path (`coco/train2017/000000000154.jpg`); manifests/sources.toml says in
which other folders, under which other names and in which archives the same file may be. Folders come before
archives. Nothing outside the raw root is ever read. Sizes and boxes are those of the stored pixels, EXIF orientation
ignored.
"""

from __future__ import annotations

import functools
import posixpath
import re
import threading
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from vpt_data import store
from vpt_data.columns import Bools, relist, unlist
from vpt_data.errors import RawError
from vpt_data.images.archive_members import Member
from vpt_data.images.archives import EXTENSIONS, MAX_MEMBER_BYTES, Archive
from vpt_data.images.folders import Folders, Mount, mounts
from vpt_data.images.identity import identities
from vpt_data.images.policy import MAX_PIXELS, Failure, Picture, Verify, check, header, is_turned
from vpt_data.schema import Reason
from vpt_data.store import AnyPath
from vpt_data.upstream.catalog import image_set, upstreams

#: Half a surrogate pair cannot come out of a column of strings, and no file can be asked for with it.
_HALF_PAIR = re.compile("[\ud800-\udfff]")

T = TypeVar("T")


@functools.cache
def _places(folder: str) -> tuple[str, ...]:
    """The folders that images of a canonical folder may be located in, itself first."""
    known = image_set(folder)
    if known is None:
        return (folder,)
    prefix, images = known
    below = f"{folder}/".removeprefix(prefix)
    return tuple(dict.fromkeys([folder, *((place + below).rstrip("/") for place in images.places)]))


def _names(folder: str, name: str) -> list[str]:
    """How a picture may be called without regard to its extension.

    >>> _names("coco/train2014", "COCO_train2014_000000000009.jpg")[1]
    '000000000009.jpg'
    """
    known = image_set(folder)
    beginnings = () if known is None or known[1].scheme is None else _beginnings(known[1].scheme)
    bare = next((name.removeprefix(start) for start in beginnings if name.startswith(start)), name)
    return list(dict.fromkeys([name, bare, *(start + bare for start in beginnings)]))


@functools.cache
def _beginnings(scheme: str) -> tuple[str, ...]:
    sets = upstreams().images.values()
    return tuple(dict.fromkeys(images.prefix for images in sets if images.scheme == scheme and images.prefix))


def _spellings(name: str) -> Iterator[str]:
    """A file name, then with other extensions that a download may have given to it."""
    yield name
    stem, extension = posixpath.splitext(name)
    for ending in (extension.lower(), *EXTENSIONS) if extension else ():
        yield stem + ending
        yield stem + ending.upper()


class FoundImage(NamedTuple):
    """Where an image is located: in a file of its own, or as a member of the archive that begins in `file`."""

    file: AnyPath
    archive: Archive | None = None
    member: Member | None = None

    def open(self) -> BinaryIO:
        """The image's bytes, fetched as they are read."""
        if self.archive is not None and self.member is not None:
            return self.archive.open(self.member)
        return self.file.open("rb")

    def read(self) -> bytes:
        """All of its bytes, at most MAX_MEMBER_BYTES; raises RawError or OSError."""
        if self.archive is not None and self.member is not None:
            return self.archive.read(self.member)
        if self.file.stat().st_size > MAX_MEMBER_BYTES:
            raise RawError(f"the file has more than {MAX_MEMBER_BYTES:,} bytes.")
        return self.file.read_bytes()


class ImageRoot:
    """The images under one raw root; each folder is listed once, however many rows name it. For several threads.

    verify   how thoroughly `load` looks at a picture: see policy.check
    """

    def __init__(self, root: AnyPath, verify: Verify = "markers") -> None:
        self._root, self._verify = root, verify
        self._folders = Folders(root)
        self._mounts: dict[str, list[Mount]] = {}
        self._archives: dict[tuple[str, ...], Archive | str] = {}
        self._lock = threading.RLock()

    def find(self, path: str) -> FoundImage | Failure:
        """Where the image of a canonical path is located, or why there is none that may be read."""
        if store.is_unsafe(path) or _HALF_PAIR.search(path):
            return Failure(Reason.UNSAFE_PATH, f"{path}: the image path leads out of the raw root")
        folder, _, name = path.rpartition("/")
        titles = _names(folder, name)
        out, problems = False, []
        for place in _places(folder):
            found = self._in_folder(place, titles)
            if isinstance(found, FoundImage):
                return found
            out |= found == _OUT
            problems += [found] if found else []
        for mount in self._mounted(folder):
            archive = self._archive(mount)
            if isinstance(archive, str):
                out |= archive == _OUT
                problems.append(archive)
                continue
            for title in titles:
                if (member := archive.find(mount.prefix + title)) is not None:
                    return FoundImage(self._root / mount.folder / mount.parts.names[0], archive, member)
            problems += [archive.problem] if archive.problem else []
        if out:
            # Named once for a folder, however many images it should hold.
            return Failure(Reason.UNSAFE_PATH, f"{path}: {_OUT}", (f"{self._folders.first_out(folder)}: {_OUT}",))
        problems = list(dict.fromkeys(problems))
        return Failure(Reason.MISSING_IMAGE, "; ".join([f"{path}: not under the raw root", *problems]), tuple(problems))

    def locate(self, path: str) -> AnyPath | None:
        """The file behind a canonical path (an archive's first file where it is in one), or None."""
        found = self.find(path)
        return found.file if isinstance(found, FoundImage) else None

    def size(self, path: str) -> tuple[int, int] | Failure:
        """Width and height of the stored pixels, from the header alone."""
        return self._with(path, lambda found: self._header(path, found))

    def turned(self, path: str) -> bool:
        """Whether viewers show the image turned by a quarter, as its EXIF orientation says."""
        data = self.read(path)
        return not isinstance(data, Failure) and is_turned(data)

    def read(self, path: str) -> bytes | Failure:
        """The image's bytes as they are stored, whatever they are."""
        return self._with(path, FoundImage.read)

    def load(
        self, path: str, width: int | None, height: int | None, rescale: bool = False, limit: int = MAX_PIXELS
    ) -> Picture | Failure:
        """The image's bytes, checked against the size the annotation gives; `rescale` and `limit`: see decode.check."""
        data = self.read(path)
        return data if isinstance(data, Failure) else check(path, data, width, height, self._verify, rescale, limit)

    def identity(self, paths: pa.Array) -> pa.Array:
        """`identities` with what this raw root knows of Visual Genome's images."""
        return identities(paths, self._root)

    def problems(self) -> list[str]:
        """What is wrong with archives that were looked into so far, a sentence each without its full stop."""
        with self._lock:
            archives = list(self._archives.values())
        problems = [archive if isinstance(archive, str) else archive.problem for archive in archives]
        return sorted({problem for problem in problems if problem})

    @staticmethod
    def _header(path: str, found: FoundImage) -> tuple[int, int] | Failure:
        with found.open() as file:
            return header(path, file)

    def _with(self, path: str, how: Callable[[FoundImage], T | Failure]) -> T | Failure:
        found = self.find(path)
        if isinstance(found, Failure):
            return found
        try:
            return how(found)
        except RawError as error:
            return Failure(Reason.BAD_IMAGE, f"{path}: {_unstopped(error)}")
        except OSError as error:
            return Failure(Reason.BAD_IMAGE, f"{path}: the file cannot be read ({error.strerror or error})")
        except MemoryError:
            return Failure(Reason.BAD_IMAGE, f"{path}: it takes more memory than there is")

    def _in_folder(self, place: str, titles: list[str]) -> FoundImage | str:
        """The image in one folder; else what was wrong there, "" where it is just not there."""
        listing = self._folders.listing(place)
        if listing.out:
            return _OUT
        problem = listing.problem
        for title in titles if listing.files or listing.links else ():
            for name in _spellings(title):
                if name in listing.files:
                    return FoundImage(self._root / place / name)
                if name in listing.links:
                    link = posixpath.join(place, name)
                    if self._folders.leads_out(link):
                        problem = _OUT
                    elif self._folders.is_file(link):
                        return FoundImage(self._root / link)
                    else:
                        problem = f"the link {link} does not lead to a file"
        return problem

    def _mounted(self, folder: str) -> list[Mount]:
        """The archives that may hold images of a canonical folder, in the order in which they are asked."""
        with self._lock:
            if folder not in self._mounts:
                known = upstreams().archives
                found = [mount for place in _places(folder) for mount in mounts(place, known, self._folders)]
                self._mounts[folder] = list(dict.fromkeys(found))
            return self._mounts[folder]

    def _archive(self, mount: Mount) -> Archive | str:
        """The archive, opened once; else what is wrong with it."""
        names = tuple(posixpath.join(mount.folder, name) for name in mount.parts.names)
        with self._lock:
            key = names or (mount.parts.problem,)
            if key not in self._archives:
                self._archives[key] = self._opened(names, mount)
            return self._archives[key]

    def _opened(self, names: tuple[str, ...], mount: Mount) -> Archive | str:
        if any(self._folders.leads_out(name) for name in names):
            return _OUT
        # A series of parts is called after the first of them.
        name = names[0] if names else mount.folder
        try:
            return Archive(name, [self._root / part for part in names], mount.parts.problem)
        except RawError as error:
            return _unstopped(error)
        except OSError as error:
            return f"{name} cannot be read ({error.strerror or error})"


#: What to do about a link, as part of a sentence.
_OUT = (
    "the link leads out of the raw root; name the folder that it leads into with --follow-links, "
    "or put or mount it there"
)


def _unstopped(error: RawError) -> str:
    return str(error).removesuffix(".")


def probe(images: pa.Array, rows: Bools, root: ImageRoot) -> tuple[pa.Array, dict[str, Failure]]:
    """An `images` column of annotations with the sizes that the source does not state, read from the headers.

    Only images of those `rows` (bool[N]) are looked at, so that what a row says never depends on its neighbours.
    Images that cannot be read keep a null size, and are named with the reason.
    """
    listed = unlist(images)
    paths, widths, heights = listed.values.flatten()
    need = pc.and_(pc.or_(pc.is_null(widths), pc.is_null(heights)), pa.array(rows[listed.rows]))
    if not pc.any(need).as_py():
        return images, {}
    sizes: dict[str, tuple[int, int]] = {}
    failures: dict[str, Failure] = {}
    for path in pc.unique(paths.filter(need)).to_pylist():
        found = root.size(path)
        if isinstance(found, Failure):
            failures[path] = found
        else:
            sizes[path] = found
    probed = [sizes.get(path) for path in paths.to_pylist()]
    width = pa.array([size and size[0] for size in probed], pa.int32())
    height = pa.array([size and size[1] for size in probed], pa.int32())
    fields = [paths, pc.if_else(need, width, widths), pc.if_else(need, height, heights)]
    struct = pa.StructArray.from_arrays(fields, fields=list(images.type.value_type))
    return relist(listed.lengths, struct, images.type), failures
