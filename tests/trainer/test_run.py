"""A run from the command line: it learns, it says what is wrong, it trains what it should and nothing else."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from loaders import TEXTS, row_encoder, talks, write_shards
from PIL import Image
from runs import small, start
from safetensors.torch import load_file

from trainer import config
from trainer.data.corpus import open_corpus
from trainer.data.loader import Loader, Settings
from trainer.generation import opening
from trainer.model.tiny import tiny_model, tiny_tokenizer
from trainer.training import checkpoint, loop, run_folder, setup
from trainer.training.loop import Trainer
from trainer.training.parallel import Ranks
from trainer.training.run_folder import read_metrics


def test_without_data_a_tiny_model_learns_the_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = start("--config", "tiny", "--set", "optim.steps=20")
    assert found.exit_code == 0, found.output
    first, *more = found.stdout.splitlines()
    assert first.startswith("Trained: runs/tiny  20 steps, loss ")
    assert more == ["Next: python -m trainer.evaluate --checkpoint runs/tiny"]
    losses = [entry["loss"] for entry in read_metrics(tmp_path / "runs/tiny")]
    assert len(losses) == 20
    assert losses[0] > 6
    assert sum(losses[-5:]) / 5 < 4.7
    assert "towers.dino" in found.stderr


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
    assert len({path.stat().st_mode for path in (finished / "step-0000004").iterdir()}) == 1


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
    model, _ = opening.loaded(finished / "weights-0000002")
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
    assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
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
    models = [unmerged.eval(), opening.loaded(second)[0].eval()]
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
