"""What a run of `python -m trainer.run --config plates` does with held-out pictures, and what it does without its crop.

    python -m bench.plates --checkpoint runs/plates

Every row is asked four times: as the model is, with the crop of the region that it named taken from another place, with
the true crop, and without any. The markdown goes to stdout.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xxhash
from PIL import Image

from trainer.data.corpus import open_corpus
from trainer.entry import PLATES, corpus_place
from trainer.generation.answers import answer
from trainer.generation.dialog import Decoding, Shown, before_answer
from trainer.generation.opening import loaded
from trainer.generation.policy import Dialog, Policy
from vpt_data import geometry
from vpt_data.images import views
from vpt_data.synthetic.plates import PATTERNS, SIDE, SITE, SITES


class Elsewhere(Policy):
    """Another place of the wall than the true one, drawn by the row's id."""

    def show(self, dialog: Dialog, looks: Sequence[Shown]) -> list[Image.Image]:
        x, y = (side // SITE for side in dialog.row["true"][:2])
        places = [(a, b) for a in range(SITES) for b in range(SITES) if (a, b) != (x, y)]
        a, b = places[xxhash.xxh3_64_intdigest(dialog.row["id"].encode()) % len(places)]
        box = a * SITE, b * SITE, (a + 1) * SITE, (b + 1) * SITE
        return [views.pixels(dialog.images[0], box) for _ in looks]


class Oracle(Policy):
    """The place that the corpus names."""

    def show(self, dialog: Dialog, looks: Sequence[Shown]) -> list[Image.Image]:
        return [views.pixels(dialog.images[0], dialog.row["true"]) for _ in looks]


class Nothing(Policy):
    """No picture: the model has to go on without."""

    def show(self, dialog: Dialog, looks: Sequence[Shown]) -> list[Image.Image]:
        return []


ARMS = {"its own crop": Policy(), "the true crop": Oracle(), "a crop elsewhere": Elsewhere(), "no crop": Nothing()}


def rows_of(split: str) -> list[dict[str, Any]]:
    """The rows of a split; `true` is the box of their crop, `gold` their answer."""
    rows = [{**row.fields, "images": row.images} for row in open_corpus(corpus_place(PLATES), split).stream(0, 0)]
    return [{**row, "true": row["views"][1]["box"], "gold": row["messages"][-1]["content"]} for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=Path("runs/plates"))
    parser.add_argument("--limit", type=int)
    options = parser.parse_args()
    model, encoder = loaded(options.checkpoint)
    rows = rows_of("test")[: options.limit]
    prompts = [{**before_answer(row), "true": row["true"]} for row in rows]
    how = Decoding(max_new_tokens=24, max_actions=1)
    print(
        f"{len(rows)} held-out rows of {SIDE} x {SIDE} pixels\n\n| shown | answer right | region IoU |\n|---|---:|---:|"
    )
    for name, policy in ARMS.items():
        records = list(answer(model, encoder, prompts, how, policy, batch=32))
        right = [record.text.strip() == row["gold"] for record, row in zip(records, rows, strict=True)]
        found = [record.looks[0].box if record.looks else None for record in records]
        boxes = [[0, 0, 0, 0] if box is None else list(box) for box in found]
        iou = geometry.iou(boxes, [row["true"] for row in rows])
        print(f"| {name} | {sum(right) / len(rows):.2f} | {iou.mean():.2f} |")
    usual = Counter(row["gold"] for row in rows_of("train")).most_common(1)[0][0]
    print(f"| majority | {sum(row['gold'] == usual for row in rows) / len(rows):.2f} | |")
    print(f"| chance | {1 / len(PATTERNS):.2f} | {1 / SITES**2:.2f} |")


if __name__ == "__main__":
    main()
