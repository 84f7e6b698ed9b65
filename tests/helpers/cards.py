"""Cards of a corpus that stands in memory only, and their parts."""

from __future__ import annotations

from typing import Any

import msgspec
import yaml

from vpt_data import recipe
from vpt_data.corpus.card import render_card
from vpt_data.corpus.manifest import Manifest
from vpt_data.upstream.catalog import upstreams


def component(take: str, dataset: str, kept: int, **more: Any) -> dict[str, Any]:
    part = {"take": take, "source": "viscot", "dataset": dataset, "template": "region", "expected": kept}
    return part | {"read": kept, "repaired": {}, "dropped": {}, "kept": kept} | more


#: Where the images of the corpus below are from.
FOLDERS = ("coco/train2017/", "gqa/images/", "ocr_vqa/images/", "vg/VG_100K/", "textvqa/train_images/")


def terms(*folders: str) -> list[dict[str, Any]]:
    """The account of images in some folders, under the licences of their owners."""
    known = upstreams().images
    return [{"folder": folder, "license": known[folder].license, "images": 7} for folder in folders]


def shown(*folders: str, **more: Any) -> dict[str, Any]:
    """The images record of a corpus that shows images of these folders only."""
    return {"distinct": 7 * len(folders), "embedded": 0, "missing": 0, "licenses": terms(*folders), **more}


def _digest(name: str) -> str:
    """The sha256 of a shipped recipe; of another one something else."""
    return recipe.load(name).digest() if name in recipe.names() else "a" * 64


def manifest(name: str = "mixvrt_dino", **more: Any) -> Manifest:
    """A corpus of three takes and an unmatched rest, or the same with `more` changed."""
    shard = {"file": "data/train-00000-of-00001.parquet", "rows": 812_345, "bytes": 9, "sha256": "s" * 64}
    text_only = {"read": 40_688, "dropped": {"not_selected": 40_688}}
    parts = [
        component("vsr", "vsr", 3_347, expected=3_376, read=3_376, dropped={"eval_image": 29}),
        component("gqa", "gqa", 90_000, read=90_012, repaired={"clipped": 7_654}, dropped={"no_size": 12}),
        component(
            "llava_rest",
            "coco+gqa+ocr_vqa+textvqa+vg",
            300_000,
            source="llava",
            template="plain",
            read=300_005,
            dropped={"duplicate": 4, "eval_image": 1},
        ),
        component("unmatched:llava", "", 0, source="llava", template="", **text_only),
    ]
    content: dict[str, Any] = {
        "schema_version": 1,
        "tool": {"name": "vpt-data", "version": "0.1.0", "pyarrow": "26.0.0"},
        "recipe": {"name": name, "sha256": _digest(name), "resolved": {}},
        "inputs": [],
        "mode": "reference",
        "limited": False,
        "components": parts,
        "splits": {"train": {"rows": 812_345, "shards": [shard]}},
        "images": {"distinct": 123_456, "embedded": 0, "missing": 321, "licenses": terms(*FOLDERS)},
        "fingerprint": "f" * 64,
    }
    return msgspec.convert(content | more, Manifest)


def card(name: str = "mixvrt_dino", **more: Any) -> str:
    return render_card(manifest(name, **more), recipe.load(name))


def head(text: str) -> dict[str, Any]:
    start, yaml_head, _ = text.split("---\n", 2)
    assert start == ""
    loaded: dict[str, Any] = yaml.safe_load(yaml_head)
    return loaded


def section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def row(text: str, first: str) -> list[str]:
    """The cells of the table row whose first cell is `first`."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]
