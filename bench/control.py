"""What does the control vector carry, and by which of its two routes? An experiment in which nothing else can help.

    OMP_NUM_THREADS=1 python -m bench.control --work WORK --seeds 5

A row has two pictures: the first view is plain grey, and the picture that is encoded once more, by a frozen random
DINO, has a colour in each of its quadrants. The first user turn asks for the colour of a quadrant. All rows are
masked (see `Sample.masked`): the answer sees the colours and no question, the control vector saw the question and no
colours. It is fed twice, in place of the control token (embedding) and to the projector of DINO's features; models are
trained with both routes, with one and with none.

Held-out rows come in pairs that show the same pictures and ask for other quadrants. At the answer, one or both routes
get another vector:

    zero    zeros
    mean    the mean over all rows
    random  a random one of the same length
    swap    that of the other row of the pair: an answer that follows it names the colour of the other quadrant

The markdown goes to stdout.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from bench import seeds
from trainer.data.encode import RowEncoder
from trainer.data.sample import IGNORE, Sample
from trainer.encoders.dino import DinoTower
from trainer.model.phases import Phase
from trainer.model.tiny import TINY_TOWERS, small_shape, small_vision, tiny_tokenizer
from trainer.model.vpt import Features, VPTModel
from trainer.training.loop import schedule
from trainer.training.setup import choose_trained
from vpt_data.dialogue.tokens import IMAGE
from vpt_data.dialogue.tokens.reencode import ENCODERS
from vpt_data.images import views

COLOURS = {
    "red": (230, 20, 20),
    "green": (20, 200, 20),
    "blue": (20, 20, 230),
    "yellow": (240, 240, 20),
    "cyan": (20, 230, 230),
    "pink": (240, 20, 240),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
}
QUADRANTS = ("top left", "top right", "bottom left", "bottom right")
DINO = ENCODERS["dino"]
CALL = f"{DINO.start}{DINO.control}{DINO.end}"
SIDE = 32  # of a picture; DINO sees it twice as large, without its edge
Found = dict[str, Any]
Change = Callable[[Tensor], Tensor]


class Case(NamedTuple):
    """A row: the grey of its first view, the colours of the quadrants, and the quadrant that it asks for."""

    grey: int
    colours: tuple[str, ...]
    asked: int


def case(dice: random.Random) -> Case:
    """A row of colours that all differ."""
    return Case(dice.randint(60, 200), tuple(dice.sample(list(COLOURS), 4)), dice.randrange(4))


def pairs(count: int) -> list[Case]:
    """Pairs of rows, one after the other, that show the same and ask for different quadrants."""
    found = []
    for number in range(count):
        dice = random.Random(f"held out {number}")
        one = case(dice)
        found += [one, one._replace(asked=dice.choice([place for place in range(4) if place != one.asked]))]
    return found


def drawn(one: Case) -> list[Image.Image]:
    """The two pictures of a row."""
    picture, half = Image.new("RGB", (SIDE, SIDE)), SIDE // 2
    for place, colour in enumerate(one.colours):
        x, y = place % 2 * half, place // 2 * half
        picture.paste(COLOURS[colour], (x, y, x + half, y + half))
    return [Image.new("RGB", (14, 14), (one.grey,) * 3), picture]


def row_of(one: Case) -> dict[str, Any]:
    """A row of a corpus, as `RowEncoder` takes it."""
    turns = [f"Which colour is {QUADRANTS[one.asked]}?\n{IMAGE}", CALL, DINO.placeholder, one.colours[one.asked]]
    images = drawn(one)
    shown = [
        {"image": n, "encoder": kind, "turn": 2 * n, "box": None, "cells": None}
        for n, kind in enumerate(("vlm", "dino"))
    ]
    return {
        "id": " ".join((*one.colours, str(one.asked))),
        "messages": [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(turns)],
        "views": shown,
        "images": images,
        "image_info": [{"width": image.width, "height": image.height} for image in images],
        "k": 8,
    }


def sample(encoder: RowEncoder, one: Case) -> Sample:
    """A row for the model, masked and with its pixels."""
    row, vision = row_of(one), encoder.vision
    whole = encoder.encode(row)
    seen = zip(whole.slots, views.shown(row), strict=True)
    pixels = [vision.pixels(slot.kind, vision.picture(slot.kind, image)) for slot, image in seen]
    return replace(whole.with_pixels(pixels), masked=True)


class Routed(VPTModel):
    """A model whose control vectors can be changed on each route: `embedding`, `projector`; None: nothing is fed."""

    embedding: Change | None = None
    projector: Change | None = None

    def fill(self, tokens: Tensor, features: Features, phase: Phase, vectors: Tensor) -> Tensor:
        """As in VPTModel; without a vector the control token keeps its embedding, and features are not steered."""
        if self.embedding is not None:
            tokens = super().fill(tokens, features, phase._replace(steered=()), self.embedding(vectors))
        if self.projector is not None:
            tokens = self.steer(tokens, features, phase.steered, self.projector(vectors))
        return tokens


ARMS = {"both": ("embedding", "projector"), "embedding": ("embedding",), "projector": ("projector",), "neither": ()}
RATE, ROWS, STEPS = 3e-3, 32, 800


def same(vectors: Tensor) -> Tensor:
    """The model's own vectors."""
    return vectors


def random_like(vectors: Tensor) -> Tensor:
    """Random directions, each as long as the vector that it replaces."""
    drawn = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0))
    return drawn * vectors.norm(dim=-1, keepdim=True) / drawn.norm(dim=-1, keepdim=True)


CHANGES: dict[str, Change] = {
    "zero": torch.zeros_like,
    "mean": lambda vectors: vectors.mean(0, keepdim=True).expand_as(vectors),
    "random": random_like,
    "swap": lambda vectors: vectors.unflatten(0, (-1, 2)).flip(1).flatten(0, 1),  # rows stand in pairs
}


def made(seed: int) -> tuple[Routed, RowEncoder]:
    """A model of three layers with random weights, and its row encoder; DINO is frozen."""
    texts = ["user\nassistant\n", *(f"Which colour is {place}?" for place in QUADRANTS), *COLOURS]
    tokenizer = tiny_tokenizer(texts * 20, "dino", families=())
    torch.manual_seed(seed)
    model = Routed(small_shape(tokenizer).build(), ["dino"], {"dino": DinoTower.made(TINY_TOWERS["dino"])})
    choose_trained(model, ["*"], ["towers.*"])
    return model, RowEncoder(tokenizer.backend_tokenizer, small_vision(), system=None)


def trained(arm: str, seed: int, steps: int) -> tuple[Routed, RowEncoder]:
    """A model after some steps of new rows each, with the routes of an arm."""
    model, encoder = made(seed)
    for route in ARMS[arm]:
        setattr(model, route, same)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer, dice = torch.optim.AdamW(weights, betas=(0.9, 0.95), weight_decay=0.0), random.Random(seed)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = RATE * schedule(step, steps, warmup=0.05)
        out = model([sample(encoder, case(dice)) for _ in range(ROWS)])
        (out.loss / out.labels).backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model.eval(), encoder


def answer_at(one: Sample) -> int:
    """Where the first token of the last answer is: its label and that of its end are the last two."""
    return int((one.labels != IGNORE).nonzero()[-2])


@torch.no_grad()
def answered(model: Routed, samples: Sequence[Sample], changes: Mapping[str, Change]) -> list[int]:
    """The most likely first token of each answer when vectors are changed by route; the rows must stand in pairs."""
    for route, change in changes.items():
        setattr(model, route, change)
    return [
        int(logits[answer_at(one) - 1].argmax()) for one, logits in zip(samples, model.logits(samples), strict=True)
    ]


def one(arm: str, seed: int, steps: int, pictures: int = 256) -> Found:
    """Train and ask a model: all that the report needs of a run.

    `by` says of each row, without a change and for each change of each route: whether the answer is right, whether it
    names the colour that the other row of its pair asks for, and whether it names one of the colours that are shown.
    """
    model, encoder = trained(arm, seed, steps)
    rows = pairs(pictures)
    samples = [sample(encoder, row) for row in rows]
    own = [encoder.token_id(row.colours[row.asked]) for row in rows]
    other = [token for pair in zip(own[1::2], own[::2], strict=True) for token in pair]
    shown = [{encoder.token_id(colour) for colour in row.colours} for row in rows]
    by = {}
    for name, changes in changed(arm).items():
        said = answered(model, samples, changes)
        by[name] = {
            "right": [float(token == wanted) for token, wanted in zip(said, own, strict=True)],
            "other": [float(token == wanted) for token, wanted in zip(said, other, strict=True)],
            "shown": [float(token in some) for token, some in zip(said, shown, strict=True)],
        }
    return {"arm": arm, "seed": seed, "steps": steps, "pictures": [str(n // 2) for n in range(len(rows))], "by": by}


def changed(arm: str) -> dict[str, dict[str, Change]]:
    """What the routes of an arm are fed, by a name: the vectors as they are, and each change of one route or both."""
    routes = ARMS[arm]
    found = {"": dict.fromkeys(routes, same)}
    for which, on in {**{route: (route,) for route in routes}, arm: routes}.items():
        found |= {
            f"{which} {name}": {**found[""], **dict.fromkeys(on, change)} for name, change in CHANGES.items() if on
        }
    return found


def report(work: Path) -> str:
    """The tables for RESULTS.md from the runs in WORK."""
    arms = {arm: runs for arm in ARMS if (runs := seeds.read(work, arm))}
    pictures = next(iter(arms.values()))[0]["pictures"]

    def cells(arm: str, name: str) -> list[str]:
        return [
            seeds.figure([run["by"][name][what] for run in arms[arm]], pictures) for what in ("right", "other", "shown")
        ]

    head = ["answer right", "names the colour that the other row asks for", "names a colour of the picture"]
    lines = [seeds.line("routes of the vector in training", *head), "|---|---:|---:|---:|"]
    lines += [seeds.line(arm, *cells(arm, "")) for arm in arms]
    lines += ["", seeds.line("routes in training", "changed", "by", *head), "|---|---|---|---:|---:|---:|"]
    for arm in arms:
        lines += [seeds.line(arm, *name.split(), *cells(arm, name)) for name in changed(arm) if name]
    return "\n".join(lines)


def main() -> None:
    options = seeds.arguments(__doc__, list(ARMS), STEPS)
    torch.set_num_threads(1)
    seeds.make(options.work, options.arms, options.seeds, lambda arm, seed: one(arm, seed, options.steps))
    print(report(options.work))


if __name__ == "__main__":
    main()
