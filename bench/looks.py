"""Does a second look help because it shows the right place? The world of plates, in arms of equal steps, on the CPU.

    OMP_NUM_THREADS=1 python -m bench.looks --work WORK --seeds 5

A plate has a pattern that the first view is too small to show, and the question names the plate by its colour (see
`vpt_data.synthetic.plates`). The model of `trainer/configs/plates.toml` is trained from scratch, on the same rows in
the same order, once for each arm and seed:

    plain      question, picture and answer
    elsewhere  the region is named, and a crop of its size is shown that shares no pixel with it
    own        the region is named, and its crop is shown, as the corpus says
    larger     like `plain`, and the first view has so many more pixels that a row is as long as one of `own`
    full       like `plain`, and the first view has all pixels of the picture

Then each is asked about held-out pictures, on which it names its regions itself. The model of `own` is asked twice
more: with the crop of the true region (oracle), and with the true crop of another row that has the same question and
another answer (interchange). A run that is done is a file in WORK and is not made again. The markdown goes to stdout.
"""

from __future__ import annotations

import functools
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import xxhash
from PIL import Image

from bench import seeds
from trainer import config as configs
from trainer.data.corpus import Corpus, Row, open_corpus
from trainer.data.encode import RowEncoder
from trainer.generation.answers import answer
from trainer.generation.dialog import Decoding, Shown, before_answer
from trainer.generation.policy import Dialog, Policy
from trainer.model.vpt import VPTModel
from trainer.training import base, loop, run_folder, setup
from trainer.training.flops import FlopCounter
from trainer.training.parallel import Ranks
from vpt_data import geometry, recipe
from vpt_data.images import views
from vpt_data.pipeline import build, plan
from vpt_data.pipeline.engines.start import start_engine
from vpt_data.synthetic.plates import PATTERNS, SITE, SITES, write_plates

Found = dict[str, Any]


class Arm(NamedTuple):
    """Longer side of the first view in pixels, and what the second look shows."""

    longest: int
    look: str = ""


PICTURES = {"train": 3000, "test": 200}
RECIPE = """
name = "looks"
prompted = false
shards = 1
"""
TAKE = """
[take.{split}]
source = "table"
dataset = "plates"
template = "region"
task = "general"
license = "CC0-1.0"
split = "{split}"
files = ["{split}.jsonl"]
images = "images"
ask = "{{question}} {{image}}"
columns = {{ box = "box", width = "width", height = "height" }}
"""

ARMS = {
    "plain": Arm(28),
    "elsewhere": Arm(28, "elsewhere"),
    "own": Arm(28, "own"),
    "larger": Arm(49),
    "full": Arm(112),
}


def make_corpus(work: Path, pictures: Mapping[str, int]) -> None:
    """WORK/corpus, with so many pictures of each split; nothing if it is there."""
    if (work / "corpus" / "manifest.json").is_file():
        return
    write_plates(work / "raw", pictures)
    path = work / "raw" / "looks.toml"
    path.write_text(RECIPE + "".join(TAKE.format(split=split) for split in pictures), encoding="utf-8")
    planned = plan.make(recipe.load(str(path)), work / "raw", "embed", None)
    build.build(planned, work / "corpus", functools.partial(start_engine, "local", 1))


@dataclass(frozen=True)
class Taught(Corpus):
    """A corpus whose rows are those of an arm."""

    arm: str = "own"

    def stream(self, *args: Any, **options: Any) -> Iterator[Row]:
        """The same rows in the same order."""
        return (row._replace(fields=taught(row.fields, self.arm)) for row in super().stream(*args, **options))


def taught(row: Found, arm: str) -> Found:
    """A row of the corpus as an arm has it."""
    look, (first, crop) = ARMS[arm].look, row["views"]
    if not look:
        return {**row, "messages": [row["messages"][0], row["messages"][-1]], "views": [first]}
    return row if look == "own" else {**row, "views": [first, {**crop, "box": elsewhere(row)}]}


def elsewhere(row: Found) -> list[int]:
    """Another place of the wall than that of the row's crop, drawn by the row's id."""
    x, y = (side // SITE for side in row["views"][1]["box"][:2])
    places = [(a, b) for a in range(SITES) for b in range(SITES) if (a, b) != (x, y)]
    a, b = places[xxhash.xxh3_64_intdigest(row["id"].encode()) % len(places)]
    return [a * SITE, b * SITE, (a + 1) * SITE, (b + 1) * SITE]


def trained(corpus: Corpus, arm: str, seed: int, steps: int) -> tuple[VPTModel, RowEncoder, Found]:
    """A model after some steps, its row encoder, and what the training cost."""
    config = configs.load("plates", [f"seed={seed}", f"optim.steps={steps}", f"run.save_every={steps}"])
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    tokenizer = setup.make_tokenizer(config, corpus)
    model = setup.make_model(config, tokenizer)
    vision = replace(base.vision_of(config), longest=ARMS[arm].longest)
    encoder = setup.row_encoder(config, tokenizer, vision)
    rows = Taught(*(getattr(corpus, field.name) for field in fields(corpus)), arm)
    ranks = Ranks(0, 1, torch.device("cpu"))
    loader, total = setup.make_loader(config, rows, encoder, ranks)
    with tempfile.TemporaryDirectory() as out:
        loop.Trainer(model, loader, config, Path(out), ranks, total).run()
        entries = run_folder.read_metrics(Path(out))
    spent = {key: sum(entry[key] for entry in entries) for key in ("samples", "tokens", "seconds")}
    last = [entry["loss"] for entry in entries[-50:]]
    return model, encoder, {**spent, "loss": sum(last) / len(last)}


def held_out(corpus: Corpus) -> list[Found]:
    """Held-out rows with the pixels of their picture, of crops, and what they are asked for.

    `other` is the true crop of the next row with the same question and another answer, `other_gold` its answer.
    """
    rows = []
    for stored in corpus.stream(0, 0):
        row, picture = stored.fields, views.pixels(stored.images[0]["bytes"])
        crops = {"true": row["views"][1]["box"], "elsewhere": elsewhere(row)}
        shown = {name: views.pixels(picture, (box[0], box[1], box[2], box[3])) for name, box in crops.items()}
        rows.append({**row, **shown, "images": [picture], "gold": row["messages"][-1]["content"]})
    for place, row in enumerate(rows):
        others = [*rows[place + 1 :], *rows[:place]]
        same = (other for other in others if other["messages"][0] == row["messages"][0])
        other = next(other for other in same if other["gold"] != row["gold"])
        row |= {"other": other["true"], "other_gold": other["gold"]}
    return rows


class Given(Policy):
    """Shows the picture in a column of the row, whatever region is named."""

    def __init__(self, column: str) -> None:
        self.column = column

    def show(self, dialog: Dialog, looks: Sequence[Shown]) -> list[Image.Image]:
        """The same picture for each look."""
        return [dialog.row[self.column] for _ in looks]


def policies(arm: str) -> dict[str, Policy]:
    """What a model of an arm is shown when it is asked."""
    if arm == "own":
        return {"own": Policy(), "oracle": Given("true"), "interchange": Given("other")}
    return {arm: Given("elsewhere") if arm == "elsewhere" else Policy()}


def asked(model: VPTModel, encoder: RowEncoder, arm: str, rows: Sequence[Found]) -> Found:
    """Answers of a model to rows, by what it was shown, and the IoU of the regions that it named."""
    how, prompts = Decoding(max_new_tokens=24, max_actions=1), [before_answer(taught(row, arm)) for row in rows]
    found: Found = {"answers": {}, "iou": [0.0] * len(rows)}
    for name, policy in policies(arm).items():
        records = list(answer(model, encoder, prompts, how, policy, batch=32))
        found["answers"][name] = [record.text.strip() for record in records]
        boxes = [record.looks[0].box if record.looks else (0, 0, 0, 0) for record in records]
        found["iou"] = geometry.iou(boxes, [row["views"][1]["box"] for row in rows]).tolist()
    return found


def one(place: Path, arm: str, seed: int, steps: int) -> Found:
    """Train on a corpus and ask: all that the report needs of a run."""
    model, encoder, cost = trained(open_corpus(str(place)), arm, seed, steps)
    rows = held_out(open_corpus(str(place), "test"))
    cost["flops"] = FlopCounter(model)([encoder.encode(taught(rows[0], arm))])
    about = {key: [row[key] for row in rows] for key in ("gold", "other_gold")}
    about["picture"] = [row["image_info"][0]["sha256"] for row in rows]
    return {"arm": arm, "seed": seed, "steps": steps, **cost, **about, **asked(model, encoder, arm, rows)}


SHOWN = {"own": "the crop that it named", "oracle": "the true crop", "interchange": "the true crop of another row"}


def report(work: Path) -> str:
    """The tables for RESULTS.md from the runs in WORK."""
    arms = {arm: runs for arm in ARMS if (runs := seeds.read(work, arm))}
    first = next(iter(arms.values()))[0]
    pictures = first["picture"]

    def scores(arm: str, shown: str = "", column: str = "gold") -> list[list[float]]:
        return [
            [float(one == gold) for one, gold in zip(run["answers"][shown or arm], run[column], strict=True)]
            for run in arms[arm]
        ]

    lines = [
        seeds.line("arm", "answer right", "region IoU", "tokens a row", "MFLOP a row"),
        "|---|---:|---:|---:|---:|",
    ]
    for arm, runs in arms.items():
        iou = seeds.figure([run["iou"] for run in runs], pictures) if ARMS[arm].look else ""
        tokens = runs[0]["tokens"] / runs[0]["samples"]
        lines.append(
            seeds.line(arm, seeds.figure(scores(arm), pictures), iou, f"{tokens:.0f}", f"{runs[0]['flops'] / 1e6:.0f}")
        )
    usual = Counter(first["gold"]).most_common(1)[0][1] / len(pictures)
    lines += [seeds.line("always the most frequent answer", f"{usual:.2f}", "", "", "")]
    lines += [seeds.line("chance", f"{1 / len(PATTERNS):.2f}", f"{1 / SITES**2:.2f}", "", ""), ""]
    lines += [seeds.line("`own` is shown", "answer right", "the pattern of that other row"), "|---|---:|---:|"]
    for shown, words in SHOWN.items():
        columns = ("gold", "other_gold")
        lines.append(seeds.line(words, *(seeds.figure(scores("own", shown, column), pictures) for column in columns)))
    lines.append("")
    for arm in [arm for arm in arms if arm != "own"]:
        shared = min(len(arms["own"]), len(arms[arm]))
        found = seeds.difference(scores("own")[:shared], scores(arm)[:shared], pictures)
        lines.append(f"- `own` minus `{arm}` (seeds: {shared}): {found}")
    return "\n".join(lines)


def main() -> None:
    options = seeds.arguments(__doc__, list(ARMS), 1500)
    make_corpus(options.work, PICTURES)
    place = options.work / "corpus"
    seeds.make(options.work, options.arms, options.seeds, lambda arm, seed: one(place, arm, seed, options.steps))
    print(report(options.work))


if __name__ == "__main__":
    main()
