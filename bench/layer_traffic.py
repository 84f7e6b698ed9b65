"""What one decoder layer of the 2B model moves through memory, how many kernels it starts, and what the loss holds.

    python -m bench.layer_traffic [--rows 24]

A micro-batch of packed rows, every third with a control token, below autocast in bfloat16, forward and backward, with
and without checkpointing. Tensors are fake, so it takes seconds on any machine: bytes are those of what an operation
reads and writes, without matrix products, attention and views. `slices` cuts the packed queries, keys and values of the
samples by slices, `split` is what the trainer does. The loss is that of `--labels` labels, with all logits at once and
in chunks as in the trainer. Prints JSON: for a layer gigabytes, and kernels of any kind; for the loss the gigabytes
that are alive at its peak.
"""

from __future__ import annotations

import argparse
import json
import weakref
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AttentionInterface

from trainer.data.sample import IGNORE, Control, Sample
from trainer.model import vpt
from trainer.model.adapter import ATTENTION, Segments
from trainer.model.shapes import Shape, shape_named
from trainer.model.vpt import VPTModel

PLAIN, LOOKING, PROMPT = 435, 699, 330  # tokens of a row, of one with a look, and of the latter before it
_PRODUCTS = ("mm", "addmm", "bmm", "_scaled_dot_product")


class Traffic(TorchDispatchMode):
    """Counts kernels, bytes of all that are neither a matrix product nor attention, and bytes alive at the peak."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels, self.bytes, self.peak = 0, 0, 0
        self._alive: dict[int, int] = {}  # bytes of each storage made within

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it, unless it is a view."""
        out = func(*args, **(kwargs or {}))
        for made in (leaf.untyped_storage() for leaf in tree_leaves(out) if isinstance(leaf, Tensor)):
            if id(made) not in self._alive:
                self._alive[id(made)] = made.nbytes()
                weakref.finalize(made, self._alive.pop, id(made))
        self.peak = max(self.peak, sum(self._alive.values()))
        name = func.overloadpacket.__name__
        if func.is_view or func.namespace == "prim" or name == "_unsafe_view":
            return out
        self.kernels += 1
        if not name.startswith(_PRODUCTS):
            tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)]
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return out


def by_slices(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: None, segments: Segments, scaling: float, **_: Any
) -> tuple[Tensor, None]:
    """The attention of the adapter with slices: the gradient of each fills a tensor of the whole length."""
    heads, start, before, pieces = query.shape[1] // key.shape[1], 0, 0, []
    own = key.shape[2] - query.shape[2]
    for count, earlier in segments:
        mine = slice(own + start, own + start + count)
        keys, values = key[:, :, mine], value[:, :, mine]
        if earlier:
            kept = slice(before, before + earlier)
            keys, values = (torch.cat([x[:, :, kept], y], 2) for x, y in ((key, keys), (value, values)))
        keys, values = keys.repeat_interleave(heads, 1), values.repeat_interleave(heads, 1)
        seen = torch.ones(count, earlier + count, dtype=torch.bool).tril(earlier) if earlier else None
        asked = query[:, :, start : start + count].to(values.dtype)
        pieces.append(scaled_dot_product_attention(asked, keys, values, seen, is_causal=not earlier, scale=scaling))
        start, before = start + count, before + earlier
    return torch.cat(pieces, dim=2).transpose(1, 2).contiguous(), None


def rows(count: int) -> list[Sample]:
    """Rows without pictures, whose tokens they have all the same; every third calls an encoder."""
    made = []
    for number in range(count):
        looking = number % 3 == 2
        ids = torch.ones(LOOKING if looking else PLAIN, dtype=torch.int64)
        controls = (Control("clip", PROMPT),) if looking else ()
        labels = torch.full_like(ids, IGNORE)
        made.append(Sample(str(number), ids, labels, labels.to(torch.int8), (), controls, (0, 0)))
    return made


def one_layer(samples: list[Sample], checkpointing: bool, attention: Callable[..., Any] | None) -> dict[str, float]:
    """What a second layer adds to one."""
    shape = shape_named("qwen2_vl_2b")
    counted = []
    for layers in (1, 2):
        text, vision = {**shape.text, "num_hidden_layers": layers}, {**shape.vision, "depth": 1}
        model = VPTModel(Shape("qwen2_vl", text, vision, True).build(), ["clip"])
        model.checkpointing = checkpointing
        if attention is not None:
            AttentionInterface.register(ATTENTION, attention)
        with torch.autocast("cpu", torch.bfloat16):
            with Traffic() as forward:
                states, _ = model.states(samples)
            with Traffic() as backward:
                states.sum().backward()
        counted.append((forward.bytes / 1e9, backward.bytes / 1e9, forward.kernels, backward.kernels))
    names = ("forward_gb", "backward_gb", "forward_kernels", "backward_kernels")
    return {name: round(two - one, 2) for name, one, two in zip(names, *counted, strict=True)}


def loss_peak(labels: int, at_once: int) -> float:
    """Gigabytes alive at the peak of the loss of so many labels, forward and backward, in chunks of `at_once`."""
    shape = shape_named("qwen2_vl_2b")
    text, vision = {**shape.text, "num_hidden_layers": 1}, {**shape.vision, "depth": 1}
    model = VPTModel(Shape("qwen2_vl", text, vision, True).build(), ["clip"])
    states = torch.zeros(labels, shape.text["hidden_size"], requires_grad=True)
    chunks, autocast = mock.patch.object(vpt, "LABELS_AT_ONCE", at_once), torch.autocast("cpu", torch.bfloat16)
    with chunks, autocast, Traffic() as traffic:
        losses, _ = model.judge(states, torch.ones(labels, dtype=torch.int64))
        losses.sum().backward()
    return round(traffic.peak / 1e9, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--labels", type=int, default=6500)
    options = parser.parse_args()
    samples = rows(options.rows)
    found: dict[str, Any] = {"tokens": sum(len(sample.input_ids) for sample in samples)}
    for name, attention in (("slices", by_slices), ("split", None)):
        for checkpointing in (False, True):
            with FakeTensorMode(allow_non_fake_inputs=True):
                key = f"{name}, checkpointing" if checkpointing else name
                found[key] = one_layer(samples, checkpointing, attention)
    with FakeTensorMode(allow_non_fake_inputs=True):
        chunks = {"all logits": options.labels, "chunks": vpt.LABELS_AT_ONCE}
        found["loss_peak_gb"] = {name: loss_peak(options.labels, at_once) for name, at_once in chunks.items()}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
