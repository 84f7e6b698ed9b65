"""Against numbers of the reference implementation (not part of this repository)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from bench.full_passes import full_passes
from trainer.data.sample import Control, Sample, Slot
from trainer.encoders import KINDS
from trainer.encoders.dino import DinoTower
from trainer.model.phases import offsets, positions
from trainer.model.shapes import Shape, rope
from trainer.model.vpt import VPTModel
from trainer.model.weights import load_weights

torch.set_num_threads(1)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        meta = json.loads(file.metadata()["meta"])
        return {name: file.get_tensor(name) for name in file.keys()}, meta  # noqa: SIM118


def model_of(folder: Path, tensors: dict[str, Tensor], meta: dict[str, Any], **options: Any) -> VPTModel:
    """The model of a file, its weights read as a checkpoint in the published naming."""
    config, ids, kind = meta["config"], meta["ids"], meta["kind"]
    text = {key: config[key] for key in config if key.startswith(("hidden", "inter", "num_", "rms"))}
    text |= {"vocab_size": meta["vocab"], "eos_token_id": ids["ime"], "bos_token_id": None}
    text |= {"rope_parameters": rope(config["rope_theta"], *meta["mrope_section"])}
    special = {"image_token_id": ids["image"], "video_token_id": ids["video"], "vision_start_token_id": ids["vs"]}
    vlm = Shape("qwen2_vl", text, config["vision"], config["tie_word_embeddings"], special).build()
    towers = {"dino": DinoTower.made(config["dino"])} if kind == "dino" else {}
    model = VPTModel(vlm, [kind], towers, **options)
    prefix = "weights."
    published = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    save_file(published, folder / "model.safetensors")
    load_weights(model, folder)
    return model.eval()


def samples_of(tensors: dict[str, Tensor], meta: dict[str, Any]) -> list[Sample]:
    ids, kind, samples, extra = meta["ids"], meta["kind"], [], 0
    lengths = tensors["batch.attention_mask"].sum(1).tolist()
    for row, length in enumerate(lengths):
        tokens = tensors["batch.input_ids"][row, :length]
        patches = tensors["batch.pixel_values"].split(64)
        start = int((tokens == ids["image"]).nonzero()[0])
        slots, controls = [Slot("vlm", start, 16, (1, 8, 8), patches[row])], []
        if (tokens == ids["ctrl"]).any():
            controls = [Control(kind, int((tokens == ids["ctrl"]).nonzero()[0]))]
            if kind == "dino":
                pixels, grid = tensors["batch.detection_pixel_values"][extra], None
            else:
                pixels, grid = tensors["batch.clip_pixel_values"].split(64)[extra], (1, 8, 8)
            slots.append(Slot(kind, int((tokens == ids["pad"]).nonzero()[0]), 16, grid, pixels))
            extra += 1
        nothing = torch.full_like(tokens, -100)
        user = int((tokens == ids["ims"]).nonzero()[1]), int((tokens == ids["ime"]).nonzero()[1]) + 1
        samples.append(Sample(str(row), tokens, nothing, nothing.to(torch.int8), tuple(slots), tuple(controls), user))
    return samples


def furthest(got: list[Tensor], expected: Tensor) -> float:
    return max((one - row[: len(one)]).abs().max().item() for one, row in zip(got, expected, strict=True))


@pytest.mark.parametrize("name", ["dino", "clip", "dino_mixed"])
def test_logits_are_those_of_the_reference(shared: Path, tmp_path: Path, name: str) -> None:
    path = shared / "golden" / f"vpt_forward_{name}.safetensors"
    tensors, meta = read(path)
    samples = samples_of(tensors, meta)
    for row, sample in enumerate(samples):
        expected = tensors["expected.position_ids_mrope"][:, row, : len(sample.input_ids)]
        assert torch.equal(positions(sample, merge=2), expected)
    with torch.no_grad():
        got = model_of(tmp_path, tensors, meta).logits(samples)
    assert furthest(got, tensors["expected.logits_mrope"]) < 5e-5


@pytest.mark.parametrize("name", ["dino", "clip"])
def test_positions_1d_give_the_reference_without_positions(shared: Path, tmp_path: Path, name: str) -> None:
    path = shared / "golden" / f"vpt_forward_{name}.safetensors"
    tensors, meta = read(path)
    model = model_of(tmp_path, tensors, meta, positions_1d=True)
    with torch.no_grad():
        got = model.logits(samples_of(tensors, meta))
    assert furthest(got, tensors["expected.logits_1d"]) < 5e-5
    assert furthest(got, tensors["expected.logits_mrope"]) > 0.1


def zeroed_user_turns(samples: list[Sample], end_of_turn: int) -> Tensor:
    """Bool[N]: what the mask modelling of the reference code sets to zero, the content of the first user turn."""
    found = torch.zeros(offsets(samples)[-1], dtype=torch.bool)
    for sample, start in zip(samples, offsets(samples), strict=False):
        if sample.controls:
            first = sample.first_user[0]
            end = int((sample.input_ids[first:] == end_of_turn).nonzero()[0])
            found[start + first + 1 : start + first + end] = True
    return found


@pytest.mark.parametrize("name", ["dino", "clip"])
def test_full_passes_give_the_reference_with_and_without_a_zeroed_user_turn(
    shared: Path, tmp_path: Path, name: str
) -> None:
    """They are what the single-cost forward is compared with, so they are held against the reference as well."""
    path = shared / "golden" / f"vpt_forward_{name}.safetensors"
    tensors, meta = read(path)
    samples, model = samples_of(tensors, meta), model_of(tmp_path, tensors, meta)
    zeroed = zeroed_user_turns(samples, meta["ids"]["ime"])
    lengths = [len(sample.input_ids) for sample in samples]
    for content, expected in ((None, "logits_mrope"), (zeroed, "logits_mrope_user_turn_zeroed")):
        with torch.no_grad():
            plan, states = full_passes(model, samples, zeroed=content)
            got = list(model.adapter.head(states[plan.cells]).split(lengths))
        assert furthest(got, tensors[f"expected.{expected}"]) < 5e-5


@pytest.mark.parametrize("kind", ["dino", "sam", "clip"])
def test_projectors_follow_the_formula_of_the_reference(shared: Path, kind: str) -> None:
    tensors, _ = read(shared / "golden" / "projectors.safetensors")
    features = {"dino": 12, "sam": 256, "clip": 16}[kind]
    projector = KINDS[kind].projector(features, 16)
    names = dict(projector.named_parameters())
    projector.load_state_dict({name: tensors[f"weights.{kind}.{name}"] for name in names})
    given = tensors.get(f"input.{kind}", torch.sin(0.01 * torch.arange(2 * 256 * 64 * 64)).view(2, 256, 64, 64))
    with torch.no_grad():
        projected = projector.project(given)
        lengths = torch.tensor([2, 5]) if kind == "clip" else torch.tensor(2 * [projected.shape[1]])
        if kind == "clip":
            lengths = tensors["input.clip_grid_thw"].prod(-1) // 4
        flat = projected if kind == "clip" else projected.flatten(0, 1)
        steered = projector.steer(flat, tensors["input.condition"], lengths)
    close(steered, tensors[f"expected.{kind}"])
    if kind == "dino":
        close(flat, tensors["expected.dino_unconditioned"])


def close(got: Tensor, expected: Tensor) -> None:
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()
