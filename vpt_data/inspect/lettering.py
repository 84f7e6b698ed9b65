"""Text on a picture: made harmless, wrapped to a width, cut to a number of lines, coloured run by run.

The font is DejaVu Sans, which matplotlib ships: it has Latin, Greek, Cyrillic, Hebrew and Arabic letters. They are set
one after the other as they are stored, so that no mark in a text turns or hides another part of the picture.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from vpt_data.report import visible

#: No line has more characters; a longer word is broken, and what is behind that many for each line is never measured.
_LONGEST = 200
_LEFT_OUT = " … {:,} more characters"
_WORD = re.compile(rf"\n|[^\S\n]+|\S{{1,{_LONGEST}}}")


class Run(NamedTuple):
    """Text of one colour."""

    text: str
    color: str


@functools.cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans; the simple layout needs no library that one machine has and another has not."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", name)
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def wrapped(runs: Sequence[Run], width: float, most: int, face: ImageFont.FreeTypeFont) -> list[list[Run]]:
    """Lines of at most `width` pixels, broken between words or inside one that is too long.

    most   lines at most; where text is left out, the last line says how many characters
    """
    total = sum(len(run.text) for run in runs)
    lines, starts = [list[Run]()], [0]
    used, done = 0.0, 0
    for word in (word for run in _cut(runs, most * _LONGEST) for word in _words(run, width, face)):
        length = 0.0 if word.text == "\n" else face.getlength(word.text)
        ends = word.text == "\n" or (used and used + length > width)
        done += len(word.text) if word.text.isspace() else 0
        if ends:
            lines.append([])
            starts.append(done)
            used = 0.0
        if len(lines) > most:
            break
        # The blank at which a line is broken is not drawn.
        if not word.text.isspace() or (word.text != "\n" and not ends):
            lines[-1].append(word)
            used += length
        done += 0 if word.text.isspace() else len(word.text)
    if len(lines) <= most and done >= total:
        return lines
    return [*lines[: most - 1], _marked(lines[most - 1], total - starts[most - 1], width, face)]


def write(pen: ImageDraw.ImageDraw, at: tuple[float, float], lines: Sequence[Sequence[Run]], size: int) -> None:
    """Draw lines from the top left corner `at` (x, y) in pixels."""
    face = font(size)
    x, y = at
    for line in lines:
        left = x
        for run in line:
            pen.text((left, y), run.text, run.color, face)
            left += face.getlength(run.text)
        y += pitch(size)


def pitch(size: int) -> int:
    """Pixels from one line to the next."""
    return round(size * 1.4)


def text_block(runs: Sequence[Run], width: int, most: int, size: int, paper: str = "white") -> Image.Image:
    """Wrapped text as a picture of its own, as wide as its longest line."""
    face = font(size)
    lines = wrapped(runs, width, most, face)
    longest = max(sum(face.getlength(run.text) for run in line) for line in lines)
    block = Image.new("RGB", (max(1, math.ceil(longest)), pitch(size) * len(lines)), paper)
    write(ImageDraw.Draw(block), (0, 0), lines, size)
    return block


def _cut(runs: Sequence[Run], most: int) -> Iterator[Run]:
    """The first `most` characters, harmless."""
    for run in runs:
        if most <= 0:
            return
        yield Run(visible(run.text[:most]), run.color)
        most -= len(run.text)


def _words(run: Run, width: float, face: ImageFont.FreeTypeFont) -> Iterator[Run]:
    """Words, blanks and line ends; words that are wider than a line in parts that are not."""
    for found in _WORD.finditer(run.text):
        rest = found.group()
        while rest:
            part = rest
            while len(part) > 1 and face.getlength(part) > width:
                part = part[: max(1, len(part) * 3 // 4)]
            yield Run(part, run.color)
            rest = rest[len(part) :]


def _marked(line: Sequence[Run], left: int, width: float, face: ImageFont.FreeTypeFont) -> list[Run]:
    """As much of the last line as leaves room for the number of characters that are left out of `left` in all."""
    kept, used = [], 0.0
    room = width - face.getlength(_LEFT_OUT.format(left))
    for run in line:
        used += face.getlength(run.text)
        if used > room:
            break
        kept.append(run)
        left -= len(run.text)
    if kept and kept[-1].text.isspace():
        kept.pop()
    return [*kept, Run(_LEFT_OUT.format(left), "#57606a")]
