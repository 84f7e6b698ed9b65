"""A full-size synthetic raw root: annotations only, in the owners' native formats and true counts.

Written from the formats alone and without importing `vpt_data`, so that the build is measured on input it
did not make. `python -m bench.make_raw --out DIR [--scale 1.0] [--seed 0]`. Same scale and seed give the
same bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.raw_llava import COUNTS, LlavaMix, write_mix
from bench.raw_words import Rng, Words, unique_hex, unique_ints

BATCH = 16_384
TAIL = " Please provide the bounding box coordinate of the region that can help you answer the question better."
SPEAKERS = ("human", "gpt", "human", "gpt")
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Source:
    """One Visual-CoT data set: rows and images of its training and benchmark files, its way with boxes.

    `boxes`: `int`, `cents` (two decimals), `long` (normalised times size, all digits), `whole` (as floats).
    `side`: the longest image side in pixels, about. `median`: median box area over image area.
    """

    rows: int
    images: int
    test_rows: int
    test_images: int
    boxes: str
    side: int
    median: float


SOURCES = {
    "docvqa": Source(33_453, 9_836, 888, 617, "int", 2200, 0.004),
    "textvqa": Source(18_524, 14_159, 526, 496, "long", 1024, 0.02),
    "textcap": Source(32_152, 16_425, 853, 755, "long", 1024, 0.02),
    "vsr": Source(3_376, 1_765, 404, 327, "cents", 640, 0.31),
    "gqa": Source(98_149, 53_924, 978, 938, "int", 500, 0.06),
    "openimages": Source(43_053, 29_355, 945, 889, "long", 1024, 0.2),
    "cub": Source(10_056, 5_028, 492, 485, "whole", 500, 0.32),
    "dude": Source(0, 0, 603, 492, "int", 2200, 0.004),
    "flickr30k": Source(0, 0, 1_546, 1_255, "cents", 500, 0.1),
}


HEX_PLACES = {"textvqa": (0, 52_000), "textcap": (0, 52_000), "openimages": (20_000, 54_000)}
"""Where in the pool of OpenImages names a source's training and benchmark images start."""
HEX_POOL = 56_000


@dataclass(frozen=True)
class Pools:
    """Image numbers and names that several sources share."""

    coco: list[int]
    gqa: list[int]
    hexes: list[str]


def main(argv: list[str] | None = None) -> int:
    """Parse arguments, write the root and print what was written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--scale", type=float, default=1.0, help="share of the true counts (benchmark files stay whole)"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    start = time.perf_counter()
    written = make_raw(args.out, args.scale, args.seed)
    for path, rows in written.items():
        sys.stdout.write(f"{path}\t{rows} rows\t{(args.out / path).stat().st_size} bytes\n")
    sys.stdout.write(f"{time.perf_counter() - start:.1f} s\n")
    return 0


def make_raw(out: Path, scale: float = 1.0, seed: int = 0) -> dict[str, int]:
    """Write the raw root under `out`; returns {relative path: rows}. `scale` is for training counts only."""
    if not 0 < scale <= 1:
        raise ValueError(f"make_raw: scale is {scale}, expected above 0 and at most 1 (1 is the true size)")
    rng = np.random.default_rng(seed)
    words = Words(rng)
    counts = {form: max(2, round(count * scale)) for form, count in COUNTS.items()}
    pools = Pools(
        unique_ints(rng, 118_287, 581_929).tolist(),
        unique_ints(rng, 75_000, 2_417_997).tolist(),
        unique_hex(rng, HEX_POOL),
    )
    written: dict[str, int] = {}
    for name, source in SOURCES.items():
        images, test_images = image_names(name, source, pools, rng, scale)
        rows = round(source.rows * scale)
        if rows:
            path = f"visual_cot/metadata/{name}_cot_train.jsonl"
            written[path] = _write_lines(out / path, metadata_lines(name, source, images, rows, words))
        written |= write_benchmark(out, name, source, test_images, words)
    written["pope/coco/coco_pope_popular.json"] = write_pope(out, pools.coco, words)
    mix = LlavaMix(words, rng, counts, pools.coco, pools.gqa)
    written["llava/llava_v1_5_mix665k.json"] = write_mix(out / "llava/llava_v1_5_mix665k.json", mix, rng)
    return written


def image_names(name: str, source: Source, pools: Pools, rng: Rng, scale: float) -> tuple[list[str], list[str]]:
    """Bare file names of one source in its owner's spelling: (training, benchmark).

    VSR's benchmark shares 115 images with its training file, as in the published files. VSR, POPE and LLaVA
    share COCO images, GQA and LLaVA Visual Genome ones, TextVQA and TextCaps theirs. Otherwise disjoint.
    """
    train, test = max(1, round(source.images * scale)), source.test_images
    count = train + test
    if name == "vsr":
        shared = min(round(115 * scale), train)
        numbers = pools.coco[:count]
        coco = [f"{i:012d}.jpg" for i in [*numbers[:train], *numbers[:shared], *numbers[train : count - shared]]]
        return coco[:train], coco[train:]
    if name == "gqa":
        return [f"{i}.jpg" for i in pools.gqa[:train]], [f"{i}.jpg" for i in pools.gqa[-test:]]
    if name in HEX_PLACES:
        first, first_test = HEX_PLACES[name]
        names = pools.hexes[first : first + train], pools.hexes[first_test : first_test + test]
        return [f"{stem}.jpg" for stem in names[0]], [f"{stem}.jpg" for stem in names[1]]
    if name == "cub":
        numbers = unique_ints(rng, count, 900_000).tolist()
        birds = [
            f"{i % 200 + 1:03d}.Kind_{i % 200}/Kind_{i % 200}_{n % 140:04d}_{n}.jpg" for i, n in enumerate(numbers)
        ]
        return birds[:train], birds[train:]
    suffix = "png" if name == "docvqa" else "jpg"
    stems = unique_hex(rng, count, 8 if name == "docvqa" else 15)
    names_all = [f"{stem}.jpg" if name == "flickr30k" else f"{stem}_{i % 40}.{suffix}" for i, stem in enumerate(stems)]
    return names_all[:train], names_all[train:]


def metadata_lines(name: str, source: Source, images: list[str], rows: int, words: Words) -> Iterator[list[str]]:
    """Batches of lines of `<name>_cot_train.jsonl`."""
    rng = words.rng
    sizes = image_sizes(source, len(images), rng)
    for start in range(0, rows, BATCH):
        count = min(BATCH, rows - start)
        which = (np.arange(start, start + count) if name != "cub" else np.arange(start, start + count) // 2) % len(
            images
        )
        boxes = make_boxes(name, source, sizes[which], rng)
        answers, middle = answers_of(name, count, words, boxes)
        asked, extra = words.questions(count), (reasoning(count, words) if name == "gqa" else [""] * count)
        yield [
            f'{{"question": "{q}", "answer": "{a}"{m}, "image": "{images[i]}", "width": {w}, "height": {h}, '
            f'"bboxs": {b}, "dataset": "{name}", "split": "train"{x}}}\n'
            for q, a, m, i, (w, h), b, x in zip(
                asked, answers, middle, which.tolist(), sizes[which].tolist(), boxes, extra, strict=True
            )
        ]


def image_sizes(source: Source, count: int, rng: Rng) -> Array:
    """(count, 2) int width and height: the long side is `source.side` for most rows."""
    long = np.where(rng.random(count) < 0.7, source.side, rng.integers(source.side // 2, source.side, count))
    short = (long * rng.choice([0.75, 0.667, 0.748, 0.664, 0.8, 1.0], count)).astype(np.int64)
    wide = rng.random(count) < (0.2 if source.side > 2000 else 0.7)
    return np.stack([np.where(wide, long, short), np.where(wide, short, long)], axis=1)


def make_boxes(name: str, source: Source, sizes: Array, rng: Rng) -> list[list[list[float]]]:
    """One list of xyxy pixel boxes per row, with the owners' number types and a little of their dirt.

    Dirt: 0.9 % swapped corners (docvqa), 0.35 % slightly negative (textcap), 0.3 % past the border (cub),
    29 % ending on the border (vsr), 9 % (gqa).
    """
    count = len(sizes)
    area = np.clip(source.median * np.exp(rng.normal(0.0, 1.2, count)), 1e-4, 0.9)
    aspect = np.exp(rng.normal(0.9 if name == "docvqa" else 0.0, 0.5, count))
    extent = np.clip(np.stack([np.sqrt(area * aspect), np.sqrt(area / aspect)], axis=1), 0.004, 0.98)
    low = rng.random((count, 2)) * (1.0 - extent)
    high = low + extent
    touch = rng.random(count) < {"vsr": 0.29, "gqa": 0.09, "openimages": 0.045}.get(name, 0.0)
    high[touch, 0] = 1.0
    low[(rng.random(count) < 0.0035) & (name == "textcap"), 1] = -0.004
    high[(rng.random(count) < 0.003) & (name == "cub"), 1] = 1.01
    pixels = np.concatenate([low * sizes, high * sizes], axis=1)
    swapped = (rng.random(count) < 0.009) & (name == "docvqa")
    pixels[swapped] = pixels[swapped][:, [2, 1, 0, 3]]
    if source.boxes == "int":
        boxes = np.round(pixels).astype(np.int64).tolist()
    else:
        boxes = {"cents": np.round(pixels, 2), "whole": np.round(pixels), "long": pixels}[source.boxes].tolist()
    counts = box_counts(name, count, rng)
    if name == "docvqa":
        return [[box] * n for box, n in zip(boxes, counts, strict=True)]
    return with_neighbours(boxes, counts)


def box_counts(name: str, count: int, rng: Rng) -> list[int]:
    """Boxes per row: docvqa one per possible answer, gqa and textcap sometimes several, else one."""
    many = {"docvqa": 0.4, "gqa": 0.16, "textcap": 0.15}.get(name, 0.0)
    extra = np.where(rng.random(count) < many, rng.geometric(0.7, count), 0)
    return [int(n) for n in np.minimum(1 + extra, 6)]


def with_neighbours(boxes: list[list[float]], counts: list[int]) -> list[list[list[float]]]:
    """Each row's own box, then boxes moved towards the origin where `counts` asks for more."""
    return [
        [box, *([[v * (4 - i % 3) // 4 for v in box] for i in range(1, n)])] if n > 1 else [box]
        for box, n in zip(boxes, counts, strict=True)
    ]


def answers_of(name: str, count: int, words: Words, boxes: list[list[list[float]]]) -> tuple[list[str], list[str]]:
    """Answers, and the `possible_answers` member that docvqa and textvqa rows carry (else empty)."""
    if name == "cub":
        return (["Yes", "No"] * (count // 2 + 1))[:count], [""] * count
    if name == "docvqa":
        texts = [text.title() for text in words.plain(count, 1, 4)]
        variants = [
            [text, text.lower(), text.upper(), f"{text}."][: len(box)] for text, box in zip(texts, boxes, strict=True)
        ]
        return texts, [f', "possible_answers": [{", ".join(quoted(v) for v in group)}]' for group in variants]
    if name == "textvqa":
        texts = words.plain(count, 1, 3)
        return texts, [f', "possible_answers": [{quoted(text)}, {quoted(text.title())}]' for text in texts]
    return (words.plain(count, 6, 12) if name == "textcap" else words.short(count)), [""] * count


def quoted(text: str) -> str:
    """`text` (already escaped) between double quotes."""
    return f'"{text}"'


def reasoning(count: int, words: Words) -> list[str]:
    """The three further members of GQA rows: thought, reasoning steps, full answer (550 bytes)."""
    first, second, third = words.things(count), words.things(count), words.things(count)
    thought, full, relation = (
        words.plain(count, 38, 66),
        words.plain(count, 6, 11),
        words.pick(("left", "right", "on"), count),
    )
    return [
        f', "thought": "{t}", "reasoning": [{{"operation": "select", "argument": "{a} ({i})"}}, '
        f'{{"operation": "relate", "argument": "{b},{r},s ({i + 1})"}}, '
        f'{{"operation": "query", "argument": "{c}"}}], "full_answer": "{f}."'
        for i, (t, a, b, c, r, f) in enumerate(zip(thought, first, second, third, relation, full, strict=True))
    ]


def write_benchmark(out: Path, name: str, source: Source, images: list[str], words: Words) -> dict[str, int]:
    """The two row-aligned benchmark files of one source: box lines, and answers as one indented array."""
    count, rng = source.test_rows, words.rng
    sizes = image_sizes(source, len(images), rng)
    which = np.arange(count) % len(images)
    boxes = [group[0] for group in make_boxes(name, source, sizes[which], rng)]
    folder = "textvqa" if name == "textcap" else name
    det: list[str] = []
    answered = []
    asked, answers = words.questions(count), words.short(count)
    rows = zip(asked, answers, which.tolist(), sizes[which].tolist(), boxes, strict=True)
    for number, (question, answer, image, (width, height), box) in enumerate(rows):
        path = f"cot/{folder}/{images[image]}"
        row = {"img_path": path, "expression": question, "bbox": box, "height": height, "width": width}
        det.append(json.dumps({**row, "question_id": number, "split": "val"}) + "\n")
        texts = (f"<image>\n{question}{TAIL}", padded(box, width, height), "<image>", answer)
        pair = [path, f"{path}###{[int(value) for value in box]}"]
        record = {"dataset": name, "split": "val", "question_id": number, "image": pair}
        turns = [{"from": who, "value": text} for who, text in zip(SPEAKERS, texts, strict=True)]
        answered.append({**record, "conversations": turns})
    base = "visual_cot/viscot_benchmark"
    array = out / f"{base}/benchmark/{name}.json"
    array.parent.mkdir(parents=True, exist_ok=True)
    array.write_text(json.dumps(answered, indent=4), encoding="ascii")
    rows_written = _write_lines(out / f"{base}/benchmark_det/{name}.jsonl", [det])
    return {
        f"{base}/benchmark_det/{name}.jsonl": rows_written,
        f"{base}/benchmark/{name}.json": len(answered),
    }


def write_pope(out: Path, coco: list[int], words: Words) -> int:
    """POPE's popular file: 500 COCO images, six yes/no questions each, JSON lines despite the name."""
    path = out / "pope/coco/coco_pope_popular.json"
    nouns = words.pick(
        tuple(sorted({*words.pick(("person", "chair", "car", "dog", "cup", "bench"), 6), "clock", "boat"})),
        3000,
    )
    lines = [
        f'{{"question_id": {i + 1}, "image": "COCO_val2014_{coco[-1 - i // 6]:012d}.jpg", '
        f'"text": "Is there a {i % 6} {noun} in the image?", "label": "{"yes" if i % 2 == 0 else "no"}"}}\n'
        for i, noun in enumerate(nouns)
    ]
    return _write_lines(path, [lines])


def padded(box: list[float], width: int, height: int) -> str:
    """The owners' turn 1: the box on the image padded to a square, three decimals."""
    side, shift_x, shift_y = max(width, height), max(0, height - width) // 2, max(0, width - height) // 2
    x0, y0, x1, y1 = box
    shifted = (x0 + shift_x, y0 + shift_y, x1 + shift_x, y1 + shift_y)
    return f"[{', '.join(f'{value / side:.3f}' for value in shifted)}]"


def _write_lines(path: Path, batches: Iterable[list[str]]) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with path.open("wb", buffering=1 << 20) as file:
        for batch in batches:
            file.write("".join(batch).encode("ascii"))
            count += len(batch)
    return count


if __name__ == "__main__":
    sys.exit(main())
