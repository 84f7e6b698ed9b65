"""Documents for tests of the page, made by hand: every kind of row, and text that means harm."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image, ImageDraw

from vpt_data.inspect.view import item as items
from vpt_data.inspect.view.turns import turns

SIZE = (1000, 731)
K = 8
BOX = (260.0, 215.0, 351.0, 300.0)
CELLS = (2, 2, 2, 3)
#: The pixels of these cells by the rule of the format: sides are cut to whole pixels.
CELL_PIXELS = (250, 182, 375, 365)
PAPER = (235, 235, 225)
INK = {"box": (255, 0, 255), "cells": (0, 160, 160)}
BIDI = "abc\u202edef\u2066ghi\u2069 \u05e9\u05dc\u05d5\u05dd"
HOSTILE = f'</script><script>window.hit=1</script><img src=x onerror="window.hit=1"> & \u2028 \x07\x1b[31m {BIDI}'
LONG = "All work and no play. " * 4700
REGION = "<|region_token_start|><|x_2|><|y_2|><|x_2|><|y_3|><|region_token_end|>"


def png(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


def uri(picture: Image.Image) -> str:
    return "data:image/png;base64," + base64.b64encode(png(picture)).decode()


def painted() -> Image.Image:
    """A picture half as large as the stored image, on which the cells and the box are areas of their own colour."""
    whole = Image.new("RGB", SIZE, PAPER)
    pen = ImageDraw.Draw(whole)
    for kind, (x0, y0, x1, y1) in (("cells", CELL_PIXELS), ("box", BOX)):
        pen.rectangle((x0, y0, x1 - 1, y1 - 1), INK[kind])
    return whole.resize((SIZE[0] // 2, SIZE[1] // 2), Image.Resampling.NEAREST)


def pictures() -> dict[str, str]:
    return {
        "painted": uri(painted()),
        "crop": uri(Image.new("RGB", (60, 90), INK["cells"])),
        "tall": uri(Image.new("RGB", (80, 240), "tan")),
    }


def image(**given: Any) -> items.Image:
    usual: dict[str, Any] = {"path": "gqa/images/1.jpg", "width": SIZE[0], "height": SIZE[1], "src": "painted"}
    usual |= {"missing": None, "license": "CC-BY-4.0", "attribution": "A. Painter", "boxes": []}
    return items.Image(**{**usual, **given})


def whole(turn: int = 0, which: int = 0, encoder: str = "vlm") -> dict[str, Any]:
    return {"turn": turn, "image": which, "encoder": encoder, "box": None, "cells": None}


def crop(turn: int = 2) -> dict[str, Any]:
    return {"turn": turn, "image": 0, "encoder": "vlm", "box": CELL_PIXELS, "cells": CELLS}


def row(name: str, texts: list[str], views: list[dict[str, Any]], **given: Any) -> items.Item:
    """An item whose messages alternate between user and assistant."""
    messages = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]
    shown = [items.View(**view, src="crop" if view["box"] else None, missing=None) for view in views]
    usual = {
        "take": name.split("/")[0], "template": "plain", "split": "train", "k": K, "license": "CC-BY-4.0",
        "question": f"What is {name}?", "answers": ["an answer"], "images": [image()], "views": shown,
        "turns": turns(messages, views), "raw": {"id": name, "messages": messages},
    }  # fmt: skip
    return items.Item(id=name, **{**usual, **given})


def numbers(area: float, iou: float, text: int, severity: int = 0) -> items.Numbers:
    return items.Numbers(box_area=area, cells=area * K * K, iou=iou, text=text, severity=severity)


def region_row(name: str, **given: Any) -> items.Item:
    messages = ["<image>\nWhat number is it?", REGION, "<image>", "70982"]
    boxed = [image(boxes=[items.Box(BOX, "sign")])]
    given = {"images": boxed, "numbers": numbers(0.01, 0.34, 30), **given}
    return row(name, messages, [whole(), crop()], template="region", looks=["region"], **given)


def rows() -> list[items.Item]:
    """One row of each kind; the sixth means harm."""
    dino = "<|detection_action_start|><|detection_action|><|detection_action_end|>"
    low = items.Problem("iou_below_0.1", "The crop covers the box badly: IoU 0.04.")
    narrow = items.Problem("box_below_one_cell", "The box is smaller than one cell.")
    repair = items.Problem("repaired", "The box was clipped to the image.")
    wrong = {"problems": [low, narrow, repair], "repaired": ["clipped"]}
    tall = image(path="gqa/images/2.jpg", src="tall", width=400, height=1200)
    reason = "gqa/images/3.jpg is not under the raw root."
    gone = image(src=None, missing=reason, boxes=[items.Box((900, 700, 800, 600))])
    harm = image(path=f"a/{HOSTILE}.jpg", attribution=HOSTILE)
    return [
        region_row("gqa/first", origin=items.Origin("viscot/gqa.jsonl", 5)),
        row("coco/second", ["<image>\nWhat is it?", dino, "<detection_image>", "A dog."],
            [whole(), whole(2, 0, "dino")], template="reencode", looks=["dino"], numbers=items.Numbers(text=20)),
        region_row("vsr/third", numbers=numbers(0.001, 0.04, 10, 3), **wrong),
        row("vsr/fourth", ["<image>\nIs it so?", "yes"], [whole()], expected="region", numbers=items.Numbers(text=15)),
        row("talk/fifth", ["Only words.", "Yes, only words."], [], images=[], numbers=items.Numbers(text=16)),
        row(f"talk/sixth {HOSTILE}", [f"<image>\n{HOSTILE}", HOSTILE], [whole()], question=HOSTILE,
            answers=[HOSTILE], images=[harm], numbers=items.Numbers(text=120)),
        row("talk/seventh", ["Say it all.", LONG], [], images=[], answers=[LONG],
            numbers=items.Numbers(text=len(LONG))),
        row("coco/eighth", ["<image><image>\nWhich is taller?", "the second"], [whole(), whole(0, 1)],
            images=[image(), tall], numbers=items.Numbers(text=25)),
        region_row("gqa/ninth", images=[gone], numbers=numbers(0.2, 0.6, 40)),
    ]  # fmt: skip


def drops() -> list[items.DropItem]:
    boxed = [image(boxes=[items.Box(BOX)])]
    shown = items.Item(id="", question="What is dropped?", answers=["this"], images=boxed, k=K)
    return [
        drop("gqa", "duplicate", file="viscot/gqa.jsonl", line=7, detail="of line 3", item=shown),
        drop("vsr", "malformed", file=HOSTILE, line=None, detail=HOSTILE),
        drop("vsr", "duplicate", file="viscot/vsr.jsonl", line=1, detail=None),
    ]


def drop(take: str, reason: str, **given: Any) -> items.DropItem:
    return items.DropItem(take=take, reason=reason, source="viscot", dataset="gqa", key=None, **given)


def entry(name: str) -> items.CorpusEntry:
    place = f"corpora/{name}"
    return items.CorpusEntry(name=name, place=place, rows=2000, kind="corpus", fingerprint="ab" * 32, mode="embed")


PLOT = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 20" onload="window.hit = 1">
<script>window.hit = 1</script><a href="javascript:window.hit=1">
<rect width="20" height="20" fill="currentColor"/></a></svg>"""


def document(**given: Any) -> items.Document:
    """The page of one corpus with every kind of row, drops and a plot."""
    counted = items.Table(["take", "rows"], [["gqa", "2"], ["vsr", "2"]])
    usual = {
        "title": "A corpus <b>&amp; its page",
        "corpora": [entry("sample")],
        "chosen": "9 of 2,000 rows, by the hash of their id.",
        "items": rows(),
        "dropped": drops(),
        "dropped_counts": {"gqa": {"duplicate": 1}, "vsr": {"malformed": 1, "duplicate": 11}},
        "plots": [items.PlotEntry("Rows by take", PLOT, counted, "One bar a take.")],
        "pictures": pictures(),
    }
    return items.Document(**{**usual, **given})


def pair() -> items.Document:
    """The page of two corpora: one row is the same, of one the last turn differs, of one the box, one is missing."""
    boxed = [image(boxes=[items.Box(BOX, "sign")])]
    answered = ["<image>\nWhat number is it?", REGION, "<image>", "70983"]
    changed = row("gqa/changed", answered, [whole(), crop()], template="region", looks=["region"], images=boxed)
    moved = region_row("gqa/moved", images=[image(boxes=[items.Box((*BOX[:2], 400.0, 300.0))])])
    shown = [
        region_row("gqa/same", other=region_row("gqa/same")),
        region_row("gqa/changed", other=changed),
        region_row("gqa/moved", other=moved),
        region_row("gqa/alone", only_in=0),
    ]
    return document(items=shown, corpora=[entry("before"), entry("after")], dropped=[], dropped_counts={}, plots=[])
