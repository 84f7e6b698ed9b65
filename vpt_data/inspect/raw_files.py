"""What the upstreams are, and what of them is under a raw root: the answer to `vpt-data sources`."""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vpt_data import store
from vpt_data.errors import RawError
from vpt_data.inspect import raw_images
from vpt_data.inspect.raw_images import Progress
from vpt_data.report import table
from vpt_data.sources import locate
from vpt_data.sources.base import Job
from vpt_data.upstream.catalog import Files, ImageSet, Upstream, upstreams

#: Width of text where there is no terminal, and the least that a table can be squeezed to.
_WIDTH, _NARROWEST = 100, 80


def _no_progress(done: int, total: int) -> None:
    """Nobody is watching."""


def sources(root: Path | None, sizes: bool = True, progress: Progress = _no_progress) -> dict[str, Any]:
    """Every upstream of manifests/sources.toml as plain values; with a raw root, what of it is there.

    With a root the rows of all files that are there are read, and the images they name are looked for, in folders
    and archives. Raises RawError if the root is no folder; what is wrong with one file stands in its `problem`.

    sizes      also look at the header of each image found: sizes that differ from the rows', broken files
    progress   called with (done, total): first rows, then, with `sizes`, headers
    """
    known = upstreams()
    if root is not None:
        locate.check_root(root)
    jobs: dict[raw_images.Name, list[Job]] = {}
    found: dict[str, Any] = {
        "raw": None if root is None else str(root),
        "sources": {name: _source(name, upstream, root, jobs) for name, upstream in known.source.items()},
        "images": _images(known.images, root),
    }
    if root is not None:
        expected = sum(known.source[source].dataset[dataset].rows or 0 for source, dataset in jobs)
        stocks, found["problems"] = raw_images.take_stock(root, jobs, expected, sizes, progress)
        for name, stock in stocks.items():
            about = found["sources"][name[0]]["datasets"][name[1]]
            about["images"] = stock.as_dict()
            about["problem"] = about["problem"] or stock.problem
    return found


def _source(name: str, upstream: Upstream, root: Path | None, jobs: dict[raw_images.Name, list[Job]]) -> dict[str, Any]:
    about = {key: getattr(upstream, key) for key in ("title", "homepage", "license", "license_note", "get")}
    datasets = {key: _dataset(name, key, files, root, jobs) for key, files in upstream.dataset.items()}
    return about | {"datasets": datasets}


def _dataset(
    source: str, dataset: str, files: Files, root: Path | None, jobs: dict[raw_images.Name, list[Job]]
) -> dict[str, Any]:
    """What a data set is and, with a root, where its files are; those that can be read go into `jobs`."""
    about: dict[str, Any] = {
        "rows": files.rows,
        "places": {role: places[0] for role, places in files.places.items()},
        "optional": files.optional,
    }
    if root is None:
        return about
    try:
        found = locate.find(root, source, [dataset])
    except RawError as error:
        return about | {"found": [], "missing": [], "second_copies": [], "problem": str(error), "images": None}
    if found.jobs:
        jobs[source, dataset] = found.jobs
    names = [store.below(file.path, root) for job in found.jobs for file in job.files.values()]
    if "rows" not in files.places:  # nothing to read rows from
        places = [name for paths in files.places.values() for path in paths for name in (path, f"{path}.gz")]
        names = [name for name in places if (root / name).is_file()][:1]
    return about | {
        "found": list(dict.fromkeys(names)),
        "missing": [gap.places[0] for gap in found.missing],
        "second_copies": found.second_copies,
        "problem": None,
        "images": None,
    }


def _images(known: dict[str, ImageSet], root: Path | None) -> dict[str, Any]:
    listed: dict[str, tuple[int, int] | None] = {}
    found: dict[str, Any] = {}
    for folder, images in known.items():
        about: dict[str, Any] = {"license": images.license, "attribution": images.attribution}
        if root is not None:
            there = []
            for place in (folder, *images.places):
                if place not in listed:
                    listed[place] = _listing(root / place)
                if (counts := listed[place]) is not None:
                    there.append({"place": place, "files": counts[0], "folders": counts[1]})
            about["found"] = there
        found[folder] = about
    return found


def _listing(folder: Path) -> tuple[int, int] | None:
    """How many files and folders a folder holds, or None where there is none."""
    if not folder.is_dir():
        return None
    folders = total = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            total += 1
            folders += entry.is_dir()
    return total - folders, folders


def text(found: dict[str, Any], width: int | None = None) -> str:
    """The same for people, in lines of at most `width` letters (those of the terminal where None)."""
    width = max(_NARROWEST, width or shutil.get_terminal_size((_WIDTH, 24)).columns)
    with_root = found["raw"] is not None
    said: list[str] = []
    for name, source in found["sources"].items():
        note = f" ({source['license_note']})" if source["license_note"] else ""
        said += _wrapped(f"{name}: {source['title']}", width, "  ")
        said += _wrapped(f"  {source['homepage']}", width, "    ")
        said += _wrapped(f"  licence: {source['license']}{note}", width, "    ")
        said += _wrapped(f"  how to get it: {source['get']}", width, "    ")
        said += _table(_datasets(source["datasets"], with_root), width, "  ")
        if with_root:
            said += _stock(source["datasets"], width)
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


def _folders(found: dict[str, Any], width: int) -> Iterator[str]:
    """Which images are in which folder, and of which there is none."""
    rows = [
        (folder, place["place"], f"{place['files']:,}", f"{place['folders']:,}")
        for folder, images in found["images"].items()
        for place in images["found"]
    ]
    if rows:
        yield from (*table(("images of", "found in", "files", "folders"), rows).splitlines(), "")
    stocks = [about["images"] for source in found["sources"].values() for about in source["datasets"].values()]
    # Images may also be in archives.
    there = {folder for stock in stocks if stock for folder, count in stock["sets"].items() if count["found"]}
    gone = [folder for folder, images in found["images"].items() if not images["found"] and folder not in there]
    for problem in found["problems"]:
        yield from _wrapped(f"{problem}.", width, "  ")
    if gone:
        yield from _wrapped(f"No images of: {', '.join(gone)}", width, "  ")


def _stock(datasets: dict[str, Any], width: int) -> Iterator[str]:
    """What was counted in the rows of a source, then where images were found and examples of what is wrong."""
    stocks = {name or "(all)": about["images"] for name, about in datasets.items() if about["images"]}
    if not stocks:
        return
    head = ("data set", "read", "bad", "images", "found", "missing", "broken", "wrong size")
    rows = [(name, *_numbers(stock)) for name, stock in stocks.items()]
    yield ""
    yield from (f"  {line}" for line in table(head, rows).splitlines())
    for name, stock in stocks.items():
        places = ", ".join(f"{place} {count:,}" for place, count in stock["found"].items())
        if places:
            yield from _wrapped(f"  {name}: found in {places}", width, "    ")
        for kind, title in (("missing", "missing"), ("unreadable", "broken"), ("wrong_size", "wrong size")):
            if stock[kind] and stock[kind]["count"]:
                more = ["..."] if stock[kind]["count"] > len(stock[kind]["first"]) else []
                yield from _wrapped(f"  {name}: {title}: {'; '.join(stock[kind]['first'] + more)}", width, "    ")


def _numbers(stock: dict[str, Any]) -> Iterator[str]:
    yield from (f"{stock[name]:,}" for name in ("rows", "malformed", "distinct"))
    yield f"{sum(stock['found'].values()):,}"
    yield from (
        "-" if stock[name] is None else f"{stock[name]['count']:,}" for name in ("missing", "unreadable", "wrong_size")
    )


def _datasets(datasets: dict[str, Any], with_root: bool) -> str:
    rows: list[tuple[str, ...]] = []
    for name, about in datasets.items():
        count = "" if about["rows"] is None else f"{about['rows']:,}"
        if with_root:
            rows.append((name or "(all)", count, *_state(about)))
        else:
            needed = (place for role, place in about["places"].items() if role not in about["optional"])
            rows.append((name or "(all)", count, ", ".join(needed)))
    header = ("data set", "rows", "state", "files") if with_root else ("data set", "rows", "files")
    return table(header, rows)


def _state(about: dict[str, Any]) -> tuple[str, str]:
    if about["problem"]:
        return "unusable", about["problem"]
    copies = f" (second copy: {', '.join(about['second_copies'])})" if about["second_copies"] else ""
    if about["missing"]:
        return "missing", ", ".join(about["missing"]) + copies
    return "found", ", ".join(about["found"]) + copies
