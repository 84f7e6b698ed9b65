"""The points of an image that a question is about, and the markers that are drawn on it, as AURORA published them."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Final, NamedTuple

import xxhash
from PIL import Image, ImageDraw, ImageFont

from vpt_data.depth.maps import SIDE, Map

#: How many points there may be, and the letters that they are labelled with.
COUNTS: Final = (2, 3, 4, 5)
LETTERS: Final = "ABCDE"
#: The largest coordinate of a point; the least distance of two points in pixels, and of their depths.
REACH: Final = 300
APART: Final = 20
GAP: Final = 20
RADIUS: Final = 4
_TRIES: Final = 10_000


class Point(NamedTuple):
    """A labelled point on the picture squashed to 336 x 336, and the depth there (0..255, higher is closer)."""

    label: str
    x: int
    y: int
    depth: int


def choose(depth: Map, seed: int, name: str) -> list[Point]:
    """Two to five points on a squashed map uint8[336, 336], the farthest first; [] where the map has not enough relief.

    The published rule: each at a random place from 0 to 300, with a depth above 0, at least 20 pixels and 20 steps of
    depth from every other; the letters are distributed by chance. Chance is a hash of the seed and the image's name, so
    that other images change nothing.
    """
    assert depth.shape == (SIDE, SIDE)
    chance = random.Random(xxhash.xxh3_64_intdigest(f"{seed}\0{name}".encode()))
    count = chance.choice(COUNTS)
    places: list[tuple[int, int, int]] = []
    for _ in range(_TRIES):
        x, y = chance.randint(0, REACH), chance.randint(0, REACH)
        here = int(depth[y, x])
        if here and all(
            (x - x1) ** 2 + (y - y1) ** 2 >= APART**2 and abs(here - other) >= GAP for other, x1, y1 in places
        ):
            places.append((here, x, y))
        if len(places) == count:
            break
    else:
        return []
    letters = list(LETTERS[:count])
    chance.shuffle(letters)
    return [Point(letter, x, y, here) for letter, (here, x, y) in zip(letters, sorted(places), strict=True)]


def marked(image: Image.Image, points: Iterable[Point]) -> Image.Image:
    """The picture squashed to 336 x 336 with a red ring at each point and its letter above, white on black.

    Drawn point by point in the order given: the label of one may cover the ring of another.
    """
    picture = image.convert("RGB").resize((SIDE, SIDE))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default()
    for label, x, y, _ in points:
        draw.ellipse([x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS], outline="red", width=2)
        draw.rectangle([x - 1, y - 26, x + draw.textlength(label, font=font) + 1, y - 12], fill="black")
        draw.text((x, y - 25), label, fill="white", font=font)
    return picture
