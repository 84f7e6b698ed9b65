"""The loss on rows that are not trained on: it disturbs nothing, and is the same on any number of ranks."""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from helpers import end_to_end
from loaders import row_encoder, talks, write_shards
from safetensors.torch import load_file
from test_run_resume import begin

from trainer.data.corpus import open_corpus
from trainer.data.loader import Loader, Settings
from trainer.run import main
from trainer.training.run_folder import read_log, read_metrics, validations

ROWS = 20


@pytest.fixture(scope="module")
def corpus(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample with a tenth of its images held out."""
    place = tmp_path_factory.mktemp("held") / "corpus"
    return end_to_end.build("sample", sample_root, place, "holdout=0.1", mode="embed")


def line(corpus: Path, out: Path, *more: str) -> list[str]:
    values = ["optim.steps=4", "data.rows=8", "data.tokens=1024", *more]
    sets = [word for value in values for word in ("--set", value)]
    return ["--data", str(corpus), "--out", str(out), *sets]


def held(*more: str) -> list[str]:
    return ["data.validation=holdout", f"data.validation_rows={ROWS}", "run.validate_every=2", *more]


def start(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.fixture(scope="module")
def validated(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a validation at steps 2 and 4; not to be changed."""
    out = tmp_path_factory.mktemp("validated") / "run"
    found = start(*line(corpus, out, *held("model.mask=0.5")))
    assert found.exit_code == 0, found.output
    losses = [entry["loss"] for entry in read_metrics(out)]
    expected = f"loss {sum(losses) / 4:.3f} (mean of the last ten), {validations(out)[4]:.3f} on the split holdout"
    assert expected in found.stdout
    return out


def without_time(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "seconds"}


def test_the_log_has_validations_among_its_steps(validated: Path) -> None:
    log = read_log(validated)
    assert [entry["step"] for entry in log] == [1, 2, 2, 3, 4, 4]
    assert [entry["step"] for entry in read_metrics(validated)] == [1, 2, 3, 4]
    first, last = (entry["validation"] for entry in log if "validation" in entry)
    assert last["samples"] + len(last["skipped"]) == ROWS
    assert 0 < last["loss"] < first["loss"] < math.log(2000)
    assert {"text", "region"} <= last["accuracy"].keys()
    assert (first["labels"], first["tokens"]) == (last["labels"], last["tokens"])


def test_training_is_the_same_to_the_bit_without(validated: Path, corpus: Path, tmp_path: Path) -> None:
    assert start(*line(corpus, tmp_path / "run", "model.mask=0.5")).exit_code == 0
    curves = [[(one["loss"], one["grad_norm"]) for one in read_metrics(out)] for out in (validated, tmp_path / "run")]
    assert curves[0] == curves[1]


def test_two_ranks_find_what_one_finds(corpus: Path, tmp_path: Path) -> None:
    """At a rate of zero, where both have the same weights to the bit; FSDP needs calls in step."""
    still = held("optim.lr=0.0", "optim.steps=2", "run.validate_every=1", "run.parallel=fsdp2")
    assert start(*line(corpus, tmp_path / "one", *still)).exit_code == 0
    ranks = begin([sys.executable, "-m", "trainer.run", *line(corpus, tmp_path / "two", *still)], world=2)
    errors = [rank.communicate(timeout=120)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], errors
    one, two = (
        [without_time(entry["validation"]) for entry in read_log(tmp_path / place) if "validation" in entry]
        for place in ("one", "two")
    )
    assert one == two
    assert one[0] == one[1]
    assert one[0]["samples"] + len(one[0]["skipped"]) == ROWS
    kept, divided = (load_file(tmp_path / place / "step-0000002" / "model.safetensors") for place in ("one", "two"))
    assert kept.keys() == divided.keys()
    assert all(torch.equal(weight, divided[name]) for name, weight in kept.items()), "the first rank writes all of it"


def test_a_validation_after_a_resume_is_another_line(validated: Path, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert start(*line(corpus, out, *held("model.mask=0.5", "run.save_every=3", "run.keep=2"))).exit_code == 0
    shutil.rmtree(out / "step-0000004")
    assert start("--out", str(out), "--resume", "--set", "data.workers=2").exit_code == 0
    assert [without_time(one.get("validation", {})) for one in read_log(out)] == [
        without_time(one.get("validation", {})) for one in read_log(validated)
    ]


def test_micro_batches_of_a_validation_are_alike_on_any_number_of_ranks(tmp_path: Path) -> None:
    corpus = open_corpus(str(write_shards(tmp_path, talks(30), files=2)))

    def found(world: int) -> list[list[str]]:
        loaders = [
            Loader(corpus, row_encoder(), Settings(rows=30, tokens=512, alike=True), rank=rank, world=world)
            for rank in range(world)
        ]
        micros = [[[sample.id for sample in micro.samples] for micro in loader] for loader in loaders]
        assert len({len(one) for one in micros}) == 1, "ranks that wait for each other make as many calls"
        return [ids for together in zip(*micros, strict=True) for ids in together if ids]

    assert len(found(1)) > 4
    assert found(1) == found(2) == found(3) == found(7)


def test_the_split_that_is_trained_on_is_no_validation(corpus: Path, tmp_path: Path) -> None:
    found = start(*line(corpus, tmp_path / "run", "data.validation=train"))
    sentence = (
        "data.validation is train, the split that is trained on; name another one, such as the split holdout of a"
    )
    assert found.exit_code == 2
    assert sentence in found.stderr
    lost = start(*line(corpus, tmp_path / "run", "data.validation=test"))
    assert lost.exit_code == 1
    assert "no split test; choose one of holdout, train." in lost.stderr
