"""One row in a terminal: its texts made harmless, and its picture where the terminal can show one."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Iterator, Mapping

from PIL import Image

from vpt_data.images.root import ImageRoot
from vpt_data.inspect.overlay import Row, frame_of, overlaid
from vpt_data.inspect.view.item import Item
from vpt_data.report import visible, visible_line

_WIDTH = 110
#: Characters of a message at most.
_LONGEST = 4_000


def text(item: Item) -> str:
    """A row in words: where it is from, its images and boxes, what it looks at, its dialogue, its problems."""
    lines = [f"{item.id}  {item.split}, {item.template}, {'+'.join(item.looks) or 'no look'}"]
    if item.origin is not None:
        lines.append(f"from {item.origin.file}, record {item.origin.row:,} counted from 0")
    if item.place is not None:
        lines.append(f"stored in {item.place.file}, row {item.place.row:,} counted from 0")
    lines.append(f"licence of the annotation: {item.license or 'not given'}")
    lines += _images(item)
    lines += [f"problem: {problem.kind}: {problem.text}" for problem in item.problems]
    # A line break in a path or a label must not begin a line that looks like one of ours.
    lines = [visible_line(line) for line in lines]
    for turn in item.turns:
        lines += ["", f"{visible(turn.role)} ({'trained' if turn.loss else 'not trained'})"]
        lines += _wrapped("".join(part.text for part in turn.parts))
    return "\n".join(lines)


def _images(item: Item) -> Iterator[str]:
    for number, image in enumerate(item.images):
        size = f"{image.width} x {image.height}" if image.width and image.height else "size not known"
        yield f"image {number}: {image.path}, {size}, licence {image.license or 'not given'}"
        if image.attribution:
            yield f"  by {image.attribution}"
        for box in image.boxes:
            corners = ", ".join(f"{edge:g}" for edge in box.box)
            yield f"  box {corners}" + (f" ({box.label})" if box.label else "")
    for number, view in enumerate(item.views):
        where = f"cells {list(view.cells)}" if view.cells else "the whole image"
        pixels = f", pixels {list(view.box)}" if view.box else ""
        yield f"view {number}: message {view.turn} shows image {view.image} through {view.encoder}: {where}{pixels}"


def _wrapped(message: str) -> Iterator[str]:
    """The lines of a message, indented; a long one is cut, and says so."""
    # Before anything is wrapped: a line break that only some programs know must not begin a line.
    for line in visible(message[:_LONGEST]).split("\n"):
        yield from textwrap.wrap(line, _WIDTH, initial_indent="  ", subsequent_indent="  ") or [""]
    if len(message) > _LONGEST:
        yield f"  ... and {len(message) - _LONGEST:,} more characters"


def sketch(row: Row, raw: ImageRoot | None) -> Image.Image:
    """The first image of a row with its boxes and cells, small."""
    return overlaid(row, 0, frame_of(row, 0, raw, ""), (640, 480))


def picture(image: Image.Image, environment: Mapping[str, str], columns: int) -> str:
    """What to write to a terminal so that it shows a picture: the picture (kitty, iTerm2, WezTerm), else blocks.

    environment   the environment variables of the process
    columns       characters in a line of the terminal
    """
    program = environment.get("TERM_PROGRAM", "")
    if "kitty" in environment.get("TERM", "") or "KITTY_WINDOW_ID" in environment or program == "ghostty":
        return _kitty(image)
    if program in {"iTerm.app", "WezTerm"}:
        data = _png(image)
        head = f"inline=1;size={len(data)};width={min(image.width, 8 * columns)}px"
        return f"\x1b]1337;File={head}:{base64.b64encode(data).decode()}\a\n"
    return _blocks(image, min(columns, 80))


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def _kitty(image: Image.Image) -> str:
    """The graphics protocol of kitty: base64 in pieces of at most 4096 characters."""
    data = base64.b64encode(_png(image)).decode()
    pieces = [data[start : start + 4096] for start in range(0, len(data), 4096)]
    written = []
    for number, piece in enumerate(pieces):
        head = "a=T,f=100," if number == 0 else ""
        written.append(f"\x1b_G{head}m={int(number < len(pieces) - 1)};{piece}\x1b\\")
    return "".join(written) + "\n"


def _blocks(image: Image.Image, columns: int) -> str:
    """Two pixels above each other a character: the upper half block in the colour of one on that of the other."""
    width = min(columns, image.width)
    height = max(2, 2 * round(image.height * width / image.width / 2))
    small = image.convert("RGB").resize((width, min(height, 100)))
    lines = []
    for y in range(0, small.height - 1, 2):
        line = []
        for x in range(small.width):
            (r, g, b), (red, green, blue) = _at(small, x, y), _at(small, x, y + 1)
            line.append(f"\x1b[38;2;{r};{g};{b};48;2;{red};{green};{blue}m\u2580")
        lines.append("".join(line) + "\x1b[0m\n")
    return "".join(lines)


def _at(image: Image.Image, x: int, y: int) -> tuple[int, int, int]:
    found = image.getpixel((x, y))
    assert isinstance(found, tuple)
    return found[0], found[1], found[2]
