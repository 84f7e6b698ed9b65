"""The row-wise program: the corpus of `mixvrt_dino` as a user of `datasets` would write it, a row at a time.

One process, plain Python dicts, no code of `vpt_data` but the SAMPLE column types. It makes the very rows that
`vpt-data build --recipe mixvrt_dino` makes in reference mode (tests/test_bench.py compares them, ids included): reads
the same files, checks paths and texts, keys records by content, drops duplicates, draws the evaluation splits of
recipes/vpt_eval.toml and leaves out their images, fills the takes of recipes/mixvrt.toml in their order with the
smallest hashes, renders every column with `Dataset.map`, orders all rows by hash and writes Parquet (snappy, one file).

It does not do the rest of a build: report which record was dropped or repaired and why (drop table, origins),
continue after a damaged record (it ends with an error), read gzip or look in other places for a file, bound its memory,
resume, cut shards along images, hash inputs and outputs, write manifest, card and fingerprint. Nothing is made slow on
purpose: each step is done once, what selection asks of a record comes from the pass that reads or renders it anyway,
selection is sets and sorted lists, rows are picked by index and in file order. The stage `write` is by far the longest:
`Dataset.to_parquet` fetches the rows of a reordered table one by one, which `pyarrow.Table.take` would do in seconds.

`python -m bench.rowwise --raw DIR --out DIR [--count TAKE=N]...` prints one JSON object: rows of each take, seconds
of each stage.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import re
import struct
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import xxhash

from vpt_data.schema import SAMPLE

Row = dict[str, Any]
Box = tuple[float, ...]
Cells = tuple[int, ...]
REPOSITORY = Path(__file__).resolve().parents[1]
K, SEED = 8, 0
REGION = "Identify the region that can help you answer the question, and then answer the question."
REENCODE = "Require additional perception features, and then answer the question."
ACTION = "<|detection_action_start|><|detection_action|><|detection_action_end|>"
BOX_WANTED = " Please provide the bounding box coordinate of the region that can help you answer the question better."
FOLDERS = {
    "docvqa": "docvqa/documents", "textvqa": "textvqa/train_images", "textcap": "textvqa/train_images",
    "vsr": "coco/train2017", "cub": "cub/CUB_200_2011/images", "flickr30k": "flickr30k/flickr30k-images",
}  # fmt: skip
SPECIAL = re.compile(r"<(?=\|[^|<>\s]+\|>|(?:detection_|seg_|clip_)?image>)", re.ASCII)
UNSAFE = re.compile(r"^/|^[A-Za-z]:|\\|\x00|(^|/)\.\.(/|$)|^$")
REGION_ASKED = re.compile(
    r"Please provide the bounding box coordinate of the region this sentence describes"
    r"|Please provide a short description for this region"
)
BOX_ANSWERED = re.compile(r"\s*\[\d\.\d+, ?\d\.\d+, ?\d\.\d+, ?\d\.\d+\]\s*", re.ASCII)
# The content key, little-endian: lengths (-1 for none) first, then the texts; see `content_key`.
HEAD, LENGTH, REGION_BOX, TURN = "<iiiiBi", "<i", "<BBiB4di", "<bi"
SPEAKERS, ROLES, TERMS = ["human", "gpt"], ["user", "assistant"], ["license", "attribution"]
FEATURES = datasets.Features.from_arrow_schema(SAMPLE.remove_metadata())
ORDERED = datasets.Features({**FEATURES, "order": datasets.Value("string")})
INDEX = {"key": "string", "variant": "string", "identity": "string", "sound": "bool", "region": "bool"}
INDEXED = datasets.Features({**ORDERED, **{name: datasets.Value(kind) for name, kind in INDEX.items()}})


def main(argv: list[str] | None = None) -> int:
    """Run the row-wise program and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--count", action="append", default=[], metavar="TAKE=N", help="another quota than the recipe's"
    )
    args = parser.parse_args(argv)
    datasets.disable_progress_bars()
    counts = {name: int(count) for name, _, count in (given.partition("=") for given in args.count)}
    print(json.dumps(run_rowwise(args.raw, args.out, counts)))
    return 0


def run_rowwise(raw: Path, out: Path, counts: dict[str, int] | None = None) -> Row:
    """Write the corpus of `raw` to `out/train.parquet`; rows of each take, and the seconds of each stage."""
    cache, takes = str(out / "cache"), recipe("mixvrt")
    for mine in takes.values():
        mine.update({name: {**take, "count": counts[name]} for name, take in mine.items() if counts and name in counts})
    seconds, start = dict[str, float](), time.perf_counter()

    def done(stage: str) -> None:
        seconds[stage] = round(time.perf_counter() - start - sum(seconds.values()), 2)

    talks = datasets.Dataset.from_generator(llava_records, gen_kwargs={"raw": raw}, cache_dir=cache)
    offered = talks.select_columns(["dataset", "form", "key", "variant", "identity", "sound"]).to_list()
    done("load_llava")
    excluded = evaluation_images(raw, offered)
    done("evaluation_images")
    looked = datasets.concatenate_datasets(list(viscot_tables(raw, takes["viscot"], cache)))
    done("load_and_convert_viscot")
    picked = select(takes["viscot"], looked.select_columns(["dataset", *INDEX]).to_list(), excluded)
    parts = {name: looked.select(rows).remove_columns(list(INDEX)) for name, rows in picked.items()}
    picked = select(takes["llava"], offered, excluded)
    done("select")
    for name, rows in picked.items():
        chosen, given = talks.select(rows), {"name": name, "take": takes["llava"][name]}
        parts[name] = chosen.map(llava_sample, fn_kwargs=given, remove_columns=chosen.column_names, features=ORDERED)
    done("convert_llava")
    whole = datasets.concatenate_datasets(list(parts.values()))
    hashes = whole["order"][:]
    ordered = whole.select(sorted(range(len(whole)), key=hashes.__getitem__))
    done("order")
    ordered.remove_columns("order").to_parquet(str(out / "train.parquet"))
    done("write")
    return {
        "rows": len(ordered),
        "takes": {name: len(part) for name, part in parts.items()},
        "seconds": seconds,
        "total_s": round(sum(seconds.values()), 2),
    }


def recipe(name: str) -> dict[str, dict[str, Row]]:
    """The takes of a recipe file, by source."""
    takes = tomllib.loads((REPOSITORY / f"recipes/{name}.toml").read_text(encoding="utf-8"))["take"]
    found: dict[str, dict[str, Row]] = {}
    for take, rules in takes.items():
        found.setdefault(rules["source"], {})[take] = rules
    return found


def llava_records(raw: Path) -> Iterator[Row]:
    """The image records of the LLaVA array, which `datasets` cannot load itself, as some ids are numbers."""
    with (raw / "llava/llava_v1_5_mix665k.json").open(encoding="utf-8") as file:
        records = json.load(file)
    for record in records:
        turns, path = record["conversations"], record.get("image")
        if path is None or [turn["from"] for turn in turns] != SPEAKERS * (len(turns) // 2):
            continue
        texts, dataset = [turn["value"] for turn in turns], path.partition("/")[0]
        known = about(dataset, path, None, texts[1:2], turns=texts, source_id=str(record["id"]))
        yield {"id": str(record["id"]), "image": path, "texts": texts, "form": form_of(texts, dataset), **known}


def form_of(texts: list[str], dataset: str) -> str:
    """The kind of a conversation, by the wording of its first turns; the first rule that fits counts."""
    asked, answer = texts[:2]
    if REGION_ASKED.search(asked) or BOX_ANSWERED.fullmatch(answer):
        return "region"
    if "Reference OCR token" in asked:
        return "ocr"
    if "Answer with the option's letter from the given choices directly." in asked:
        return "choice"
    if "Answer the question using a single word or phrase." in asked:
        return "short"
    return "description" if len(texts) == 2 and dataset == "coco" else "conversation"


def viscot_tables(raw: Path, takes: dict[str, Row], cache: str) -> Iterator[datasets.Dataset]:
    """The samples of each Visual-CoT file, with what the selection asks of them."""
    for name, take in takes.items():
        path = raw / f"visual_cot/metadata/{take['dataset']}_cot_train.jsonl"
        table = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=cache)
        given = {"name": name, "take": take}
        yield table.map(viscot_sample, fn_kwargs=given, remove_columns=table.column_names, features=INDEXED)


def evaluation_images(raw: Path, talks: list[Row]) -> set[str]:
    """The images of all evaluation splits."""
    takes = recipe("vpt_eval")
    asked = [row for take in takes["viscot_benchmark"].values() for row in benchmark(raw, take["dataset"])]
    found: set[str] = set()
    for source, rows in (("viscot_benchmark", asked), ("pope", list(pope(raw))), ("llava", talks)):
        for picked in select(takes[source], rows, set()).values():
            found.update(rows[at]["identity"] for at in picked)
    return found


def benchmark(raw: Path, dataset: str) -> Iterator[Row]:
    """What selection asks of a benchmark file, whose answers are in a second file."""
    base = raw / "visual_cot/viscot_benchmark"
    answers: dict[tuple[Any, str, str], str] = {}
    for record in json.loads((base / f"benchmark/{dataset}.json").read_text(encoding="utf-8")):
        turns, file = record["conversations"], record["image"][0].split("/", 2)[2]
        question = turns[0]["value"].removeprefix("<image>\n").removesuffix(BOX_WANTED)
        answers.setdefault((record["question_id"], file, question), turns[3]["value"])
    with (base / f"benchmark_det/{dataset}.jsonl").open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            number, file, question = row["question_id"], row["img_path"].split("/", 2)[2], row["expression"]
            if (answer := answers.get((number, file, question))) is not None:
                box, path = tuple(map(float, row["bbox"])), path_of(dataset, file)
                known = about(dataset, path, question, [answer], [box], source_id=str(number))
                yield {**known, "region": clipped(box, row["width"], row["height"]) is not None}


def pope(raw: Path) -> Iterator[Row]:
    """What selection asks of POPE's popular file, which is JSON lines whatever its name says."""
    with (raw / "pope/coco/coco_pope_popular.json").open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            known = about("coco_popular", f"coco/val2014/{row['image']}", row["text"], [row["label"]])
            yield {**known, "key": f"coco_popular-{row['question_id']}"}


def about(
    dataset: str, path: str, question: str | None, answers: list[str], boxes: Sequence[Box] = (),
    turns: list[str] | None = None, source_id: str | None = None, meta: str | None = None,
) -> Row:  # fmt: skip
    """What selection asks of a record: its image, what it says, what duplicates may still differ in, is it usable."""
    who, texts = identity(path), turns or [question or "", answers[0]]
    differing = "\0".join((source_id or "", meta or "", "given" if boxes else "unknown"))
    finite = all(math.isfinite(number) for box in boxes for number in box)
    return {
        "dataset": dataset,
        "identity": who,
        "key": content_key(who, question, answers, boxes, turns),
        "variant": xxhash.xxh3_64_hexdigest(differing.encode()),
        # No path out of the raw root, no text that is empty but for blanks and the image.
        "sound": finite and not UNSAFE.search(path) and all(text.replace("<image>", "").strip() for text in texts),
    }


def select(takes: dict[str, Row], rows: list[Row], excluded: set[str]) -> dict[str, list[int]]:
    """Which rows each take gets, in file order: no duplicate, no excluded image, no row twice, smallest hashes."""
    first: dict[tuple[str, str], tuple[str, int]] = {}
    for at, row in enumerate(rows):
        if row["sound"]:
            group, place = (row["dataset"], row["key"]), (row["variant"], at)
            first[group] = min(first.get(group, place), place)
    left = [at for _, at in first.values() if rows[at]["identity"] not in excluded]
    picked: dict[str, list[int]] = {}
    for name, take in takes.items():
        ranked = sorted((order(name, rows[at]["key"]), at) for at in left if fits(take, rows[at]))
        count = min(take.get("count", len(ranked)), math.floor(take.get("share", 1) * len(ranked)))
        if take.get("distinct_images"):
            ranked = sorted({rows[at]["identity"]: (rank, at) for rank, at in reversed(ranked)}.values())
        picked[name] = sorted(at for _, at in ranked[:count])
        claimed = set(picked[name])
        left = [at for at in left if at not in claimed]
    return picked


def fits(take: Row, row: Row) -> bool:
    """Whether a take can use a row."""
    wanted = take["dataset"]
    if row["dataset"] != wanted and (isinstance(wanted, str) or row["dataset"] not in wanted):
        return False
    if "forms" in take and row["form"] not in take["forms"]:
        return False
    needs_region = take["template"] == "region" or take.get("expected") == "region"
    return not needs_region or bool(row["region"])


def order(take: str, key: str) -> str:
    """The hash that decides who fills a count, and where in the corpus a row stands."""
    return xxhash.xxh3_64_hexdigest(f"{SEED}\0{take}/{key}".encode())


def content_key(
    who: str, question: str | None, answers: list[str], boxes: Sequence[Box], turns: list[str] | None
) -> str:
    """16 hex digits over all that a record says about which image; user and assistant take turns."""
    name, asked, said = who.encode(), (question or "").encode(), [answer.encode() for answer in answers]
    spoken = [text.encode() for text in turns or ()]
    counts = (len(name), -1 if question is None else len(asked), len(said), len(boxes))
    parts = [struct.pack(HEAD, *counts, 1, -1 if turns is None else len(spoken)), name, asked]
    for answer in said:
        parts += (struct.pack(LENGTH, len(answer)), answer)
    parts += [struct.pack(REGION_BOX, 1, 1, 0, 1, *box, -1) for box in boxes]
    parts += [struct.pack(TURN, 1 + at % 2, len(text)) for at, text in enumerate(spoken)]
    return xxhash.xxh3_128_hexdigest(b"".join(parts + spoken))[:16]


def path_of(dataset: str, file: str) -> str:
    """Where a Visual-CoT image is located under the raw root."""
    return f"{FOLDERS.get(dataset, f'{dataset}/images')}/{file}"


@functools.cache
def upstream() -> Row:
    """What is known of the sources and of the folders of images."""
    return tomllib.loads((REPOSITORY / "manifests/sources.toml").read_text(encoding="utf-8"))


@functools.cache
def image_set(folder: str) -> Row:
    """What is known of a folder's images; the longest name that fits counts."""
    fitting = [prefix for prefix in upstream()["images"] if f"{folder}/".startswith(prefix)]
    found: Row = upstream()["images"][max(fitting, key=len)] if fitting else {}
    return found


def identity(path: str) -> str:
    """Who an image is, the same for all data sets that show it: `coco:310196`."""
    folder, _, name = path.rpartition("/")
    known, stem = image_set(folder), name.rpartition(".")[0] or name
    if "scheme" not in known:
        return f"file:{path}"
    if not known.get("number"):
        return f"{known['scheme']}:{stem}"
    number = stem.rpartition("_")[2]
    return f"{known['scheme']}:{number.lstrip('0') or '0'}" if number.isdecimal() else f"file:{path}"


def viscot_sample(row: Row, name: str, take: Row) -> Row:
    """One Visual-CoT row: a region dialogue, or a re-encoding one for CUB; and what the selection asks of it."""
    dataset, question, width, height = take["dataset"], row["question"], int(row["width"]), int(row["height"])
    path = path_of(dataset, row["image"])
    boxes: list[Box] = list(dict.fromkeys(tuple(map(float, box)) for box in row["bboxs"]))
    left = [inside for box in boxes if (inside := clipped(box, width, height))]
    answers = list(dict.fromkeys([row["answer"], *(row.get("possible_answers") or [])]))
    extra = {field: row[field] for field in ("thought", "reasoning", "full_answer") if row.get(field) is not None}
    meta = json.dumps(extra) if extra else None
    look, asked, call, shown, looked = "dino", REENCODE, ACTION, "<detection_image>", view(2, "dino")
    if take["template"] == "region":
        cells = x0, y0, x1, y1 = union_cells(left, width, height) if left else (0, 0, 0, 0)
        call = f"<|region_token_start|><|x_{x0}|><|y_{y0}|><|x_{x1}|><|y_{y1}|><|region_token_end|>"
        look, asked, shown, looked = "region", REGION, "<image>", view(2, "vlm", crop_of(cells, width, height), cells)
    known = about(dataset, path, question, answers, boxes, meta=meta)
    texts = [f"<image>\n{neutral(question)} \n{asked}", call, shown, neutral(row["answer"])]
    regions = [{"image": 0, "box": box, "label": None} for box in boxes]
    given = {"question": question, "answers": answers, "regions": regions, "meta": meta}
    made = sample(name, take, known["key"], path, texts, look, (width, height), views=[view(0, "vlm"), looked], **given)
    return {**made, **known, "region": bool(left)}


def llava_sample(row: Row, name: str, take: Row) -> Row:
    """One LLaVA record: a re-encoding dialogue of its first turn, or the whole conversation as it is."""
    texts, views, look = row["texts"], [view(0, "vlm")], None
    asked, body = first_question(texts[0])
    spoken = [asked, *map(neutral, texts[1:])]
    if take["template"] == "reencode":
        look, views = "dino", [*views, view(2, "dino")]
        spoken = [f"{asked}\n{REENCODE}", ACTION, "<detection_image>", spoken[1]]
    given = {"question": body.strip("\n"), "answers": texts[1:2], "dataset": row["dataset"], "source_id": row["id"]}
    return sample(name, take, row["key"], row["image"], spoken, look, views=views, **given)


def first_question(text: str) -> tuple[str, str]:
    """A first turn with its one meant `<image>`, put before it where it has none; and without."""
    if text.startswith("<image>"):
        body = text.removeprefix("<image>")
        return f"<image>{neutral(body)}", body
    body = text.removesuffix("<image>")
    return (f"<image>\n{neutral(text)}", text) if body == text else (f"{neutral(body)}<image>", body)


def neutral(text: str) -> str:
    """The text with literal placeholders and special tokens made harmless."""
    return SPECIAL.sub("< ", text) if "<" in text else text


def view(turn: int, encoder: str, box: Cells | None = None, cells: Cells | None = None) -> Row:
    """One entry of `views` on the only image."""
    return {"turn": turn, "image": 0, "encoder": encoder, "box": box, "cells": cells}


def clipped(box: Box, width: int, height: int) -> Box | None:
    """xyxy with its corners sorted, inside the image; None where nothing of it is."""
    x0, x1, y0, y1 = *sorted(box[::2]), *sorted(box[1::2])
    for low, high, side in ((x0, x1, width), (y0, y1, height)):
        if (low < 0 or low > side) if low == high else (high <= 0 or low >= side):
            return None
    return max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))


def union_cells(boxes: list[Box], width: int, height: int) -> Cells:
    """Cells col0, row0, col1, row1 (inclusive) of the enclosing union."""
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    ends = ((min(x0), width), (min(y0), height), (max(x1), width), (max(y1), height))
    return tuple(min(K - 1, int(K * value / side)) for value, side in ends)


def crop_of(cells: Cells, width: int, height: int) -> Cells:
    """The pixels of cells, at least one on each side."""
    x0, y0 = cells[0] * width // K, cells[1] * height // K
    return x0, y0, max((cells[2] + 1) * width // K, x0 + 1), max((cells[3] + 1) * height // K, y0 + 1)


def sample(
    name: str, take: Row, key: str, path: str, texts: list[str], look: str | None,
    size: tuple[int | None, int | None] = (None, None), **given: Any,
) -> Row:  # fmt: skip
    """One row with all SAMPLE columns, and the hash it is ordered by; `given` is what differs by source."""
    known = image_set(path.rpartition("/")[0])
    info = {"width": size[0], "height": size[1], "sha256": None, **{term: known.get(term) for term in TERMS}}
    row = {
        "id": f"{name}/{key}", "take": name, "source": take["source"], "dataset": take["dataset"], "source_id": None,
        "split": "train", "task": take["task"], "template": take["template"], "looks": [look] if look else [],
        "expected": None, "images": [{"bytes": None, "path": path}], "image_info": [info],
        "messages": [{"role": ROLES[at % 2], "content": text} for at, text in enumerate(texts)], "regions": [],
        "region_status": "given" if given.get("regions") else "unknown", "meta": None, "prompted": look is not None,
        "k": K, "crop_margin_cells": 0, "license": upstream()["source"][take["source"]]["license"], "language": "en",
        "weight": 1.0, "order": order(name, key),
    }  # fmt: skip
    return {**row, **given}


if __name__ == "__main__":
    sys.exit(main())
