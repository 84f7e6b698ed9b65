"""Pictures of plates with a pattern on each: a first look shows where the red one is, a second one its pattern.

A picture has 448 x 448 pixels. A plate fills one or two cells of the 8 x 8 grid each way; one at most is red,
each has a pattern of period 4 whose mean is its colour. At 112 pixels, which is all that the tiny model gets of a
picture, a period is one pixel and the pattern is gone; a crop of the plate has at most 112 pixels and is shown as it
is. Plates are placed on a grey field with grey stripes. Everything follows from the seed, the split and the number of
the picture.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from vpt_data.synthetic.plates import PATTERNS, PERIOD, STRENGTH, texture

SIDE, K = 448, 8
CELL = SIDE // K
RED = (165, 75, 75)
ABSENT = "missing"
COUNTS = (2, 4)  # plates of a picture

RECIPE = """
name = "looks"
encoder = "dino"
prompted = false
shards = 1
"""
TAKE = """
[take.{take}_{split}]
source = "table"
dataset = "{take}"
template = "{template}"
task = "general"
license = "CC0-1.0"
split = "{split}"
files = ["own/{take}-{split}.jsonl"]
images = "own/images"
columns = {{ {columns}width = "width", height = "height" }}
"""
TEMPLATES = {"pattern": "region", "absent": "plain", "count": "reencode"}


Row = dict[str, object]


class Plate(NamedTuple):
    """Red or grey, a pattern and a box in pixels, half open."""

    red: bool
    pattern: str
    box: tuple[int, int, int, int]


def plates(dice: random.Random, red: bool) -> list[Plate]:
    """Two to four plates that share no cell, the first red or not, the others grey.

    Their boxes leave out up to 6 pixels a side.
    """
    taken: set[tuple[int, int]] = set()
    found: list[Plate] = []
    count = dice.randint(*COUNTS)
    while len(found) < count:
        wide, high = dice.randint(1, 2), dice.randint(1, 2)
        left, top = dice.randint(0, K - wide), dice.randint(0, K - high)
        cells = {(x, y) for x in range(left, left + wide) for y in range(top, top + high)}
        if cells & taken:
            continue
        taken |= cells
        x0, y0 = left * CELL + dice.randint(0, 6), top * CELL + dice.randint(0, 6)
        x1, y1 = (left + wide) * CELL - dice.randint(1, 6), (top + high) * CELL - dice.randint(1, 6)
        found.append(Plate(red and not found, dice.choice(PATTERNS), (x0, y0, x1, y1)))
    return found


def drawn(found: list[Plate], dice: random.Random) -> Image.Image:
    """The picture of some plates."""
    base = dice.randint(90, 200)
    pixels = np.full((SIDE, SIDE, 3), base, np.float64)
    for _ in range(3):
        at, thick, shade = dice.randrange(SIDE), dice.randint(8, 40), dice.randint(-40, 40)
        stripe = np.s_[at : at + thick] if dice.random() < 0.5 else np.s_[:, at : at + thick]
        pixels[stripe] = base + shade
    for plate in found:
        x0, y0, x1, y1 = plate.box
        phase = dice.randrange(PERIOD), dice.randrange(PERIOD)
        lit = texture(plate.pattern, x1 - x0, y1 - y0, phase)
        # No two plates have quite the same colour; else the shade would show what the filter leaves of a pattern.
        shade = dice.randint(80, 160)
        colour = [c + dice.randint(-15, 15) for c in RED] if plate.red else [shade] * 3
        pixels[y0:y1, x0:x1] = np.array(colour) + STRENGTH * lit[:, :, None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def asked(found: list[Plate], name: str, dice: random.Random) -> list[tuple[str, Row]]:
    """The rows about a picture, each with its take: a pattern or that there is none, and of some how many plates."""
    common: Row = {"image": name, "width": SIDE, "height": SIDE}
    plate, question = found[0], "Which pattern is on the red plate?"
    if not plate.red:
        rows = [("absent", common | {"question": question, "answer": ABSENT})]
    else:
        rows = [("pattern", common | {"question": question, "answer": plate.pattern, "box": list(plate.box)})]
    if dice.random() < 0.3:
        rows.append(("count", common | {"question": "How many plates are there?", "answer": str(len(found))}))
    return rows


def make(root: Path, images: dict[str, int], seed: int = 0) -> None:
    """A raw root with `images[split]` pictures a split: own/images, own/TAKE-SPLIT.jsonl and recipe.toml."""
    (root / "own" / "images").mkdir(parents=True, exist_ok=True)
    takes = [RECIPE]
    for split, count in images.items():
        rows: dict[str, list[Row]] = {take: [] for take in TEMPLATES}
        for number in range(count):
            dice = random.Random(f"{seed} {split} {number}")
            found, name = plates(dice, dice.random() < 0.7), f"{split}-{number:05d}.png"
            drawn(found, dice).save(root / "own" / "images" / name, compress_level=1)
            for take, row in asked(found, name, dice):
                rows[take].append(row)
        for take, some in rows.items():
            lines = "".join(f"{json.dumps(row)}\n" for row in some)
            (root / "own" / f"{take}-{split}.jsonl").write_text(lines, encoding="utf-8")
            columns = 'box = "box", ' if TEMPLATES[take] == "region" else ""
            takes.append(TAKE.format(take=take, split=split, template=TEMPLATES[take], columns=columns))
    (root / "recipe.toml").write_text("".join(takes), encoding="utf-8")
