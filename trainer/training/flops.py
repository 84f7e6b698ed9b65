"""Floating point operations of a batch, counted from shapes alone, and what a device can do at most."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from trainer.data.sample import Sample
from trainer.encoders import KINDS
from trainer.model.vpt import VPTModel

#: Dense bfloat16 operations per second, as the vendors state them.
PEAKS = {"B200": 2250e12, "H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12}


def peak(device: torch.device) -> float | None:
    """Of this device, if it is a known one."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((value for key, value in PEAKS.items() if key in name), None)


class FlopCounter:
    """Counts what one forward and backward pass needs; recomputation does not count."""

    def __init__(self, model: VPTModel) -> None:
        adapter = model.adapter
        # Each weight costs one pass forward, one for the gradient of inputs, and one for its own if it is trained.
        layers = [weight for layer in adapter.layers for weight in layer.parameters()]
        self._layers = sum(weight.numel() * (2 + weight.requires_grad) for weight in layers)
        self._head = sum(weight.numel() * (2 + weight.requires_grad) for weight in adapter.vlm.lm_head.parameters())
        self._depth, self._width = len(adapter.layers), adapter.width
        towers = {**dict.fromkeys(("vlm", *KINDS), adapter.vision), **model.towers}
        self._towers = {kind: _tower(tower) for kind, tower in towers.items()}

    def __call__(self, samples: Sequence[Sample]) -> float:
        """Operations of a batch; attention counts its lower triangle, that inside the encoders is left out."""
        total = 0.0
        for sample in samples:
            length = len(sample.input_ids)
            total += 2 * self._layers * length + 6 * self._width * length**2 * self._depth
            total += 2 * self._head * int((sample.labels >= 0).sum())
            for slot in (slot for slot in sample.slots if slot.shares is None):
                patches = KINDS[slot.kind].patches if slot.kind in KINDS else 4
                total += 2 * self._towers[slot.kind] * slot.length * patches
        return total


def _tower(tower: nn.Module) -> int:
    """Weights times passes: a frozen encoder runs forward only."""
    weights = list(tower.parameters())
    passes = 3 if any(weight.requires_grad for weight in weights) else 1
    return passes * sum(weight.numel() for weight in weights)
