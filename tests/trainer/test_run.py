"""A run from the command line: it learns, it says what is wrong, it trains what it should and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from loaders import TEXTS, row_encoder, talks, write_shards
from PIL import Image
from safetensors.torch import load_file

from trainer import config, entry, generate, run
from trainer.data.corpus import open_corpus
from trainer.data.loader import Loader, Settings
from trainer.model.tiny import tiny_model, tiny_tokenizer
from trainer.training import checkpoint, loop, run_folder, setup
from trainer.training.loop import Trainer, schedule
from trainer.training.parallel import Ranks
from trainer.training.run_folder import read_metrics
from vpt_data.errors import OutputError, UsageError


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
    """A run of four steps with the weights of each, the last in a checkpoint; not to be changed."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert start(*small(embedded_corpus, out, "run.save_every=1", "run.keep_weights=true")).exit_code == 0
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


def test_the_world_of_plates_is_drawn_on_first_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(entry, "PICTURES", {"train": 30, "test": 6})
    found = start("--config", "plates", "--set", "optim.steps=2")
    assert found.exit_code == 0, found.output
    assert "Trained: runs/plates  2 steps, loss " in found.stdout
    assert "on the split test" in found.stdout
    assert (entry.plates_root() / "images" / "test-00005.png").is_file()
    weights = [load_file(path / "model.safetensors") for path in (tmp_path / "runs/plates").glob("step-*")]
    assert len(weights) == 1


def test_a_run_leaves_what_its_page_says(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "config.json", "dino", "loss.png", "metrics.jsonl", "step-0000004", "tokenizer", "vlm",
        "weights-0000001", "weights-0000002", "weights-0000003",
    }  # fmt: skip
    parts = ("step-0000004", "weights-0000002")
    files, alone = ({path.name for path in (finished / part).iterdir()} for part in parts)
    assert (files, alone) == ({"model.safetensors", "optimizer.pt", "state.json"}, {"model.safetensors"})
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


@pytest.mark.parametrize(("part", "begun"), [("", "step-0000004"), ("weights-0000002", "weights-0000002")])
def test_a_run_begins_with_the_weights_of_another(
    part: str, begun: str, finished: Path, embedded_corpus: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert start(*small(embedded_corpus, out, f"model.start={finished / part}", "optim.lr=0.0", steps=1)).exit_code == 0
    before = load_file(finished / begun / "model.safetensors")
    after = load_file(out / "step-0000001" / "model.safetensors")
    assert all(torch.equal(before[name], weight) for name, weight in after.items())


def test_weights_that_were_kept_can_be_asked_and_not_resumed(finished: Path) -> None:
    model, _ = generate.loaded(finished / "weights-0000002")
    kept, last = (load_file(finished / part / "model.safetensors") for part in ("weights-0000002", "step-0000004"))
    name = "vlm.model.language_model.norm.weight"
    assert torch.equal(model.state_dict()[name], kept[name])
    assert not torch.equal(kept[name], last[name])
    assert run_folder.latest(finished) == finished / "step-0000004"


def test_training_goes_on_while_a_checkpoint_of_its_moment_is_written(
    finished: Path, embedded_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, third, real = tmp_path / "run", threading.Event(), torch.save
    active: list[int] = []

    class Watched(Trainer):
        def _write(self, entry: dict[str, Any]) -> None:
            super()._write(entry)
            if entry["step"] == 3:
                third.set()

    def late(*arguments: Any, **options: Any) -> None:
        active.append(1)
        assert len(active) == 1, "two checkpoints are written at once"
        assert third.wait(60), "the third step waits for the checkpoint of the second"
        real(*arguments, **options)
        active.pop()

    with monkeypatch.context() as patch:
        patch.setattr(loop, "Trainer", Watched)
        patch.setattr(checkpoint.torch, "save", late)
        found = start(*small(embedded_corpus, out, "run.save_every=2", "run.keep=2"))
    assert found.exit_code == 0, found.output
    shutil.rmtree(out / "step-0000004")
    assert start("--out", str(out), "--resume").exit_code == 0
    losses = [[entry["loss"] for entry in read_metrics(folder)] for folder in (finished, out)]
    assert losses[0] == losses[1], "weights and optimiser were those of the second step"


def test_one_rank_under_fsdp_is_the_same_run(finished: Path, embedded_corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert start(*small(embedded_corpus, out, "run.parallel=fsdp2")).exit_code == 0
    losses = [[entry["loss"] for entry in read_metrics(folder)] for folder in (finished, out)]
    assert losses[0] == losses[1]
    plain, divided = (load_file(folder / "step-0000004" / "model.safetensors") for folder in (finished, out))
    assert plain.keys() == divided.keys()
    assert all(torch.equal(weight, divided[name]) for name, weight in plain.items())


@pytest.mark.parametrize("ended", [None, KeyboardInterrupt, SystemExit])
def test_the_end_of_a_run_waits_for_its_checkpoint(
    ended: type[BaseException] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, real = threading.Event(), torch.save

    class Watched(checkpoint.Writer):
        def wait(self) -> None:
            if self._pending is not None:
                waiting.set()
            super().wait()

    def late(*arguments: Any, **options: Any) -> None:
        assert waiting.wait(60), "nobody waits for it"
        real(*arguments, **options)

    monkeypatch.setattr(checkpoint.torch, "save", late)
    model = tiny_model(tiny_tokenizer(TEXTS, "clip"), ["clip"])
    with pytest.raises(ended) if ended else contextlib.nullcontext(), Watched(tmp_path) as writer:
        writer.save(model, torch.optim.AdamW(model.parameters()), {"step": 7})
        if ended:
            raise ended
    assert {path.name for path in tmp_path.iterdir()} == {"step-0000007"}


def test_a_row_of_weight_two_trains_like_the_row_twice(tmp_path: Path) -> None:
    rows = talks(6)
    twice = [*rows, {**rows[2], "id": "again"}]
    weighed = [{**one, "weight": 1.0 + (number == 2)} for number, one in enumerate(rows)]

    def step(place: str, found: list[dict[str, Any]]) -> dict[str, Any]:
        torch.manual_seed(0)
        chosen = config.load("tiny", ["run.save_every=9"])
        corpus = open_corpus(str(write_shards(tmp_path / place / "shards", found, files=1)))
        loader = Loader(corpus, row_encoder(), Settings(rows=9, tokens=512))
        model = tiny_model(tiny_tokenizer(TEXTS, "dino"), ["dino"])
        Trainer(model, loader, chosen, tmp_path / place, Ranks(0, 1, torch.device("cpu")), 1).run()
        return read_metrics(tmp_path / place)[0]

    one, other, plain = step("weighed", weighed), step("twice", twice), step("plain", rows)
    assert one["loss"] == pytest.approx(other["loss"], rel=1e-6)
    assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-5)
    assert one["loss"] != pytest.approx(plain["loss"], rel=1e-5)
    assert one["labels"] == plain["labels"] < other["labels"]


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
    values = ["lora.rank=4", 'train=["*.lora_*"]', "run.save_every=1", "run.keep=2"]
    assert start(*small(embedded_corpus, out, *values, steps=2)).exit_code == 0
    first, last = (load_file(out / f"step-000000{n}" / "model.safetensors") for n in (1, 2))
    changed = {name for name in first if not torch.equal(first[name], last[name])}
    assert changed
    assert all(".lora_" in name for name in changed)


def test_a_run_with_lora_goes_on_in_one_without(embedded_corpus: Path, tmp_path: Path) -> None:
    """Its weights are merged, with the factor of its configuration: stage 3 of the 7B model begins so."""
    first, second = tmp_path / "first", tmp_path / "second"
    values = ["lora.rank=4", "lora.alpha=12", "optim.lr=0.03", 'train=["*.lora_*"]']
    assert start(*small(embedded_corpus, first, *values, steps=2)).exit_code == 0
    begun = start(*small(embedded_corpus, second, f"model.start={first}", 'train=["projectors.*"]', steps=1))
    assert begun.exit_code == 0, begun.output
    unmerged, _ = setup.load_run(first, config.decode(json.loads((first / "config.json").read_text()), "saved"))
    models = [unmerged.eval(), generate.loaded(second)[0].eval()]
    sample = row_encoder(cutoff=1024).encode(talks(1)[0])
    with torch.no_grad():
        tuned, merged = (model.logits([sample])[0] for model in models)
        for layer in models[0].modules():
            if isinstance(getattr(layer, "scaling", None), dict):
                layer.scaling = {"default": 0.0}
        plain = models[0].logits([sample])[0]
    assert (tuned - merged).abs().max() < 1e-4 < (tuned - plain).abs().max()
    shutil.move(first / "step-0000002", tmp_path / "alone")
    lost = start(*small(embedded_corpus, tmp_path / "third", f"model.start={tmp_path / 'alone'}", steps=1))
    assert lost.exit_code == 2
    assert "holds weights of LoRA, and no config.json of a run beside it gives their factor" in lost.stderr


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
