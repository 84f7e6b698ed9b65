"""What the upstreams are, and what of them is under a raw root: the answer to `vpt-data sources`."""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vpt_data import store
from vpt_data.errors import RawError
from vpt_data.inspect import raw_images
from vpt_data.inspect.raw_images import Progress, Stock
from vpt_data.report import table
from vpt_data.sources import locate
from vpt_data.sources.base import Job
from vpt_data.upstream.catalog import Files, ImageSet, Upstream, upstreams

#: Width of text where there is no terminal, and the least that a table can be squeezed to.
_WIDTH, _NARROWEST = 100, 80


@dataclass(frozen=True, slots=True)
class Place:
    """A folder with images: how many files and folders are in it."""

    place: str
    files: int
    folders: int


@dataclass(slots=True)
class DatasetReport:
    """A data set of an upstream.

    rows      how many it should have, where its owners say so
    places    where each of its files belongs, by role; `optional` are roles that it can be read without
    found, missing, second_copies, problem, images   what of it is there; nothing without a raw root
    """

    rows: int | None
    places: dict[str, str]
    optional: list[str]
    found: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    second_copies: list[str] = field(default_factory=list)
    problem: str | None = None
    images: Stock | None = None

    def as_dict(self, with_root: bool) -> dict[str, Any]:
        """Plain values for JSON."""
        about: dict[str, Any] = {"rows": self.rows, "places": self.places, "optional": self.optional}
        if not with_root:
            return about
        there = {name: getattr(self, name) for name in ("found", "missing", "second_copies", "problem")}
        return about | there | {"images": self.images and self.images.as_dict()}


@dataclass(frozen=True, slots=True)
class SourceReport:
    """An upstream, as manifests/sources.toml describes it, and its data sets."""

    upstream: Upstream
    datasets: dict[str, DatasetReport]

    def as_dict(self, with_root: bool) -> dict[str, Any]:
        """Plain values for JSON."""
        about = {key: getattr(self.upstream, key) for key in ("title", "homepage", "license", "license_note", "get")}
        return about | {"datasets": {name: each.as_dict(with_root) for name, each in self.datasets.items()}}


@dataclass(frozen=True, slots=True)
class ImageSetReport:
    """Images of one folder of the raw root, and the places where they are found."""

    images: ImageSet
    found: list[Place]

    def as_dict(self, with_root: bool) -> dict[str, Any]:
        """Plain values for JSON."""
        about: dict[str, Any] = {"license": self.images.license, "attribution": self.images.attribution}
        return about | ({"found": [asdict(place) for place in self.found]} if with_root else {})


@dataclass(slots=True)
class RawReport:
    """Every upstream and image set; with a raw root what of them is there, and what is wrong with archives."""

    raw: str | None
    sources: dict[str, SourceReport]
    images: dict[str, ImageSetReport]
    problems: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        with_root = self.raw is not None
        return {
            "raw": self.raw,
            "sources": {name: each.as_dict(with_root) for name, each in self.sources.items()},
            "images": {folder: each.as_dict(with_root) for folder, each in self.images.items()},
        } | ({"problems": self.problems} if with_root else {})


def _no_progress(done: int, total: int) -> None:
    """Nobody is watching."""


def sources(root: Path | None, sizes: bool = True, progress: Progress = _no_progress) -> RawReport:
    """Every upstream of manifests/sources.toml; with a raw root, what of it is there.

    With a root the rows of all files that are there are read, and the images they name are looked for, in folders
    and archives. Raises RawError if the root is no folder; what is wrong with one file is in its `problem`.

    sizes      also look at the header of each image found: sizes that differ from the rows', broken files
    progress   called with (done, total): first rows, then, with `sizes`, headers
    """
    known = upstreams()
    if root is not None:
        locate.check_root(root)
    jobs: dict[raw_images.Name, list[Job]] = {}
    found = RawReport(
        raw=None if root is None else str(root),
        sources={name: _source(name, upstream, root, jobs) for name, upstream in known.source.items()},
        images=_images(known.images, root),
    )
    if root is not None:
        expected = sum(known.source[source].dataset[dataset].rows or 0 for source, dataset in jobs)
        stocks, found.problems = raw_images.take_stock(root, jobs, expected, sizes, progress)
        for (source, dataset), stock in stocks.items():
            about = found.sources[source].datasets[dataset]
            about.images = stock
            about.problem = about.problem or stock.problem
    return found


def _source(name: str, upstream: Upstream, root: Path | None, jobs: dict[raw_images.Name, list[Job]]) -> SourceReport:
    return SourceReport(
        upstream, {key: _dataset(name, key, files, root, jobs) for key, files in upstream.dataset.items()}
    )


def _dataset(
    source: str, dataset: str, files: Files, root: Path | None, jobs: dict[raw_images.Name, list[Job]]
) -> DatasetReport:
    """What a data set is and, with a root, where its files are; those that can be read go into `jobs`."""
    about = DatasetReport(files.rows, {role: places[0] for role, places in files.places.items()}, files.optional)
    if root is None:
        return about
    try:
        found = locate.find(root, source, [dataset])
    except RawError as error:
        about.problem = str(error)
        return about
    if found.jobs:
        jobs[source, dataset] = found.jobs
    names = [store.below(file.path, root) for job in found.jobs for file in job.files.values()]
    if "rows" not in files.places:  # nothing to read rows from
        places = [name for paths in files.places.values() for path in paths for name in (path, f"{path}.gz")]
        names = [name for name in places if (root / name).is_file()][:1]
    about.found = list(dict.fromkeys(names))
    about.missing = [gap.places[0] for gap in found.missing]
    about.second_copies = found.second_copies
    return about


def _images(known: dict[str, ImageSet], root: Path | None) -> dict[str, ImageSetReport]:
    listed: dict[str, Place | None] = {}

    def there(place: str, root: Path) -> Place | None:
        if place not in listed:
            listed[place] = _listing(place, root)
        return listed[place]

    return {
        folder: ImageSetReport(
            images,
            [found for place in (folder, *images.places) if root is not None and (found := there(place, root))],
        )
        for folder, images in known.items()
    }


def _listing(place: str, root: Path) -> Place | None:
    """How many files and folders a folder holds, or None where there is none."""
    if not (root / place).is_dir():
        return None
    folders = total = 0
    with os.scandir(root / place) as entries:
        for entry in entries:
            total += 1
            folders += entry.is_dir()
    return Place(place, total - folders, folders)


def text(found: RawReport, width: int | None = None) -> str:
    """The same for people, in lines of at most `width` letters (those of the terminal where None)."""
    width = max(_NARROWEST, width or shutil.get_terminal_size((_WIDTH, 24)).columns)
    with_root = found.raw is not None
    said: list[str] = []
    for name, source in found.sources.items():
        about = source.upstream
        note = f" ({about.license_note})" if about.license_note else ""
        said += _wrapped(f"{name}: {about.title}", width, "  ")
        said += _wrapped(f"  {about.homepage}", width, "    ")
        said += _wrapped(f"  licence: {about.license}{note}", width, "    ")
        said += _wrapped(f"  how to get it: {about.get}", width, "    ")
        said += _table(_datasets(source.datasets, with_root), width, "  ")
        if with_root:
            said += _stocks(source.datasets, width)
        said.append("")
    if with_root:
        said += _folders(found, width)
    else:
        said.append("Give --raw DIR to see what of it is there.")
    return "\n".join(said).rstrip()


def _wrapped(line: str, width: int, indent: str) -> list[str]:
    """A line cut at blanks, further lines indented; addresses and paths stay whole."""
    return textwrap.wrap(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, replace_whitespace=False
    )


def _table(lines: str, width: int, indent: str) -> list[str]:
    """A text table whose last column is wrapped."""
    head, rule, *rows = [indent + line for line in lines.splitlines()]
    last = rule.rindex("  ") + 2
    cut = [wrapped for row in rows for wrapped in _wrapped(row, width, " " * last)]
    return [head, rule[:width], *cut]


def _folders(found: RawReport, width: int) -> Iterator[str]:
    """Which images are in which folder, and of which there is none."""
    rows = [
        (folder, place.place, f"{place.files:,}", f"{place.folders:,}")
        for folder, images in found.images.items()
        for place in images.found
    ]
    if rows:
        yield from (*table(("images of", "found in", "files", "folders"), rows).splitlines(), "")
    stocks = [about.images for source in found.sources.values() for about in source.datasets.values()]
    # Images may also be in archives.
    there = {folder for stock in stocks if stock for folder, (_, count) in stock.sets.items() if count}
    gone = [folder for folder, images in found.images.items() if not images.found and folder not in there]
    for problem in found.problems:
        yield from _wrapped(f"{problem}.", width, "  ")
    if gone:
        yield from _wrapped(f"No images of: {', '.join(gone)}", width, "  ")


def _stocks(datasets: dict[str, DatasetReport], width: int) -> Iterator[str]:
    """What was counted in the rows of a source, then where images were found and examples of what is wrong."""
    stocks = {name or "(all)": about.images for name, about in datasets.items() if about.images}
    if not stocks:
        return
    head = ("data set", "read", "bad", "images", "found", "missing", "broken", "wrong size")
    rows = [(name, *_numbers(stock)) for name, stock in stocks.items()]
    yield ""
    yield from (f"  {line}" for line in table(head, rows).splitlines())
    for name, stock in stocks.items():
        places = ", ".join(f"{place} {count:,}" for place, count in stock.found.most_common())
        if places:
            yield from _wrapped(f"  {name}: found in {places}", width, "    ")
        for found, title in (
            (stock.missing, "missing"),
            (stock.unreadable, "broken"),
            (stock.wrong_size, "wrong size"),
        ):
            if found is not None and found.count:
                more = ["..."] if found.count > len(found.first) else []
                yield from _wrapped(f"  {name}: {title}: {'; '.join([*found.first, *more])}", width, "    ")


def _numbers(stock: Stock) -> Iterator[str]:
    yield from (f"{number:,}" for number in (stock.rows, stock.malformed, stock.distinct, stock.found.total()))
    yield from (
        "-" if count is None else f"{count.count:,}" for count in (stock.missing, stock.unreadable, stock.wrong_size)
    )


def _datasets(datasets: dict[str, DatasetReport], with_root: bool) -> str:
    rows: list[tuple[str, ...]] = []
    for name, about in datasets.items():
        count = "" if about.rows is None else f"{about.rows:,}"
        if with_root:
            rows.append((name or "(all)", count, *_state(about)))
        else:
            needed = (place for role, place in about.places.items() if role not in about.optional)
            rows.append((name or "(all)", count, ", ".join(needed)))
    header = ("data set", "rows", "state", "files") if with_root else ("data set", "rows", "files")
    return table(header, rows)


def _state(about: DatasetReport) -> tuple[str, str]:
    if about.problem:
        return "unusable", about.problem
    copies = f" (second copy: {', '.join(about.second_copies)})" if about.second_copies else ""
    if about.missing:
        return "missing", ", ".join(about.missing) + copies
    return "found", ", ".join(about.found) + copies
