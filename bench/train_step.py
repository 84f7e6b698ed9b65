"""The training step's language model: one pass with a continuation, against two full passes over the same samples.

    python -m bench.train_step [--rounds 7] [--rows 4]

The tiny model on one CPU thread. Control rows of 300 words, an 8x8 image and a 64 word answer; forward and backward,
towers frozen and their features computed beforehand. Prints the ratio of floating point operations, as torch counts
them, and of the wall clock.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench.full_passes import full_passes
from trainer.data.loader import Micro
from trainer.data.sample import IGNORE, Control, Sample, Slot
from trainer.data.vision import Vision
from trainer.model.tiny import tiny_model, tiny_tokenizer
from trainer.model.vpt import VPTModel
from vpt_data.dialogue.tokens.reencode import ENCODERS


def steps(model: VPTModel, samples: list[Sample]) -> dict[str, Callable[[], None]]:
    """The two ways to do a step, on features that are computed once."""
    batch = model.batch(samples)
    features = model.features(batch.plan.inputs, batch.pixels)
    fixed = features._replace(rows=features.rows.detach())
    model.features = lambda *_: fixed  # type: ignore[method-assign]

    def single() -> None:
        model.score(batch.plan, model.states(batch)).loss.backward()

    def twice() -> None:
        model.score(*full_passes(model, samples)).loss.backward()

    return {"single": single, "twice": twice}


def with_pixels(micro: Micro, vision: Vision, device: torch.device | str = "cpu") -> list[Sample]:
    """The samples of a micro-batch with their pixels on a device."""
    pictures = {kind: iter(some) for kind, some in micro.parcel.opened(device)[1].items()}
    samples = []
    for sample in micro.samples:
        pixels: list[Tensor] = []
        for slot in sample.slots:
            shared = None if slot.shares is None else pixels[slot.shares]
            pixels.append(vision.pixels(slot.kind, next(pictures[slot.tower])) if shared is None else shared)
        samples.append(sample.with_pixels(pixels))
    return samples


def flops(step: Callable[[], None]) -> int:
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def seconds(step: Callable[[], None], device: torch.device | None = None) -> float:
    """Wall clock of a step, on a GPU until it has really ended."""
    start = time.perf_counter()
    step()
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def compare(model: VPTModel, samples: list[Sample], rounds: int) -> dict[str, float]:
    """Both ways in turn, `rounds` times, after one of each to warm up."""
    both = steps(model, samples)
    counted = {name: flops(step) for name, step in both.items()}
    taken: dict[str, list[float]] = {name: [] for name in both}
    for _ in range(rounds):
        for name, step in both.items():
            taken[name].append(seconds(step))
    ratios = [b / a for a, b in zip(taken["single"], taken["twice"], strict=True)]
    return {
        "flops_ratio": round(counted["twice"] / counted["single"], 3),
        "wall_ratio": round(statistics.median(ratios), 3),
        "wall_ratio_low": round(min(ratios), 3),
        "wall_ratio_high": round(max(ratios), 3),
        "single_s": round(statistics.median(taken["single"]), 3),
    }


def control_row(tokenizer: Any, words: int = 300, answer: int = 64) -> Sample:
    """A question with an image of 8x8 tokens, a look through DINO, an answer; random words and pixels."""
    random = torch.Generator().manual_seed(0)
    encoder, known = ENCODERS["dino"], tokenizer.convert_tokens_to_ids

    def words_of(count: int) -> list[int]:
        return torch.randint(0, 256, (count,), generator=random).tolist()

    user = [known("<|im_start|>"), *words_of(2), *[known("<|image_pad|>")] * 64, *words_of(words), known("<|im_end|>")]
    call = [known(token) for token in (encoder.start, encoder.control, encoder.end)]
    head = [*user, known("<|im_start|>"), *words_of(2)]
    shown = [*head, *call, known("<|im_end|>"), *[known(encoder.image_pad)] * 16, *words_of(3)]
    ids = torch.tensor([*shown, *words_of(answer)])
    labels = torch.where(torch.arange(len(ids)) < len(shown), IGNORE, ids)
    image = Slot("vlm", 3, 64, (1, 16, 16), torch.randn((256, 6 * 14**2), generator=random))
    again = Slot("dino", len(head) + 4, 16, None, torch.randn((3, 56, 56), generator=random))
    control = Control("dino", len(head) + 1)
    return Sample(
        "row", ids, labels, torch.zeros(len(ids), dtype=torch.int8), (image, again), (control,), (0, len(user))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, default=4)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    tokenizer = tiny_tokenizer(["how much is the red one? ten coins\n"] * 4, "dino", words=300)
    model = tiny_model(tokenizer, ["dino"]).train()
    model.towers.requires_grad_(False)
    model.adapter.vision.requires_grad_(False)
    print(json.dumps(compare(model, [control_row(tokenizer)] * options.rows, options.rounds)))


if __name__ == "__main__":
    main()
