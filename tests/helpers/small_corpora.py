"""Tiny raw roots and corpora with every template, and ways to damage them, for tests of readers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from PIL import Image

from vpt_data import recipe as recipes
from vpt_data.corpus import fingerprint, manifest, shards
from vpt_data.corpus.manifest import Manifest, SplitRecord
from vpt_data.corpus.reader import Shard, open_corpus
from vpt_data.pipeline import build as pipeline
from vpt_data.pipeline import plan
from vpt_data.schema import SAMPLE

RECIPE = """
description = "A corpus for tests."
encoder = "dino"
shards = 2

[take.gqa]
source = "viscot"
dataset = "gqa"
template = "region"
task = "spatial"

[take.textvqa]
source = "viscot"
dataset = "textvqa"
template = "region"
task = "text_ocr"
boxes = "each"
k = 4
split = "coarse"
crop_margin_cells = 1

[take.docvqa]
source = "viscot"
dataset = "docvqa"
template = "region"
task = "text_ocr"
edge = "legacy"

[take.vsr]
source = "viscot"
dataset = "vsr"
template = "textbox"
task = "spatial"

[take.cub]
source = "viscot"
dataset = "cub"
template = "reencode"
task = "fine_grained"
control_tokens = 2
system = "Look closely."

[take.test]
source = "viscot"
dataset = "sroie"
template = "region"
task = "text_ocr"
expected = "region"
split = "test"

[take.short]
source = "llava"
dataset = "coco"
forms = ["short"]
template = "reencode"
task = "general"

[take.rest]
source = "llava"
template = "plain"
task = "instruction"

[take.captions]
source = "llava_pretrain"
dataset = "blip_laion_cc_sbu_558k"
template = "alignment"
task = "alignment"
"""
BRIEF = "\nAnswer the question using a single word or phrase."
#: Width and height of the pictures of every data set, by their number.
SIZES = ((50, 40), (64, 64), (33, 80))
FOLDERS = {
    "gqa": "gqa/images",
    "textvqa": "textvqa/train_images",
    "docvqa": "docvqa/documents",
    "vsr": "coco/train2017",
    "cub": "cub/CUB_200_2011/images",
    "sroie": "sroie/images",
    "llava_pretrain": "llava_pretrain/images",
}
#: As shares of the sides, in thirds; the last ones reach the right and lower border.
BOXES = ([[0, 0, 1, 1]], [[1, 1, 2, 3], [0, 0, 1, 2]], [[2, 1, 3, 3]])


def write_raw(root: Path) -> Path:
    """A raw root: three pictures and six rows for each data set of Visual-CoT, and LLaVA conversations."""
    for shade, (dataset, folder) in enumerate(FOLDERS.items()):
        (root / folder).mkdir(parents=True)
        for number, size in enumerate(SIZES):
            picture = Image.new("RGB", size, (80 * number, 30 * shade, 90))
            picture.save(root / folder / f"{number + 1:012d}.jpg", "JPEG")
        if dataset != "llava_pretrain":
            rows = [_question(dataset, number) for number in range(6)]
            _lines(root / f"visual_cot/metadata/{dataset}_cot_train.jsonl", rows)
    talks = [_talk(number) for number in range(6)]
    _write(root / "llava/llava_v1_5_mix665k.json", json.dumps(talks))
    captions = [
        {
            "id": str(n),
            "image": f"{n + 1:012d}.jpg",
            "conversations": _turns("Describe it.\n<image>", f"picture {n}"),
        }
        for n in range(3)
    ]
    _write(root / "llava_pretrain/blip_laion_cc_sbu_558k.json", json.dumps(captions))
    return root


def _question(dataset: str, number: int) -> dict[str, Any]:
    width, height = SIZES[number % 3]
    boxes = [[x0 * width / 3, y0 * height / 3, x1 * width / 3, y1 * height / 3] for x0, y0, x1, y1 in BOXES[number % 3]]
    return {
        "question": f"What is thing {number} of {dataset}?",
        "answer": ("Yes", "no.", f"thing {number}")[number % 3],
        "image": f"{number % 3 + 1:012d}.jpg",
        "width": width,
        "height": height,
        "bboxs": boxes,
        "dataset": dataset,
        "split": "train",
    }


def _talk(number: int) -> dict[str, Any]:
    if number == 5:
        return {"id": "text", "conversations": _turns("Hello there", "Hi")}
    first = f"<image>\nIs it {number}?" + (BRIEF if number % 2 else "")
    turns = _turns(first, "Yes" if number % 2 else "It may well be so.", "And then?", f"Nothing more than {number}.")
    return {"id": str(number), "image": f"coco/train2017/{number % 3 + 1:012d}.jpg", "conversations": turns}


def _turns(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[place % 2], "value": text} for place, text in enumerate(texts)]


def _lines(path: Path, rows: list[dict[str, Any]]) -> None:
    _write(path, "".join(f"{json.dumps(row)}\n" for row in rows))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def build(folder: Path, mode: plan.Mode = "reference", recipe: str = RECIPE) -> Path:
    """Build a corpus in `folder/corpus` from a raw root in `folder/raw`."""
    folder.mkdir(parents=True, exist_ok=True)
    root = folder / "raw" if (folder / "raw").is_dir() else write_raw(folder / "raw")
    (folder / "tiny.toml").write_text(recipe, encoding="utf-8")
    planned = plan.make(recipes.load(str(folder / "tiny.toml")), root, mode, None)
    pipeline.build(planned, folder / "corpus")
    return folder / "corpus"


def rows_of(corpus: Path) -> list[dict[str, Any]]:
    """All rows of a corpus in reference mode."""
    return list(open_corpus(corpus).rows())


def change_rows(corpus: Path, change: Callable[[dict[str, Any]], bool]) -> int:
    """Let `change` edit rows of a reference corpus and settle the manifest; how many it says it changed."""
    changed = 0

    def edit(samples: pa.Table) -> pa.Table:
        nonlocal changed
        rows = samples.to_pylist()
        changed += sum(change(row) for row in rows)
        return pa.Table.from_pylist(rows, schema=SAMPLE)

    settle(corpus, edit)
    return changed


def settle(corpus: Path, edit: Callable[[pa.Table], pa.Table]) -> None:
    """Write all shards of a corpus anew, and the manifest with their hashes and the fingerprint."""
    made = manifest.read(corpus)
    reports = []
    splits = {}
    for split, part in made.splits.items():
        records = []
        for shard in part.shards:
            source = Shard(corpus / shard.file, split, made.mode == "embed")
            report = shards.rewrite_shard(source, corpus / "new", edit)
            (corpus / "new").replace(corpus / shard.file)
            reports.append(report)
            records.append(msgspec.structs.replace(report.record, file=shard.file))
        splits[split] = SplitRecord(sum(record.rows for record in records), records)
    made_of = fingerprint.fingerprint([one.run() for one in reports])
    manifest.write(msgspec.structs.replace(made, splits=splits, fingerprint=made_of), corpus)


def change_manifest(corpus: Path, change: Callable[[Manifest], None]) -> None:
    """Edit the manifest of a corpus."""
    made = manifest.read(corpus)
    change(made)
    manifest.write(made, corpus)


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file under a folder with its bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
