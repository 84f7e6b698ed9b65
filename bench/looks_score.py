"""What a trained model does with rows that it has not seen: kind of action, region, answer; and what needs no model."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from bench.looks_arms import random_box, shown
from trainer.data.corpus import Corpus, open_corpus
from trainer.data.encode import RowEncoder
from trainer.data.sample import IGNORE, Sample
from trainer.generation.answers import answer
from trainer.generation.dialog import Decoding, Record, before_answer
from trainer.model.vpt import VPTModel
from trainer.training.flops import FlopCounter
from vpt_data import geometry
from vpt_data.dialogue.tokens import grid, label_names
from vpt_data.images import views

Cells = tuple[int, int, int, int]
Look = tuple[Cells, Any]  # what the model says that it looks at, and the box that it is shown (None: everything)
Found = dict[str, Any]
KINDS = ("region", "dino", "none")  # of an action
BATCH = 50
LONGEST = 12  # tokens of an answer


class Case(NamedTuple):
    """A held-out row with its picture."""

    row: dict[str, Any]

    @property
    def kind(self) -> str:
        """See `wanted`."""
        return wanted(self.row)

    @property
    def true(self) -> Cells:
        """The true region, inclusive; of rows that need a crop."""
        x0, y0, x1, y1 = self.row["views"][1]["cells"]
        return x0, y0, x1, y1


def batched(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """BATCH items at a time."""
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))


def wanted(row: Found) -> str:
    """The kind of action that a row teaches: `region`, an encoder, or `none`."""
    if len(row["views"]) == 1:
        return "none"
    return "region" if row["views"][1]["cells"] else str(row["views"][1]["encoder"])


def cases(corpus: Corpus) -> list[Case]:
    """All rows of a corpus, with their pictures."""
    return [Case({**row.fields, "images": [views.pixels(row.images[0]["bytes"])]}) for row in corpus.stream(0, 0)]


def generated(model: VPTModel, encoder: RowEncoder, some: Sequence[Case]) -> list[Record]:
    """What the model says on its own, one look at most."""
    how = Decoding(max_new_tokens=32, max_actions=1)
    return list(answer(model, encoder, [before_answer(case.row) for case in some], how, batch=BATCH))


def encoded(encoder: RowEncoder, row: Found) -> Sample:
    """A row for the model, with the pixels of its views."""
    whole, vision = encoder.encode(row), encoder.vision
    pairs = zip(whole.slots, views.shown(row), strict=True)
    return whole.with_pixels([vision.pixels(slot.kind, vision.picture(slot.kind, image)) for slot, image in pairs])


def replies(model: VPTModel, encoder: RowEncoder, some: Sequence[Case], looks: Sequence[Look]) -> list[str]:
    """Answers after a turn that names given cells and a second look at a given box (None: the whole picture)."""
    rows = [before_answer(_looked(case.row, *look), -1) for case, look in zip(some, looks, strict=True)]
    how = Decoding(max_new_tokens=LONGEST, max_actions=0)
    return [record.text for record in answer(model, encoder, rows, how, batch=BATCH)]


def _looked(row: Found, cells: Cells, box: Any) -> Found:
    call = {"role": "assistant", "content": grid.encode([cells], row["k"])[0].as_py()}
    messages = [row["messages"][0], call, *row["messages"][2:]]
    return {**row, "messages": messages, "views": [row["views"][0], {**row["views"][1], "box": box}]}


def scored(model: VPTModel, encoder: RowEncoder, name: str, corpus: str) -> Found:
    """What a run is worth on the held-out rows of a corpus; `name` is an arm, or `free` for all kinds of rows."""
    takes = [] if name == "free" else ["pattern"]
    some = cases(open_corpus(corpus, "test", [f"{take}_test" for take in takes]))
    train = [row.fields for row in open_corpus(corpus, "train", [f"{take}_train" for take in takes]).stream(0, 0)]
    return free(model, encoder, train, some) if name == "free" else arm(model, encoder, name, train, some)


def arm(model: VPTModel, encoder: RowEncoder, name: str, train: Sequence[Found], some: Sequence[Case]) -> Found:
    """Region and answer of an arm on rows that need a crop."""
    answers = generated(model, encoder, some)
    found = [cells_of(answer) for answer in answers]
    taught = [Case(shown(case.row, name)) for case in some]
    out: Found = {"tests": len(some), "tokens_right": token_scores(model, encoder, taught)}
    out["flops"] = operations(model, encoder, taught)
    out["baseline"] = baselines(train, some)
    if name == "plain":
        return out | {"answer": {name: mean(right([answer.text for answer in answers], some))}}
    boxes: dict[str, list[Any]] = {
        "whole": [None for _ in some],
        "random": [random_box(case.row) for case in some],
        "own": [answer.looks[0].box if answer.looks else None for answer in answers],
    }
    out["region"] = region_scores(found, [case.true for case in some])
    out["no_region"] = mean([cells is None for cells in found])
    out["answer"] = {}
    for view in boxes if name == "own" else (name,):
        texts = [answer.text for answer in answers]
        # A row without a region has been answered already.
        looks = {at: (cells, boxes[view][at]) for at, cells in enumerate(found) if cells is not None}
        replied = replies(model, encoder, [some[at] for at in looks], list(looks.values()))
        for at, text in zip(looks, replied, strict=True):
            texts[at] = text
        out["answer"][view] = mean(right(texts, some))
    if name == "own":
        true = [(case.true, case.row["views"][1]["box"]) for case in some]
        out["answer"]["oracle"] = mean(right(replies(model, encoder, some, true), some))
    return out


def operations(model: VPTModel, encoder: RowEncoder, some: Sequence[Case]) -> float:
    """Floating point operations of a row, forward and backward, mean of the first ones."""
    count = FlopCounter(model)
    return mean([count([encoded(encoder, case.row)]) for case in some[:200]])


def free(model: VPTModel, encoder: RowEncoder, train: Sequence[Found], some: Sequence[Case]) -> Found:
    """Kind of action, region and answer where the model may choose."""
    answers = generated(model, encoder, some)
    kinds = [kind_of(answer) for answer in answers]
    hits = right([answer.text for answer in answers], some)
    out: Found = {
        "tests": len(some),
        "flops": operations(model, encoder, some),
        "kind": mean([kind == case.kind for kind, case in zip(kinds, some, strict=True)]),
        "kind_baseline": kind_baselines(train, some),
        "kinds": dict(Counter(f"{case.kind} -> {kind}" for kind, case in zip(kinds, some, strict=True))),
        "answer": mean(hits),
        "answer_baseline": baselines(train, some)["answer"],
        "by_kind": {},
        "tokens_right": token_scores(model, encoder, some),
    }
    for kind in KINDS:
        at = [number for number, case in enumerate(some) if case.kind == kind]
        mine = [some[number] for number in at]
        out["by_kind"][kind] = {
            "rows": len(at),
            "kind": mean([kinds[number] == kind for number in at]),
            "answer": mean([hits[number] for number in at]),
            "baseline": baselines([row for row in train if wanted(row) == kind], mine),
        }
        if kind == "region":
            out["region"] = region_scores([cells_of(answers[number]) for number in at], [case.true for case in mine])
    return out


def cells_of(answer: Record) -> Cells | None:
    """The region that a model asked for."""
    return next((look.cells for look in answer.looks if look.kind == "region"), None)


def kind_of(answer: Record) -> str:
    """The kind of action that a model took."""
    return next((look.kind for look in answer.looks), "none")


def right(texts: Sequence[str], some: Sequence[Case]) -> list[bool]:
    """Which answers are those of the rows."""
    return [text.strip() == case.row["messages"][-1]["content"] for text, case in zip(texts, some, strict=True)]


def iou(found: Cells | None, true: Cells) -> float:
    """Of two regions of cells, inclusive; 0 without a region.

    >>> iou((0, 0, 1, 1), (1, 0, 1, 1)), iou(None, (0, 0, 0, 0))
    (0.5, 0.0)
    """
    if found is None:
        return 0.0
    boxes = [[[x0, y0, x1 + 1, y1 + 1]] for x0, y0, x1, y1 in (found, true)]
    return float(geometry.iou(boxes[0], boxes[1])[0])


def region_scores(found: Sequence[Cells | None], true: Sequence[Cells]) -> Found:
    """Mean IoU and the share of rows where it is a half or more."""
    each = [iou(one, other) for one, other in zip(found, true, strict=True)]
    return {"iou": mean(each), "iou_half": mean([one >= 0.5 for one in each])}


@torch.no_grad()
def token_scores(model: VPTModel, encoder: RowEncoder, some: Sequence[Case]) -> dict[str, float]:
    """Accuracy of the labelled tokens by class, each after the true tokens before it; `start` is a region's first."""
    count: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    start = encoder.token_id(grid.START)
    model.eval()
    for part in batched(some):
        samples = [encoded(encoder, case.row) for case in part]
        for sample, logits in zip(samples, model.logits(samples), strict=True):
            at = (sample.labels[1:] != IGNORE).nonzero()[:, 0]
            hit = logits[at].argmax(-1) == sample.labels[at + 1]
            for label, kind, ok in zip(sample.labels[at + 1], sample.classes[at + 1], hit, strict=True):
                name = "start" if label == start else label_names()[kind]
                count[name] += 1
                hits[name] += int(ok)
    return {name: hits[name] / number for name, number in count.items()}


def baselines(train: Sequence[dict[str, Any]], some: Sequence[Case]) -> Found:
    """What the most frequent value of the training rows scores on rows of one kind, and what drawing at random does."""
    answer = most_common(row["messages"][-1]["content"] for row in train)
    words = {row["messages"][-1]["content"] for row in train}
    out: Found = {
        "answer": {"majority": mean(right([answer] * len(some), some)), "chance": 1 / len(words)},
    }
    true = [case.true for case in some if case.kind == "region"]
    if len(true) < len(some):
        return out
    known = [tuple(row["views"][1]["cells"]) for row in train]
    dice = random.Random(0)
    out["region"] = {
        "majority": region_scores([most_common(known)] * len(true), true),
        "chance": region_scores([dice.choice(known) for _ in true], true),
    }
    for name, places in (("x", (0, 2)), ("y", (1, 3))):
        usual = {place: most_common(cells[place] for cells in known) for place in places}
        out[name] = {
            "majority": mean([cells[place] == usual[place] for cells in true for place in places]),
            "chance": 1 / some[0].row["k"],
        }
    return out


def most_common(values: Any) -> Any:
    """The most frequent value, of equals the smallest."""
    counted = Counter(values)
    return min(counted, key=lambda value: (-counted[value], value))


def kind_baselines(train: Sequence[dict[str, Any]], some: Sequence[Case]) -> dict[str, float]:
    """Accuracy of the most frequent kind of action, of the most frequent one for each question, and of chance."""
    pairs = [(row["messages"][0]["content"], wanted(row)) for row in train]
    usual = most_common(kind for _, kind in pairs)
    by_form = {form: most_common(kind for one, kind in pairs if one == form) for form, _ in pairs}
    return {
        "majority": mean([case.kind == usual for case in some]),
        "question": mean([case.kind == by_form[case.row["messages"][0]["content"]] for case in some]),
        "chance": 1 / len(KINDS),
    }


def mean(values: Sequence[float]) -> float:
    """Mean, 0 of nothing."""
    return sum(values) / len(values) if values else 0.0
