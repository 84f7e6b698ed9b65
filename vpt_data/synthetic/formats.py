"""How the owners of the upstreams write rows and name files, and the dirt that their files really have."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import xxhash
from PIL import Image

from vpt_data.synthetic.questions import Ask
from vpt_data.synthetic.scenes import Box, Size, union

Row = dict[str, Any]
Numbers = list[float]
_BOX_PLEASE = "Please provide the bounding box coordinate of the region that can help you answer the question better."

# File numbers look as if drawn by chance and are never given twice: a multiplication modulo this prime,
# for n below it.
_PRIME = 999_983


class Writer:
    """Writes files under `root`, counts their records by relative path, and calls `tick` after each image."""

    def __init__(self, root: Path, tick: Callable[[], None]) -> None:
        self.root = root
        self.counts: dict[str, int] = {}
        self._tick = tick
        self._folders: set[Path] = set()

    def place(self, path: str) -> Path:
        """Where a file goes; its folder is there."""
        place = self.root / path
        if place.parent not in self._folders:
            place.parent.mkdir(parents=True, exist_ok=True)
            self._folders.add(place.parent)
        return place

    def image(self, path: str, image: Image.Image, exif: Image.Exif | None = None) -> None:
        """PNG or JPEG of quality 80, by suffix."""
        if path.endswith(".png"):
            image.save(self.place(path), format="PNG", compress_level=6)
        else:
            image = image.convert("L") if image.mode == "1" else image
            image.save(self.place(path), format="JPEG", quality=80, exif=exif or Image.Exif())
        self._tick()

    def text(self, path: str, lines: Sequence[str], records: int | None = None) -> None:
        """Lines of UTF-8 with LF and a final newline; a record a line unless `records` says otherwise."""
        self.place(path).write_bytes("".join(f"{line}\n" for line in lines).encode())
        self.counts[path] = len(lines) if records is None else records

    def lines(self, path: str, rows: Iterable[Row]) -> None:
        """JSON lines with all but ASCII escaped."""
        self.text(path, [json.dumps(row) for row in rows])

    def array(self, path: str, rows: Sequence[Row], indent: int | None = None) -> None:
        """One JSON array."""
        self.text(path, [json.dumps(rows, indent=indent)], len(rows))


def number(seed: int, n: int) -> int:
    """The n-th file number, 1..999,983, for n below that."""
    return (n * 7919 + 12_345 + seed * 104_729) % _PRIME + 1


def hexname(seed: int, what: str, n: int, digits: int = 16) -> str:
    """The n-th name of `digits` hexadecimal digits."""
    return xxhash.xxh3_128_hexdigest(f"{seed}/{what}/{n}".encode())[:digits]


def page_name(seed: int, n: int) -> str:
    """A name as the UCSF library gives them: `xnbl0037_1.png`."""
    block, value = divmod(number(seed, n), 26**4)
    letters = ""
    for _ in range(4):
        value, letter = divmod(value, 26)
        letters += chr(ord("a") + letter)
    # The four digits carry what the letters cannot hold, so that no name comes twice.
    return f"{letters}{n * 37 % 3333 * 3 + block:04d}_{n % 7 + 1}.png"


def box_numbers(box: Box, size: Size, style: str) -> Numbers:
    """The box in the kind of numbers that a data set's file has.

    `int`; `whole` (CUB); `decimals` (long tails: TextVQA, TextCaps); `coco` (x + w of two-decimal numbers);
    `share` (six-decimal shares of the size, times the size: OpenImages).
    """
    wide, high = size
    if style == "int":
        return list(box)
    if style == "whole":
        return [float(v) for v in box]
    if style == "decimals":
        return [v / side * side + 1 / 3 for v, side in zip(box, (wide, high, wide, high), strict=True)]
    if style == "coco":
        x, y, w, h = coco_bbox(box)
        return [x, y, x + w, y + h]
    return [round(v / side, 6) * side for v, side in zip(box, (wide, high, wide, high), strict=True)]


def coco_bbox(box: Box) -> Numbers:
    """x, y, width, height with two decimals, a little inside the drawn box."""
    x0, y0, x1, y1 = box
    return [x0 + 0.13, y0 + 0.08, round(x1 - x0 - 0.29, 2), round(y1 - y0 - 0.25, 2)]


def written_answer(ask: Ask, label: str) -> str:
    """The answer in the data set's spelling: GQA has lower case throughout."""
    return ask.answer.lower() if label == "gqa" else ask.answer


def cot_row(ask: Ask, image: str, size: Size, label: str, style: str) -> Row:
    """A row of a Visual-CoT `*_cot_train.jsonl`, keys in the owners' order."""
    answer = written_answer(ask, label)
    boxes = [box_numbers(union(ask.boxes), size, style)]
    row: Row = {"question": ask.question, "answer": answer}
    if label in ("docvqa", "infographicsvqa"):
        # One box for each possible answer, all the same: not several regions.
        row["possible_answers"] = sorted({answer, answer.lower()})
        boxes = boxes * len(row["possible_answers"])
    if label == "gqa":
        boxes = [box_numbers(box, size, style) for box in ask.boxes]
    row |= {
        "image": image,
        "width": size[0],
        "height": size[1],
        "bboxs": boxes,
        "dataset": label,
        "split": "train",
    }
    if label == "gqa":
        steps = [{"operation": "select", "argument": name} for name in ask.names]
        steps.append({"operation": "relate", "argument": ask.relation or "query"})
        row |= {"full_answer": ask.full, "reasoning": steps, "thought": f"Look at {' and '.join(ask.names)}."}
    return row


def benchmark_row(ask: Ask, image: str, size: Size, style: str, index: int) -> Row:
    """A row of `benchmark_det/*.jsonl`; `image` is the path under Visual-CoT's `cot/`."""
    row: Row = {"img_path": f"cot/{image}", "expression": ask.question}
    row["bbox"] = box_numbers(union(ask.boxes), size, style)
    return row | {"height": size[1], "width": size[0], "question_id": index, "split": "val"}


def benchmark_record(row: Row, label: str, answer: str) -> Row:
    """The record of `benchmark/*.json` that is aligned with a `benchmark_det` row.

    The second turn has the box as shares of the image padded to a square, the image list has it cut to
    integers.
    """
    wide, high = row["width"], row["height"]
    side, dx, dy = max(wide, high), max(0, (high - wide) // 2), max(0, (wide - high) // 2)
    shares = [(v + shift) / side for v, shift in zip(row["bbox"], (dx, dy, dx, dy), strict=True)]
    turns = (
        f"<image>\n{row['expression']} {_BOX_PLEASE}",
        "[{:.3f}, {:.3f}, {:.3f}, {:.3f}]".format(*shares),
        "<image>",
        answer,
    )
    return {
        "dataset": label,
        "split": row["split"],
        "question_id": row["question_id"],
        "image": [row["img_path"], f"{row['img_path']}###[{', '.join(str(int(v)) for v in row['bbox'])}]"],
        "conversations": [{"from": ("human", "gpt")[i % 2], "value": turn} for i, turn in enumerate(turns)],
    }


def bend(box: Numbers, size: Size, dirt: str) -> Numbers:
    """The box with a defect real files have; repaired, all but `outside` and `zero_area` hold the answer."""
    kind, wide = type(box[0]), size[0]
    x0, y0, x1, y1 = box
    bent: Mapping[str, Numbers] = {
        "on_border": [x0, y0, kind(wide), y1],
        "beyond": [x0, y0, kind(wide + 9), y1],
        "negative": [-1.25, y0, x1, y1],
        "swapped": [x1, y1, x0, y0],
        "zero_area": [x0, y0, x0, y0],
        "outside": [kind(x0 + 3 * wide), y0, kind(x1 + 3 * wide), y1],
    }
    return bent[dirt]


def soil(rows: Sequence[Row], dirt: Sequence[str]) -> list[str]:
    """JSON lines of Visual-CoT rows with the named defects.

    A bent box replaces that of a row (the second, the third, ...); a `duplicate`, `malformed`,
    `empty_answer`, `missing_field` or `wrong_type` line is one more line, made from a good row and put in
    the middle.
    """
    rows, extra = [dict(row) for row in rows], []
    for i, defect in enumerate(dirt, start=1):
        row = rows[i]
        if defect == "duplicate":
            extra.append(json.dumps(rows[0]))
        elif defect == "malformed":
            extra.append(json.dumps(row)[: len(json.dumps(row)) // 2])
        elif defect == "empty_answer":
            empty = {"answer": "", "possible_answers": [""]}
            extra.append(json.dumps({key: empty.get(key, value) for key, value in row.items()}))
        elif defect == "missing_field":
            extra.append(json.dumps({key: value for key, value in row.items() if key != "bboxs"}))
        elif defect == "wrong_type":
            extra.append(json.dumps(row | {"width": "n/a"}))
        else:
            size = (row["width"], row["height"])
            rows[i] = row | {"bboxs": [bend(box, size, defect) for box in row["bboxs"]]}
    lines, middle = [json.dumps(row) for row in rows], len(rows) // 2
    return lines[:middle] + extra + lines[middle:]
