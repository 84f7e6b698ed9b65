"""The upstream formats that can be read: one module each, one line each. Other packages may add more by entry points.

`base` says what a reader gives, `reading` holds what readers share, `locate` finds the files of a source,
`row_count` counts the rows of own files, `boxes` makes pixels of the boxes of own data and guards against a wrong
convention.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint

from vpt_data.errors import UsageError
from vpt_data.sources import (
    aurora_count,
    aurora_depth,
    coco_boxes,
    cub,
    llava,
    llava_pretrain,
    pope,
    table,
    viscot,
    viscot_benchmark,
    vsr,
)
from vpt_data.sources.base import Source
from vpt_data.upstream import packages

SHIPPED: dict[str, Source] = {
    "aurora_count": aurora_count.SOURCE,
    "aurora_depth": aurora_depth.SOURCE,
    "coco_boxes": coco_boxes.SOURCE,
    "cub": cub.SOURCE,
    "llava": llava.SOURCE,
    "llava_pretrain": llava_pretrain.SOURCE,
    "pope": pope.SOURCE,
    "table": table.SOURCE,
    "viscot": viscot.SOURCE,
    "viscot_benchmark": viscot_benchmark.SOURCE,
    "vsr": vsr.SOURCE,
}


class _Sources(Mapping[str, Source]):
    """The shipped sources, and those of other packages, which are imported when they are asked for."""

    def __getitem__(self, name: str) -> Source:
        return SHIPPED[name] if name in SHIPPED else _of_package(packages.installed()[name])

    def __contains__(self, name: object) -> bool:
        return name in SHIPPED or name in packages.installed()

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*SHIPPED, *packages.installed()}))

    def __len__(self) -> int:
        return len({*SHIPPED, *packages.installed()})


@functools.cache
def _of_package(point: EntryPoint) -> Source:
    found = packages.load(point)
    if not isinstance(found, Source):
        raise UsageError(
            f"{packages.origin(point)}: {point.value} is {type(found).__name__}, "
            "expected a vpt_data.sources.base.Source; correct its entry point."
        )
    return found


SOURCES: Mapping[str, Source] = _Sources()
