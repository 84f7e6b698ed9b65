"""Plates: a small world in which only a second look can answer, and the question says where to look.

A picture shows one plate or two of different colours on a light wall, which has four by four places for them, each
plate with a fine pattern; a question names a colour and asks for its pattern. A pattern has a period of four pixels,
and its mean is the colour of its plate: it is gone where the picture is shrunk to a quarter, and there in a crop of the
plate. The pattern of a plate does not depend on its colour, its place or the other plates. The question comes before
the picture, as in half of LLaVA's rows, so that the tokens of the picture see it.

`write_plates` makes a raw root of own data with it: pictures, rows of each split, and two recipes, of which `plates` is
trained on and `plates_eval` is asked. Everything follows from the seed, the split and the number of the picture, so the
splits share no picture.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from vpt_data.synthetic.formats import Row
from vpt_data.synthetic.scenes import Box, Rgb

SITES: Final = 4  # places on each side; each is two by two cells of the usual grid
SITE: Final = 28
SIDE: Final = SITES * SITE
PERIOD: Final = 4
STRENGTH: Final = 40  # of a pattern, in grey levels around the colour of its plate
COUNTS: Final = (1, 2)  # plates of a picture
COLOURS: Final[Mapping[str, Rgb]] = {
    "red": (205, 50, 50),
    "green": (50, 165, 50),
}
PATTERNS: Final = ("rows", "columns", "rising", "falling", "checks", "dots", "holes", "plain")
#: Pictures of each split. Choices (schedule, shape of the model) are made on `validation`; `unseen` is only evaluated.
PICTURES: Final = {"train": 3000, "validation": 200, "unseen": 400}
#: Raise this when the same numbers give other bytes.
PLATES_VERSION: Final = 3

#: What both recipes say of a file of rows.
_ROWS: Final = """\
source = "table"
dataset = "plates"
task = "general"
license = "CC0-1.0"
images = "images"
ask = "{question} {image}"
columns = { box = "box", width = "width", height = "height" }
"""
#: Recipe -> its file in the root. Questions have no sentence that asks for a look: all rows look.
RECIPES: Final = {
    "plates": f"""\
# Plates: own data in which only a second look can answer; see vpt_data/synthetic/plates.py.
name = "plates"
prompted = false
shards = 1
description = "Drawn plates of several colours, each with a fine pattern that only a crop shows."

[take.plates_train]
template = "region"
files = ["train.jsonl"]
{_ROWS}
[take.plates_validation]
template = "region"
split = "validation"
files = ["validation.jsonl"]
{_ROWS}""",
    "plates_eval": f"""\
# The evaluation split of plates: other pictures than those of training and of validation.
name = "plates_eval"
prompted = false
shards = 1
description = "Questions on drawn plates that only a look at the right plate answers."

[take.plates_region_test]
template = "plain"
expected = "region"
split = "plates_region_test"
files = ["unseen.jsonl"]
{_ROWS}""",
}


class Plate(NamedTuple):
    """A plate and its box in pixels, half open."""

    colour: str
    pattern: str
    box: Box


def plates(dice: random.Random, count: int) -> list[Plate]:
    """Plates of different colours in different places; each leaves one to three pixels of its place on every side."""
    colours = dice.sample(list(COLOURS), count)
    found = []
    for colour, place in zip(colours, dice.sample(range(SITES**2), count), strict=True):
        x, y = place % SITES * SITE, place // SITES * SITE
        box = (
            x + dice.randint(1, 3),
            y + dice.randint(1, 3),
            x + SITE - dice.randint(1, 3),
            y + SITE - dice.randint(1, 3),
        )
        found.append(Plate(colour, dice.choice(PATTERNS), box))
    return found


def texture(pattern: str, width: int, height: int, phase: tuple[int, int] = (0, 0)) -> npt.NDArray[np.float64]:
    """A pattern of mean zero over whole periods, float64[height, width]."""
    y, x = np.mgrid[0:height, 0:width]
    x, y, half = x + phase[0], y + phase[1], PERIOD // 2
    dots = (x % PERIOD < half) & (y % PERIOD < half)
    lit: dict[str, npt.NDArray[np.float64]] = {
        "rows": y // half % 2 * 2.0 - 1,
        "columns": x // half % 2 * 2.0 - 1,
        "rising": (x + y) // half % 2 * 2.0 - 1,
        "falling": (x - y) // half % 2 * 2.0 - 1,
        "checks": (x // half + y // half) % 2 * 2.0 - 1,
        "dots": dots * 2.0 - 0.5,
        "holes": 0.5 - dots * 2.0,
        "plain": np.zeros((height, width)),
    }
    return lit[pattern]


def drawn(found: list[Plate], dice: random.Random) -> Image.Image:
    """The picture of some plates, on a wall of one light grey."""
    pixels = np.full((SIDE, SIDE, 3), dice.randint(222, 238), np.float64)
    for plate in found:
        x0, y0, x1, y1 = plate.box
        phase = dice.randrange(PERIOD), dice.randrange(PERIOD)
        lit = texture(plate.pattern, x1 - x0, y1 - y0, phase)
        # No two plates have quite the same colour; else the shade would show what shrinking leaves of a pattern.
        colour = [shade + dice.randint(-15, 15) for shade in COLOURS[plate.colour]]
        pixels[y0:y1, x0:x1] = np.array(colour) + STRENGTH * lit[:, :, None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def asked(found: list[Plate], name: str, dice: random.Random) -> list[Row]:
    """Rows about two plates of a picture, or about its only one."""
    common: Row = {"image": name, "width": SIDE, "height": SIDE}
    return [
        common
        | {"question": f"Which pattern is on the {plate.colour} plate?", "answer": plate.pattern}
        | {"box": list(plate.box)}
        for plate in dice.sample(found, min(2, len(found)))
    ]


def write_plates(out: Path, pictures: Mapping[str, int], seed: int = 0) -> None:
    """Write a raw root to `out`, a new folder, with `pictures[split]` pictures of each of the three splits.

    It holds `images/SPLIT-NNNNN.png`, `SPLIT.jsonl`, and the recipes `plates.toml` and `plates_eval.toml`. The folder
    appears complete or not at all.
    """
    fresh = out.with_name(f".{out.name}.{os.getpid()}.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        (fresh / "images").mkdir(parents=True)
        for split, count in pictures.items():
            rows: list[Row] = []
            for number in range(count):
                dice = random.Random(f"{seed} {split} {number}")
                name, found = f"{split}-{number:05d}.png", plates(dice, dice.randint(*COUNTS))
                drawn(found, dice).save(fresh / "images" / name, compress_level=1)
                rows += asked(found, name, dice)
            (fresh / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        for name, recipe in RECIPES.items():
            (fresh / f"{name}.toml").write_text(recipe, encoding="utf-8")
        fresh.rename(out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
