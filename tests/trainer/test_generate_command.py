"""`python -m trainer.generate`: what it asks, and what it prints."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from trainer import evaluate, generate
from trainer.generation import answers, opening
from trainer.generation.dialog import Decoding, Ended, Record, Row
from vpt_data.dialogue.prompts import ACTION_PROMPT, REGION_PROMPT


def asked(*arguments: str) -> Result:
    return CliRunner().invoke(generate.main, ["--checkpoint", "run", *arguments])


def test_what_a_model_answers_does_not_steer_the_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    turn = "red\x1b]0;title\x07\nand blue"
    monkeypatch.setattr(opening, "loaded", lambda *_: (None, None))
    record = Record("question", turn, (turn,), (), Counter(), Ended.END_OF_TURN, (), 0)
    monkeypatch.setattr(answers, "answer", lambda *_: [record])
    Image.new("RGB", (9, 9)).save(tmp_path / "image.png")
    given = asked("--image", str(tmp_path / "image.png"), "--question", "What?")
    assert given.stdout == "red\ufffd]0;title\ufffd\nand blue\n"


def test_the_words_of_a_prompted_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A corpus row in the same words is what the model has learned."""
    questions: list[str] = []

    def record(model: Any, encoder: Any, rows: list[Row], how: Decoding) -> list[Record]:
        questions.append(rows[0]["messages"][-1]["content"])
        return [Record("question", "", (), (), Counter(), Ended.END_OF_TURN, (), 0)]

    monkeypatch.setattr(opening, "loaded", lambda *_: (None, None))
    monkeypatch.setattr(answers, "answer", record)
    Image.new("RGB", (9, 9)).save(tmp_path / "image.png")
    about = ["--image", str(tmp_path / "image.png"), "--question", "What?"]
    for more in ([], ["--free"], ["--prompted", "region"], ["--prompted", "sam"]):
        assert asked(*about, *more).exit_code == 0
    plain, free, region, encoder = questions
    assert plain == free == "<image>\nWhat?"
    assert (region, encoder) == (f"{plain} \n{REGION_PROMPT}", f"{plain} \n{ACTION_PROMPT}")
    refused = asked(*about, "--prompted", "regions")
    assert (refused.exit_code, refused.stderr) == (
        2,
        "Error: Unknown kind of look 'regions'; did you mean region?\n",
    )


@pytest.mark.parametrize("command", [generate.main, evaluate.main])
def test_a_number_that_cannot_be_is_refused_by_the_name_of_its_option(command: click.Command) -> None:
    given = ["--checkpoint", "run", "--image", "x", "--question", "x"] if command is generate.main else []
    refused = CliRunner().invoke(command, [*given, "--max-new-tokens", "0"])
    assert refused.exit_code == 2
    assert refused.stderr.endswith("Error: Invalid value for '--max-new-tokens': 0 is not in the range x>=1.\n")
