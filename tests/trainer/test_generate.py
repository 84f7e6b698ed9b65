"""A model that has learned a few rows by heart looks where they look and answers what they answer."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from click.testing import CliRunner, Result
from helpers import end_to_end
from PIL import Image
from torch import Tensor

from trainer import config
from trainer import generate as module
from trainer.data.encode import RowEncoder
from trainer.data.sample import Sample, block
from trainer.generation import rounds
from trainer.generation.answers import answer
from trainer.generation.dialog import Decoding, Ended, Record, Row, Shown, before_answer, question
from trainer.generation.opening import loaded
from trainer.generation.session import Session
from trainer.model.tiny import tiny_model, tiny_tokenizer, tiny_vision
from trainer.model.vpt import VPTModel
from trainer.training import checkpoint, setup
from vpt_data.dialogue.prompts import ACTION_PROMPT, REGION_PROMPT
from vpt_data.images import views

torch.set_num_threads(1)

CALL = ["<|detection_action_start|>", "<|detection_action|>", "<|detection_action_end|>"]


@dataclass
class Learned:
    """A model, and the rows that it knows by heart."""

    model: VPTModel
    tokenizer: Any
    encoder: RowEncoder
    rows: list[dict[str, Any]]

    @property
    def prompts(self) -> list[Row]:
        return [before_answer(row) for row in self.rows]

    def generate(self, rows: Sequence[Row], how: Decoding | None = None, **options: Any) -> list[Record]:
        return list(answer(self.model, self.encoder, rows, how, **options))

    def ids(self, text: str) -> list[int]:
        return list(self.encoder.tokenizer.encode(text, add_special_tokens=False).ids)


def image_of(row: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(row["images"][0]["bytes"]))


def sample(encoder: RowEncoder, row: dict[str, Any]) -> Sample:
    whole = encoder.encode(row)
    shown = zip(whole.slots, views.shown(row), strict=True)
    return whole.with_pixels([encoder.vision.pixels(k.kind, encoder.vision.picture(k.kind, seen)) for k, seen in shown])


def freely(row: dict[str, Any]) -> dict[str, Any]:
    """The row without the words that tell where to look."""
    asked = row["messages"][0]["content"]
    for words in (REGION_PROMPT, ACTION_PROMPT):
        asked = asked.removesuffix(f" \n{words}").removesuffix(f"\n{words}")
    return {**row, "messages": [{**row["messages"][0], "content": asked}, *row["messages"][1:]]}


def chosen(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of each kind with short answers, one of them with several regions; their questions differ."""
    found: dict[str, dict[str, Any]] = {}
    count = {"several": 1, "region": 4, "dino": 4, "plain": 3}
    for row in map(freely, rows):
        kind = "several" if len(row["looks"]) == 3 else row["looks"][0] if len(row["looks"]) == 1 else "plain"
        kind = "" if row["template"] not in ("region", "reencode", "plain") or len(row["looks"]) == 2 else kind
        asked = row["messages"][0]["content"]
        short = sum(len(message["content"]) for message in row["messages"]) < 420
        if count.get(kind, 0) and short and asked not in found and (kind != "plain" or len(row["messages"]) == 2):
            count[kind] -= 1
            found[asked] = row
    assert not any(count.values())
    return list(found.values())


@pytest.fixture(scope="module")
def learned(embedded_corpus: Path) -> Learned:
    rows = chosen(end_to_end.rows(embedded_corpus))
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer([message["content"] for row in rows for message in row["messages"]], "dino")
    model = tiny_model(tokenizer, ["dino"])
    encoder = RowEncoder(tokenizer.backend_tokenizer, tiny_vision())
    samples = [sample(encoder, row) for row in rows]
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    loss, steps = 1.0, 0
    while loss > 0.015:
        steps += 1
        assert steps < 500, f"the loss is still {loss}"
        optimizer.zero_grad()
        out = model(samples)
        (out.loss / out.labels).backward()
        optimizer.step()
        loss = float(out.loss.detach() / out.labels)
    return Learned(model, tokenizer, encoder, rows)


def expected(row: dict[str, Any]) -> tuple[tuple[str, ...], tuple[Shown, ...]]:
    """The turns of a row's assistant, and what it was shown."""
    turns = tuple(message["content"] for message in row["messages"] if message["role"] == "assistant")
    looks = [
        Shown("region", tuple(view["cells"]), tuple(view["box"])) if view["cells"] else Shown(view["encoder"])
        for view in row["views"][1:]
    ]
    return turns, tuple(looks)


def test_free_choice_gives_action_box_and_answer(learned: Learned) -> None:
    answers = learned.generate(learned.prompts)
    for row, found in zip(learned.rows, answers, strict=True):
        assert (found.turns, found.looks) == expected(row)
        assert (found.text, found.invalid, found.ended) == (found.turns[-1], {}, Ended.END_OF_TURN)
        assert list(found.tokens) == [token for turn in found.turns for token in learned.ids(turn)]
    assert {look.kind for found in answers for look in found.looks} == {"region", "dino"}
    assert {len(found.looks) for found in answers} >= {0, 1, 3}


class Recorded(Session):
    """Keeps what each row was given and which logits came of it."""

    last_made: Recorded

    def __init__(self, model: VPTModel, prompts: Sequence[Sample], *more: Any) -> None:
        Recorded.last_made = self
        self.rows = list(range(len(prompts)))
        self.given: list[list[Sample]] = [[] for _ in prompts]
        self.seen: list[list[tuple[int, Tensor]]] = [[] for _ in prompts]
        super().__init__(model, prompts, *more)

    def extend(self, blocks: Sequence[Sample | None]) -> None:
        for row, one in zip(self.rows, blocks, strict=True):
            self.given[row] += [one] if one is not None else []
        super().extend(blocks)

    def keep(self, rows: Sequence[int]) -> None:
        self.rows = [self.rows[row] for row in rows]
        super().keep(rows)

    def logits(self) -> Tensor:
        found = super().logits()
        for row, logits in zip(self.rows, found.clone(), strict=True):
            self.seen[row].append((sum(len(one.input_ids) for one in self.given[row]) - 1, logits))
        return found


def joined(parts: Sequence[Sample]) -> Sample:
    slots, controls, done = [], [], 0
    for part in parts:
        slots += [replace(slot, start=slot.start + done) for slot in part.slots]
        controls += [replace(control, at=control.at + done) for control in part.controls]
        done += len(part.input_ids)
    return block(torch.cat([part.input_ids for part in parts]), slots, controls)


@pytest.mark.parametrize(
    "decoding",
    [
        Decoding(),
        Decoding(force="dino"),
        Decoding(temperature=2.5, on_invalid="continue", max_new_tokens=40, max_actions=4),
        Decoding(force="region", expand=1, max_actions=3),
    ],
)
def test_it_is_the_full_forward_over_what_was_said(
    learned: Learned, monkeypatch: pytest.MonkeyPatch, decoding: Decoding
) -> None:
    monkeypatch.setattr(rounds, "Session", Recorded)
    learned.generate(learned.prompts, decoding)
    verify_full_forward(learned.model, Recorded.last_made)


def verify_full_forward(model: VPTModel, made: Recorded) -> None:
    with torch.no_grad():
        whole = model.eval().logits([joined(parts) for parts in made.given])
    for logits, seen in zip(whole, made.seen, strict=True):
        assert len(seen) > 1
        found, wanted = torch.stack([one for _, one in seen]), logits[[at for at, _ in seen]]
        assert (found - wanted).abs().max() < 1e-4
        assert torch.equal(found.argmax(-1), wanted.argmax(-1))


def test_a_model_with_several_control_tokens(learned: Learned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "Session", Recorded)
    model = tiny_model(learned.tokenizer, ["dino"], control_tokens=3)
    how = Decoding(force="dino", max_new_tokens=20)
    answers = list(answer(model, learned.encoder, learned.prompts[:3], how))
    made = Recorded.last_made
    verify_full_forward(model, made)
    calls = [joined(parts).controls for parts in made.given]
    assert all(call.count == 3 for called in calls for call in called) and all(calls)
    start, control, end = CALL
    assert all(found.turns[0].startswith(f"{start}{3 * control}{end}") for found in answers)


def test_what_was_said_is_a_row_of_training(learned: Learned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "Session", Recorded)
    learned.generate(learned.prompts)
    given = {parts[0].id: parts for parts in Recorded.last_made.given}
    for row in learned.rows:
        made, wanted = joined(given[row["id"]]), sample(learned.encoder, row)
        # The end of the last turn is not fed.
        assert made.input_ids.tolist() == wanted.input_ids.tolist()[:-1]
        assert made.controls == wanted.controls
        assert [replace(a, pixels=b.pixels) for a, b in zip(made.slots, wanted.slots, strict=True)] == list(
            wanted.slots
        )
        assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(made.slots, wanted.slots, strict=True))


def test_a_batch_gives_what_each_prompt_gives_alone(learned: Learned) -> None:
    how = Decoding(force="region", expand=1)
    together = learned.generate(learned.prompts, how)
    alone = [learned.generate([prompt], how)[0] for prompt in learned.prompts]
    assert together == alone == learned.generate(learned.prompts, how, batch=3, workers=1)
    assert [one.logprob for one in together] == pytest.approx([one.logprob for one in alone], abs=1e-4)
    assert learned.generate(learned.prompts[::-1], how) == together[::-1]
    assert learned.generate([]) == []


def test_a_forced_action_comes_first(learned: Learned) -> None:
    for found in learned.generate(learned.prompts, Decoding(force="dino")):
        assert found.turns[0].startswith("".join(CALL))
        assert found.looks[0] == Shown("dino")
        assert list(found.tokens[:3]) == learned.ids("".join(CALL))
    forced = learned.generate(learned.prompts, Decoding(force="region"))
    for row, found in zip(learned.rows, forced, strict=True):
        assert found.turns[0].startswith("<|region_token_start|>")
        if row["looks"] and row["looks"][0] == "region":
            assert (found.turns, found.looks) == expected(row)


def test_without_actions_it_answers_at_once(learned: Learned) -> None:
    for row, found in zip(
        learned.rows,
        learned.generate(learned.prompts, Decoding(max_actions=0, max_new_tokens=30)),
        strict=True,
    ):
        assert (found.looks, len(found.turns)) == ((), 1)
        assert "_start|>" not in found.text
        assert bool(found.invalid["over_the_cap"]) == bool(row["looks"])


def test_the_probability_of_an_answer_is_that_of_its_tokens_and_end(
    learned: Learned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "Session", Recorded)
    for prompt in learned.prompts:
        [found] = learned.generate([prompt])
        said = torch.tensor([*learned.ids(found.text), learned.encoder.token_id("<|im_end|>")])
        logits = torch.stack([one for _, one in Recorded.last_made.seen[0][-len(said) :]])
        score = float(logits.log_softmax(-1).gather(1, said[:, None]).sum())
        assert found.logprob == pytest.approx(score, abs=1e-3)
        given = sum(len(one.input_ids) for one in Recorded.last_made.given[0])
        assert found.prompt_tokens + len(found.tokens) == given


def test_a_seed_gives_the_same_again(learned: Learned) -> None:
    how = Decoding(temperature=2.0, max_new_tokens=12, seed=3)
    first = learned.generate(learned.prompts, how)
    assert first == learned.generate(learned.prompts, how)
    assert first != learned.generate(learned.prompts, replace(how, seed=4))


def test_the_model_goes_on_as_it_was(learned: Learned) -> None:
    learned.model.train()
    learned.generate(learned.prompts[:1], Decoding(max_new_tokens=1))
    assert learned.model.training


def test_earlier_turns_are_part_of_the_prompt(learned: Learned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "Session", Recorded)
    image = Image.new("RGB", (80, 60))
    prompt = question(image, "And now?", [("What?", "A dog.")])
    learned.generate([prompt], Decoding(max_new_tokens=1))
    text = learned.encoder.tokenizer.decode(joined(Recorded.last_made.given[0]).input_ids.tolist(), False)
    pads = "<|image_pad|>" * tiny_vision().tokens("vlm", image.size)[0]
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n<|vision_start|>{pads}<|vision_end|>\nWhat?<|im_end|>\n"
        "<|im_start|>assistant\nA dog.<|im_end|>\n<|im_start|>user\nAnd now?<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.fixture(scope="module")
def run(learned: Learned, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that ended with the learned model."""
    folder = tmp_path_factory.mktemp("run")
    setup.save_shapes(learned.model, learned.tokenizer, folder)
    (folder / "config.json").write_text(json.dumps(msgspec.to_builtins(config.load("tiny"))))
    optimizer = torch.optim.AdamW(learned.model.parameters())
    with checkpoint.Writer(folder) as writer:
        writer.save(learned.model, optimizer, {"step": 1})
    return folder


def asked(run: Path, *arguments: str) -> Result:
    return CliRunner().invoke(module.main, ["--checkpoint", str(run), *arguments])


@pytest.mark.parametrize("part", ["", "step-0000001"])
def test_the_command_asks_a_run(learned: Learned, run: Path, tmp_path: Path, part: str) -> None:
    row = next(row for row in learned.rows if row["looks"] == ["region"])
    image = tmp_path / "image.png"
    image_of(row).save(image)
    about = ["--image", str(image), "--question", row["messages"][0]["content"]]
    made = asked(run / part, *about, "--json", "--save", str(tmp_path / "drawn.png"))
    assert (made.exit_code, made.stderr) == (0, "")
    turns, (look,) = expected(row)
    told = json.loads(made.stdout)
    assert (told["text"], told["turns"], told["invalid"]) == (turns[-1], list(turns), {})
    assert told["looks"] == [{"kind": "region", "cells": list(look.cells or ()), "box": list(look.box or ())}]
    with Image.open(tmp_path / "drawn.png") as seen:
        assert seen.getpixel((look.box or (0, 0, 0, 0))[:2]) == (255, 0, 64)
    plain = asked(run, *about)
    assert plain.stdout.splitlines() == list(turns)
    assert plain.stderr == f"looked at: region {list(look.box or ())}\n"
    path = tmp_path / "again.png"
    assert asked(run, *about, "--save", str(path)).stderr == f"{plain.stderr}written: {path} (1 region drawn)\n"
    assert path.is_file()
    lost = asked(run, *about, "--save", str(tmp_path / "drawn.nothing"))
    assert (lost.exit_code, lost.stdout) == (1, "")
    assert "drawn.nothing: the image cannot be written (unknown file extension: .nothing); give a .png" in lost.stderr
    capped = asked(run, *about, "--max-actions", "0", "--max-new-tokens", "5")
    assert "over_the_cap: 1\n" in capped.stderr
    several = next(row for row in learned.rows if len(row["looks"]) == 3)
    image_of(several).save(image)
    about = ["--image", str(image), "--question", several["messages"][0]["content"]]
    assert asked(run, *about, "--save", str(path)).stderr.endswith(f"written: {path} (3 regions drawn)\n")
    assert asked(run, *about, "--save", str(path), "--force", "dino", "--max-actions", "1").stderr.splitlines()[-1] == (
        f"written: {path} (no regions drawn)"
    )


def test_weights_in_half_precision(learned: Learned, run: Path, tmp_path: Path) -> None:
    exact, rounded = (loaded(run, "cpu", dtype)[0] for dtype in ("float32", "bfloat16"))
    assert {weight.dtype for weight in rounded.parameters()} == {torch.bfloat16}
    tables = {name: table for name, table in rounded.named_buffers() if name.endswith("inv_freq")}
    assert tables
    assert all(torch.equal(table, exact.get_buffer(name)) for name, table in tables.items())
    row = next(row for row in learned.rows if row["looks"] == ["dino"])
    image_of(row).save(tmp_path / "image.png")
    question = row["messages"][0]["content"]
    made = asked(run, "--image", str(tmp_path / "image.png"), "--question", question, "--dtype", "bfloat16")
    assert (made.exit_code, made.stderr) == (0, "looked at: dino\n")
    assert made.stdout.splitlines()[0] == "".join(CALL)


def test_the_command_says_what_is_wrong(run: Path, tmp_path: Path) -> None:
    (tmp_path / "no.png").write_bytes(b"no image")
    missing = asked(run, "--image", str(tmp_path / "none.png"), "--question", "What?")
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert "none.png: not an image that can be read ([Errno 2]" in missing.stderr
    broken = asked(run, "--image", str(tmp_path / "no.png"), "--question", "What?")
    assert (broken.exit_code, broken.stdout) == (1, "")
    assert "no.png: not an image that can be read (" in broken.stderr
    nowhere = asked(tmp_path, "--image", str(tmp_path / "no.png"), "--question", "What?")
    assert nowhere.exit_code == 2
    assert nowhere.stderr == f"Error: {tmp_path}: no checkpoint (step-...) in this folder; give the --out of a run.\n"


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there(run: Path, tmp_path: Path, device: str) -> None:
    refused = asked(run, "--image", str(tmp_path / "image.png"), "--question", "What?", "--device", device)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr.startswith(f"Error: --device {device}: torch cannot use it here (")
    assert refused.stderr.endswith("); leave it out for the CPU.\n") and refused.stderr.count("\n") == 1


def test_a_question_that_cannot_be_asked(run: Path, tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "image.png")
    refused = asked(run, "--image", str(tmp_path / "image.png"), "--question", "What is <|x_1|>?")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr == (
        "Error: The question cannot be asked: a text holds the token <|x_1|>; use other words, or raise the cutoff.\n"
    )
