"""Sizes of the real models, written down so that they can be built without the Hub, and of the tiny ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import transformers
from torch import nn

from vpt_data.errors import unknown_name


@dataclass(frozen=True)
class Shape:
    """Numbers of a `...ForConditionalGeneration`: its model type, its text and vision configuration."""

    model_type: str
    text: dict[str, Any]
    vision: dict[str, Any]
    tied: bool
    ids: dict[str, int] = field(default_factory=dict)

    def build(self) -> nn.Module:
        """The stock class with random weights."""
        stems = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL"}
        stem = stems[self.model_type]
        config = getattr(transformers, f"{stem}Config")(
            text_config=self.text, vision_config=self.vision, tie_word_embeddings=self.tied, **self.ids
        )
        return getattr(transformers, f"{stem}ForConditionalGeneration")(config)


def rope(theta: float, *section: int, **more: Any) -> dict[str, Any]:
    """The `rope_parameters` of a text configuration; `section` splits half a head into time, rows and columns."""
    return {"rope_type": "default", "rope_theta": theta, "mrope_section": list(section), **more}


def _qwen2_vl(hidden: int, inner: int, heads: int, key_heads: int, vocabulary: int, tied: bool) -> Shape:
    text = {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": 28,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "vocab_size": vocabulary,
        "rms_norm_eps": 1e-6,
        "rope_parameters": rope(1e6, 16, 24, 24),
    }
    vision = {"depth": 32, "embed_dim": 1280, "num_heads": 16, "mlp_ratio": 4, "patch_size": 14, "hidden_size": hidden}
    return Shape("qwen2_vl", text, vision, tied)


SHAPES = {
    "qwen2_vl_2b": _qwen2_vl(1536, 8960, 12, 2, 151_936, tied=True),
    "qwen2_vl_7b": _qwen2_vl(3584, 18_944, 28, 4, 152_064, tied=False),
}

# facebook/dinov2-large (position table for 518 pixels, inputs of 224) and the encoder of facebook/sam-vit-large.
_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
TOWERS: dict[str, dict[str, Any]] = {
    "dino": {**_LARGE, "image_size": 518},
    "sam": {**_LARGE, "image_size": 1024, "global_attn_indexes": [5, 11, 17, 23]},
}


def shape_named(name: str) -> Shape:
    """An entry of SHAPES; UsageError with the nearest names otherwise."""
    if name not in SHAPES:
        raise unknown_name("model shape", name, SHAPES)
    return SHAPES[name]
