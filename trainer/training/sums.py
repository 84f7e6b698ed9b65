"""What micro-batches and ranks add up to: loss, labels, accuracy, tokens; and what needs no model to be right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.data.sample import IGNORE, Sample
from trainer.model.vpt import Output
from vpt_data.dialogue.tokens import label_names

#: (class, which one of its class in its sample, label) -> how often.
Places: TypeAlias = Counter[tuple[int, int, int]]


class Means(NamedTuple):
    """What a step or a validation had on all ranks; `weight` is that of its labels, `marks` what was marked."""

    loss: float
    weight: float
    accuracy: dict[str, float]
    labels: int
    tokens: int
    samples: int
    flops: float
    marks: int

    def entry(self) -> dict[str, float | dict[str, float]]:
        """For `metrics.jsonl`."""
        known = ("loss", "labels", "accuracy", "tokens", "samples")
        return {key: value for key, value in self._asdict().items() if key in known}


class Sums:
    """Sums over micro-batches in float64; they stay on the device, so that adding waits for nothing."""

    def __init__(self, device: torch.device) -> None:
        self._classes = len(label_names())
        # Loss, weight of the labels, right and all of each class; tokens, samples, operations, marks.
        self._sums = torch.zeros(6 + 2 * self._classes, dtype=torch.float64, device=device)

    def add(self, out: Output, samples: Sequence[Sample], flops: float) -> None:
        """Count one micro-batch of this rank."""
        counted = [sum(len(one.input_ids) for one in samples), len(samples), flops, 0]
        found = [out.loss.detach()[None], out.labels[None], out.correct, out.total]
        rest = torch.tensor(counted, dtype=torch.float64).to(self._sums.device, non_blocking=True)
        self._sums += torch.cat([*(part.double() for part in found), rest])

    def mark(self) -> None:
        """Let all ranks know that this one is asked to stop."""
        self._sums[-1] += 1

    def means(self) -> Means:
        """Over all ranks, which must all call it."""
        total: Tensor = self._sums.clone()
        if dist.is_initialized():
            dist.all_reduce(total)
        loss, weight, *rest = total.tolist()
        right, labels, (tokens, samples, flops, marks) = rest[: self._classes], rest[self._classes : -4], rest[-4:]
        accuracy = {name: hits / of for name, hits, of in zip(label_names(), right, labels, strict=True) if of}
        mean = loss / weight if weight else 0.0
        return Means(mean, weight, accuracy, int(sum(labels)), int(tokens), int(samples), flops, int(marks))


def places(samples: Iterable[Sample]) -> Places:
    """Which label is how often at which place."""
    found: Places = Counter()
    for sample in samples:
        carries = sample.labels != IGNORE
        before: Counter[int] = Counter()
        for kind, label in zip(sample.classes[carries].tolist(), sample.labels[carries].tolist(), strict=True):
            found[kind, before[kind], label] += 1
            before[kind] += 1
    return found


def majority(found: Places) -> dict[str, float]:
    """The accuracy by class of always saying the most frequent label of a place; it looks at no picture.

    >>> majority(Counter({(0, 0, 7): 3, (0, 0, 8): 1, (0, 1, 5): 4}))
    {'text': 0.875}
    """
    most: dict[tuple[int, int], int] = {}
    for (kind, place, _), times in found.items():
        most[kind, place] = max(times, most.get((kind, place), 0))
    right, labels = Counter[int](), Counter[int]()
    for (kind, _), times in most.items():
        right[kind] += times
    for (kind, _, _), times in found.items():
        labels[kind] += times
    return {name: right[kind] / labels[kind] for kind, name in enumerate(label_names()) if labels[kind]}
