"""The pictures of a card, and the Markdown that shows them: rows of each kind, thumbnails of each take, plots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from PIL import Image

from vpt_data.exchange.hub.layout import ASSETS
from vpt_data.exchange.hub.samples import Sample, Samples
from vpt_data.images.root import ImageRoot
from vpt_data.inspect import picture
from vpt_data.inspect.figures import Plot
from vpt_data.inspect.overlay import thumbnail
from vpt_data.report import markdown_table, markdown_text

#: The kinds of rows from the one that says most, and what each is.
_KINDS: Final = {
    "region": "looks at a region",
    "several regions": "looks at several regions",
    "reencode": "looks at the whole image again, through another encoder",
    "textbox": "names the region by four numbers in text",
    "alignment": "teaches the projector of another encoder",
    "plain": "has no second look",
    "evaluation": "is for evaluation, and holds question and expected answer",
}
_THUMBNAILS: Final = (300, 150)  # the most that one takes, width and height
_GAP: Final = 8
_ROWS: Final = 40  # of a table of numbers
_WORDS: Final = 160  # characters of a text beside a picture


class Illustrations(NamedTuple):
    """Markdown of a card, and the files that it shows by their path in the corpus' folder."""

    text: str
    files: dict[str, bytes]


def rows(samples: Samples, raw: ImageRoot | None) -> Illustrations:
    """A picture of one row of each kind, and thumbnails of each take."""
    files: dict[str, bytes] = {}
    shown = []
    for kind in sorted(samples.kinds, key=list(_KINDS).index):
        sample = samples.kinds[kind]
        path = f"{ASSETS}/row-{kind.replace(' ', '-')}.png"
        files[path] = _small(picture.draw(sample.row, raw, sample.hidden))
        shown.append(_row(kind, sample, path))
    strips = []
    for take, found in samples.takes.items():
        strips.append(f"`{take}`: {_example(found[0])}")
        if strip := _strip(found, raw):
            path = f"{ASSETS}/take-{take}.png"
            files[path] = _small(strip)
            strips.append(f"![Thumbnails of rows of the take {take}]({path})")
    if any(each.hidden for found in samples.takes.values() for each in found):
        strips.insert(
            0, "Patterns stand for images that cannot be shown here; boxes and cells are at their true places."
        )
    parts = ["## What rows look like", *shown[:1]]
    if shown[1:]:
        parts.append(_folded("Rows of other kinds", "\n\n".join(shown[1:])))
    parts.append(_folded("Thumbnails of each take", "\n\n".join(strips)))
    return Illustrations("\n\n".join(parts), files)


def plots(drawn: Sequence[Plot]) -> Illustrations:
    """The plots, each with the sentence that says how to read it and its numbers."""
    files: dict[str, bytes] = {}
    parts = ["## Statistics"]
    for plot in drawn:
        path = f"{ASSETS}/plot-{plot.name}.png"
        files[path] = plot.png()
        parts += [
            f"### {plot.title}",
            f"![{plot.title}]({path})",
            markdown_text(plot.note),
            _folded("Numbers", _numbers(plot)),
        ]
    return Illustrations("\n\n".join(parts) if drawn else "", files)


def _row(kind: str, sample: Sample, path: str) -> str:
    row = sample.row
    alt = f"A row of the take {row['take']} that {_KINDS[kind]}: the image with its boxes, and the dialogue"
    text = f"This row of the take `{row['take']}` {_KINDS[kind]}. {_legend(row)}"
    return "\n\n".join(filter(None, [f"![{alt}]({path})", text, markdown_text(sample.hidden)]))


def _legend(row: Mapping[str, Any]) -> str:
    """What the colours in a picture mean, in words for those that are there."""
    lines = {
        "Red is the box that the source gave.": row["regions"],
        "Blue is what the model asks for, and what the crop shows.": any(view["box"] for view in row["views"]),
        "Violet is the whole image through the other encoder.": any(view["encoder"] != "vlm" for view in row["views"]),
        "Messages on green carry loss.": not row["expected"],
    }
    return " ".join(line for line, there in lines.items() if there)


def _example(sample: Sample) -> str:
    """Question and answer of a row, in short."""
    row = sample.row
    question = row["question"] or next((message["content"] for message in row["messages"]), "")
    answer = next(iter(row["answers"] or ()), "")
    return f"{_short(question)} **{_short(answer)}**" if answer else _short(question)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return markdown_text(line if len(line) <= _WORDS else f"{line[:_WORDS]}…")


def _strip(found: Sequence[Sample], raw: ImageRoot | None) -> Image.Image | None:
    """Thumbnails of rows beside each other, of those that have something to see."""
    seen = [each for each in found if each.row["images"] and (each.row["regions"] or not each.hidden)]
    small = [thumbnail(each.row, raw, each.hidden, _THUMBNAILS) for each in seen]
    if not small:
        return None
    size = (sum(each.width + _GAP for each in small) - _GAP, max(each.height for each in small))
    strip = Image.new("RGB", size, "white")
    x = 0
    for each in small:
        strip.paste(each, (x, 0))
        x += each.width + _GAP
    return strip


def _small(drawn: Image.Image) -> bytes:
    """A PNG of 256 colours: a third of the bytes, and for a card as good."""
    return picture.png(drawn.quantize(256))


def _folded(title: str, text: str) -> str:
    return f"<details>\n<summary>{title}</summary>\n\n{text}\n\n</details>"


def _numbers(plot: Plot) -> str:
    table = markdown_table([markdown_text(name) for name in plot.table.header], list(_escaped(plot.table.rows[:_ROWS])))
    more = len(plot.table.rows) - _ROWS
    return f"{table}\n\nand {more:,} more lines; `vpt-data stats` prints all of them." if more > 0 else table


def _escaped(rows: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    for row in rows:
        yield [markdown_text(cell) for cell in row]
