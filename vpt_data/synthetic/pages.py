"""The written part of the drawn world: document pages, photographs of signs, book covers.

The lettering is chosen so that a second look is needed: an answer is about 1.3 % of the longer side high,
three pixels when the picture is seen at 224, and no wider than a quarter of the page, so that the 8 x 8
grid cells around it, seen at 224, show it at eight pixels and more. What can be seen at the first look
(the kind of page, big headings, the colour of a sign) says where to look. Boxes are `(x0, y0, x1, y1)`
in pixels, origin top left, half open.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from vpt_data.errors import VptDataError
from vpt_data.synthetic.scenes import PALETTE, Box, Rgb, Size, ground

_FIRST = (
    "Ada", "Ben", "Carla", "Dan", "Edith", "Felix", "Gina", "Hugo", "Ines", "Jonas", "Karin", "Leo", "Mona",
    "Nils", "Olga", "Paul", "Rita", "Sven", "Tara", "Udo", "Vera", "Walt", "Yara", "Zoe",
)  # fmt: skip
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_GOODS = (
    "Paper", "Chalk", "Nails", "Glue", "Wire", "Rope", "Soap", "Tea", "Rice", "Salt", "Flour", "Lamp",
    "Tape", "Ink", "Brush", "Screws", "Filter", "Hose", "Gloves", "Valve", "Cable", "Tiles", "Wax",
)  # fmt: skip
GENRES = (
    "Travel",
    "Cookbooks",
    "History",
    "Romance",
    "Science & Math",
    "Law",
    "Comics",
    "Self-Help",
    "Sports",
)
Ink = int | Rgb


@dataclass(frozen=True, slots=True)
class Field:
    """One answerable piece of text: its box, and what a question says to ask for it."""

    question: str
    value: str
    box: Box
    color: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """A written picture of `size` = (width, height) in pixels; `title` is its biggest line."""

    size: Size
    title: str
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where a block of a page goes: page width and height, left margin, top of the block, in pixels."""

    wide: int
    high: int
    margin: int
    top: int


# What a block of a page holds, and where the next block may begin.
Block = tuple[list[Field], int]


@functools.lru_cache(maxsize=256)
def font(pixels: int) -> ImageFont.FreeTypeFont:
    """The scalable font inside Pillow, laid out without libraqm: equally wide on every machine."""
    found = ImageFont.load_default(size=pixels)
    if not isinstance(found, ImageFont.FreeTypeFont):
        raise VptDataError("Pillow here was built without FreeType, which the sample is drawn with; install its wheel.")
    return found.font_variant(layout_engine=ImageFont.Layout.BASIC)


def put(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, pixels: int, fill: Ink) -> Box:
    """Write `text` with its top left corner at `at`; returns the box of the ink, 3 px wider."""
    draw.text(at, text, fill=fill, font=font(pixels))
    x0, y0, x1, y1 = draw.textbbox(at, text, font=font(pixels))
    return int(x0) - 3, int(y0) - 3, int(x1) + 3, int(y1) + 3


def word(rng: random.Random, syllables: int = 2) -> str:
    """An invented word that can be spoken: `velto`, `karin`."""
    vowels = ("a", "e", "i", "o", "u", "ar", "el", "on")
    return "".join(rng.choice("bdfgklmnprstvz") + rng.choice(vowels) for _ in range(syllables))


def _code(rng: random.Random) -> str:
    letters = "".join(rng.choice("ABCDEFGHKLMNPRSTUVWXYZ") for _ in range(2))
    return f"{letters}-{rng.randrange(1000, 100000)}"


def _name(rng: random.Random) -> str:
    return f"{rng.choice(_FIRST)} {word(rng).capitalize()}"


def _date(rng: random.Random) -> str:
    return f"{rng.randint(1, 28)} {rng.choice(_MONTHS)} {rng.randint(1955, 2024)}"


def _money(rng: random.Random) -> str:
    return f"${rng.randrange(10, 10000):,}.{rng.randrange(100):02d}"


def _phone(rng: random.Random) -> str:
    return f"{rng.randrange(200, 1000)}-{rng.randrange(10000):04d}"


def _town(rng: random.Random) -> str:
    return f"{word(rng).capitalize()} {rng.randrange(10000, 100000)}"


def _digits(rng: random.Random) -> str:
    return str(rng.randrange(10000, 10000000))


def _weight(rng: random.Random) -> str:
    return f"{rng.randrange(100, 10000) / 10} kg"


# What a page can say: heading, question, how the value is made.
_FIELDS: Mapping[str, tuple[str, str, Callable[[random.Random], str]]] = {
    "number": ("No.", "What is the number of this {}?", _code),
    "date": ("Date", "What is the date of this {}?", _date),
    "due": ("Due", "When is the payment due?", _date),
    "from": ("From", "Who sent this {}?", _name),
    "to": ("To", "To whom is this {} addressed?", _name),
    "contact": ("Contact", "What is the name of the contact person?", _name),
    "phone": ("Phone", "What is the phone number?", _phone),
    "town": ("Town", "Which town and postal code are given?", _town),
    "total": ("Total", "What is the total amount?", _money),
    "tax": ("Tax", "How much is the tax?", _money),
    "account": ("Account", "What is the account number?", _digits),
    "weight": ("Weight", "What is the weight?", _weight),
    "batch": ("Batch", "What is the batch code?", _code),
    "signed": ("Signed", "Who signed this {}?", _name),
}
# Each kind of page has its fields in an order of its own: the kind, seen at the first look, says where a
# field is.
_PAGES: Mapping[str, tuple[str, ...]] = {
    "invoice": ("number", "date", "to", "account", "phone", "due", "tax", "total"),
    "memo": ("from", "to", "date", "number", "phone", "signed"),
    "report": ("date", "batch", "weight", "contact", "town", "signed"),
    "application": ("to", "from", "town", "phone", "date", "account", "signed"),
    "waybill": ("weight", "number", "from", "to", "town", "date", "batch"),
    "receipt": ("number", "date", "account", "tax", "total"),
}
PAGE_KINDS = tuple(_PAGES)


def page(rng: random.Random, kinds: tuple[str, ...] = PAGE_KINDS, colored: bool = False) -> tuple[Image.Image, Page]:
    """A document page: a title, fields as lines, a form or a price list, small print between.

    Black on white in mode `L` (most are thresholded to `1`, as scans are), or with coloured bands in mode
    `RGB`.
    """
    kind = rng.choice(kinds)
    high = rng.randrange(1100, 1601, 20)
    wide = high * rng.randint(50, 58) // 100 if kind == "receipt" else high * rng.randint(74, 80) // 100
    if colored:
        image = Image.new("RGB", (wide, high), (252, 251, 247))
    else:
        image = Image.new("L", (wide, high), rng.randint(244, 255))
    draw = ImageDraw.Draw(image)
    ink: Ink = (30, 30, 40) if colored else rng.randint(0, 50)
    margin, title = wide // 12, f"{kind.upper()}"
    put(draw, (margin, high // 28), title, high // 20, ink)
    put(
        draw,
        (margin, high // 10),
        f"{word(rng).capitalize()} {word(rng).capitalize()} & Co.",
        high // 60,
        ink,
    )
    top = high * rng.randint(14, 18) // 100
    layout = _form if colored or (kind != "receipt" and rng.random() < 0.4) else _lines
    fields, y = layout(draw, rng, kind, _Spot(wide, high, margin, top), ink)
    if kind in ("invoice", "receipt", "report") and y < high * 0.7:
        listed, y = _prices(draw, rng, _Spot(wide, high, margin, y), ink)
        fields += listed
    _small_print(draw, rng, _Spot(wide, high, margin, y + high // 60), ink)
    if not colored and rng.random() < 0.7:
        image = image.point(lambda value: 255 if value > 150 else 0).convert("1", dither=Image.Dither.NONE)
    return image, Page((wide, high), title, tuple(fields))


def _letter(high: int) -> int:
    """The font size of an answer on a page of this height."""
    return max(20, high * 19 // 1000)


def _lines(draw: ImageDraw.ImageDraw, rng: random.Random, kind: str, at: _Spot, ink: Ink) -> Block:
    pixels, fields, y = _letter(at.high), [], at.top
    step = at.high * rng.randint(34, 44) // 1000
    column = at.margin + at.wide * rng.randint(24, 30) // 100
    for name in _PAGES[kind]:
        heading, question, make = _FIELDS[name]
        value = make(rng)
        put(draw, (at.margin, y), f"{heading}:", pixels, ink)
        fields.append(Field(question.format(kind), value, put(draw, (column, y), value, pixels, ink)))
        y += step
    return fields, y + step // 2


def _form(draw: ImageDraw.ImageDraw, rng: random.Random, kind: str, at: _Spot, ink: Ink) -> Block:
    """Two columns of framed cells: headings to be read at the first look, small values under them."""
    pixels, fields = _letter(at.high), []
    wide, high = (at.wide - 2 * at.margin) // 2, at.high * 9 // 100
    tints = rng.sample([name for name in PALETTE if name not in ("black", "white")], 6)
    for i, name in enumerate(_PAGES[kind]):
        heading, question, make = _FIELDS[name]
        value = make(rng)
        x, y = at.margin + (i % 2) * wide, at.top + (i // 2) * high
        draw.rectangle((x, y, x + wide - 8, y + high - 8), outline=ink, width=2)
        if not isinstance(ink, int):
            tint = PALETTE[tints[i % 6]]
            band = (x + 2, y + 2, x + wide - 10, y + high * 52 // 100)
            draw.rectangle(band, fill=tuple(c // 2 + 127 for c in tint))
        put(draw, (x + 10, y + 4), heading, at.high * 34 // 1000, ink)
        left = x + 10 + rng.randint(0, max(1, wide // 3))
        box = put(draw, (left, y + high * 58 // 100), value, pixels, ink)
        fields.append(Field(question.format(kind), value, box))
    return fields, at.top + (len(fields) + 1) // 2 * high + high // 4


def _prices(draw: ImageDraw.ImageDraw, rng: random.Random, at: _Spot, ink: Ink) -> Block:
    pixels, fields, y = _letter(at.high), [], at.top
    step, right = pixels * 8 // 5, at.wide - at.margin
    for goods in rng.sample(_GOODS, rng.randint(3, 6)):
        value = f"{rng.randrange(1, 1000)}.{rng.randrange(100):02d}"
        put(draw, (at.margin, y), goods, pixels, ink)
        left = right - int(font(pixels).getlength(value))
        box = put(draw, (left, y), value, pixels, ink)
        fields.append(Field(f"What is the price of {goods.lower()}?", value, box))
        y += step
        draw.line((at.margin, y - pixels // 4, right, y - pixels // 4), fill=ink)
    return fields, y + step // 2


def _small_print(draw: ImageDraw.ImageDraw, rng: random.Random, at: _Spot, ink: Ink) -> None:
    pixels, y = at.high * 14 // 1000, at.top
    while y < at.high * rng.randint(84, 92) // 100:
        text = " ".join(word(rng, rng.randint(1, 3)) for _ in range(rng.randint(4, 9)))
        put(draw, (at.margin, y), text[: (at.wide - 2 * at.margin) * 9 // (pixels * 5)], pixels, ink)
        y += pixels * 3 // 2 if rng.random() < 0.8 else pixels * 4


def signs(rng: random.Random) -> tuple[Image.Image, Page]:
    """A street with three to five signs, each of its own colour, each with a small word and number."""
    size = rng.choice(((1024, 768), (1024, 683), (768, 1024)))
    image = ground(rng, size)
    draw = ImageDraw.Draw(image)
    columns, rows = (3, 2) if size[0] > size[1] else (2, 3)
    wide, high = size[0] // columns, size[1] // rows
    slots = [(i % columns * wide, i // columns * high) for i in range(columns * rows)]
    rng.shuffle(slots)
    colors = rng.sample(sorted(PALETTE), rng.randint(3, 5))
    fields: list[Field] = []
    for color, (left, top) in zip(colors, slots, strict=False):
        fields += _sign(draw, rng, color, (left, top, left + wide, top + high))
    return image, Page(size, "street", tuple(fields))


def _sign(draw: ImageDraw.ImageDraw, rng: random.Random, color: str, slot: Box) -> list[Field]:
    wide, high = rng.randint(170, 210), rng.randint(90, 130)
    x = rng.randint(slot[0] + 10, slot[2] - wide - 10)
    y = rng.randint(slot[1] + 10, slot[3] - high - 40)
    draw.rectangle((x + wide // 2 - 4, y, x + wide // 2 + 4, slot[3] - 4), fill=(110, 110, 112))
    draw.rectangle((x, y, x + wide, y + high), fill=PALETTE[color], outline=(60, 60, 60), width=3)
    ink = (15, 15, 15) if color in ("white", "yellow", "orange") else (250, 250, 250)
    texts = {"word": word(rng, 3).upper()[:8], "number": str(rng.randrange(100, 100000))}
    fields = []
    for row, (what, value) in enumerate(texts.items()):
        at = (x + rng.randint(12, 34), y + 12 + row * (high // 2 - 4))
        fields.append(Field(f"What {what} is on the {color} sign?", value, put(draw, at, value, 20, ink), color))
    return fields


def cover(rng: random.Random) -> tuple[Image.Image, Page]:
    """A book cover of 330 x 500 pixels with title, author and genre; the fields are in this order."""
    size, color = (330, 500), rng.choice(sorted(PALETTE))
    image = Image.new("RGB", size, tuple(c // 2 + 110 for c in PALETTE[color]))
    draw = ImageDraw.Draw(image)
    title, author = f"The {word(rng).capitalize()} {rng.choice(_GOODS)}", _name(rng)
    genre = rng.choice(GENRES)
    draw.rectangle((20, 150, 310, 330), outline=(40, 40, 40), width=3)
    fields = (
        Field("What is the title of this book?", title, put(draw, (24, 40), title, 30, (20, 20, 20))),
        Field("Who wrote this book?", author, put(draw, (40, 440), author, 22, (20, 20, 20))),
        Field("What type of book is this?", genre, put(draw, (40, 225), genre, 24, (20, 20, 20))),
    )
    return image, Page(size, title, fields)
