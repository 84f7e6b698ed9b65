"""What a configuration needs, counted from shapes: gigabytes of a card, and hours for the rows of the paper.

    python -m bench.budget [--config vpt_2b_dino] [--cards 1] [--set KEY=VALUE]

Prints a row of a Markdown table; without `--config` the table of docs/trainer.md. Tensors have no memory, so it takes
seconds on any machine. What is counted, for one card:

weights     float32 where they are trained, bfloat16 where not; those in use are there in bfloat16 as well
training    gradients and the two moments of AdamW, in float32
kept        what the layers keep for the backward pass at `data.tokens` tokens, by the tensors that autograd saves
rest        logits of a part of the loss, a layer of an encoder, and a tenth of all for what no count sees

FSDP2 divides weights, gradients and moments, but the sum of the gradients of several micro-batches is whole. Hours are
operations over what the cards do at 40 % of their peak (30 % with checkpointing). A row has 252 tokens of a picture and
60 labels, and every third has a second look, which is about the mean of the paper's corpora.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple
from unittest import mock

import msgspec
import torch
from msgspec.structs import replace as replace_struct
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily

from bench.layer_traffic import PROMPT, rows, variant
from trainer import config as configs
from trainer.config import NO_ENCODER, Config
from trainer.data.sample import Sample, Slot
from trainer.data.vision import Vision
from trainer.model.shapes import SHAPES
from trainer.model.vpt import LABELS_AT_ONCE, VPTModel
from trainer.training import setup
from trainer.training.flops import PEAKS, FlopCounter
from vpt_data.report import markdown_table

MFU, MFU_CHECKPOINTING = 0.4, 0.3  # what is expected, not measured: layers that run twice count once
ROWS, LABELS, VOCABULARY = 829_000, 60, 151_679
#: Configurations for cards: how many, and which.
CARDS = (
    ("vpt_2b_clip_lora", 1, "RTX 4090"),
    ("region_2b_lora", 1, "RTX 4090"),
    ("region_2b", 1, "H100"),
    ("vpt_2b_clip", 1, "H100"),
    ("vpt_2b_dino", 1, "H100"),
    ("vpt_2b_sam", 1, "H100"),
    ("vpt_2b_dino", 8, "H100"),
    ("vpt_7b_clip_lora", 8, "H100"),
)
GIGABYTES = {"RTX 4090": 24, "H100": 80}


class Budget(NamedTuple):
    """Bytes of one card, and seconds of all for `ROWS` rows."""

    weights: float
    training: float
    kept: float
    rest: float
    seconds: float

    @property
    def sum(self) -> float:
        """Bytes of one card."""
        return self.weights + self.training + self.kept + self.rest


def shaped(name: str, overrides: Sequence[str] = ()) -> Config:
    """A configuration whose base is the shape of its real one."""
    base = configs.load(name, overrides).model.base
    size = base.removeprefix("Qwen/Qwen2-VL-").removesuffix("-Instruct").lower()
    return configs.load(name, [*overrides, *([] if base == "tiny" else [f"model.base=shape:qwen2_vl_{size}"])])


def without_memory(config: Config, layers: int | None = None) -> VPTModel:
    """The model on the meta device, or one of fewer layers."""
    name = config.model.base.removeprefix("shape:")
    shape = SHAPES[name]
    if layers is not None:
        shape = replace(shape, text={**shape.text, "num_hidden_layers": layers}, vision={**shape.vision, "depth": 1})
    with mock.patch.dict(SHAPES, {name: shape}), torch.device("meta"):
        return setup.make_model(config, range(VOCABULARY))


def budget(config: Config, cards: int, peak: float) -> Budget:
    """Count for so many cards, each of `peak` operations per second."""
    model = without_memory(config)
    encoders = {id(weight) for part in (model.towers, model.adapter.vision) for weight in part.parameters()}
    trained, frozen, whole = 0, 0, 0
    for weight in model.parameters():
        if weight.requires_grad:
            trained += weight.numel()
        elif id(weight) in encoders:
            whole += weight.numel()
        else:
            frozen += weight.numel()
    tokens = config.data.tokens
    if config.run.parallel == "fsdp2":
        # The embeddings, the head and what is not in a layer are whole while the model runs, and two layers.
        layers = sum(weight.numel() for layer in model.adapter.layers for weight in layer.parameters())
        at_once = trained + frozen - layers + 2 * layers / len(model.adapter.layers)
        weights = (4 * trained + 2 * frozen) / cards + 2 * whole + 2 * at_once
        training = 12 * trained / cards + 4 * trained
    else:
        weights, training = 4 * trained + 2 * (frozen + whole) + 2 * trained, 12 * trained
    kept = layers_keep(config, model) * tokens
    rest = 3 * 4 * LABELS_AT_ONCE * model.adapter.vlm.config.text_config.vocab_size + encoder_layer(config, model)
    rest += 0.1 * (weights + training + kept + rest)
    samples = looks(config)
    row = FlopCounter(model)(samples) / len(samples)
    share = MFU - float(config.run.checkpointing) * (MFU - MFU_CHECKPOINTING)
    return Budget(weights, training, kept, rest, ROWS * row / (share * peak * cards))


def layers_keep(config: Config, model: VPTModel) -> float:
    """Bytes for a token: of all layers, but with checkpointing of one, and the states between them."""
    plain = configs.load("vpt_2b_clip")  # what is no part of it changes nothing that is counted here
    run = replace_struct(plain.run, parallel=config.run.parallel)
    kind = replace_struct(config.model, encoder="clip")
    text = msgspec.json.encode(replace_struct(config, model=kind, data=plain.data, optim=plain.optim, run=run))
    layer, depth = _saved(text, 2) - _saved(text, 1), len(model.adapter.layers)
    state = (2 if config.run.parallel == "fsdp2" else 4) * model.adapter.width
    again = float(config.run.checkpointing)
    return depth * ((1 - again) * layer + again * state) + (layer if again else 0)


@functools.cache
def _saved(text: bytes, layers: int) -> float:
    """Bytes for a token that autograd saves in a model of so many layers, from the difference of two batches."""
    config = msgspec.json.decode(text, type=Config)
    model, half = without_memory(config, layers), config.run.parallel == "fsdp2"
    six, twelve = rows(6), rows(12)
    with variant("gpu"):
        model = model.to_empty(device="cpu")
        model.checkpointing = 0.0
        for weight in model.parameters():
            weight.data = weight.data.to(torch.bfloat16 if half or not weight.requires_grad else torch.float32)
        few, many = (_saved_below(model, samples, half) for samples in (six, twelve))
    return (many - few) / sum(len(sample.input_ids) for sample in twelve[6:])


def _saved_below(model: VPTModel, samples: list[Sample], half: bool) -> int:
    saved: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved[id(tensor.untyped_storage())] = tensor.untyped_storage()
        return tensor

    embed = model.embed
    # What a projector makes, which is trained, goes in among the tokens.
    learned = mock.patch.object(model, "embed", lambda *given: embed(*given).requires_grad_())
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with unset_fake_temporarily():
        batch = model.batch(samples)
    with torch.autocast("cpu", torch.bfloat16, enabled=not half), learned, hooks:
        model.states(batch)
    return sum(storage.nbytes() for storage in saved.values())


def encoder_layer(config: Config, model: VPTModel) -> float:
    """Bytes of one layer of the encoders at their largest micro-batch: all tokens are of pictures."""
    patches = config.data.tokens * model.adapter.merge**2
    own = 3 * 2 * patches * 4 * model.adapter.vlm.config.vision_config.embed_dim
    # A global layer of SAM has a bias for each pair of its 4,096 places, for 16 heads and 8 pictures at once.
    return max(own, 2 * 2 * 8 * 16 * 4096**2 if config.model.encoder == "sam" else 0)


def looks(config: Config) -> list[Sample]:
    """Three rows with a picture, the last with a second look through the encoder of the configuration."""
    vision, kind = Vision(longest=config.model.longest), config.model.encoder
    size = (640, 480)
    found = []
    for sample in rows(3):
        labels = sample.labels.clone()
        labels[-LABELS:] = 1
        slots = [Slot("vlm", 20, *vision.tokens("vlm", size))]
        if sample.controls:
            second = "vlm" if kind == NO_ENCODER else kind
            slots.append(Slot(second, PROMPT + 2, *vision.tokens(second, size)))
        found.append(replace(sample, labels=labels, slots=tuple(slots)))
    return found


def line(name: str, cards: int, card: str, overrides: Sequence[str] = ()) -> list[str]:
    """A row of the table."""
    config = shaped(name, [*overrides, *(["run.parallel=fsdp2"] if cards > 1 else [])])
    found = budget(config, cards, PEAKS[card])
    parts = [f"{part / 1e9:.1f}" for part in (found.weights, found.training, found.kept, found.rest, found.sum)]
    many = f"{cards} x " if cards > 1 else ""
    how = f"{config.data.tokens:,}" + (", checkpointing" if config.run.checkpointing else "")
    return [f"`{name}`", f"{many}{GIGABYTES[card]} GB", how, *parts, f"{found.seconds / 3600:.1f}"]


def table() -> str:
    """The table of docs/trainer.md."""
    head = ["configuration", "cards", "`data.tokens`", "weights", "training", "kept", "rest", "sum", "hours"]
    return markdown_table(head, [line(*row) for row in CARDS])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config")
    parser.add_argument("--cards", type=int, default=1)
    parser.add_argument("--card", choices=GIGABYTES, default="H100")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the configuration")
    options = parser.parse_args(arguments)
    if options.config is None:
        print(table())
    else:
        print(" | ".join(line(options.config, options.cards, options.card, options.set)))


if __name__ == "__main__":
    main()
