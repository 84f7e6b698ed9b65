"""The upstream formats that can be read: one module each, one line each.

`base` says what a reader gives, `reading` holds what readers share, `locate` finds the files of a source,
`row_count` counts the rows of own files, `boxes` makes pixels of the boxes of own data and guards against a wrong
convention.
"""

from __future__ import annotations

from vpt_data.sources import (
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

SOURCES: dict[str, Source] = {
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
