"""Which files of a source are under a raw root, and the jobs that read them.

Of the places that the catalog names for a file the first that exists wins, plain or `.gz`, whole or in parts
(`NAME-1.jsonl`, `NAME.part2.jsonl.gz`, ... beside no `NAME.jsonl`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from vpt_data import store
from vpt_data.errors import RawError, unknown_name
from vpt_data.sources.base import Job
from vpt_data.store import AnyPath
from vpt_data.take import Take, own_dataset
from vpt_data.upstream.catalog import Files, upstreams
from vpt_data.upstream.rawfile import RawFile


@dataclass(frozen=True, slots=True)
class Missing:
    """A data set whose main file (or a needed partner of it) is not under the raw root."""

    source: str
    dataset: str
    role: str
    places: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FoundFiles:
    """The jobs that read what is there, what is not there, and second copies that were not read."""

    jobs: list[Job]
    missing: list[Missing]
    second_copies: list[str]


def check_root(root: AnyPath) -> AnyPath:
    """The raw root itself, or one sentence on what is wrong with it."""
    if not root.exists():
        raise RawError(f"{root}: there is no such raw root; give --raw DIR or set VPT_DATA_RAW.")
    if not root.is_dir():
        raise RawError(f"{root}: the raw root is a file; expected the folder that holds the owners' trees.")
    return root


def find(root: AnyPath, source: str, datasets: list[str] | None, limit: int | None = None) -> FoundFiles:
    """Jobs for the data sets (all known ones where None) of a source that has fixed places."""
    known = upstreams().source
    if source not in known:
        raise unknown_name("source", source, known)
    upstream = known[source]
    wanted = list(upstream.dataset) if datasets is None else datasets
    found = FoundFiles([], [], [])
    for dataset in wanted:
        if dataset not in upstream.dataset and "" not in upstream.dataset:
            raise unknown_name(f"data set of {source}", dataset, upstream.dataset)
    # One file may hold several data sets (""): it is read once.
    for name in dict.fromkeys(dataset if dataset in upstream.dataset else "" for dataset in wanted):
        _find_dataset(root, source, name, upstream.dataset[name], limit, found)
    return found


def _find_dataset(root: AnyPath, source: str, dataset: str, files: Files, limit: int | None, out: FoundFiles) -> None:
    partners: dict[str, RawFile] = {}
    for role, places in files.places.items():
        hits, second = _hits(root, places)
        out.second_copies.extend(second)
        if role != "rows" and len(hits) == 1:
            partners[role] = hits[0]
        elif role != "rows" and hits:
            raise RawError(f"{hits[0].name}: {source} expects this file whole, found it in {len(hits)} parts.")
        elif not hits and role not in files.optional:
            out.missing.append(Missing(source, dataset, role, tuple(places)))
            return
    for rows in _hits(root, files.places.get("rows", []))[0]:
        out.jobs.append(Job(source, dataset, {"rows": rows, **partners}, limit=limit))


def _hits(root: AnyPath, places: list[str]) -> tuple[list[RawFile], list[str]]:
    """The files of the first place that has any, and the names of whole copies elsewhere."""
    there = [(place, here) for place in places if (here := _at(root, place))]
    if not there:
        return [], []
    place, first = there[0]
    found = first[:1] if first[0].name == place else first
    second = first[len(found) :] + [file for _, here in there[1:] for file in here]
    return found, [store.below(file.path, root) for file in second]


def _at(root: AnyPath, place: str) -> list[RawFile]:
    """What is at one place: plain and gzipped copy, or else its parts, sorted by name."""
    whole = [path for path in (root / place, root / f"{place}.gz") if _is_there(path)]
    if whole:
        for path in whole:
            _check_file(root, path)
        return [RawFile(path, place) for path in whole]
    folder, suffix = (root / place).parent, PurePosixPath(place).suffix
    stem = PurePosixPath(place).stem
    part = re.compile(rf"{re.escape(stem)}[-_.](part)?[-_.]?\d+(-of-\d+)?{re.escape(suffix)}(\.gz)?")
    parts = [path for path in _listing(folder) if part.fullmatch(path.name)]
    return [RawFile(path, store.below(path, root).removesuffix(".gz")) for path in sorted(parts, key=str)]


def _is_there(path: AnyPath) -> bool:
    """Whether anything is there, be it a link that leads nowhere: that is a mistake to report, not an absence."""
    return path.exists() or path.is_symlink()


def _check_file(root: AnyPath, path: AnyPath) -> None:
    if path.is_dir():
        raise RawError(f"{store.below(path, root)}: this is a folder; expected the file of that name.")
    if not path.exists():
        raise RawError(f"{store.below(path, root)}: this link leads nowhere; expected a file, or a link to one.")


def _listing(folder: AnyPath) -> Iterator[AnyPath]:
    return folder.iterdir() if folder.is_dir() else iter(())


def own_files(root: AnyPath, name: str, take: Take, limit: int | None = None) -> FoundFiles:
    """Jobs for a take that names its own files (sources `table` and `coco_boxes`)."""
    found = FoundFiles([], [], [])
    dataset, read = own_dataset(take), dict[str, AnyPath]()
    for pattern in take.files or []:
        paths: list[AnyPath] = [root / pattern]
        if re.search(r"[*?\[]", pattern):
            paths = sorted(root.glob(pattern), key=str)
        paths = [path for path in paths if _is_there(path)] or _gzipped(root, pattern)
        if not paths:
            found.missing.append(Missing(take.source, dataset, "rows", (pattern,)))
        for path in paths:
            _check_file(root, path)
            rows = RawFile(path, store.below(path, root).removesuffix(".gz"))
            if rows.name in read:  # named twice, or the same file once plain and once gzipped
                found.second_copies.extend([store.below(path, root)] if path != read[rows.name] else [])
                continue
            read[rows.name] = path
            found.jobs.append(Job(take.source, dataset, {"rows": rows, **_partners(root, name, take)}, take, limit))
    return found


def _partners(root: AnyPath, name: str, take: Take) -> Mapping[str, RawFile]:
    if take.instances is None:
        return {}
    paths = [path for path in (root / take.instances, root / f"{take.instances}.gz") if path.is_file()]
    if not paths:
        raise RawError(f"{take.instances}: take {name} names this file as its instances and it is not there.")
    return {"boxes": RawFile(paths[0], take.instances)}


def _gzipped(root: AnyPath, pattern: str) -> list[AnyPath]:
    return [path for path in [root / f"{pattern}.gz"] if _is_there(path)]
