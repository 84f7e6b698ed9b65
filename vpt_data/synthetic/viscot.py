"""Visual-CoT: twelve training files and nine benchmark pairs, over the pools of images."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from vpt_data.synthetic.formats import Row, Writer, benchmark_record, benchmark_row, bend, cot_row, soil, written_answer
from vpt_data.synthetic.pages import Page
from vpt_data.synthetic.pools import Shot, held_quota, quota
from vpt_data.synthetic.questions import PHRASES, VSR_PHRASES, Ask, bird_ask, distinct, field_ask, scene_asks, sign_ask
from vpt_data.synthetic.scenes import Bird, Scene, Size, stream

# : Images of the VSR benchmark that are training images too, as in the real data; never with the same
# question.
VSR_SHARED_IMAGES = 2


@dataclass(frozen=True, slots=True)
class Part:
    """A data set of Visual-CoT: its name in the files, its pool, rows an image, kind of box numbers, dirt."""

    label: str
    pool: str
    each: int
    numbers: str
    dirt: tuple[str, ...] = ()
    benchmark: bool = True
    benchmark_dirt: tuple[str, ...] = ()


PARTS: Mapping[str, Part] = {
    "docvqa": Part(
        "docvqa",
        "docvqa",
        3,
        "int",
        ("swapped", "duplicate", "malformed", "empty_answer"),
        benchmark_dirt=("swapped",),
    ),
    "textvqa": Part("textvqa", "signs", 2, "decimals", ("missing_field",)),
    "textcap": Part("textcap", "signs", 2, "decimals", ("negative",), benchmark_dirt=("negative",)),
    "vsr": Part("vsr", "vsr", 2, "coco", ("on_border",)),
    "gqa": Part("gqa", "gqa", 2, "int", ("on_border",), benchmark_dirt=("beyond",)),
    "openimages": Part("openimages", "openimages", 2, "share", ("on_border", "beyond")),
    "cub": Part("cub", "cub", 2, "whole", ("on_border", "beyond")),
    "flickr30k": Part("flickr30k", "flickr30k", 2, "decimals", ("duplicate",)),
    "infographicsvqa": Part("infographicsvqa", "infographicsvqa", 3, "decimals", ("malformed",), benchmark=False),
    "visual7w": Part("v7w", "visual7w", 2, "int", ("beyond",), benchmark=False),
    "dude": Part("dude", "dude", 3, "int", ("beyond", "zero_area", "outside"), benchmark_dirt=("outside",)),
    "sroie": Part("sroie", "sroie", 3, "int", ("wrong_type",), benchmark=False),
}

# A question about an image: the image's name, its size, what is asked.
_Item = tuple[str, Size, Ask]


def write_viscot(
    writer: Writer,
    rows: int,
    seed: int,
    scenes: Mapping[str, Sequence[Shot[Scene]]],
    pages: Mapping[str, Sequence[Shot[Page]]],
    birds: tuple[Sequence[Shot[Bird]], Sequence[Shot[Bird]]],
) -> None:
    """All metadata and benchmark files; `birds` are the training and the held-out ones."""
    for name, part in PARTS.items():
        if name == "cub":
            train, held = _bird_items(birds[0], seed), _bird_items(birds[1], seed)
        elif part.pool in pages:
            train = _page_items(name, part, pages[part.pool], seed)
            held = _page_items(name, part, _held_pages(name, pages.get(f"{part.pool}/held", ())), seed)
        else:
            train = _scene_items(name, part, scenes[part.pool], seed)
            held = _scene_items(name, part, scenes.get(f"{part.pool}/held", ()), seed)
            if name == "vsr":
                again = _scene_items(name, part, scenes["vsr"][:VSR_SHARED_IMAGES], seed, skip=part.each)
                held = [*again, *held]
        _write_training(writer, name, part, train[: quota(name, rows)])
        if part.benchmark:
            _write_benchmark(writer, name, part, held[: held_quota(name, rows)])


def _held_pages(name: str, shots: Sequence[Shot[Page]]) -> Sequence[Shot[Page]]:
    """TextVQA and TextCaps share one pool of signs; their held-out images are one half each."""
    if name not in ("textvqa", "textcap"):
        return shots
    return shots[::2] if name == "textvqa" else shots[1::2]


def _scene_items(name: str, part: Part, shots: Sequence[Shot[Scene]], seed: int, skip: int = 0) -> list[_Item]:
    truths, vsr = cycle((True, False)), name == "vsr"
    items: list[_Item] = []
    for shot in shots:
        rng = stream(seed, "ask", name, shot.name)
        asks = scene_asks(shot.facts, rng, truths, VSR_PHRASES if vsr else PHRASES, relations_only=vsr)
        items += [(shot.name, shot.facts.size, ask) for ask in islice(asks, skip, skip + part.each)]
    return items


def _page_items(name: str, part: Part, shots: Sequence[Shot[Page]], seed: int) -> list[_Item]:
    items: list[_Item] = []
    for shot in shots:
        fields = list(shot.facts.fields)
        stream(seed, "ask", name, shot.name).shuffle(fields)
        asks: Iterator[Ask] = (sign_ask(f, name) if part.pool == "signs" else field_ask(f) for f in fields)
        items += [(shot.name, shot.facts.size, ask) for ask in distinct(asks, part.each)]
    return items


def _bird_items(shots: Sequence[Shot[Bird]], seed: int) -> list[_Item]:
    """Two questions a bird, one true and one not, as in the real file."""
    items: list[_Item] = []
    for shot in shots:
        rng = stream(seed, "ask", "cub", shot.name)
        items += [(shot.name, shot.facts.size, bird_ask(shot.facts, rng, truth)) for truth in (True, False)]
    return items


def _write_training(writer: Writer, name: str, part: Part, items: Sequence[_Item]) -> None:
    rows = [cot_row(ask, image, size, part.label, part.numbers) for image, size, ask in items]
    # CUB's boxes are the owner's, so their dirt is in the boxes of the birds already.
    lines = [json.dumps(row) for row in rows] if name == "cub" else soil(rows, part.dirt)
    writer.text(f"visual_cot/metadata/{name}_cot_train.jsonl", lines)


def _write_benchmark(writer: Writer, name: str, part: Part, items: Sequence[_Item]) -> None:
    folder = "textvqa" if name == "textcap" else name
    det: list[Row] = []
    for i, (image, size, ask) in enumerate(items):
        row = benchmark_row(ask, f"{folder}/{image}", size, part.numbers, i)
        if 0 < i <= len(part.benchmark_dirt):
            row["bbox"] = bend(row["bbox"], size, part.benchmark_dirt[i - 1])
        det.append(row)
    records = [
        benchmark_record(row, part.label, written_answer(ask, part.label))
        for row, (_, _, ask) in zip(det, items, strict=True)
    ]
    writer.lines(f"visual_cot/viscot_benchmark/benchmark_det/{name}.jsonl", det)
    writer.array(f"visual_cot/viscot_benchmark/benchmark/{name}.json", records, indent=4)
