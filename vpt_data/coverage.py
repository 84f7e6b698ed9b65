"""What the upstreams are, and what of them lies under a raw root: the answer to `vpt-data sources`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from vpt_data import raw
from vpt_data.errors import RawError
from vpt_data.raw import Files, ImageSet, Upstream, upstreams
from vpt_data.report import table


def sources(root: Path | None) -> dict[str, Any]:
    """Every upstream of manifests/sources.toml as plain values; with a raw root, what of it is there.

    Nothing is opened: records are those the upstream should have, and images are names in a folder, listed
    once. Raises RawError if the root is no folder.
    """
    known = upstreams()
    if root is not None:
        raw.check_root(root)
    return {
        "raw": None if root is None else str(root),
        "sources": {name: _source(name, upstream, root) for name, upstream in known.source.items()},
        "images": _images(known.images, root),
    }


def _source(name: str, upstream: Upstream, root: Path | None) -> dict[str, Any]:
    about = {key: getattr(upstream, key) for key in ("title", "homepage", "license", "license_note", "get")}
    datasets = {key: _dataset(name, key, files, root) for key, files in upstream.dataset.items()}
    return about | {"datasets": datasets}


def _dataset(source: str, dataset: str, files: Files, root: Path | None) -> dict[str, Any]:
    about: dict[str, Any] = {
        "rows": files.rows,
        "places": {role: places[0] for role, places in files.places.items()},
        "optional": files.optional,
    }
    if root is None:
        return about
    try:
        found = raw.find(root, source, [dataset])
    except RawError as error:
        return about | {"found": [], "missing": [], "second_copies": [], "problem": str(error)}
    names = [_stored(root, file.path) for job in found.jobs for file in job.files.values()]
    return about | {
        "found": list(dict.fromkeys(names)),
        "missing": [gap.places[0] for gap in found.missing],
        "second_copies": found.second_copies,
        "problem": None,
    }


def _stored(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


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


def text(found: dict[str, Any]) -> str:
    """The same for people."""
    with_root = found["raw"] is not None
    said: list[str] = []
    for name, source in found["sources"].items():
        note = f" ({source['license_note']})" if source["license_note"] else ""
        said += [
            f"{name}: {source['title']}",
            f"  {source['homepage']}",
            f"  licence: {source['license']}{note}",
        ]
        said += [f"  how to get it: {source['get']}"]
        said += [f"  {line}" for line in _datasets(source["datasets"], with_root).splitlines()]
        said.append("")
    if with_root:
        rows = [
            (folder, place["place"], f"{place['files']:,}", f"{place['folders']:,}")
            for folder, images in found["images"].items()
            for place in images["found"]
        ]
        gone = [folder for folder, images in found["images"].items() if not images["found"]]
        said += [table(("images of", "found in", "files", "folders"), rows), ""] if rows else []
        said += [f"No images of: {', '.join(gone)}"] if gone else []
    else:
        said.append("Give --raw DIR to see what of it is there.")
    return "\n".join(said).rstrip()


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
