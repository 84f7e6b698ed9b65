"""What one decoder layer of the 2B model moves through memory, how many kernels it starts, and what the loss holds.

    python -m bench.layer_traffic [--rows 24]

A micro-batch of packed rows, every third with a control token, below autocast in bfloat16, forward and backward, with
and without checkpointing. Tensors are fake, so it takes seconds on any machine: bytes are those of what an operation
reads and writes, without matrix products, attention and views. `before` is the attention of commit 48b7ff6, `cpu` the
one that samples have on a CPU, `gpu` the call of a kernel that they have on a GPU. The loss is that of `--labels`
labels, with all logits at once and in chunks as in the trainer. Prints JSON: for a layer gigabytes, and kernels of any
kind; for the loss the gigabytes that are alive at its peak; for a layer of the vision tower, over one picture a row,
kernels and waits of the host for the device.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import weakref
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trainer.data.sample import IGNORE, Control, Sample
from trainer.model import adapter, attention, vpt
from trainer.model.attention import Store, text_attention
from trainer.model.shapes import Shape, shape_named
from trainer.model.vpt import VPTModel

PLAIN, LOOKING, PROMPT = 435, 699, 330  # tokens of a row, of one with a look, and of the latter before it
VARIANTS = ("before", "cpu", "gpu")
_PRODUCTS = ("mm", "addmm", "bmm", "_scaled_dot_product", "_varlen_attn")


class Traffic(TorchDispatchMode):
    """Counts kernels, reads of a value by the host, bytes of all kernels that are neither a matrix product nor
    attention, and bytes alive at the peak."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels, self.reads, self.bytes, self.peak = 0, 0, 0, 0
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
        if name == "_local_scalar_dense":
            self.reads += 1
            return out
        self.kernels += 1
        if not name.startswith(_PRODUCTS):
            tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)]
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return out


def by_pieces(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: None, store: Store, scaling: float, **_: Any
) -> tuple[Tensor, None]:
    """The attention of commit 48b7ff6: every sample gathers its earlier keys, and repeats all of them for each head."""
    key, value = store.seen(key, value)
    segments: Any = store.segments
    heads, pieces = query.shape[1] // key.shape[1], []
    earlier = [keys - own for keys, own in zip(segments.keys, segments.queries, strict=True)]
    lengths = [length for pair in zip(earlier, segments.queries, strict=True) for length in pair]
    if segments.order is not None:
        key, value = (each.index_select(2, segments.order) for each in (key, value))
    keys, values = (torch.split(each, lengths, 2) for each in (key, value))
    queries = torch.split(query.to(value.dtype), list(segments.queries), 2)
    for number, asked in enumerate(queries):
        seen, (k, v) = None, (keys[2 * number + 1], values[2 * number + 1])
        if earlier[number]:
            k, v = torch.cat([keys[2 * number], k], 2), torch.cat([values[2 * number], v], 2)
            seen = torch.ones(asked.shape[2], k.shape[2], dtype=torch.bool).tril(earlier[number])
        k, v = (each.repeat_interleave(heads, 1) for each in (k, v))
        pieces.append(scaled_dot_product_attention(asked, k, v, seen, is_causal=seen is None, scale=scaling))
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


@contextlib.contextmanager
def variant(name: str) -> Iterator[None]:
    """The attention of the models that are made within, all tensors fake: one of `VARIANTS`."""
    function = by_pieces if name == "before" else text_attention
    kernel = mock.patch.object(attention, "by_kernel", lambda value: name == "gpu")
    with kernel, mock.patch.object(adapter, "text_attention", function), FakeTensorMode(allow_non_fake_inputs=True):
        yield


def text_model(layers: int) -> VPTModel:
    """The shape of the 2B model with fewer layers, and no vision tower to speak of."""
    shape = shape_named("qwen2_vl_2b")
    text, vision = {**shape.text, "num_hidden_layers": layers}, {**shape.vision, "depth": 1}
    return VPTModel(Shape("qwen2_vl", text, vision, True).build(), ["clip"])


def one_layer(samples: list[Sample], checkpointing: bool) -> dict[str, float]:
    """What a second layer adds to one."""
    counted = []
    for layers in (1, 2):
        model = text_model(layers)
        model.checkpointing = float(checkpointing)
        with unset_fake_temporarily():
            batch = model.batch(samples)  # indices are no kernels of a layer
        with torch.autocast("cpu", torch.bfloat16):
            with Traffic() as forward:
                states = model.states(batch)
            with Traffic() as backward:
                states.sum().backward()
        counted.append((forward.bytes / 1e9, backward.bytes / 1e9, forward.kernels, backward.kernels))
    names = ("forward_gb", "backward_gb", "forward_kernels", "backward_kernels")
    return {name: round(two - one, 2) for name, one, two in zip(names, *counted, strict=True)}


def loss_peak(labels: int, at_once: int) -> float:
    """Gigabytes alive at the peak of the loss of so many labels, forward and backward, in chunks of `at_once`."""
    model = text_model(1)
    states = torch.zeros(labels, model.adapter.width, requires_grad=True)
    chunks, autocast = mock.patch.object(vpt, "LABELS_AT_ONCE", at_once), torch.autocast("cpu", torch.bfloat16)
    with chunks, autocast, Traffic() as traffic:
        losses, _ = model.judge(states, torch.ones(labels, dtype=torch.int64))
        losses.sum().backward()
    return round(traffic.peak / 1e9, 2)


@contextlib.contextmanager
def listed() -> Iterator[list[None]]:
    """One element for each list that is made of a tensor within; torch makes them unseen by dispatch modes."""
    made: list[None] = []
    tolist = Tensor.tolist

    def counted(tensor: Tensor) -> Any:
        if not tensor.is_meta:
            made.append(None)
        return tolist(tensor)

    with mock.patch.object(Tensor, "tolist", counted):
        yield made


def tower_layer(pictures: int, *, before: bool) -> dict[str, int]:
    """What a second layer of the vision tower of the 2B model adds to one, for small pictures.

    Before, the tower of transformers knows grids only, in a tensor on the device, and asks for their values; with
    their layout it runs without any value.
    """
    shape, grids, counted = shape_named("qwen2_vl_2b"), [(1, 2, 2)] * pictures, []
    width = {"hidden_size": 128, "intermediate_size": 128, "num_attention_heads": 1, "num_key_value_heads": 1}
    for depth in (1, 2):
        text, vision = {**shape.text, **width, "num_hidden_layers": 1}, {**shape.vision, "depth": depth}
        own = VPTModel(Shape("qwen2_vl", text, vision, True).build(), []).adapter
        layout = {} if before else own.layout(grids)
        if before:
            own.vision.config._attn_implementation = "sdpa"
        else:
            own.vlm.to(torch.bfloat16).to("meta")
            layout = {name: x.to("meta") if isinstance(x, Tensor) else x for name, x in layout.items()}
        weight = next(own.vision.parameters())
        pixels = torch.zeros(4 * pictures, 3 * 2 * 14 * 14).to(weight)
        with mock.patch.object(attention, "by_kernel", lambda value: True), listed() as lists:
            with Traffic() as forward:
                features, _ = own.features(pixels, grids, layout)
            with Traffic() as backward:
                features.sum().backward()
        counted.append((forward.kernels, backward.kernels, len(lists) + forward.reads + backward.reads))
    names = ("forward_kernels", "backward_kernels", "waits")
    return {name: two - one for name, one, two in zip(names, *counted, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--labels", type=int, default=6500)
    options = parser.parse_args()
    samples = rows(options.rows)
    found: dict[str, Any] = {"tokens": sum(len(sample.input_ids) for sample in samples)}
    for name in VARIANTS:
        for checkpointing in (False, True):
            with variant(name):
                found[f"{name}, checkpointing" if checkpointing else name] = one_layer(samples, checkpointing)
    with variant("gpu"):
        chunks = {"all logits": options.labels, "chunks": vpt.LABELS_AT_ONCE}
        found["loss_peak_gb"] = {name: loss_peak(options.labels, at_once) for name, at_once in chunks.items()}
    for name in ("before", "gpu"):
        found[f"vision tower, {name}"] = tower_layer(options.rows, before=name == "before")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
