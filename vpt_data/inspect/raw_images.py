"""Which images the raw files name, and which of them are there: the part of `vpt-data sources` that reads rows.

Rows are read as a build reads them; of each file only the distinct images and the sizes that rows claim are kept.
An image that several data sets name is looked for once.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from vpt_data import store
from vpt_data.columns import column
from vpt_data.errors import RawError
from vpt_data.images.policy import Failure, Picture
from vpt_data.images.root import ImageRoot
from vpt_data.schema import Reason
from vpt_data.sources import SOURCES
from vpt_data.sources.base import Job
from vpt_data.store import AnyPath
from vpt_data.upstream.catalog import image_set

#: (source, data set) of manifests/sources.toml.
Name = tuple[str, str]
#: Called with how many rows have been read, or headers looked at, and of how many.
Progress = Callable[[int, int], None]
Size = tuple[int, int]

#: Partner files that say nothing of which images there are, and take longer to read than all rows: without them VSR's
#: rows claim no size.
_NOT_NEEDED = frozenset({"attributes", "attribute_labels", "instances_train", "instances_val"})
_EXAMPLES = 3
_THREADS = 16
_BATCH = 256
_CLAIM = pa.schema([("path", pa.string()), ("width", pa.int32()), ("height", pa.int32())])


@dataclass(slots=True)
class Count:
    """How many, and the first few by name."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        """One more; callers go by name."""
        self.count += 1
        if len(self.first) < _EXAMPLES:
            self.first.append(example)


@dataclass(slots=True)
class Stock:
    """The images of one data set.

    rows, malformed   records read, and those of them that could not be used
    distinct          images named, = found + missing + unreadable
    found             how many are in which folder or archive
    sets              named and found, by folder of manifests/sources.toml
    missing           by path, or a sentence where more is known than that they are not there
    unreadable        broken files, and paths and links that lead out of the raw root; a sentence each
    wrong_size        of those found; None where sizes were not looked at
    """

    rows: int = 0
    malformed: int = 0
    distinct: int = 0
    found: Counter[str] = field(default_factory=Counter)
    sets: dict[str, list[int]] = field(default_factory=dict)
    missing: Count = field(default_factory=Count)
    unreadable: Count = field(default_factory=Count)
    wrong_size: Count | None = None
    problem: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        counts = {
            name: None if (count := getattr(self, name)) is None else {"count": count.count, "first": count.first}
            for name in ("missing", "unreadable", "wrong_size")
        }
        sets = {folder: {"distinct": named, "found": found} for folder, (named, found) in sorted(self.sets.items())}
        start = {"rows": self.rows, "malformed": self.malformed, "distinct": self.distinct}
        return {**start, "found": dict(self.found.most_common()), "sets": sets, **counts}


def take_stock(
    root: AnyPath, jobs: Mapping[Name, Sequence[Job]], expected: int, sizes: bool, progress: Progress
) -> tuple[dict[Name, Stock], list[str]]:
    """What is there of the images that these files name, and what is wrong with archives.

    expected   rows the files should have, for the progress
    sizes      look at the header of every image found; without it nothing is known of wrong sizes, nor which files are
               broken
    """
    images = ImageRoot(root)
    stocks = {name: Stock() for name in jobs}
    claims: dict[Name, pa.Table] = {}
    done = 0
    for name, some in jobs.items():
        for count in _read(some, stocks[name], claims, name):
            done += count
            progress(done, max(done, expected))
    paths = sorted({path for table in claims.values() for path in table["path"].to_pylist()})
    seen: dict[str, str | Failure] = {}
    for path in paths:
        if (look := _look(images, root, path)) is not None:
            seen[path] = look
    there = [path for path, look in seen.items() if isinstance(look, str)]
    read = _sizes(images, there, progress) if sizes else None
    for name, table in claims.items():
        _sort_images(images, table, stocks[name], seen, read)
    return stocks, images.problems()


def _read(jobs: Iterable[Job], stock: Stock, claims: dict[Name, pa.Table], name: Name) -> Iterator[int]:
    """Read the files of a data set into `claims`; yields the rows of each stretch."""
    seen = [_CLAIM.empty_table()]
    for job in jobs:
        bare = replace(job, files={role: raw for role, raw in job.files.items() if role not in _NOT_NEEDED})
        try:
            for chunk in SOURCES[job.source].read(bare):
                seen.append(_claims(chunk.annotations))
                stock.malformed += len(chunk.drops)
                stock.rows += len(chunk.annotations) + len(chunk.drops)
                yield len(chunk.annotations) + len(chunk.drops)
        except RawError as error:
            stock.problem = stock.problem or str(error)
    # By name, so that the first examples are the same however the files are cut.
    claims[name] = _distinct(pa.concat_tables(seen)).sort_by([(key, "ascending") for key in _CLAIM.names])


def _claims(annotations: pa.Table) -> pa.Table:
    """The distinct images of some rows with the sizes they claim."""
    listed = column(annotations, "images").flatten().flatten()
    return _distinct(pa.Table.from_arrays(listed, schema=_CLAIM))


def _distinct(table: pa.Table) -> pa.Table:
    return table.group_by(_CLAIM.names).aggregate([]).select(_CLAIM.names)


def _look(images: ImageRoot, root: AnyPath, path: str) -> str | Failure | None:
    """The place of an image, why it may not be read, or None where it is just not there.

    A place is an archive, or a folder without the folders inside an image set.
    """
    found = images.find(path)
    folder = path.rpartition("/")[0]
    if isinstance(found, Failure):
        return None if found.reason is Reason.MISSING_IMAGE and not found.problems else found
    if found.archive is not None:
        return sys.intern(found.archive.name)
    place = f"{store.below(found.file.parent, root)}/"
    known = image_set(folder)
    inside = f"{folder}/".removeprefix(known[0]) if known else ""
    # One string for all images of a place.
    return sys.intern(place.removesuffix(inside) if inside else place)


def _sizes(images: ImageRoot, paths: list[str], progress: Progress) -> dict[str, Size | Failure]:
    """Width and height of the stored pixels by path, or why they cannot be had."""
    batches = [paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH)]
    found: dict[str, Size | Failure] = {}
    with ThreadPoolExecutor(_THREADS) as pool:
        for batch, sizes in zip(batches, pool.map(lambda batch: [*map(images.size, batch)], batches), strict=True):
            found.update(zip(batch, sizes, strict=True))
            progress(len(found), len(paths))
    return found


def _sort_images(
    images: ImageRoot,
    claims: pa.Table,
    stock: Stock,
    seen: Mapping[str, str | Failure],
    sizes: Mapping[str, Size | Failure] | None,
) -> None:
    """Sort the images of a data set into found, missing, unreadable and wrong size."""
    if sizes is not None:
        stock.wrong_size = Count()
    before, wrong = None, False
    for path, width, height in zip(*(claims[name].to_pylist() for name in _CLAIM.names), strict=True):
        size = sizes.get(path) if sizes else None
        if path != before:
            before, wrong = path, False
            _count(path, stock, size if isinstance(size, Failure) else seen.get(path))
        # Rows that contradict each other are wrong once.
        if stock.wrong_size is None or wrong or size is None or isinstance(size, Failure) or not (width and height):
            continue
        if size != (width, height) and (detail := _mismatch(images, path, size, (width, height))):
            stock.wrong_size.add(detail)
            wrong = True


def _count(path: str, stock: Stock, look: str | Failure | None) -> None:
    stock.distinct += 1
    folder = path.rpartition("/")[0]
    known = image_set(folder)
    of_set = stock.sets.setdefault(known[0] if known else f"{folder}/", [0, 0])
    of_set[0] += 1
    if isinstance(look, str):
        stock.found[look] += 1
        of_set[1] += 1
    elif look is None:
        stock.missing.add(path)
    elif look.reason is Reason.MISSING_IMAGE:
        stock.missing.add(look.detail)
    else:
        stock.unreadable.add(look.detail)


def _mismatch(images: ImageRoot, path: str, size: Size, claimed: Size) -> str | None:
    """One sentence on a wrong size, None where EXIF turns the file to the claimed one, as a build would."""
    if size == claimed[::-1]:
        loaded = images.load(path, *claimed)
        if isinstance(loaded, Picture):
            return None
        if loaded.reason is not Reason.SIZE_MISMATCH:
            return loaded.detail
    return f"{path}: the file is {size[0]}x{size[1]}, the rows say {claimed[0]}x{claimed[1]}"
