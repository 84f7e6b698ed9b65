"""The row-wise program: the corpus of `mixvrt_dino` as a user of `datasets` would write it, a row at a time.

One process, plain Python dicts, no code of `vpt_data` but the SAMPLE column types. It does the conversion that
`vpt-data build --recipe mixvrt_dino` does in reference mode, and its rows are the build's rows, ids included:

- reads the seven Visual-CoT files and the LLaVA array, and the files of the evaluation splits;
- checks paths, questions and answers, keys every record by its content, drops duplicates;
- leaves out every image of an evaluation split, which it draws first by the rules of recipes/vpt_eval.toml;
- fills the takes of recipes/mixvrt.toml in their order: who may be taken, not twice, smallest hashes up to the count;
- renders messages, views, regions and all other columns, `Dataset.map` with one dict in and one out;
- puts all rows in one order by hash and writes them as Parquet, snappy, one file.

It does not do what the build does beside that: say which record was dropped or mended and why (drop table, origins),
go on after a damaged record (it ends with an error), read gzip or look in other places for a file, bound its memory,
resume, cut shards along images, hash inputs and outputs, write manifest, card and fingerprint. Nothing is made slow on
purpose: each step is done once and in file order, the index for the selection comes from the pass that reads or
renders anyway, selection is sets and lists, and rows are picked by index.

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
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import datasets
import xxhash

from vpt_data.schema import SAMPLE

Row = dict[str, Any]
Box = tuple[float, float, float, float]
Cells = tuple[int, int, int, int]
REPOSITORY = Path(__file__).resolve().parents[1]
K = 8
SEED = 0
REGION = "Identify the region that can help you answer the question, and then answer the question."
REENCODE = "Require additional perception features, and then answer the question."
ACTION = "<|detection_action_start|><|detection_action|><|detection_action_end|>"
BOX_WANTED = " Please provide the bounding box coordinate of the region that can help you answer the question better."
FOLDERS = {
    "docvqa": "docvqa/documents",
    "textvqa": "textvqa/train_images",
    "textcap": "textvqa/train_images",
    "vsr": "coco/train2017",
    "cub": "cub/CUB_200_2011/images",
    "flickr30k": "flickr30k/flickr30k-images",
}
SPECIAL = re.compile(r"<(?=\|[^|<>\s]+\|>|(?:detection_|seg_|clip_)?image>)", re.ASCII)
UNSAFE = re.compile(r"^/|^[A-Za-z]:|\\|\x00|(^|/)\.\.(/|$)|^$")
REGION_ASKED = re.compile(
    r"Please provide the bounding box coordinate of the region this sentence describes"
    r"|Please provide a short description for this region"
)
BOX_ANSWERED = re.compile(r"\s*\[\d\.\d+, ?\d\.\d+, ?\d\.\d+, ?\d\.\d+\]\s*", re.ASCII)
# The content key, little-endian: lengths (-1 for none) first, then the texts; see `content_key`.
HEAD, LENGTH, REGION_BOX, TURN = "<iiiiBi", "<i", "<BBiB4di", "<bi"
ROLES = {"human": "user", "gpt": "assistant"}
ROLE_CODES = {"user": 1, "assistant": 2}
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
    out.mkdir(parents=True, exist_ok=True)
    cache = str(out / "cache")
    takes = recipe("mixvrt")
    for name, count in (counts or {}).items():
        takes[name]["count"] = count
    seconds: dict[str, float] = {}
    start = time.perf_counter()

    def done(stage: str) -> None:
        seconds[stage] = round(time.perf_counter() - start - sum(seconds.values()), 2)

    talks = datasets.Dataset.from_generator(llava_records, gen_kwargs={"raw": raw}, cache_dir=cache)
    offered = index(talks, ["key", "variant", "identity", "dataset", "form"])
    done("load_llava")
    excluded = evaluation_images(raw, offered)
    done("evaluation_images")
    looked = datasets.concatenate_datasets(list(viscot_tables(raw, takes, cache)))
    done("load_and_convert_viscot")
    picked = select(of_source(takes, "viscot"), index(looked, ["dataset", *INDEX]), excluded)
    parts = {name: looked.select(rows).remove_columns(list(INDEX)) for name, rows in picked.items()}
    picked = select(of_source(takes, "llava"), offered, excluded)
    done("select")
    for name, rows in picked.items():
        chosen = talks.select(rows)
        settings = {"name": name, "take": takes[name]}
        parts[name] = chosen.map(llava_sample, fn_kwargs=settings, remove_columns=chosen.column_names, features=ORDERED)
    done("convert_llava")
    ordered = datasets.concatenate_datasets(list(parts.values())).sort("order")
    done("sort")
    ordered.remove_columns("order").to_parquet(str(out / "train.parquet"))
    done("write")
    return {
        "rows": len(ordered),
        "takes": {name: len(part) for name, part in parts.items()},
        "seconds": seconds,
        "total_s": round(sum(seconds.values()), 2),
        "output_bytes": (out / "train.parquet").stat().st_size,
    }


def recipe(name: str) -> dict[str, Row]:
    """The takes of a recipe file."""
    takes: dict[str, Row] = tomllib.loads((REPOSITORY / f"recipes/{name}.toml").read_text(encoding="utf-8"))["take"]
    return takes


def of_source(takes: dict[str, Row], source: str) -> dict[str, Row]:
    """The takes that draw from a source."""
    return {name: take for name, take in takes.items() if take["source"] == source}


def llava_records(raw: Path) -> Iterator[Row]:
    """The image records of the LLaVA array, which `datasets` cannot load itself, as some ids are numbers."""
    with (raw / "llava/llava_v1_5_mix665k.json").open(encoding="utf-8") as file:
        records = json.load(file)
    for record in records:
        if "image" not in record:
            continue
        turns, number = record["conversations"], str(record["id"])
        texts = [turn["value"] for turn in turns]
        roles = [ROLES[turn["from"]] for turn in turns]
        if roles != ["user", "assistant"] * (len(turns) // 2) or not sound(record["image"], texts):
            continue
        who, dataset = identity(record["image"]), record["image"].partition("/")[0]
        yield {
            "id": number,
            "image": record["image"],
            "conversations": turns,
            "dataset": dataset,
            "form": form_of(texts, dataset),
            "identity": who,
            "key": content_key(who, None, texts[1:2], [], list(zip(roles, texts, strict=True))),
            "variant": variant(number, None, "unknown"),
        }


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
    for name, take in of_source(takes, "viscot").items():
        path = raw / f"visual_cot/metadata/{take['dataset']}_cot_train.jsonl"
        table = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=cache)
        settings = {"name": name, "take": take}
        yield table.map(viscot_sample, fn_kwargs=settings, remove_columns=table.column_names, features=INDEXED)


def evaluation_images(raw: Path, talks: list[Row]) -> set[str]:
    """The images of all evaluation splits."""
    takes = recipe("vpt_eval")
    asked = [row for take in of_source(takes, "viscot_benchmark").values() for row in benchmark(raw, take["dataset"])]
    found: set[str] = set()
    for source, rows in (("viscot_benchmark", asked), ("pope", list(pope(raw))), ("llava", talks)):
        for picked in select(of_source(takes, source), rows, set()).values():
            found.update(rows[at]["identity"] for at in picked)
    return found


def benchmark(raw: Path, dataset: str) -> Iterator[Row]:
    """What selection asks of a benchmark file, whose answers are in a second file."""
    base = raw / "visual_cot/viscot_benchmark"
    answers: dict[tuple[Any, str, str], str] = {}
    for record in json.loads((base / f"benchmark/{dataset}.json").read_text(encoding="utf-8")):
        turns = record["conversations"]
        question = turns[0]["value"].removeprefix("<image>\n").removesuffix(BOX_WANTED)
        answers.setdefault((record["question_id"], record["image"][0].split("/", 2)[2], question), turns[3]["value"])
    with (base / f"benchmark_det/{dataset}.jsonl").open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            number, file, question = row["question_id"], row["img_path"].split("/", 2)[2], row["expression"]
            answer, path = answers.get((number, file, question)), path_of(dataset, file)
            if answer is None or not sound(path, [question, answer]):
                continue
            box, who = as_box(row["bbox"]), identity(path)
            yield {
                "dataset": dataset,
                "identity": who,
                "key": content_key(who, question, [answer], [box], None),
                "variant": variant(str(number), None, "given"),
                "region": clipped(box, row["width"], row["height"]) is not None,
            }


def pope(raw: Path) -> Iterator[Row]:
    """What selection asks of POPE's popular file, which is JSON lines whatever its name says."""
    with (raw / "pope/coco/coco_pope_popular.json").open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            number, path = str(row["question_id"]), f"coco/val2014/{row['image']}"
            if sound(path, [row["text"], row["label"]]):
                yield {
                    "dataset": "coco_popular",
                    "identity": identity(path),
                    "key": f"coco_popular-{number}",
                    "variant": variant(number, None, "none_needed"),
                }


def index(table: datasets.Dataset, columns: list[str]) -> list[Row]:
    """These columns of all rows as dicts."""
    rows: list[Row] = table.select_columns(columns).to_list()
    return rows


def select(takes: dict[str, Row], rows: list[Row], excluded: set[str]) -> dict[str, list[int]]:
    """Which rows each take gets, in file order: no duplicate, no excluded image, no row twice, smallest hashes."""
    first: dict[tuple[str, str], tuple[str, int]] = {}
    for at, row in enumerate(rows):
        if row.get("sound", True):
            group, place = (row["dataset"], row["key"]), (row["variant"], at)
            first[group] = min(first.get(group, place), place)
    left = [at for _, at in first.values() if rows[at]["identity"] not in excluded]
    picked: dict[str, list[int]] = {}
    for name, take in takes.items():
        ranked = [(order(name, rows[at]["key"]), at) for at in left if fits(take, rows[at])]
        ranked.sort()
        count = min(take.get("count", len(ranked)), math.floor(take.get("share", 1) * len(ranked)))
        if take.get("distinct_images"):
            ranked = list({rows[at]["identity"]: (rank, at) for rank, at in reversed(ranked)}.values())
            ranked.sort()
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


def variant(source_id: str | None, meta: str | None, status: str) -> str:
    """Hash of what duplicates may still differ in."""
    return xxhash.xxh3_64_hexdigest(f"{source_id or ''}\0{meta or ''}\0{status}".encode())


def content_key(
    who: str, question: str | None, answers: list[str], boxes: Iterable[Box], turns: list[tuple[str, str]] | None
) -> str:
    """16 hex digits over all that a record says about which image: its identity, and what duplicates share."""
    name, asked = who.encode(), None if question is None else question.encode()
    said = [answer.encode() for answer in answers]
    drawn = [struct.pack(REGION_BOX, 1, 1, 0, 1, *box, -1) for box in boxes]
    spoken = [(ROLE_CODES[role], text.encode()) for role, text in turns or ()]
    lengths = (len(name), -1 if asked is None else len(asked), len(said), len(drawn))
    parts = [struct.pack(HEAD, *lengths, 1, -1 if turns is None else len(spoken)), name, asked or b""]
    for answer in said:
        parts += (struct.pack(LENGTH, len(answer)), answer)
    parts += drawn
    parts += [struct.pack(TURN, role, len(text)) for role, text in spoken]
    parts += [text for _, text in spoken]
    return xxhash.xxh3_128_hexdigest(b"".join(parts))[:16]


def path_of(dataset: str, file: str) -> str:
    """Where a Visual-CoT image lies under the raw root."""
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


def sound(path: str, texts: list[str]) -> bool:
    """Whether the path stays under the raw root and no text is empty but for blanks and the image."""
    return not UNSAFE.search(path) and all(text.replace("<image>", "").strip() for text in texts)


def viscot_sample(row: Row, name: str, take: Row) -> Row:
    """One Visual-CoT row: a region dialogue, or a re-encoding one for CUB; and what the selection asks of it."""
    width, height, path = int(row["width"]), int(row["height"]), path_of(take["dataset"], row["image"])
    boxes = list(dict.fromkeys(as_box(box) for box in row["bboxs"]))
    left = [box for box in (clipped(box, width, height) for box in boxes) if box]
    answers = list(dict.fromkeys([row["answer"], *(row.get("possible_answers") or [])]))
    extra = {field: row[field] for field in ("thought", "reasoning", "full_answer") if row.get(field) is not None}
    meta, status = json.dumps(extra) if extra else None, "given" if boxes else "unknown"
    look, tokens, shown, asked, looked = "dino", ACTION, "<detection_image>", REENCODE, view(2, "dino")
    if take["template"] == "region":
        look, shown, asked = "region", "<image>", REGION
        cells = x0, y0, x1, y1 = union_cells(left, width, height) if left else (0, 0, 0, 0)
        tokens = f"<|region_token_start|><|x_{x0}|><|y_{y0}|><|x_{x1}|><|y_{y1}|><|region_token_end|>"
        looked = view(2, "vlm", crop_of(cells, width, height), cells)
    who = identity(path)
    key = content_key(who, row["question"], answers, boxes, None)
    made = sample(
        name,
        take,
        key,
        path,
        dialogue(f"<image>\n{neutral(row['question'])} \n{asked}", tokens, shown, neutral(row["answer"])),
        look,
        dataset=take["dataset"],
        size=(width, height),
        question=row["question"],
        answers=answers,
        regions=[{"image": 0, "box": box, "label": None} for box in boxes],
        views=[view(0, "vlm"), looked],
        meta=meta,
    )
    finite = all(math.isfinite(side) for box in boxes for side in box)
    return {
        **made,
        "key": key,
        "variant": variant(None, meta, status),
        "identity": who,
        "sound": finite and sound(path, [row["question"], row["answer"]]),
        "region": bool(left),
    }


def llava_sample(row: Row, name: str, take: Row) -> Row:
    """One LLaVA record: a re-encoding dialogue of its first turn, or the whole conversation as it is."""
    texts = [turn["value"] for turn in row["conversations"]]
    asked, body = first_question(texts[0])
    given = {
        "dataset": row["dataset"],
        "source_id": row["id"],
        "question": body.strip("\n"),
        "answers": texts[1:2],
        "views": [view(0, "vlm")],
    }
    if take["template"] == "reencode":
        messages = dialogue(f"{asked}\n{REENCODE}", ACTION, "<detection_image>", neutral(texts[1]))
        given["views"].append(view(2, "dino"))
        return sample(name, take, row["key"], row["image"], messages, "dino", **given)
    spoken = [asked, *map(neutral, texts[1:])]
    messages = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(spoken)]
    return sample(name, take, row["key"], row["image"], messages, None, **given)


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


def dialogue(asked: str, tokens: str, shown: str, answer: str) -> list[Row]:
    """The four turns of a sample with one look."""
    texts = (("user", asked), ("assistant", tokens), ("user", shown), ("assistant", answer))
    return [{"role": role, "content": text} for role, text in texts]


def view(turn: int, encoder: str, box: Cells | None = None, cells: Cells | None = None) -> Row:
    """One entry of `views` on the only image."""
    return {"turn": turn, "image": 0, "encoder": encoder, "box": box, "cells": cells}


def as_box(numbers: list[float]) -> Box:
    """Four numbers as x0, y0, x1, y1 in pixels."""
    x0, y0, x1, y1 = map(float, numbers)
    return x0, y0, x1, y1


def clipped(box: Box, width: int, height: int) -> Box | None:
    """xyxy with its corners sorted, inside the image; None where nothing of it is."""
    x0, x1, y0, y1 = *sorted((box[0], box[2])), *sorted((box[1], box[3]))
    for low, high, side in ((x0, x1, width), (y0, y1, height)):
        if (low < 0 or low > side) if low == high else (high <= 0 or low >= side):
            return None
    return max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))


def union_cells(boxes: list[Box], width: int, height: int) -> Cells:
    """Cells col0, row0, col1, row1 (inclusive) of the enclosing union."""
    low_x, low_y = min(box[0] for box in boxes), min(box[1] for box in boxes)
    high_x, high_y = max(box[2] for box in boxes), max(box[3] for box in boxes)
    ends = ((low_x, width), (low_y, height), (high_x, width), (high_y, height))
    col0, row0, col1, row1 = (min(K - 1, int(K * value / side)) for value, side in ends)
    return col0, row0, col1, row1


def crop_of(cells: Cells, width: int, height: int) -> Cells:
    """The pixels of cells, at least one on each side."""
    x0, y0 = cells[0] * width // K, cells[1] * height // K
    return x0, y0, max((cells[2] + 1) * width // K, x0 + 1), max((cells[3] + 1) * height // K, y0 + 1)


def sample(name: str, take: Row, key: str, path: str, messages: list[Row], look: str | None, **given: Any) -> Row:
    """One row with all SAMPLE columns, and the hash it is ordered by; `given` is what differs by source."""
    width, height = given.pop("size", (None, None))
    known = image_set(path.rpartition("/")[0])
    terms = {"license": known.get("license"), "attribution": known.get("attribution")}
    row = {
        "id": f"{name}/{key}",
        "take": name,
        "source": take["source"],
        "source_id": None,
        "split": "train",
        "task": take["task"],
        "template": take["template"],
        "looks": [look] if look else [],
        "expected": None,
        "messages": messages,
        "images": [{"bytes": None, "path": path}],
        "image_info": [{"width": width, "height": height, "sha256": None, **terms}],
        "regions": [],
        "region_status": "given" if given.get("regions") else "unknown",
        "meta": None,
        "prompted": look is not None,
        "k": K,
        "crop_margin_cells": 0,
        "license": upstream()["source"][take["source"]]["license"],
        "language": "en",
        "weight": 1.0,
        "order": order(name, key),
    }
    return {**row, **given}


if __name__ == "__main__":
    sys.exit(main())
