"""What is where under a raw root: folders listed once, archives that stand for folders, links that lead out."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from vpt_data import store
from vpt_data.store import AnyPath, RemotePath

_ENDINGS = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")
_PART = r"\.(?:zip|tar)(?:[-_.]?part[-_.]?|[-_.])"
_NUMBER = r"(\d+|(?!gz|xz|bz|lz|br)[a-z]{2})"


class Listing(NamedTuple):
    """Plain files and links directly in a folder; `out`: the folder itself is reached by a link that leads out.

    problem   why it could not be listed, where it is there; "" otherwise
    """

    files: frozenset[str] = frozenset()
    links: frozenset[str] = frozenset()
    out: bool = False
    problem: str = ""


#: Environment variable with folders, separated as in PATH, that links of a raw root may lead into. It reaches worker
#: processes and ranks by itself, so that every reader of a raw root follows the same links.
FOLLOW_LINKS = "VPT_DATA_FOLLOW_LINKS"


def followed() -> list[str]:
    """The real paths of the folders that FOLLOW_LINKS names."""
    return [os.path.realpath(folder) for folder in os.environ.get(FOLLOW_LINKS, "").split(os.pathsep) if folder]


class Folders:
    """The folders of a raw root, each listed once.

    Links that lead out of the root are not followed, but for those into folders that FOLLOW_LINKS names.
    """

    def __init__(self, root: AnyPath) -> None:
        self._root = root
        inside = [os.path.realpath(root), *followed()] if isinstance(root, Path) else []
        self._inside = [folder.rstrip(os.sep) + os.sep for folder in inside]
        self._listed: dict[str, Listing] = {}

    def listing(self, folder: str) -> Listing:
        """What is directly in a folder given relative to the root, "" for the root itself."""
        found = self._listed.get(folder)
        if found is None:
            found = self._listed[folder] = self._list(folder)
        return found

    def leads_out(self, path: str) -> bool:
        """Whether some link on the way to a file or folder leads out of the root and of the folders named."""
        if isinstance(self._root, RemotePath):
            return False
        real = os.path.realpath(self._root / path) + os.sep
        return not any(real.startswith(folder) for folder in self._inside)

    def first_out(self, folder: str) -> str:
        """The first link on the way to a folder that leads out of the root; the folder itself where there is none."""
        parts = folder.split("/")
        ways = ("/".join(parts[:count]) for count in range(1, len(parts) + 1))
        return next((way for way in ways if self.leads_out(way)), folder)

    def is_file(self, path: str) -> bool:
        """Whether a link leads to a plain file (what else it could be: a folder, a pipe, nothing)."""
        try:
            return Path(str(self._root), path).is_file()
        except OSError:
            return False  # a loop of links

    def _list(self, folder: str) -> Listing:
        place = self._root / folder if folder else self._root
        if self.leads_out(folder):
            return Listing(out=True)
        files, links = [], []
        try:
            if isinstance(place, RemotePath):
                return Listing(store.names(place))
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_symlink():
                        links.append(entry.name)
                    elif entry.is_file():
                        files.append(entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return Listing()
        except OSError as error:
            return Listing(problem=f"{folder} cannot be listed ({error.strerror or error})")
        return Listing(frozenset(files), frozenset(links))


class Parts(NamedTuple):
    """The files of one archive by name, in the order of their bytes; what is wrong with the series, or ""."""

    names: tuple[str, ...]
    problem: str = ""


def standing_for(folder: str, names: Collection[str]) -> list[Parts]:
    """The archives among `names` that are called like a folder: `images.zip`, `images.tar.00` and so on.

    >>> standing_for("images", {"images.zip", "images.tar.1", "images.tar.0", "images.txt"})
    [Parts(names=('images.zip',), problem=''), Parts(names=('images.tar.0', 'images.tar.1'), problem='')]
    """
    found = [Parts((folder + ending,)) for ending in _ENDINGS if folder + ending in names]
    return found + series(re.compile(re.escape(folder) + _PART + _NUMBER), names)


def matching(pattern: str, names: Collection[str]) -> list[Parts]:
    """The archive of a given name, or in parts where the name has a `*` for their numbers or letters."""
    if "*" not in pattern:
        return [Parts((pattern,))] if pattern in names else []
    head, _, tail = pattern.partition("*")
    return series(re.compile(re.escape(head) + _NUMBER + re.escape(tail)), names)


def series(pattern: re.Pattern[str], names: Collection[str]) -> list[Parts]:
    """The parts among `names`, by the number (0, 00, 1, ...) or letters (aa, ab, ...) that group 1 of `pattern` is."""
    parts = sorted((_number(match[1]), name) for name in names if (match := pattern.fullmatch(name)))
    if not parts:
        return []
    first = parts[0][0]
    whole = [name for at, (number, name) in enumerate(parts) if number == first + at]
    if first > 1:
        return [Parts((), f"{parts[0][1]}: the parts before it are missing")]
    if len(whole) < len(parts):
        # Only what stands before the gap can be placed.
        whole = whole[: next(at for at, (number, _) in enumerate(parts) if number != first + at)]
        return [Parts(tuple(whole), f"{whole[-1]}: the part behind it is missing")]
    return [Parts(tuple(whole))]


def _number(text: str) -> int:
    return int(text) if text.isdigit() else (ord(text[0]) - ord("a")) * 26 + ord(text[1]) - ord("a")


class Mount(NamedTuple):
    """An archive that may stand for a folder: its folder, its parts, and how member names begin there."""

    folder: str
    parts: Parts
    prefix: str


def mounts(place: str, explicit: dict[str, str], folders: Folders) -> list[Mount]:
    """The archives that may hold the files of the folder `place`: those called like it or like a folder above it.

    A member may repeat the archive's name as its first folder or not. `explicit` names archives that are called
    otherwise, with the folder that their members are relative to.
    """
    found = []
    folder = place
    while folder:
        above, _, last = folder.rpartition("/")
        below = place[len(folder) :].lstrip("/")
        for parts in standing_for(last, _names(folders, above)):
            found += [_mount(above, parts, posixpath.join(last, below, "")), _mount(above, parts, _slashed(below))]
        folder = above
    for pattern, target in explicit.items():
        if f"{place}/".startswith(target):
            above, _, last = pattern.rpartition("/")
            prefix = f"{place}/".removeprefix(target)
            found += [_mount(above, parts, prefix) for parts in matching(last, _names(folders, above))]
    return found


def _mount(folder: str, parts: Parts, prefix: str) -> Mount:
    problem = parts.problem and posixpath.join(folder, parts.problem)
    return Mount(folder, parts._replace(problem=problem), prefix)


def _names(folders: Folders, folder: str) -> frozenset[str]:
    listing = folders.listing(folder)
    return listing.files | listing.links


def _slashed(folder: str) -> str:
    return f"{folder}/" if folder else ""
