"""Paths of published files -> paths relative to a raw root.

Published rows name images by the folders of whoever wrote them (`/home/ana/data/GQA/images/17.jpg`). What follows the
last folder that manifests/sources.toml knows, in any case of letters, says which image is meant: `gqa/images/17.jpg`.
"""

from __future__ import annotations

import functools
import re
from typing import Final

from vpt_data.upstream.catalog import upstreams

_DRIVE: Final = re.compile(r"^[A-Za-z]:")


@functools.lru_cache(maxsize=1 << 12)  # a row asks for each of its few paths several times
def canonical(path: str) -> str:
    """The path relative to a raw root; one of no known folder stays, without its root.

    Paths with `..` stay as they are: they are unsafe, and no corpus may hold them.

    >>> canonical("/data/GQA/images/17.jpg"), canonical("/data/mine/17.jpg"), canonical("a/../17.jpg")
    ('gqa/images/17.jpg', 'data/mine/17.jpg', 'a/../17.jpg')
    """
    parts = [part for part in _DRIVE.sub("", path).replace("\\", "/").split("/") if part not in {"", "."}]
    if not parts or ".." in parts:
        return path
    return "/".join([*_folder("/".join(parts[:-1])), parts[-1]])


@functools.lru_cache(maxsize=1 << 16)
def _folder(folder: str) -> tuple[str, ...]:
    """The parts of the canonical folder; the longest end of `folder` that is known decides."""
    parts = tuple(folder.split("/")) if folder else ()
    for start in range(len(parts)):
        end = f"{'/'.join(parts[start:])}/"
        for known, place in _known().items():
            if end.casefold().startswith(known):
                return tuple(f"{place}{end[len(known) :]}".rstrip("/").split("/"))
    return parts


@functools.cache
def _known() -> dict[str, str]:
    """Known folders in small letters, longest first, and the canonical folder of each."""
    sets = upstreams().images
    found = {prefix.casefold(): prefix for prefix in sets}
    for prefix, images in sets.items():
        for place in images.places:
            found.setdefault(place.casefold(), prefix)
    return dict(sorted(found.items(), key=lambda pair: -len(pair[0])))
