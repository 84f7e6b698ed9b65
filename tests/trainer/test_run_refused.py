"""What is wrong with a run from the command line is one sentence, and loses nothing."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from loaders import row_encoder
from runs import small, start
from safetensors.torch import load_file

from trainer import config
from trainer.data.corpus import open_corpus
from trainer.training import checkpoint, run_folder, setup
from trainer.training.loop import schedule
from trainer.training.parallel import Ranks
from trainer.training.run_folder import read_metrics
from vpt_data.errors import OutputError, UsageError


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (["optim.lr=fast"], "Configuration tiny: Expected `float`, got `str` - at `$.optim.lr`; see trainer/config.py"),
        (["optim.lr=nan"], "Configuration tiny: Expected `float` >= 0.0 - at `$.optim.lr`; see trainer/config.py"),
        (["optim.beta2=1.0"], "Configuration tiny: Expected `float` < 1.0 - at `$.optim.beta2`; see trainer/config.py"),
        (["model.mask=50"], "Configuration tiny: Expected `float` <= 1.0 - at `$.model.mask`; see trainer/config.py"),
        (["data.workers=-1"], "Configuration tiny: Expected `int` >= 0 - at `$.data.workers`; see trainer/config.py"),
        (["optim.rate=1.0"], "Configuration tiny: Object contains unknown field `rate` - at `$.optim`"),
        (
            ["data.rows=0"],
            "Configuration tiny: Expected `int` >= 1 - at `$.data.rows`; see trainer/config.py",
        ),
        (["optim.lr.x=1"], "Configuration tiny: Expected `float`, got `object` - at `$.optim.lr`; see"),
        (["nothing"], "--set 'nothing': expected key=value, for instance optim.lr=1e-5."),
        (["data.cutoff=9000"], "data.tokens is 2048, expected at least the cutoff of a sample, 9000"),
        (["run.device=cuda"], "run.device is cuda, and torch finds no GPU here; set run.device=cpu."),
        (['train=["nose.*"]'], "train: 'nose.*' matches no weight of the model; the first is vlm."),
        (['freeze=["*"]'], "train and freeze leave nothing to train; let train match a weight that freeze does not."),
        (["model.start=nowhere"], "model.start is nowhere, and nothing is there; give a run or a checkpoint."),
        (["model.base=./no-model"], "./no-model: no such folder here, and not available from the Hub ("),
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


def test_a_file_that_is_no_configuration_is_named(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Read me\n")
    found = start("--config", str(tmp_path / "README.md"))
    known = ", ".join(sorted(path.stem for path in config.CONFIGS.glob("*.toml")))
    sentence = f"not a configuration; give a file whose name ends in .toml, or one of {known}."
    assert (found.exit_code, found.stderr) == (2, f"Error: {tmp_path / 'README.md'}: {sentence}\n")


def test_a_run_is_not_overwritten_and_not_continued_as_another(finished: Path, embedded_corpus: Path) -> None:
    again = start(*small(embedded_corpus, finished))
    assert (again.exit_code, again.stderr) == (
        1,
        f"Error: {finished}: holds a run; add --resume to continue it, or give another folder with --out.\n",
    )
    other = start("--out", str(finished), "--resume", "--set", "optim.lr=1.0")
    assert other.exit_code == 2
    assert f"{finished}: optim.lr was 0.003 and is 1.0 now, so the run cannot continue as it was" in other.stderr


def test_a_run_continues_with_smaller_micro_batches(finished: Path, embedded_corpus: Path) -> None:
    """That is what one does when memory runs out."""
    before = run_folder.configuration(finished)
    assert before is not None
    smaller = config.decode(json.loads((finished / "config.json").read_text()), "saved", ["data.tokens=8192"])
    assert before.data.tokens != 8192 and config.differences(before, smaller) == []


def test_what_an_earlier_run_has_left_hinders_no_new_one(embedded_corpus: Path, tmp_path: Path) -> None:
    """Neither a configuration of another version, without a checkpoint, nor weights that were kept."""
    (tmp_path / "config.json").write_text('{"unknown": 1}')
    (tmp_path / "weights-0000001").mkdir()
    (tmp_path / "weights-0000001" / "model.safetensors").write_bytes(b"old")
    more = [
        "--set",
        "optim.steps=2",
        "--set",
        "run.save_every=1",
        "--set",
        "run.keep=1",
        "--set",
        "run.keep_weights=true",
    ]
    result = start(*small(embedded_corpus, tmp_path), *more)
    assert result.exit_code == 0, result.stderr
    assert sorted(path.name for path in tmp_path.glob("*-0*")) == ["step-0000002", "weights-0000001"]
    assert [path.name for path in (tmp_path / "weights-0000001").iterdir()] == ["model.safetensors"]
    load_file(tmp_path / "weights-0000001" / "model.safetensors")


def test_another_corpus_is_refused(finished: Path, reference_corpus: Path, sample_root: Path) -> None:
    found = start("--out", str(finished), "--resume", "--data", str(reference_corpus), "--raw", str(sample_root))
    assert found.exit_code == 2
    assert "continue with the same corpus and settings, or start a new run from its weights" in found.stderr


def test_there_must_be_a_run_to_resume(tmp_path: Path) -> None:
    found = start("--out", str(tmp_path), "--resume")
    assert (found.exit_code, found.stderr) == (
        2,
        f"Error: {tmp_path}: no run to continue; leave out --resume, or give the --out of the run.\n",
    )


def unwritable(out: Path, reason: str) -> str:
    return (
        f"Error: {out}: cannot be written ({reason}); correct this and continue from the last checkpoint with --resume"
        ", or give another folder with --out."
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
        found = start(*small(embedded_corpus, out, "run.save_every=1"))
    assert (found.exit_code, found.stderr.splitlines()[-1]) == (1, unwritable(out, "No space left on device"))
    assert [path.name for path in out.glob("step-*")] == ["step-0000002"]
    assert start("--out", str(out), "--resume").exit_code == 0
    assert [entry["step"] for entry in read_metrics(out)] == [1, 2, 3, 4]
    assert not list(out.glob(".*"))


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """A limit of the system: no file may become larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_takes_no_weights(embedded_corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with largest_file(300_000):
        found = start(*small(embedded_corpus, out, steps=1))
    reason = "Error while serializing: I/O error: File too large (os error 27)"
    assert (found.exit_code, found.stderr.splitlines()[-1]) == (1, unwritable(out, reason))
    assert not [*out.glob("step-*"), *out.glob(".*")]
    assert start(*small(embedded_corpus, out, steps=1)).exit_code == 0, "there was nothing to overwrite"


def test_what_hinders_torch_is_named(tmp_path: Path) -> None:
    with (
        largest_file(100_000),
        pytest.raises(
            OutputError, match=r": cannot be written \(File too large\); correct this and continue from the last"
        ),
        checkpoint.writing(tmp_path),
        (tmp_path / "optimizer.pt").open("wb") as file,
    ):
        torch.save(torch.zeros(100_000), file)


def test_metrics_that_cannot_be_written(finished: Path, embedded_corpus: Path, tmp_path: Path) -> None:
    for taken in ("metrics.jsonl", "config.json"):
        (tmp_path / taken / taken / "there").mkdir(parents=True)
        found = start(*small(embedded_corpus, tmp_path / taken, steps=1))
        assert (found.exit_code, found.stderr.count("Error")) == (1, 1)
        assert f"Error: {tmp_path / taken}: cannot be written (" in found.stderr
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").unlink()
    (tmp_path / "run" / "metrics.jsonl").mkdir()
    found = start("--out", str(tmp_path / "run"), "--resume")
    assert (found.exit_code, found.stderr.splitlines()[-1]) == (1, unwritable(tmp_path / "run", "Is a directory"))


NO_TORCH = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoTorch())
"""


@pytest.mark.parametrize("module", ["run", "generate"])
def test_a_python_without_torch(module: str, tmp_path: Path) -> None:
    hook = tmp_path / "sitecustomize.py"
    hook.write_text(NO_TORCH)
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    asked = ["--checkpoint", "run", "--image", "a.png", "--question", "What?"] if module == "generate" else []
    found = subprocess.run(
        [sys.executable, "-m", f"trainer.{module}", *asked],
        env={**os.environ, "PYTHONPATH": paths},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    sentence = "Error: The trainer needs torch, which is not installed; pip install 'vpt-data[train]'.\n"
    assert (found.returncode, found.stdout, found.stderr) == (2, "", sentence)


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
    if path.stem not in ("tiny", "plates"):
        ours = 1e-4 if path.stem in ("vpt_2b_clip_lora", "region_2b_lora") else 2e-5
        assert found.optim.lr == (2e-3 if path.stem.startswith("alignment") else ours)
        assert found.data.rows == (128 if path.stem.startswith("alignment") else 256)
        assert (found.optim.warmup, found.data.cutoff, found.model.longest) == (0.03, 2048, 512)
        kind = "none" if path.stem.startswith("region") else "dino"
        kind = next((kind for kind in ("dino", "sam", "clip") if kind in path.stem), kind)
        assert found.model.encoder == kind


def test_keys_of_older_runs_are_read_where_they_change_nothing() -> None:
    old = {"model": {"scope": "strict", "compat": "paper", "mask": 0.5}, "data": {"packed": False, "rows": 4}}
    assert config.decode(old, "old") == config.decode({"model": {"mask": 0.5}, "data": {"rows": 4}}, "new")
    with pytest.raises(UsageError) as caught:
        config.decode({"model": {"compat": "reference"}}, "runs/old/config.json")
    assert str(caught.value) == (
        "Configuration runs/old/config.json: model.compat is 'reference', which the trainer no longer has; leave it "
        "out, and set model.positions_1d=true for weights trained with it."
    )


def test_mask_modelling_is_that_of_the_configuration(embedded_corpus: Path) -> None:
    chosen = config.load("tiny", ["model.mask=0.25", "seed=3"])
    ranks = Ranks(0, 1, torch.device("cpu"))
    loader, _ = setup.make_loader(chosen, open_corpus(str(embedded_corpus)), row_encoder(cutoff=1024), ranks)
    assert (loader.settings.mask, loader.settings.seed) == (0.25, 3)


def test_the_schedule_rises_and_falls_to_zero() -> None:
    found = [schedule(step, 100, 0.03) for step in range(101)]
    assert found[:3] == [pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0]
    assert found[3] == 1.0
    assert found[3:] == sorted(found[3:], reverse=True)
    assert found[-1] == pytest.approx(0.0)
