"""Weights by name: every published name has a place, and nothing goes missing in silence."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_batches as tb
import torch
from safetensors.torch import save_file
from torch import Tensor

from trainer.model.vpt import VPTModel
from trainer.model.weights import cast, load_weights, merged, our_name, published_name, without_memory
from vpt_data.errors import CorpusError

torch.set_num_threads(1)


def published(model: VPTModel) -> dict[str, Tensor]:
    """A published checkpoint of a model: renamed, the tied head stored again, with modules that nothing calls."""
    weights = {published_name(name): weight.clone() for name, weight in model.state_dict().items()}
    for name in ("clip_projector.linear_feature.weight", "clip_projector.layernorm_feature.bias"):
        weights[name] = torch.ones(3)
    weights["seg_projector.linear_feature.weight"] = torch.ones(3)
    return weights


def same(one: VPTModel, other: VPTModel) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(weight, theirs[name]) for name, weight in one.state_dict().items())


def test_a_published_checkpoint_fills_every_weight(tmp_path: Path) -> None:
    source, target = tb.model(seed=1), tb.model(seed=2)
    assert not same(source, target)
    weights = published(source)
    names = sorted(weights)
    for part, chosen in enumerate((names[::2], names[1::2])):
        torch.save({name: weights[name] for name in chosen}, tmp_path / f"pytorch_model-{part}.bin")
    load_weights(target, tmp_path)
    assert same(source, target)
    assert target.vlm.lm_head.weight is target.vlm.get_input_embeddings().weight


def test_our_own_checkpoint_comes_back(tmp_path: Path) -> None:
    source, target = tb.model(seed=1), tb.model(seed=2)
    weights = {name: weight for name, weight in source.state_dict().items() if name != "vlm.lm_head.weight"}
    save_file(weights, tmp_path / "model.safetensors")
    load_weights(target, tmp_path / "model.safetensors")
    assert same(source, target)


def test_weights_take_the_type_of_the_model(tmp_path: Path) -> None:
    source, target = tb.model(seed=1), tb.model(seed=2)
    torch.save({name: weight.bfloat16() for name, weight in published(source).items()}, tmp_path / "w.bin")
    load_weights(target, tmp_path / "w.bin")
    assert {weight.dtype for weight in target.parameters()} == {torch.float32}
    assert same(source.bfloat16(), target.bfloat16())


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("depth_projector.linear_condition.bias", "projectors.clip.linear_condition.bias"),
        ("seg_model.vision_encoder.pos_embed", "towers.sam.encoder.vision_encoder.pos_embed"),
        ("seg_model.pos_embed", "towers.sam.encoder.vision_encoder.pos_embed"),
        ("model.language_model.layers.0.mlp.up_proj.weight", "vlm.model.language_model.layers.0.mlp.up_proj.weight"),
        ("model.visual.merger.ln_q.bias", "vlm.model.visual.merger.ln_q.bias"),
        ("model.norm.weight", "vlm.model.language_model.norm.weight"),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", None),
        ("vlm.lm_head.weight", "vlm.lm_head.weight"),
        ("something.else", "something.else"),
    ],
)
def test_names(theirs: str, ours: str | None) -> None:
    assert our_name(theirs) == ours


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("vlm.model.visual.blocks.0.attn.qkv.weight", "visual.blocks.0.attn.qkv.weight"),
        ("vlm.model.language_model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight"),
        ("vlm.lm_head.weight", "lm_head.weight"),
        (
            "towers.dino.encoder.encoder.layer.0.attention.q_proj.weight",
            "detection_model.encoder.layer.0.attention.attention.query.weight",
        ),
        (
            "towers.dino.encoder.encoder.layer.0.attention.o_proj.bias",
            "detection_model.encoder.layer.0.attention.output.dense.bias",
        ),
        ("towers.sam.encoder.vision_encoder.layers.0.attn.qkv.weight", "seg_model.layers.0.attn.qkv.weight"),
        ("projectors.dino.linear_feature.weight", "detection_projector.linear_feature.weight"),
        ("projectors.sam.conv_feature.bias", "seg_projector.conv_feature.bias"),
        ("projectors.clip.linear_condition.bias", "clip_projector.linear_condition.bias"),
    ],
)
def test_published_names(ours: str, theirs: str) -> None:
    assert published_name(ours) == theirs


@pytest.mark.parametrize("model_type", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_every_weight_has_a_published_name_of_its_own(model_type: str) -> None:
    names = tb.model(model_type=model_type).state_dict().keys()
    assert len({published_name(name) for name in names}) == len(names)
    assert [our_name(published_name(name)) for name in names] == list(names)


def test_what_does_not_fit_is_listed(tmp_path: Path) -> None:
    weights = published(tb.model(["dino"], seed=1))
    del weights["detection_projector.linear_condition.bias"]
    weights["visual.merger.ln_q.bias"] = torch.zeros(7)
    weights["lm_head.weight"] = weights["lm_head.weight"] + 1
    weights["depth_model.weight"] = torch.zeros(2)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CorpusError) as caught:
        load_weights(tb.model(["dino"]), tmp_path)
    assert str(caught.value).endswith(
        ": 4 weights do not fit the model: lm_head.weight and model.embed_tokens.weight differ, but the model ties "
        "them; "
        "missing projectors.dino.linear_condition.bias; shape [7] of visual.merger.ln_q.bias, expected [32]; "
        "unexpected depth_model.weight; check that encoder, model size and control tokens are those of the checkpoint"
    )


def test_a_model_without_memory_is_filled(tmp_path: Path) -> None:
    """Nothing is drawn or kept in float32 before the weights are read; rotary tables are there all the same."""
    source = tb.model(seed=1)
    save_file(published(source), tmp_path / "model.safetensors")
    with without_memory():
        target = tb.model(seed=2)
    assert all(weight.is_meta for weight in target.parameters())
    tables = dict(source.named_buffers())
    assert tables and all(torch.equal(table, tables[name]) for name, table in target.named_buffers())
    cast(target.parameters(), torch.bfloat16)
    load_weights(target, tmp_path)
    assert {(weight.device.type, weight.dtype) for weight in target.parameters()} == {("cpu", torch.bfloat16)}
    assert same(source.bfloat16(), target)
    assert target.vlm.lm_head.weight is target.vlm.get_input_embeddings().weight
    assert not tb.model(seed=3).vlm.lm_head.weight.is_meta, "modules made later have memory"


def test_lora_is_merged() -> None:
    base, up, down = (torch.randn(shape) for shape in ((6, 4), (6, 2), (2, 4)))
    layer = "vlm.layers.0.q_proj"
    given = {
        f"{layer}.lora_B.default.weight": up, f"{layer}.base_layer.bias": base[:, 0], "vlm.norm.weight": base[0],
        f"{layer}.base_layer.weight": base, f"{layer}.lora_A.default.weight": down,
    }  # fmt: skip
    found = dict(merged(given.items(), lambda: 0.5))
    assert found.keys() == {f"{layer}.weight", f"{layer}.bias", "vlm.norm.weight"}
    assert torch.allclose(found[f"{layer}.weight"], base + 0.5 * up @ down)
    assert dict(merged({"a": base}.items(), lambda: 1 / 0)).keys() == {"a"}, "nobody asks for a factor"


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r": no \*.safetensors and no pytorch_model\*.bin, expected a checkpoint"):
        load_weights(tb.model(["clip"]), tmp_path)


def test_lora_is_merged_in_float32_whatever_the_base_is_kept_in() -> None:
    """On a GPU frozen layers are in bfloat16, where 1 + 0.001 is 1."""
    layer = "vlm.model.language_model.layers.0.mlp.up_proj"
    parts = {
        f"{layer}.base_layer.weight": torch.ones(1, 1, dtype=torch.bfloat16),
        f"{layer}.lora_A.default.weight": torch.full((1, 1), 0.001),
        f"{layer}.lora_B.default.weight": torch.ones(1, 1),
    }
    [(name, weight)] = merged(parts.items(), lambda: 1.0)
    assert name == f"{layer}.weight" and weight.item() == pytest.approx(1.001, abs=1e-6)
