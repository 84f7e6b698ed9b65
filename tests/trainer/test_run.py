"""A run from the command line: it learns, it says what is wrong, it trains what it should and nothing else."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import load_file

from trainer import checkpoint, config, run, setup
from trainer.loop import read_metrics, schedule


def start(*arguments: str) -> Result:
    found = CliRunner().invoke(run.main, arguments)
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found


def small(corpus: Path, out: Path, *more: str, steps: int = 4) -> list[str]:
    values = [f"optim.steps={steps}", "data.rows=8", "data.tokens=2048", *more]
    sets = [word for value in values for word in ("--set", value)]
    return ["--data", str(corpus), "--out", str(out), *sets]


@pytest.fixture(scope="module")
def finished(embedded_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps with a checkpoint at each of the last two; not to be changed."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert start(*small(embedded_corpus, out, "run.save_every=1")).exit_code == 0
    return out


def test_without_arguments_a_tiny_model_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = start("--set", "optim.steps=20")
    assert found.exit_code == 0, found.output
    assert "Trained: runs/tiny  20 steps, loss " in found.stdout
    losses = [entry["loss"] for entry in read_metrics(tmp_path / "runs/tiny")]
    assert len(losses) == 20
    assert losses[0] > 6
    assert sum(losses[-5:]) / 5 < 4.7
    assert "towers.dino" in found.stderr


def test_a_run_leaves_what_its_page_says(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "config.json", "dino", "loss.png", "metrics.jsonl", "step-0000003", "step-0000004", "tokenizer", "vlm",
    }  # fmt: skip
    entries = read_metrics(finished)
    assert [entry["step"] for entry in entries] == [1, 2, 3, 4]
    assert {"loss", "lr", "grad_norm", "accuracy", "tokens_per_s", "samples_per_s", "data_wait", "memory_gb"} <= set(
        entries[0]
    )
    assert "mfu" not in entries[0], "the peak of a CPU is not known"
    assert {"text", "action", "region", "x", "y"} >= set(entries[0]["accuracy"]) >= {"text"}
    with Image.open(finished / "loss.png") as image:
        assert image.size == (720, 400)


def test_a_model_comes_back_from_the_folder_of_its_run(finished: Path) -> None:
    saved = config.decode(json.loads((finished / "config.json").read_text()), "saved")
    model, tokenizer = setup.load_run(finished, saved)
    kept = load_file(finished / "step-0000004" / "model.safetensors")
    found = model.state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in kept.items())
    assert tokenizer.convert_tokens_to_ids("<|detection_action|>") is not None


def test_a_run_begins_with_the_weights_of_another(finished: Path, embedded_corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert start(*small(embedded_corpus, out, f"model.start={finished}", "optim.lr=0.0", steps=1)).exit_code == 0
    before = load_file(finished / "step-0000004" / "model.safetensors")
    after = load_file(out / "step-0000001" / "model.safetensors")
    assert all(torch.equal(before[name], weight) for name, weight in after.items())


def test_frozen_weights_stay_and_others_do_not(embedded_corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    values = ['train=["*"]', 'freeze=["towers.*", "vlm.model.visual.*"]', "run.save_every=1", "run.keep=9"]
    assert start(*small(embedded_corpus, out, *values, steps=2)).exit_code == 0
    first, last = (load_file(out / f"step-000000{n}" / "model.safetensors") for n in (1, 2))
    same = {name for name in first if torch.equal(first[name], last[name])}
    frozen = {name for name in first if name.startswith(("towers.", "vlm.model.visual."))}
    assert frozen
    assert frozen <= same
    assert {"vlm.model.language_model.embed_tokens.weight", "vlm.model.language_model.layers.0.mlp.up_proj.weight"} & (
        first.keys() - same
    )


def test_lora_trains_its_own_weights_only(embedded_corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    values = ["lora.rank=4", 'train=["*.lora_*"]', "run.save_every=1"]
    assert start(*small(embedded_corpus, out, *values, steps=2)).exit_code == 0
    first, last = (load_file(out / f"step-000000{n}" / "model.safetensors") for n in (1, 2))
    changed = {name for name in first if not torch.equal(first[name], last[name])}
    assert changed
    assert all(".lora_" in name for name in changed)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (["optim.lr=fast"], "Configuration tiny: Expected `float`, got `str` - at `$.optim.lr`; see trainer/config.py"),
        (["optim.rate=1.0"], "Configuration tiny: Object contains unknown field `rate` - at `$.optim`"),
        (["data.rows=0"], "Configuration tiny: data.rows is 0, expected 1 or more."),
        (["optim.lr.x=1"], "--set 'optim.lr.x=1': lr is a value, not a table."),
        (["nothing"], "--set 'nothing': expected key=value, for instance optim.lr=1e-5."),
        (["data.cutoff=9000"], "data.tokens is 2048, expected at least the cutoff of a sample, 9000"),
        (["run.device=cuda"], "run.device is cuda, and torch finds no GPU here; set run.device=cpu."),
        (['train=["nose.*"]'], "train: 'nose.*' matches no weight of the model; the first is vlm."),
        (['freeze=["*"]'], "train and freeze leave nothing to train; let train match a weight that freeze does not."),
        (["model.start=nowhere"], "model.start is nowhere, and nothing is there; give a run or a checkpoint."),
        (["model.base=./no-model"], "./no-model: no such folder here, and not to be had from the Hub ("),
        (["model.encoder=clip"], "shows an image through dino, and the model has vlm, clip"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    values: list[str], sentence: str, embedded_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if "run.device=cuda" in values and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    found = start(*small(embedded_corpus, tmp_path / "run", *values))
    assert found.exit_code == 2
    assert sentence in found.stderr
    assert found.stderr.splitlines()[-1].startswith("Error: ")
    assert found.stderr.count("Error") == 1


def test_an_unknown_configuration_is_named() -> None:
    found = start("--config", "vpt_2b_dyno")
    assert found.exit_code == 2
    assert "Error: Unknown configuration 'vpt_2b_dyno'; did you mean vpt_2b_dino or" in found.stderr


def test_a_run_is_not_overwritten_and_not_continued_as_another(finished: Path, embedded_corpus: Path) -> None:
    again = start(*small(embedded_corpus, finished))
    assert (again.exit_code, again.stderr) == (
        1,
        f"Error: {finished}: holds a run; add --resume to go on with it, or give another folder with --out.\n",
    )
    other = start("--out", str(finished), "--resume", "--set", "optim.lr=1.0")
    assert other.exit_code == 2
    assert f"{finished}: optim.lr was 0.004 and is 1.0 now, so the run cannot go on as it was" in other.stderr


def test_another_corpus_is_refused(finished: Path, reference_corpus: Path, sample_root: Path) -> None:
    found = start("--out", str(finished), "--resume", "--data", str(reference_corpus), "--raw", str(sample_root))
    assert found.exit_code == 2
    assert "go on with the same corpus and settings, or start a new run from its weights" in found.stderr


def test_there_must_be_a_run_to_resume(tmp_path: Path) -> None:
    found = start("--out", str(tmp_path), "--resume")
    assert (found.exit_code, found.stderr) == (
        2,
        f"Error: {tmp_path}: no run to go on with; leave out --resume, or give the --out of the run.\n",
    )


def test_a_checkpoint_is_there_complete_or_not_at_all(
    embedded_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, saves, real = tmp_path / "run", 0, torch.save

    def full(*arguments: Any, **options: Any) -> None:
        nonlocal saves
        saves += 1
        if saves == 3:
            raise OSError(28, "No space left on device")
        real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.torch, "save", full)
        with pytest.raises(OSError, match="No space left"):
            start(*small(embedded_corpus, out, "run.save_every=1"))
    assert sorted(path.name for path in out.glob("step-*")) == ["step-0000001", "step-0000002"]
    assert start("--out", str(out), "--resume").exit_code == 0
    assert [entry["step"] for entry in read_metrics(out)] == [1, 2, 3, 4]
    assert not list(out.glob(".*"))


def test_without_torch_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = run.importlib.util.find_spec
    monkeypatch.setattr(run.importlib.util, "find_spec", lambda name: None if name == "torch" else real(name))
    found = start()
    assert (found.exit_code, found.stderr) == (
        2,
        "Error: The trainer needs torch, which is not installed; pip install 'vpt-data[train]'.\n",
    )


def test_a_broken_torchvision_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    found = start()
    assert found.exit_code == 2
    assert "does not fit torch (operator torchvision::nms does not exist); pip uninstall torchvision" in found.stderr


@pytest.mark.parametrize("path", sorted(config.CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_configuration_is_one(path: Path) -> None:
    found = config.load(path.stem)
    if path.stem != "tiny":
        assert found.optim.lr == (2e-3 if path.stem.startswith("alignment") else 2e-5)
        assert found.data.rows == (128 if path.stem.startswith("alignment") else 256)
        assert (found.optim.warmup, found.data.cutoff, found.model.longest) == (0.03, 2048, 512)
        kind = next((kind for kind in ("dino", "sam", "clip") if kind in path.stem), "dino")
        assert found.model.encoder == kind


def test_the_schedule_rises_and_falls_to_zero() -> None:
    found = [schedule(step, 100, 0.03) for step in range(101)]
    assert found[:3] == [pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0]
    assert found[3] == 1.0
    assert found[3:] == sorted(found[3:], reverse=True)
    assert found[-1] == pytest.approx(0.0)
