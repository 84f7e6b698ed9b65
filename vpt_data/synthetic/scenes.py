"""The drawn world of the sample raw root: scenes of small coloured objects, and birds.

Everything here is a pure function of a random stream. A scene is a handful of *motifs* (two things side
by side, one over the other, one in front of the other, one inside the other, several of a kind), each in
its own part of the picture, so that the box around a motif is enough to answer a question about it. Boxes
are `(x0, y0, x1, y1)` in pixels, origin top left, half open. Pages and signs are in `lettering`,
questions in `asks`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product

import xxhash
from PIL import Image, ImageDraw, ImageOps

Box = tuple[int, int, int, int]
Size = tuple[int, int]
Rgb = tuple[int, int, int]

PALETTE: Mapping[str, Rgb] = {
    "red": (214, 40, 40),
    "blue": (40, 80, 210),
    "green": (30, 140, 60),
    "yellow": (245, 215, 40),
    "orange": (240, 130, 30),
    "purple": (130, 50, 170),
    "black": (25, 25, 25),
    "white": (250, 250, 250),
}
GROUNDS: tuple[Rgb, ...] = (
    (196, 206, 212),
    (206, 200, 186),
    (186, 204, 188),
    (208, 192, 196),
    (176, 190, 204),
    (214, 208, 200),
)
_DARK, _LIGHT = (45, 45, 50), (238, 234, 222)

# A part of a thing: what, where in the unit square, in which tone (c = colour, k = dark, w = light).
_Part = tuple[str, tuple[float, ...], str]


def _star(points: int, inner: float) -> tuple[float, ...]:
    corners: list[float] = []
    for i in range(2 * points):
        radius, angle = (0.5, inner)[i % 2], math.pi * i / points
        corners += [0.5 + radius * math.sin(angle), 0.5 - radius * math.cos(angle)]
    return tuple(corners)


_HEXAGON = (0.25, 0.0, 0.75, 0.0, 1.0, 0.5, 0.75, 1.0, 0.25, 1.0, 0.0, 0.5)
_OCTAGON = (0.3, 0, 0.7, 0, 1, 0.3, 1, 0.7, 0.7, 1, 0.3, 1, 0, 0.7, 0, 0.3)
_CROSS = (
    0.3,
    0,
    0.7,
    0,
    0.7,
    0.3,
    1,
    0.3,
    1,
    0.7,
    0.7,
    0.7,
    0.7,
    1,
    0.3,
    1,
    0.3,
    0.7,
    0,
    0.7,
    0,
    0.3,
    0.3,
    0.3,
)
_PARTS: Mapping[str, tuple[_Part, ...]] = {
    "circle": (("oval", (0, 0, 1, 1), "c"),),
    "square": (("box", (0, 0, 1, 1), "c"),),
    "triangle": (("poly", (0.5, 0, 1, 1, 0, 1), "c"),),
    "diamond": (("poly", (0.5, 0, 1, 0.5, 0.5, 1, 0, 0.5), "c"),),
    "star": (("poly", _star(5, 0.2), "c"),),
    "hexagon": (("poly", _HEXAGON, "c"),),
    "cross": (("poly", _CROSS, "c"),),
    "arrow": (("poly", (0, 0.3, 0.5, 0.3, 0.5, 0, 1, 0.5, 0.5, 1, 0.5, 0.7, 0, 0.7), "c"),),
    "house": (("poly", (0.5, 0, 1, 0.45, 1, 1, 0, 1, 0, 0.45), "c"), ("box", (0.4, 0.6, 0.6, 1), "w")),
    "ring": (("hoop", (0, 0, 1, 1), "c"),),
    "sports ball": (
        ("oval", (0, 0, 1, 1), "c"),
        ("line", (0.5, 0, 0.5, 1), "k"),
        ("line", (0, 0.5, 1, 0.5), "k"),
    ),
    "kite": (("poly", (0.5, 0, 1, 0.35, 0.5, 0.8, 0, 0.35), "c"), ("line", (0.5, 0.8, 0.75, 1), "k")),
    "frisbee": (("oval", (0, 0.2, 1, 0.8), "c"), ("oval", (0.25, 0.35, 0.75, 0.65), "w")),
    "stop sign": (("poly", _OCTAGON, "c"), ("box", (0.2, 0.42, 0.8, 0.58), "w")),
    "traffic light": (
        ("box", (0.25, 0, 0.75, 1), "c"),
        ("oval", (0.38, 0.06, 0.62, 0.3), "w"),
        ("oval", (0.38, 0.38, 0.62, 0.62), "w"),
        ("oval", (0.38, 0.7, 0.62, 0.94), "w"),
    ),
    "clock": (
        ("oval", (0, 0, 1, 1), "c"),
        ("oval", (0.2, 0.2, 0.8, 0.8), "w"),
        ("line", (0.5, 0.5, 0.5, 0.25), "k"),
    ),
    "umbrella": (("poly", (0.5, 0, 1, 0.55, 0, 0.55), "c"), ("line", (0.5, 0.55, 0.5, 1), "k")),
    "book": (("box", (0, 0.1, 1, 0.9), "c"), ("line", (0.2, 0.1, 0.2, 0.9), "w")),
    "tv": (
        ("box", (0, 0, 1, 0.8), "c"),
        ("box", (0.12, 0.12, 0.88, 0.66), "w"),
        ("line", (0.3, 1, 0.7, 1), "k"),
    ),
    "pizza": (("poly", (0, 0, 1, 0, 0.5, 1), "c"), ("oval", (0.4, 0.15, 0.6, 0.35), "w")),
    "cup": (("poly", (0, 0, 0.75, 0, 0.65, 1, 0.1, 1), "c"), ("hoop", (0.62, 0.2, 1, 0.6), "c")),
    "vase": (("poly", (0.35, 0, 0.65, 0, 0.6, 0.25, 1, 0.6, 0.7, 1, 0.3, 1, 0, 0.6, 0.4, 0.25), "c"),),
    "suitcase": (("hoop", (0.3, 0, 0.7, 0.4), "k"), ("box", (0, 0.22, 1, 1), "c")),
    "donut": (("oval", (0, 0, 1, 1), "c"), ("oval", (0.33, 0.33, 0.67, 0.67), "w")),
    "bench": (
        ("box", (0, 0.2, 1, 0.55), "c"),
        ("line", (0.1, 0.55, 0.1, 1), "k"),
        ("line", (0.9, 0.55, 0.9, 1), "k"),
    ),
    "bottle": (
        ("box", (0.4, 0, 0.6, 0.35), "k"),
        ("poly", (0.4, 0.3, 0.6, 0.3, 0.8, 0.5, 0.8, 1, 0.2, 1, 0.2, 0.5), "c"),
    ),
}
SHAPES = ("circle", "square", "triangle", "diamond", "star", "hexagon", "cross", "arrow", "house", "ring")
# Things with COCO names, under COCO's own category numbers (which have gaps).
COCO_IDS: Mapping[str, int] = {
    "traffic light": 10, "stop sign": 13, "bench": 15, "umbrella": 28, "suitcase": 33, "frisbee": 34,
    "sports ball": 37, "kite": 38, "bottle": 44, "cup": 47, "pizza": 59, "donut": 60, "tv": 72, "book": 84,
    "clock": 85, "vase": 86,
}  # fmt: skip
_HOLDERS = ("circle", "square", "hexagon", "suitcase", "book", "tv")


@dataclass(frozen=True, slots=True)
class Thing:
    """One drawn object; `box` is where it is drawn (a part may be covered by the thing in front of it)."""

    kind: str
    color: str
    box: Box


@dataclass(frozen=True, slots=True)
class Motif:
    """Things that belong together; the first is `form` of the second, a `group` is n of a kind."""

    form: str
    things: tuple[Thing, ...]


@dataclass(frozen=True, slots=True)
class Scene:
    """Motifs in a picture of `size` = (width, height); names are unique, by kind alone if `by_kind`."""

    size: Size
    by_kind: bool
    motifs: tuple[Motif, ...]

    @property
    def things(self) -> tuple[Thing, ...]:
        """All things, motif by motif."""
        return tuple(thing for motif in self.motifs for thing in motif.things)

    def name(self, thing: Thing) -> str:
        """What a question calls the thing: enough to distinguish it from all others, as far as they differ."""
        return thing.kind if self.by_kind else f"{thing.color} {thing.kind}"


def stream(seed: int, *where: object) -> random.Random:
    """A random stream of its own for each place that uses one: nothing depends on the order of use."""
    return random.Random(xxhash.xxh3_64_intdigest("\0".join(map(str, (seed, *where))).encode()))


def union(boxes: Iterable[Box]) -> Box:
    """The smallest box around all boxes: `union([(0, 0, 2, 2), (5, 1, 6, 3)])` is `(0, 0, 6, 3)`."""
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def ground(rng: random.Random, size: Size) -> Image.Image:
    """A background: a soft gradient with clutter that has none of the palette's colours."""
    low, high = rng.sample(GROUNDS, 2)
    image = ImageOps.colorize(Image.linear_gradient("L").resize(size), low, high)
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(8, 16)):
        x, y, length = rng.randrange(size[0]), rng.randrange(size[1]), rng.randint(4, size[0] // 6)
        tone = tuple(channel - rng.randint(12, 34) for channel in rng.choice(GROUNDS))
        if rng.random() < 0.5:
            draw.line((x, y, x + length, y + rng.randint(-30, 30)), fill=tone, width=rng.randint(1, 3))
        else:
            draw.ellipse((x, y, x + length // 3, y + rng.randint(3, 14)), fill=tone)
    return image


def draw_thing(draw: ImageDraw.ImageDraw, thing: Thing) -> None:
    """Draw one thing into its box."""
    x0, y0, x1, y1 = thing.box
    light = _LIGHT if thing.color != "white" else (120, 120, 125)
    tones = {"c": PALETTE[thing.color], "k": _DARK, "w": light}
    for how, unit, tone in _PARTS[thing.kind]:
        xs = [round(x0 + u * (x1 - x0 - 1)) for u in unit[0::2]]
        ys = [round(y0 + v * (y1 - y0 - 1)) for v in unit[1::2]]
        points = [coordinate for point in zip(xs, ys, strict=True) for coordinate in point]
        if how == "oval":
            draw.ellipse(points, fill=tones[tone], outline=_DARK)
        elif how == "box":
            draw.rectangle(points, fill=tones[tone], outline=_DARK)
        elif how == "poly":
            draw.polygon(points, fill=tones[tone], outline=_DARK)
        elif how == "hoop":
            draw.ellipse(points, outline=tones[tone], width=max(2, (xs[1] - xs[0]) // 4))
        else:
            draw.line(points, fill=tones[tone], width=max(1, (x1 - x0) // 14))


class _Names:
    """Hands out (colour, kind) pairs so that no two things of a scene have the same name."""

    def __init__(self, rng: random.Random, by_kind: bool) -> None:
        self.by_kind = by_kind
        kinds = tuple(COCO_IDS) if by_kind else SHAPES
        self.free = list(product(PALETTE, kinds))
        rng.shuffle(self.free)

    def take(self, among: tuple[str, ...] = (), not_color: str = "") -> tuple[str, str]:
        hit = next(pair for pair in self.free if (not among or pair[1] in among) and pair[0] != not_color)
        self.free = [pair for pair in self.free if pair != hit and not (self.by_kind and pair[1] == hit[1])]
        return hit


def _square(x: int, y: int, side: int) -> Box:
    return x, y, x + side, y + side


def _motif_boxes(form: str, rng: random.Random, unit: int) -> list[Box]:
    """Boxes of one motif near the origin, subject first; `unit` = the shorter side of its slot in pixels."""
    a, b = (rng.randint(unit * 13 // 100, unit * 21 // 100) for _ in range(2))
    gap, middle = rng.randint(5, 12), max(a, b)
    if form == "left":
        return [_square(0, (middle - a) // 2, a), _square(a + gap, (middle - b) // 2, b)]
    if form == "above":
        return [_square((middle - a) // 2, 0, a), _square((middle - b) // 2, a + gap, b)]
    if form == "front":
        behind = b * 3 // 2
        return [_square(behind * 11 // 20, rng.randint(0, behind // 2), a), _square(0, 0, behind)]
    if form == "inside":
        outer = unit * 2 // 5
        inner = outer * 3 // 10
        return [_square((outer - inner) // 2, (outer - inner) * 6 // 10, inner), _square(0, 0, outer)]
    side, n = unit * 11 // 100, rng.randint(2, 6)
    return [_square((side + 6) * (i % 3), (side + 6) * (i // 3), side) for i in range(n)]


def _motif(form: str, rng: random.Random, names: _Names, slot: Box) -> Motif:
    boxes = _motif_boxes(form, rng, min(slot[2] - slot[0], slot[3] - slot[1]))
    _, _, width, height = union(boxes)
    dx = rng.randint(slot[0] + 5, slot[2] - width - 5)
    dy = rng.randint(slot[1] + 5, slot[3] - height - 5)
    placed = [(x0 + dx, y0 + dy, x1 + dx, y1 + dy) for x0, y0, x1, y1 in boxes]
    if form == "group":
        color, kind = names.take()
        return Motif(form, tuple(Thing(kind, color, box) for box in placed))
    reference = names.take(among=_HOLDERS if form == "inside" else ())
    subject = names.take(not_color=reference[0])
    things = (Thing(kind, color, box) for (color, kind), box in zip((subject, reference), placed, strict=True))
    return Motif(form, tuple(things))


def scene(rng: random.Random, size: Size, by_kind: bool = False) -> tuple[Image.Image, Scene]:
    """A picture with one motif of each form and perhaps a sixth, each in a slot of a 3x2 or 2x3 layout.

    `by_kind` = things with COCO names, each kind once; else coloured shapes, each colour and kind once (a
    group counts as one).
    """
    columns, rows = (3, 2) if size[0] >= size[1] else (2, 3)
    wide, high = size[0] // columns, size[1] // rows
    cells = product(range(columns), range(rows))
    slots = [(c * wide, r * high, (c + 1) * wide, (r + 1) * high) for c, r in cells]
    rng.shuffle(slots)
    # "inside" comes first: it needs one of the few kinds that can hold another thing.
    forms = ["inside", "left", "above", "front", "group"]
    if rng.random() < 0.5:
        forms.append(rng.choice(forms[1:4]))
    names = _Names(rng, by_kind)
    motifs = [_motif(form, rng, names, slot) for form, slot in zip(forms, slots, strict=False)]
    rng.shuffle(motifs)
    facts = Scene(size, by_kind, tuple(motifs))
    image = ground(rng, size)
    draw = ImageDraw.Draw(image)
    for motif in motifs:
        for thing in reversed(motif.things):
            draw_thing(draw, thing)
    return image, facts


_BIRD_COLORS: Mapping[str, Rgb] = {
    "blue": (50, 90, 200), "brown": (120, 78, 44), "grey": (130, 132, 136), "yellow": (238, 205, 50),
    "green": (60, 140, 70), "orange": (232, 130, 40), "black": (28, 28, 32), "white": (245, 245, 242),
    "red": (200, 40, 40),
}  # fmt: skip
BIRD_ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "has_bill_shape": ("dagger", "hooked", "needle", "cone"),
    "has_wing_color": tuple(_BIRD_COLORS),
    "has_breast_color": tuple(_BIRD_COLORS),
    "has_eye_color": ("black", "yellow", "red", "white"),
    "has_leg_color": ("black", "orange", "yellow", "grey"),
    "has_crown_color": tuple(_BIRD_COLORS),
    "has_wing_pattern": ("solid", "spotted", "striped"),
}
_BILLS: Mapping[str, tuple[int, ...]] = {
    "dagger": (-8, -6, -44, 2, -8, 10),
    "hooked": (-8, -8, -32, -6, -38, 12, -28, 6, -8, 8),
    "needle": (-8, -2, -58, 2, -8, 4),
    "cone": (-6, -14, -26, 0, -6, 14),
}


@dataclass(frozen=True, slots=True)
class Bird:
    """A bird in a picture: its tight box and what it looks like, by CUB attribute group."""

    size: Size
    box: Box
    looks: Mapping[str, str]


def bird(rng: random.Random, crown: str) -> tuple[Image.Image, Bird]:
    """A bird with a crown of the given colour, all else drawn by chance, facing left or right."""
    looks = {group: rng.choice(values) for group, values in BIRD_ATTRIBUTES.items()}
    looks["has_crown_color"] = crown
    size = rng.choice(((500, 375), (500, 333), (375, 500), (420, 400)))
    layer = Image.new("RGBA", (300, 240))
    _draw_bird(ImageDraw.Draw(layer), looks, rng)
    if rng.random() < 0.5:
        layer = ImageOps.mirror(layer)
    tight = layer.crop(layer.getbbox())
    high = rng.randint(size[1] // 5, size[1] // 2)
    tight = tight.resize((tight.width * high // tight.height, high), Image.Resampling.BILINEAR)
    x, y = rng.randint(2, size[0] - tight.width - 2), rng.randint(2, size[1] - tight.height - 2)
    image = ground(rng, size)
    image.paste(tight, (x, y), tight)
    return image, Bird(size, (x, y, x + tight.width, y + tight.height), looks)


def _draw_bird(draw: ImageDraw.ImageDraw, looks: Mapping[str, str], rng: random.Random) -> None:
    """Draw a bird that faces left on a 300 x 240 layer."""
    tone = {group: _BIRD_COLORS.get(look, _DARK) for group, look in looks.items()}
    plumage = (168, 150, 130)
    for x in (140, 165):
        draw.line((x, 170, x - 6, 226), fill=tone["has_leg_color"], width=6)
    draw.polygon((205, 130, 290, 150 + rng.randint(-10, 30), 280, 178, 200, 160), fill=plumage, outline=_DARK)
    draw.ellipse((80, 82, 230, 186), fill=plumage, outline=_DARK)
    draw.chord((80, 82, 230, 186), 75, 225, fill=tone["has_breast_color"], outline=_DARK)
    wing = (138, 92, 238, 152)
    draw.ellipse(wing, fill=tone["has_wing_color"], outline=_DARK, width=2)
    mark = _LIGHT if looks["has_wing_color"] not in ("white", "yellow") else _DARK
    if looks["has_wing_pattern"] == "striped":
        for x in range(156, 224, 16):
            draw.line((x, 104, x + 8, 142), fill=mark, width=5)
    elif looks["has_wing_pattern"] == "spotted":
        for x, y in product(range(160, 220, 18), (110, 126)):
            draw.ellipse((x, y, x + 8, y + 8), fill=mark)
    bill = [c + (66, 62)[i % 2] for i, c in enumerate(_BILLS[looks["has_bill_shape"]])]
    draw.polygon(bill, fill=(222, 178, 80), outline=_DARK)
    draw.ellipse((54, 26, 130, 102), fill=plumage, outline=_DARK)
    draw.chord((54, 26, 130, 102), 180, 360, fill=tone["has_crown_color"], outline=_DARK)
    draw.ellipse((70, 58, 86, 74), fill=tone["has_eye_color"], outline=_DARK, width=2)
