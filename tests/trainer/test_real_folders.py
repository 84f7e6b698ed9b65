"""Base models and towers come from folders as the Hub has them; here of the real classes and made tiny."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from real_folders import CLIP, arguments, started
from safetensors.torch import load_file, save_file

from trainer import config, export, generate, run
from trainer.generation import opening
from trainer.generation.answers import answer
from trainer.generation.dialog import Decoding, question
from trainer.model.vpt import VPTModel
from trainer.model.weights import our_name
from trainer.training import base
from trainer.training.run_folder import read_metrics
from vpt_data.cli.main import main as vpt_data
from vpt_data.errors import UsageError

torch.set_num_threads(1)


SAID = {"dino": "<|detection_action_start|><|detection_action|><|detection_action_end|>"}
SAID |= {"sam": "<|seg_action_start|><|seg_action|><|seg_action_end|>"}


def called(command: click.Command, *arguments: str) -> str:
    """A command that must do what it is asked; its results."""
    found = CliRunner().invoke(command, arguments)
    assert found.exit_code == 0, found.output
    return found.stdout


@pytest.mark.parametrize(("name", "kind"), [("qwen2_vl", "dino"), ("qwen2_5_vl", "sam"), ("qwen3_vl", "dino")])
def test_from_a_base_to_another_program(
    name: str, kind: str, bases: Path, embedded_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained, stopped by a scheduler, continued, exported and asked, all by the commands of the trainer."""
    out, corpus = tmp_path / "run", embedded_corpus
    if kind == "sam":
        corpus = tmp_path / "corpus"
        called(vpt_data, "render", str(embedded_corpus), "--encoder", "sam", "--out", str(corpus))
    places = [f"model.base={bases / name}", f"model.{kind}={bases / kind}"]
    line = arguments(corpus, out, *places, "optim.steps=3", "run.save_every=100", name=f"vpt_2b_{kind}")
    if name == "qwen2_vl":
        process = subprocess.Popen([sys.executable, "-c", STOPPED, *line], stderr=subprocess.PIPE, text=True)
        stderr = process.communicate(timeout=120)[1]
        code = process.returncode
    else:
        with monkeypatch.context() as patch:
            stop_in_step(2, patch)
            found = CliRunner().invoke(run.main, line)
        code, stderr = found.exit_code, found.stderr
    assert code == 130 and stderr.endswith("Error: Interrupted; a checkpoint is written, add --resume to continue.\n")
    assert "UNEXPECTED" not in stderr and len(read_metrics(out)) == 2
    called(run.main, "--out", str(out), "--resume")
    entries = read_metrics(out)
    assert len(entries) == 3 and all(0 < entry["loss"] < 20 and entry["samples"] > 0 for entry in entries)
    kept = {part: load_file(bases / part / "model.safetensors") for part in (name, kind)}
    trained = load_file(out / "step-0000003" / "model.safetensors")
    vision = [key for key in kept[name] if "visual" in key]
    assert vision and all(torch.equal(kept[name][key].float(), trained[our_name(key)]) for key in vision), "frozen"
    tower = [key for key in kept[kind] if kind == "dino" or key.startswith("vision_encoder.")]
    prefix = {"dino": "detection_model.", "sam": "seg_model."}[kind]
    assert all(torch.equal(kept[kind][key].float(), trained[our_name(prefix + key)]) for key in tower), "as its file"
    saved = config.decode(json.loads((out / "config.json").read_text()), "saved")
    assert base.vision_of(saved, out) == base.vision_of(saved), "a run keeps what its base expects of pictures"
    Image.new("RGB", (90, 60), "red").save(tmp_path / "image.png")
    about = ["--image", str(tmp_path / "image.png"), "--question", "What?", "--max-new-tokens", "9", "--force", kind]
    said = called(generate.main, "--checkpoint", str(out), *about)
    assert said.startswith(SAID[kind])
    for form in ("stock", "published"):
        where = ["--checkpoint", str(out), "--out", str(tmp_path / form)]
        called(export.main, *where, "--form", form, "--dtype", "float32")
    stock = [f"model.base={tmp_path / 'stock'}", places[1], "model.longest=128"]
    sets = [word for value in stock for word in ("--set", value)]
    again = ["--weights", str(tmp_path / "published"), "--config", f"vpt_2b_{kind}", *sets]
    assert called(generate.main, *again, *about) == said, "both forms together are the whole model"


#: A run in which SIGTERM comes while the second step is made.
STOPPED = """
import sys
sys.path.insert(0, PATH)
import pytest
from test_real_folders import run, stop_in_step

stop_in_step(2, pytest.MonkeyPatch())
run.main(sys.argv[1:])
""".replace("PATH", repr(str(Path(__file__).parent)))


def stop_in_step(number: int, patch: pytest.MonkeyPatch) -> None:
    """Let a step of the run that follows be interrupted by SIGTERM."""
    steps, real = 0, VPTModel.forward

    def forward(self: VPTModel, *given: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, *given)

    patch.setattr(VPTModel, "forward", forward)


def test_released_weights_are_asked_without_a_run(bases: Path, embedded_corpus: Path, tmp_path: Path) -> None:
    out, places = tmp_path / "run", [f"model.base={bases / 'qwen2_vl'}", f"model.dino={bases / 'dino'}"]
    started(bases, embedded_corpus, out, places[0])
    kept = load_file(out / "step-0000002" / "model.safetensors")
    (tmp_path / "released").mkdir()
    names = {"vlm.model.language_model.": "model.", "vlm.model.": "", "towers.dino.encoder.": "detection_model."}
    names |= {"projectors.dino.": "detection_projector."}
    theirs = {}
    for name, weight in kept.items():
        old = next(old for old in names if name.startswith(old))
        theirs[names[old] + name.removeprefix(old)] = weight
    save_file(theirs, tmp_path / "released" / "model.safetensors")
    Image.new("RGB", (90, 60), "red").save(tmp_path / "image.png")
    about = ["--image", str(tmp_path / "image.png"), "--question", "What?", "--max-new-tokens", "9", "--json"]
    sets = [word for place in (*places, "model.longest=128") for word in ("--set", place)]
    weights = ["--weights", str(tmp_path / "released"), "--config", "vpt_2b_dino"]
    asked = CliRunner().invoke(generate.main, [*weights, *sets, *about])
    assert asked.exit_code == 0, asked.output
    assert asked.stdout == CliRunner().invoke(generate.main, ["--checkpoint", str(out), *about]).stdout
    model, _ = opening.published(tmp_path / "released", "vpt_7b_clip_lora", (*places, "model.encoder=dino"))
    assert all(torch.equal(model.state_dict()[name], weight) for name, weight in kept.items()), "without LoRA"
    for given in (weights[:2], [], [*weights, "--checkpoint", str(out)]):
        refused = CliRunner().invoke(generate.main, [*given, *about])
        assert refused.exit_code == 2
        assert "Give --checkpoint RUN, or --weights PATH together with --config NAME." in refused.stderr
    refused = CliRunner().invoke(generate.main, ["--weights", str(out), "--config", "tiny", *about])
    assert refused.stderr == (
        f"Error: model.base is tiny, which has no tokenizer, and {out} has none; give --config of a real base, or a "
        "folder of `python -m trainer.export --form published`.\n"
    )


def test_pictures_are_those_of_the_base(bases: Path) -> None:
    def seen(name: str, *more: str) -> Any:
        return base.vision_of(config.load("vpt_2b_dino", [f"model.base={bases / name}", *more]))

    old, new = seen("qwen2_vl", "model.longest=224"), seen("qwen3_vl", "model.pixels=reference")
    assert (old.patch, old.merge, old.frames, old.longest, old.mean) == (14, 2, 2, 224, tuple(CLIP["image_mean"]))
    assert (new.patch, new.merge, new.frames, new.mean, new.std) == (16, 2, 2, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert (old.least, new.least, old.nearest, new.nearest) == (3136, 9216, False, True)
    assert new.tokens("vlm", (40, 40)) == (9, (1, 6, 6)), "the smallest picture of the base"


def test_a_base_without_a_preprocessor_is_refused(bases: Path, tmp_path: Path) -> None:
    for file in (bases / "qwen3_vl").iterdir():
        if file.name != "preprocessor_config.json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UsageError) as caught:
        base.vision_of(config.load("vpt_2b_dino", [f"model.base={tmp_path}"]))
    assert str(caught.value) == (
        f"{tmp_path}: no image_mean in preprocessor_config.json, expected the file of the base model; copy it into "
        "this folder."
    )


def test_a_projector_of_random_weights_is_reported(bases: Path, embedded_corpus: Path, tmp_path: Path) -> None:
    """Stage 1 is there for it, and its run is what stage 2 begins with."""
    base = f"model.base={bases / 'qwen2_vl'}"
    warned = (
        "Warning: the projector of dino begins with random weights; train it first (--config alignment_dino), and "
        "begin with that run: --set model.start=RUN.\n"
    )
    first = ('train=["projectors.*"]', "freeze=[]")
    assert warned not in started(bases, embedded_corpus, tmp_path / "one", base, *first).stderr
    assert warned in started(bases, embedded_corpus, tmp_path / "two", base).stderr
    begun = started(bases, embedded_corpus, tmp_path / "three", base, f"model.start={tmp_path / 'one'}")
    assert "Warning" not in begun.stderr


def test_a_model_for_regions_loads_nothing_else(bases: Path, region_corpus: Path, tmp_path: Path) -> None:
    out, nowhere = tmp_path / "run", f"model.dino={tmp_path / 'nowhere'}"
    base = f"model.base={bases / 'qwen2_vl'}"
    found = started(bases, region_corpus, out, base, nowhere, name="region_2b")
    assert "Warning" not in found.stderr and not (out / "dino").exists()
    model, encoder = opening.loaded(out)
    assert not model.towers and not model.projectors
    words = encoder.tokenizer
    assert words.token_to_id("<|x_7|>") is not None and words.token_to_id("<|detection_action|>") is None
    asked = [question(Image.new("RGB", (90, 60), "red"), "What?")]
    [found] = answer(model, encoder, asked, Decoding(max_new_tokens=4, force="region"))
    assert found.turns[0].startswith("<|region_token_start|>")
    with pytest.raises(UsageError, match=r"^force is 'dino', expected one of: region$"):
        list(answer(model, encoder, asked, Decoding(force="dino")))


@pytest.fixture
def region_corpus(tmp_path: Path, embedded_corpus: Path) -> Path:
    """The rows of the sample corpus that look at regions or do not look."""
    from helpers import end_to_end
    from loaders import write_shards

    rows = end_to_end.rows(embedded_corpus)
    plain = [row for row in rows if all(view["encoder"] == "vlm" for view in row["views"])]
    return write_shards(tmp_path / "regions", plain[:40])
