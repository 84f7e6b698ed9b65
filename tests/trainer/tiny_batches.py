"""Tiny models and random samples for the tests of the model."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from trainer.data.sample import IGNORE, Control, Sample, Slot
from trainer.model.shapes import Shape, rope
from trainer.model.tiny import tiny_model, tiny_shape, tiny_tokenizer
from trainer.model.vpt import VPTModel
from vpt_data.dialogue.tokens import added_tokens, label_names
from vpt_data.dialogue.tokens.reencode import ENCODERS

TEXT, REGION, X, Y, ACTION = map(label_names().index, ("text", "region", "x", "y", "action"))
KINDS = ("dino", "sam", "clip")


@functools.cache
def tokenizer() -> Any:
    """One that knows the tokens of all three encoders."""
    from transformers import AddedToken

    made = tiny_tokenizer(["what is the colour of the left cat? it is red\n"] * 4, "dino", words=300)
    for kind in ("sam", "clip"):
        made.add_tokens([AddedToken(token.content, normalized=False) for token in added_tokens(kind)])
    return made


def shape(model_type: str = "qwen2_vl") -> Shape:
    """The tiny default, and as small models of the other two classes; logits of size 1, as tolerances expect."""
    tiny = tiny_shape(tokenizer())
    small = {"initializer_range": 0.02}
    base = replace(tiny, text={**tiny.text, **small}, vision={**tiny.vision, **small})
    if model_type == "qwen2_vl":
        return base
    vision = {"depth": 2, "num_heads": 2, "hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 64}
    if model_type == "qwen2_5_vl":
        return replace(base, model_type=model_type, vision={**vision, "window_size": 56, "fullatt_block_indexes": [1]})
    text = {**base.text, "rope_parameters": rope(1e4, 2, 3, 3, mrope_interleaved=True), "head_dim": 16}
    vision |= {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
    return replace(base, model_type=model_type, text=text, vision=vision)


def model(kinds: Iterable[str] = KINDS, model_type: str = "qwen2_vl", seed: int = 0, **options: Any) -> VPTModel:
    """In training mode; two calls with equal arguments give equal weights."""
    torch.manual_seed(seed)
    return tiny_model(tokenizer(), kinds, shape(model_type), **options).train()


@dataclass
class Writer:
    """Writes a sample token by token; random words and pixels from one seed."""

    seed: int = 0
    patch: int = 14
    control_tokens: int = 1
    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    controls: list[Control] = field(default_factory=list)
    user: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        self.random = torch.Generator().manual_seed(self.seed)

    def token(self, content: str, loss: bool = False, of: int = TEXT) -> None:
        index = tokenizer().convert_tokens_to_ids(content)
        self.ids.append(index)
        self.labels.append(index if loss else IGNORE)
        self.classes.append(of)

    def words(self, count: int, loss: bool = False) -> None:
        for index in torch.randint(0, 256, (count,), generator=self.random).tolist():
            self.ids.append(index)
            self.labels.append(index if loss else IGNORE)
            self.classes.append(TEXT)

    def picture(self, kind: str, rows: int = 4, columns: int = 4) -> None:
        """A slot between vision_start and vision_end; rows and columns in tokens (16 in all for dino and sam)."""
        self.token("<|vision_start|>")
        own = kind in ("vlm", "clip")
        count = rows * columns if own else 16
        side = {"dino": 56, "sam": 256}.get(kind, 0)
        shape = (4 * count, 6 * self.patch**2) if own else (3, side, side)
        pixels = torch.randn(shape, generator=self.random)
        grid = (1, 2 * rows, 2 * columns) if own else None
        self.slots.append(Slot(kind, len(self.ids), count, grid, pixels))
        for _ in range(count):
            self.token("<|image_pad|>" if kind == "vlm" else ENCODERS[kind].image_pad)
        self.token("<|vision_end|>")

    def question(self, words: int = 5, rows: int = 4, columns: int = 4) -> None:
        """The first user turn, and the head of the assistant's."""
        start = len(self.ids)
        self.token("<|im_start|>")
        self.words(2)
        self.picture("vlm", rows, columns)
        self.words(words)
        self.token("<|im_end|>")
        self.user = (start, len(self.ids))
        self.head()

    def head(self) -> None:
        self.words(1)
        self.token("<|im_start|>")
        self.words(2)

    def action(self, kind: str) -> None:
        self.token(ENCODERS[kind].start, True, ACTION)
        self.controls.append(Control(kind, len(self.ids), self.control_tokens))
        for _ in range(self.control_tokens):
            self.token(ENCODERS[kind].control)
        self.token(ENCODERS[kind].end, True, ACTION)

    def region(self) -> None:
        self.token("<|region_token_start|>", True, REGION)
        for content, of in (("<|x_1|>", X), ("<|y_2|>", Y), ("<|x_3|>", X), ("<|y_4|>", Y)):
            self.token(content, True, of)
        self.token("<|region_token_end|>", True, REGION)

    def look(self, kind: str, rows: int = 4, columns: int = 4) -> None:
        """End of the assistant's turn, a user turn with a picture, the head of the assistant's next turn."""
        self.token("<|im_end|>", True)
        self.head()
        self.picture(kind, rows, columns)
        self.token("<|im_end|>")
        self.head()

    def answer(self, words: int = 4) -> None:
        self.words(words, loss=True)
        self.token("<|im_end|>", True)

    def done(self, id: str = "") -> Sample:
        columns: list[Tensor] = [torch.tensor(column) for column in (self.ids, self.labels, self.classes)]
        ids, labels, classes = columns
        parts = tuple(self.slots), tuple(self.controls)
        return Sample(id or f"sample-{self.seed}", ids, labels, classes.to(torch.int8), *parts, self.user)


def plain(seed: int, words: int = 5, patch: int = 14) -> Sample:
    writer = Writer(seed, patch)
    writer.words(3)
    writer.question(words)
    writer.answer()
    return writer.done()


def region(seed: int, words: int = 5, patch: int = 14) -> Sample:
    writer = Writer(seed, patch)
    writer.words(3)
    writer.question(words, 2, 4)
    writer.region()
    writer.look("vlm", 3, 2)
    writer.answer()
    return writer.done()


def reencode(seed: int, kind: str, words: int = 5, patch: int = 14, control_tokens: int = 1) -> Sample:
    writer = Writer(seed, patch, control_tokens)
    writer.words(3)
    writer.question(words)
    writer.action(kind)
    writer.look(kind, 2, 3)
    writer.answer()
    return writer.done()


def twice(seed: int, first: str, second: str, control_tokens: int = 1) -> Sample:
    """Two re-encodings, and a crop after them."""
    writer = Writer(seed, control_tokens=control_tokens)
    writer.question(3, 2, 2)
    writer.action(first)
    writer.look(first, 2, 2)
    writer.words(2, loss=True)
    writer.action(second)
    writer.look(second, 3, 2)
    writer.region()
    writer.look("vlm", 2, 3)
    writer.answer()
    return writer.done()


def edges(seed: int, kind: str, control_tokens: int = 1) -> list[Sample]:
    """Control tokens second, control tokens last, and two looks before either picture."""
    first, last, both = (Writer(seed + number, control_tokens=control_tokens) for number in range(3))
    first.action(kind)
    first.picture(kind, 2, 2)
    first.answer()
    last.question()
    last.action(kind)
    for column in (last.ids, last.labels, last.classes):
        column.pop()
    both.question(2, 2, 2)
    both.action(kind)
    both.action(kind)
    both.look(kind, 2, 2)
    both.picture(kind, 2, 2)
    both.answer()
    return [first.done(), last.done(), both.done()]
