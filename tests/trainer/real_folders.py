"""Folders as the Hub has them, of the real classes and made tiny: old configurations and names of weights, bfloat16."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tiny_batches as tb
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file
from transformers import SamConfig, SamModel

from trainer import run
from trainer.encoders.dino import DinoTower
from trainer.model.shapes import Shape
from trainer.model.tiny import TINY_TOWERS, base_tokenizer

CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
#: preprocessor_config.json as it is in the folders of the three families.
PROCESSORS: dict[str, dict[str, Any]] = {
    "qwen2_vl": {**CLIP, "patch_size": 14, "merge_size": 2, "min_pixels": 3136, "max_pixels": 12_845_056},
    "qwen2_5_vl": {**CLIP, "patch_size": 14, "merge_size": 2, "min_pixels": 3136, "max_pixels": 12_845_056},
    "qwen3_vl": {**HALF, "patch_size": 16, "merge_size": 2, "size": {"shortest_edge": 9216, "longest_edge": 10**7}},
}


def bases(root: Path) -> Path:
    """A folder for each family (Qwen2.5-VL untied) with its tokenizer, and folders of DINOv2 and of a whole SAM."""
    words = base_tokenizer(["What is the colour of the left sign? It is red.\nuser assistant system"] * 4)
    for name, processor in PROCESSORS.items():
        folder, wide = root / name, tb.shape(name)
        text = {**wide.text, "vocab_size": len(words), "eos_token_id": words.convert_tokens_to_ids("<|im_end|>")}
        text["initializer_range"] = 0.1
        special = {
            key: words.convert_tokens_to_ids(tb.tokenizer().convert_ids_to_tokens(i)) for key, i in wide.ids.items()
        }
        tied = name != "qwen2_5_vl"
        torch.manual_seed(0)
        _saved(Shape(name, text, wide.vision, tied, special).build(), folder)
        words.save_pretrained(folder)
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        settings |= {"eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>", "<|im_end|>"]}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
        legacy = _legacy(name, text, wide.vision) | special | {"tie_word_embeddings": tied}
        (folder / "config.json").write_text(json.dumps(legacy))
    _saved(DinoTower.made({**TINY_TOWERS["dino"], "image_size": 70}).encoder, root / "dino")
    # As large as the real pictures, so without the one global layer, which would take all the time.
    seen = {**TINY_TOWERS["sam"], "image_size": 1024, "window_size": 14, "global_attn_indexes": []}
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 16}
    prompts = {"hidden_size": 16, "image_size": 256}
    parts = {"prompt_encoder_config": prompts, "mask_decoder_config": {**small, "iou_head_hidden_dim": 16}}
    _saved(SamModel(SamConfig(vision_config=seen, **parts)), root / "sam")
    return root


def _saved(model: Any, folder: Path) -> None:
    """Weights under the names that transformers 4 gave them."""
    model.to(torch.bfloat16).save_pretrained(folder)
    names = load_file(folder / "model.safetensors").keys()
    assert not any("q_proj" in name and "layer." in name for name in names), "names of transformers 5"


def _legacy(name: str, text: dict[str, Any], vision: dict[str, Any]) -> dict[str, Any]:
    """config.json of the families on the Hub: flat before Qwen3-VL, `rope_scaling` beside `rope_theta`."""
    rope = dict(text["rope_parameters"])
    words = {key: value for key, value in text.items() if key != "rope_parameters"}
    words |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    stems = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL"}
    whole = {
        "architectures": [f"{stems[name]}ForConditionalGeneration"],
        "model_type": name,
        "vision_config": vision,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.41.2",
    }
    if name == "qwen3_vl":
        return whole | {"text_config": words}
    del rope["rope_type"]
    rope["type"] = "mrope"
    return whole | words | {"sliding_window": 32_768, "use_sliding_window": False}


def arguments(corpus: Path, out: Path, *more: str, name: str) -> list[str]:
    """Of `trainer.run`, for two steps."""
    values = ["optim.steps=2", "data.rows=6", "data.workers=0", "run.device=cpu", "model.longest=128", *more]
    sets = [word for value in values for word in ("--set", value)]
    return ["--config", name, "--data", str(corpus), "--out", str(out), *sets]


def started(bases: Path, corpus: Path, out: Path, *more: str, name: str = "vpt_2b_dino") -> Result:
    """A run of two steps through the command."""
    places = [f"model.dino={bases / 'dino'}", f"model.sam={bases / 'sam'}"]
    found = CliRunner().invoke(run.main, arguments(corpus, out, *places, *more, name=name))
    if found.exception is not None:
        raise found.exception
    return found
