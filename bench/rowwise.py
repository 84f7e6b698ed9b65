"""The row-wise program: the same conversion as a user would write it, `datasets.map` a row at a time.

Plain Python dicts, one process, no code of `vpt_data` except the SAMPLE column types (so that the output
has the same columns). It skips what makes it slower still: duplicates, exclusion of evaluation images,
quotas by hash, global order, drops, origins, manifest, fingerprint. Which rows: as `bench.floor`.

`python -m bench.rowwise --raw DIR --out DIR [--fraction 0.05]` prints one JSON object. With a fraction
below one, the first share of each file's rows is converted; loading is always whole (`json.load`,
`load_dataset`), and `extrapolated_s` is loading + the rest / fraction, marked as such.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets

from vpt_data.schema import SAMPLE

Row = dict[str, Any]
K = 8
REGION = "Identify the region that can help you answer the question, and then answer the question."
REENCODE = "Require additional perception features, and then answer the question."
ACTION = "<|detection_action_start|><|detection_action|><|detection_action_end|>"
TASKS = {"docvqa": "text_ocr", "textvqa": "text_ocr", "textcap": "text_ocr", "cub": "fine_grained"}
QUOTAS = {"coco": 212_000, "gqa": 71_000, "rest": 307_000}
SPECIAL = re.compile(r"<(?:detection_|seg_|clip_)?image>|<\|[a-z_0-9]+\|>")
ROLES = {"human": "user", "gpt": "assistant", "system": "system"}
FEATURES = datasets.Features.from_arrow_schema(SAMPLE.remove_metadata())


def main(argv: list[str] | None = None) -> int:
    """Run the row-wise program and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fraction", type=float, default=1.0)
    args = parser.parse_args(argv)
    datasets.disable_progress_bars()
    print(json.dumps(run_rowwise(args.raw, args.out, args.fraction)))
    return 0


def run_rowwise(raw: Path, out: Path, fraction: float = 1.0) -> Row:
    """Convert `raw` into `out/*.parquet`; returns rows, and seconds of loading, of the rest, extrapolated."""
    out.mkdir(parents=True, exist_ok=True)
    cache = str(out / "cache")
    loading = working = 0.0
    rows = 0
    for path in sorted((raw / "visual_cot/metadata").glob("*_cot_train.jsonl")):
        start = time.perf_counter()
        table = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=cache)
        middle = time.perf_counter()
        part = table.select(range(round(len(table) * fraction)))
        rows += _convert(part, metadata_sample, out / f"{path.stem}.parquet")
        loading, working = loading + middle - start, working + time.perf_counter() - middle
    start = time.perf_counter()
    reader = LlavaFile(raw / "llava/llava_v1_5_mix665k.json", fraction)
    part = datasets.Dataset.from_generator(reader.rows, cache_dir=cache)
    rows += _convert(part, llava_sample, out / "llava.parquet")
    loading, working = loading + reader.load_s, working + time.perf_counter() - start - reader.load_s
    return {
        "rows": rows,
        "fraction": fraction,
        "loading_s": round(loading, 2),
        "converting_and_writing_s": round(working, 2),
        "measured_s": round(loading + working, 2),
        "extrapolated": fraction < 1,
        "extrapolated_s": round(loading + working / fraction, 2),
        "output_bytes": sum(path.stat().st_size for path in out.glob("*.parquet")),
    }


def _convert(table: datasets.Dataset, convert: Any, out: Path) -> int:
    done = table.map(convert, remove_columns=table.column_names, features=FEATURES)
    done.to_parquet(str(out))
    return len(done)


class LlavaFile:
    """The LLaVA array as a generator for `datasets`, which cannot load it itself: some ids are numbers."""

    def __init__(self, path: Path, fraction: float) -> None:
        self.path, self.fraction, self.load_s = path, fraction, 0.0

    def rows(self) -> Iterator[Row]:
        """Image records and the kind of sample they become, until each kind's count is full."""
        start = time.perf_counter()
        with self.path.open(encoding="utf-8") as file:
            records = json.load(file)
        self.load_s = time.perf_counter() - start
        room = {kind: round(count * self.fraction) for kind, count in QUOTAS.items()}
        for record in records[: round(len(records) * self.fraction)]:
            if "image" not in record:
                continue
            kind = kind_of(record)
            kind = kind if room.get(kind, 0) else "rest"
            if room[kind]:
                room[kind] -= 1
                yield {**record, "id": str(record["id"]), "kind": kind}


def kind_of(record: Row) -> str:
    """`coco` or `gqa` for what becomes a re-encoding sample, else `rest` (region forms too)."""
    first = record["conversations"][0]["value"]
    if "for this region: [" in first or "region this sentence describes" in first:
        return "rest"
    return str(record["image"]).split("/")[0]


def metadata_sample(row: Row) -> Row:
    """One Visual-CoT row: a region dialogue, or a re-encoding one for CUB."""
    width, height, path = row["width"], row["height"], f"cot/{row['dataset']}/{row['image']}"
    boxes = [clipped(box, width, height) for box in row["bboxs"]]
    cells = union_cells(boxes, width, height)
    look = "dino" if row["dataset"] == "cub" else "region"
    tokens, shown, asked = ACTION, "<detection_image>", REENCODE
    crop = None
    if look == "region":
        x0, y0, x1, y1 = cells
        tokens = f"<|region_token_start|><|x_{x0}|><|y_{y0}|><|x_{x1}|><|y_{y1}|><|region_token_end|>"
        crop = [x0 * width // K, y0 * height // K, (x1 + 1) * width // K, (y1 + 1) * height // K]
        shown, asked = "<image>", REGION
    messages = dialogue(f"<image>\n{neutral(row['question'])} \n{asked}", tokens, shown, neutral(row["answer"]))
    extra = {name: row[name] for name in ("thought", "reasoning", "full_answer") if row.get(name)}
    return sample(
        row["dataset"],
        "viscot",
        row["dataset"],
        "",
        path,
        messages,
        look,
        task=TASKS.get(row["dataset"], "spatial"),
        template="region" if look == "region" else "reencode",
        size=(width, height),
        question=row["question"],
        answers=list(dict.fromkeys([row["answer"], *(row.get("possible_answers") or [])])),
        regions=[{"image": 0, "box": box, "label": None} for box in row["bboxs"]],
        views=[view(0, "vlm"), view(2, "vlm" if look == "region" else "dino", crop, cells if crop else None)],
        meta=json.dumps(extra) if extra else None,
    )


def llava_sample(row: Row) -> Row:
    """One LLaVA record: a re-encoding dialogue of its first turn, or the whole conversation as it is."""
    turns = row["conversations"]
    if row["kind"] == "rest":
        texts = [turns[0]["value"], *(neutral(turn["value"]) for turn in turns[1:])]
        messages = [{"role": ROLES[turn["from"]], "content": text} for turn, text in zip(turns, texts, strict=True)]
        return sample(
            "llava_rest",
            "llava",
            row["image"].split("/")[0],
            row["id"],
            row["image"],
            messages,
            None,
            task="instruction",
            template="plain",
            views=[view(0, "vlm")],
        )
    asked, answer = turns[0]["value"], turns[1]["value"]
    messages = dialogue(f"{asked}\n{REENCODE}", ACTION, "<detection_image>", neutral(answer))
    return sample(
        f"llava_{row['kind']}",
        "llava",
        row["kind"],
        row["id"],
        row["image"],
        messages,
        "dino",
        task="general",
        template="reencode",
        question=asked.replace("<image>", "").strip(),
        answers=[answer],
        views=[view(0, "vlm"), view(2, "dino")],
    )


def neutral(text: str) -> str:
    """The text with literal placeholders and special tokens made harmless."""
    return SPECIAL.sub(lambda found: found[0].replace("<", "< "), text) if "<" in text else text


def dialogue(asked: str, tokens: str, shown: str, answer: str) -> list[Row]:
    """The four turns of a sample with one look."""
    texts = (("user", asked), ("assistant", tokens), ("user", shown), ("assistant", answer))
    return [{"role": role, "content": text} for role, text in texts]


def view(turn: int, encoder: str, box: list[int] | None = None, cells: list[int] | None = None) -> Row:
    """One entry of `views` on the only image."""
    return {"turn": turn, "image": 0, "encoder": encoder, "box": box, "cells": cells}


def clipped(box: list[float], width: int, height: int) -> list[float]:
    """xyxy with its corners sorted, inside the image."""
    xs, ys = sorted((box[0], box[2])), sorted((box[1], box[3]))
    return [
        min(max(xs[0], 0), width),
        min(max(ys[0], 0), height),
        min(max(xs[1], 0), width),
        min(max(ys[1], 0), height),
    ]


def union_cells(boxes: list[list[float]], width: int, height: int) -> list[int]:
    """Cells col0, row0, col1, row1 (inclusive) of the enclosing union."""
    low_x, low_y = min(box[0] for box in boxes), min(box[1] for box in boxes)
    high_x, high_y = max(box[2] for box in boxes), max(box[3] for box in boxes)
    return [
        min(K - 1, int(K * value / side))
        for value, side in ((low_x, width), (low_y, height), (high_x, width), (high_y, height))
    ]


def sample(
    take: str,
    source: str,
    dataset: str,
    source_id: str,
    path: str,
    messages: list[Row],
    look: str | None,
    *,
    task: str,
    template: str,
    views: list[Row],
    size: tuple[int, int] | None = None,
    question: str | None = None,
    answers: list[str] | None = None,
    regions: list[Row] | None = None,
    meta: str | None = None,
) -> Row:
    """One row with all SAMPLE columns; its id is a hash of the content, as identity is not given."""
    content = json.dumps([path, messages, regions])
    width, height = size or (None, None)
    return {
        "id": f"{take}/{hashlib.blake2b(content.encode(), digest_size=8).hexdigest()}",
        "take": take,
        "source": source,
        "dataset": dataset,
        "source_id": source_id or None,
        "split": "train",
        "task": task,
        "template": template,
        "looks": [look] if look else [],
        "expected": None,
        "messages": messages,
        "views": views,
        "images": [{"bytes": None, "path": path}],
        "image_info": [{"width": width, "height": height, "sha256": None, "license": None, "attribution": None}],
        "question": question,
        "answers": answers or [],
        "regions": regions or [],
        "region_status": "given" if regions else "unknown",
        "meta": meta,
        "prompted": True,
        "k": K,
        "crop_margin_cells": 0,
        "license": "LicenseRef-upstream",
        "language": "en",
        "weight": 1.0,
    }


if __name__ == "__main__":
    sys.exit(main())
