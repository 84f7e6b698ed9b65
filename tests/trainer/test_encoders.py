"""An extra encoder is one file and one line of the table: a toy one, added from outside, is trained with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loaders import TEXTS, row
from PIL import Image
from torch import Tensor

from trainer import config
from trainer.data.encode import RowEncoder
from trainer.encoders import KINDS
from trainer.encoders.kind import Input, Kind, Tower
from trainer.encoders.projector import Projector
from trainer.model.tiny import TINY_TOWERS, tiny_model, tiny_tokenizer, tiny_vision
from trainer.training.flops import FlopCounter
from vpt_data.dialogue.tokens import reencode
from vpt_data.dialogue.tokens.reencode import ENCODERS, Encoder
from vpt_data.errors import UsageError

SIDE, PATCH = 28, 14


class ThermalTower(Tower):
    @staticmethod
    def classes() -> tuple[Any, Any]:
        from transformers import Dinov2Config, Dinov2Model

        return Dinov2Model, Dinov2Config

    def features(self, states: Tensor) -> Tensor:
        return states[:, 1:]


THERMAL = Kind(
    Projector,
    patches=1,
    tower=ThermalTower,
    input=Input(
        tokens=lambda _: (SIDE // PATCH) ** 2,
        picture=lambda _, image: image.resize((SIDE, SIDE)),
        pixels=lambda _, scaled: scaled,
    ),
)


@pytest.fixture
def thermal(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(ENCODERS, "thermal", Encoder("thermal", "heat", "<heat_image>", "heat_images"))
    monkeypatch.setitem(KINDS, "thermal", THERMAL)
    monkeypatch.setitem(TINY_TOWERS, "thermal", {**TINY_TOWERS["dino"], "image_size": SIDE})
    return "thermal"


def test_every_encoder_of_the_corpora_can_be_trained_with() -> None:
    assert list(KINDS) == list(ENCODERS)


def test_a_configuration_names_an_encoder_of_the_table(thermal: str) -> None:
    assert config.load("tiny", [f"model.encoder={thermal}"]).model.encoder == thermal
    with pytest.raises(UsageError, match=r"Unknown value of model.encoder 'dnio'; did you mean dino or none\?"):
        config.load("tiny", ["model.encoder=dnio"])


def test_a_row_is_encoded_and_learned_from(thermal: str) -> None:
    tokenizer = tiny_tokenizer(TEXTS, thermal)
    vision = tiny_vision()
    views = [{"turn": 0}, {"turn": 2, "encoder": thermal}]
    dialogue = row("a/1", "<image>\nWhat?", reencode.action_turn(thermal), "<heat_image>", "A dog.", views=views)
    whole = RowEncoder(tokenizer.backend_tokenizer, vision).encode(dialogue)
    assert [(slot.kind, slot.length) for slot in whole.slots][1:] == [(thermal, 4)]
    image = Image.new("RGB", (80, 60), "red")
    pixels = [vision.pixels(slot.kind, vision.picture(slot.kind, image)) for slot in whole.slots]
    assert pixels[1].shape == (3, SIDE, SIDE)
    model = tiny_model(tokenizer, [thermal]).train()
    sample = whole.with_pixels(pixels)
    model([sample]).loss.backward()
    learned = [weight.grad for weight in model.projectors[thermal].parameters()]
    assert all(grad is not None and torch.isfinite(grad).all() for grad in learned)
    assert FlopCounter(model)([sample]) > 0
