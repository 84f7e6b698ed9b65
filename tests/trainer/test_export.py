"""An exported folder is one that plain transformers loads, and the model in it is the trained one."""

from __future__ import annotations

import base64
import io
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import real_folders as real
import torch
from click.testing import CliRunner, Result
from helpers.chat_server import ChatServer, replies
from loaders import rendered, row, write_shards
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

from trainer import config, export
from trainer.evaluation.asking.server import Player
from trainer.evaluation.endpoint import Endpoint, Server
from trainer.generation import opening
from trainer.generation.answers import answer
from trainer.generation.dialog import Decoding, question
from trainer.training import setup
from vpt_data.dialogue.prompts import REGION_PROMPT
from vpt_data.errors import CorpusError

torch.set_num_threads(1)
REGION = r"<\|region_token_start\|><\|x_(\d)\|><\|y_(\d)\|><\|x_(\d)\|><\|y_(\d)\|><\|region_token_end\|>"
QUESTION = f"What is the colour? \n{REGION_PROMPT}"
CELLS = ((1, 2, 4, 5), (0, 3, 6, 7))
#: Of the two rows that the models here know by heart.
ANSWERS = ("red sign", "left")


def picture(number: int) -> Image.Image:
    noise = np.random.default_rng(number).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((120, 90), Image.Resampling.BICUBIC)


def region_corpus(folder: Path) -> Path:
    """Two rows that look at a region of their image."""
    rows = []
    for number, (cells, said) in enumerate(zip(CELLS, ANSWERS, strict=True)):
        col0, row0, col1, row1 = cells
        region = f"<|region_token_start|><|x_{col0}|><|y_{row0}|><|x_{col1}|><|y_{row1}|><|region_token_end|>"
        box = [col0 * 120 // 8, row0 * 90 // 8, (col1 + 1) * 120 // 8, (row1 + 1) * 90 // 8]
        views = [{"turn": 0}, {"turn": 2, "box": box, "cells": list(cells)}]
        made = row(f"mine/{number}", f"<image>\n{QUESTION}", region, "<image>", said, views=views)
        data = io.BytesIO()
        picture(number).save(data, "PNG")
        made["images"] = [{"bytes": data.getvalue(), "path": "0.png"}]
        made["image_info"] = [{**made["image_info"][0], "width": 120, "height": 90}]
        rows.append(made)
    return write_shards(folder, rows, files=1)


def exported(run: Path, out: Path, *options: str) -> Result:
    return CliRunner().invoke(export.main, ["--checkpoint", str(run), "--out", str(out), *options])


class Stock:
    """The exported folder with the classes of transformers and nothing of ours."""

    def __init__(self, folder: Path) -> None:
        auto: Any = AutoModelForImageTextToText
        self.model = auto.from_pretrained(folder)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.processor: Any = AutoImageProcessor.from_pretrained(folder, backend="pil")

    def inputs(self, messages: list[dict[str, Any]], images: list[Image.Image], ask: bool) -> dict[str, Any]:
        seen = self.processor(images=images, return_tensors="pt")
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask)
        counts = iter((seen["image_grid_thw"].prod(-1) // self.processor.merge_size**2).tolist())
        text = re.sub(r"<\|image_pad\|>", lambda found: found[0] * next(counts), text)
        words = self.tokenizer(text, return_tensors="pt")
        kinds = (words["input_ids"] == self.model.config.image_token_id).long()
        return {**words, **seen, "mm_token_type_ids": kinds}

    def answer(self, image: Image.Image, question: str) -> list[str]:
        """The turns of the model; a turn that is a region is answered with the crop."""
        messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": f"\n{question}"}]}]
        images, turns = [image], []
        for _ in range(2):
            given = self.inputs(messages, images, ask=True)
            new = self.model.generate(**given, max_new_tokens=24)[0, given["input_ids"].shape[1] :]
            turns.append(self.tokenizer.decode(new, skip_special_tokens=True))
            found = re.fullmatch(
                r"<\|region_token_start\|><\|x_(\d)\|><\|y_(\d)\|><\|x_(\d)\|><\|y_(\d)\|>.*", turns[-1]
            )
            if found is None:
                break
            (a, b, c, d), (W, H) = map(int, found.groups()), image.size
            images.append(image.crop((a * W // 8, b * H // 8, (c + 1) * W // 8, (d + 1) * H // 8)))
            messages += [
                {"role": "assistant", "content": turns[-1]},
                {"role": "user", "content": [{"type": "image"}]},
            ]
        return turns


@pytest.fixture(scope="module", params=real.PROCESSORS)
def trained(request: pytest.FixtureRequest, bases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each family that knows two rows by heart."""
    root = tmp_path_factory.mktemp("trained")
    base = f"model.base={bases / request.param}"
    corpus = region_corpus(root / "corpus")
    more = ("optim.steps=40", "optim.lr=5e-3", "data.rows=2", "optim.epochs=50", "run.save_every=1000")
    real.started(bases, corpus, root / "run", base, *more, name="region_2b")
    return root / "run"


def test_plain_transformers_gives_the_same_answers(trained: Path, tmp_path: Path) -> None:
    found = exported(trained, tmp_path / "out", "--dtype", "float32")
    assert (found.exit_code, found.stdout) == (0, f"Exported: {tmp_path / 'out'}\n"), found.output
    model, encoder = opening.loaded(trained)
    stock = Stock(tmp_path / "out")
    ours = answer(model, encoder, [question(picture(number), QUESTION) for number in range(2)])
    for number, record in enumerate(ours):
        assert list(record.turns) == stock.answer(picture(number), QUESTION)
        assert record.looks and record.text == ANSWERS[number], "the model knows them by heart"


class Chat:
    """The same folder behind a server: what it says to a request."""

    def __init__(self, folder: Path) -> None:
        self.stock = Stock(folder)

    def __call__(self, request: dict[str, Any]) -> str:
        images, messages = list[Image.Image](), []
        for turn in request["messages"]:
            content = turn["content"]
            if not isinstance(content, str):
                sent = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
                images += [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in sent]
                content = [{"type": "image"} if part["type"] == "image_url" else part for part in content]
            messages.append({**turn, "content": content})
        given = self.stock.inputs(messages, images, ask=True)
        new = self.stock.model.generate(**given, max_new_tokens=request["max_tokens"])
        said: str = self.stock.tokenizer.decode(new[0, given["input_ids"].shape[1] :], skip_special_tokens=True)
        return said


def test_a_server_with_the_exported_model_gives_the_same_answers(trained: Path, tmp_path: Path) -> None:
    """The dialogue over a server is that of our own generation, with the crop as its next turn."""
    exported(trained, tmp_path / "out", "--dtype", "float32")
    model, encoder = opening.loaded(trained)
    rows = [question(picture(number), QUESTION, id=f"a/{number}") for number in range(2)]
    with ChatServer(always=replies(Chat(tmp_path / "out"))) as server:
        where = Server("The model", "it", url=server.url, key="any")
        with closing(Endpoint("stock", where, 24)) as endpoint:
            player = Player(endpoint, Decoding(max_new_tokens=24), {row["id"]: 8 for row in rows})
            played = [player.play(row) for row in rows]
    ours = list(answer(model, encoder, rows))
    assert [one.turns for one in played] == [record.turns for record in ours]
    assert [one.final for one in played] == list(ANSWERS)


def test_plain_transformers_gives_the_same_logits(trained: Path, tmp_path: Path) -> None:
    exported(trained, tmp_path / "out", "--dtype", "float32")
    model, encoder = opening.loaded(trained)
    stock = Stock(tmp_path / "out")
    images, number = [picture(0), picture(0).crop((15, 22, 75, 67))], CELLS[0]
    region = f"<|region_token_start|><|x_{number[0]}|><|y_{number[1]}|><|x_{number[2]}|><|y_{number[3]}|>"
    turns = [f"<image>\n{QUESTION}", region + "<|region_token_end|>", "<image>", "It is red"]
    fields = row("a/0", *turns, views=[{"turn": 0}, {"turn": 2, "box": [15, 22, 75, 67]}])
    fields["image_info"][0] |= {"width": 120, "height": 90}
    sample = encoder.encode(fields)
    ours = model.logits(
        [sample.with_pixels([encoder.vision.pixels("vlm", encoder.vision.picture("vlm", i)) for i in images])]
    )[0]
    parts = [turn.split("<image>") for turn in turns]
    messages = [
        {"role": role, "content": [*[{"type": "image"}] * (len(part) - 1), {"type": "text", "text": part[-1]}]}
        for role, part in zip(["user", "assistant"] * 2, parts, strict=True)
    ]
    given = stock.inputs(messages, images, ask=False)
    assert given["input_ids"][0, :-1].tolist() == sample.input_ids.tolist(), "a line break ends the template"
    theirs = stock.model(**given).logits[0, :-1]
    assert (ours - theirs).abs().max() < 2e-5 and ours.abs().max() > 1


def test_the_chat_template_is_the_text_of_training(trained: Path, tmp_path: Path) -> None:
    exported(trained, tmp_path / "out")
    words: Any = AutoTokenizer.from_pretrained(tmp_path / "out")
    for system in (None, "You are a parrot."):
        found = row("a/0", "Who?\n<|x_1|>", "You", "And", "I {{ 7 }}", system=system)
        text = words.apply_chat_template(found["messages"], tokenize=False)
        assert text == rendered(found, []) + "\n"
        asked = words.apply_chat_template(found["messages"][:-1], tokenize=False, add_generation_prompt=True)
        assert asked == text[: -len("I {{ 7 }}<|im_end|>\n")]


def test_the_folder_is_where_a_run_begins(trained: Path, bases: Path, tmp_path: Path) -> None:
    """For looks at regions it is the whole model; one that looks through an encoder lacks its projector."""
    exported(trained, tmp_path / "out", "--dtype", "float32")
    mine = setup.open_run(trained)
    values = [f"model.base={mine.config.model.base}", f"model.start={tmp_path / 'out'}", f"model.dino={bases / 'dino'}"]
    begun = setup.make_model(config.load("region_2b", values), mine.tokenizer).state_dict()
    assert all(torch.equal(weight, begun[name]) for name, weight in mine.model.state_dict().items())
    with pytest.raises(CorpusError, match=r"do not fit the model: missing projectors\.dino") as caught:
        setup.make_model(config.load("vpt_2b_dino", values), mine.tokenizer)
    assert "check that encoder, model size and control tokens are those of the checkpoint" in str(caught.value)
