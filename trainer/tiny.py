"""The offline default: real classes at toy size, and a tokenizer trained on the spot.

It exists so that everything can be run and tested in seconds without weights from the internet.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trainer.encoders import make_tower
from trainer.model import VPTModel
from trainer.shapes import Shape, rope
from trainer.vision import Vision
from vpt_data.tokens import added_tokens

# In the order of Qwen2-VL, which puts them behind the words and before the perception tokens.
QWEN_TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)


def tiny_vision(model_type: str = "qwen2_vl") -> Vision:
    """Sizes of pictures for the tiny towers: at most 16 tokens through each of them."""
    if model_type == "qwen3_vl":
        return Vision(longest=128, patch=16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), dino=56, sam=256)
    return Vision(longest=112, dino=56, sam=256)


def tiny_tokenizer(texts: Iterable[str], encoder: str, k: int = 8, words: int = 512) -> Any:
    """A Qwen2 tokenizer of at most `words` byte pairs learned from texts, with all tokens of a model for `encoder`."""
    from transformers import AddedToken, Qwen2Tokenizer

    empty: Any = Qwen2Tokenizer()
    tokenizer = empty.train_new_from_iterator(texts, vocab_size=words, show_progress=False)
    tokenizer.add_tokens([AddedToken(t, special=True, normalized=False) for t in QWEN_TOKENS], special_tokens=True)
    return with_perception_tokens(tokenizer, encoder, k)


def with_perception_tokens(tokenizer: Any, encoder: str, k: int) -> Any:
    """The tokenizer itself, to which the tokens of a model for `encoder` have been added in the published order."""
    from transformers import AddedToken

    for token in added_tokens(encoder, k):
        # A plain token survives `skip_special_tokens`, so that calls and regions can be read off decoded text.
        added = AddedToken(token.content, special=token.special, normalized=False)
        tokenizer.add_tokens([added], special_tokens=token.special)
    return tokenizer


def tiny_shape(
    tokenizer: Any, model_type: str = "qwen2_vl", *, width: int = 64, depth: int = 2, tied: bool = True
) -> Shape:
    """A Qwen2-VL, Qwen2.5-VL or Qwen3-VL of `depth` layers, `width` (a multiple of 64) wide, for a tokenizer."""
    ids = tokenizer.convert_tokens_to_ids
    more = {"mrope_interleaved": True} if model_type == "qwen3_vl" else {}
    text = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": depth,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": len(tokenizer),
        "rope_parameters": rope(1e4, width // 32, 3 * width // 64, 3 * width // 64, **more),
        "eos_token_id": ids("<|im_end|>"),
        "bos_token_id": None,
        **({"head_dim": width // 4} if model_type == "qwen3_vl" else {}),
    }
    vision = {"depth": 2, "num_heads": 2, **_tiny_tower(model_type, width)}
    names = {"image": "image_pad", "video": "video_pad", "vision_start": "vision_start", "vision_end": "vision_end"}
    special = {f"{key}_token_id": ids(f"<|{name}|>") for key, name in names.items()}
    return Shape(model_type, text, vision, tied, special)


def _tiny_tower(model_type: str, width: int) -> dict[str, Any]:
    if model_type == "qwen2_vl":
        return {"embed_dim": 32, "hidden_size": width, "mlp_ratio": 2}
    inner = {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": width}
    if model_type == "qwen2_5_vl":
        return {**inner, "window_size": 56, "fullatt_block_indexes": [1]}
    return {**inner, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]}


TINY_TOWERS: dict[str, dict[str, Any]] = {
    "dino": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "mlp_ratio": 2,
        "image_size": 56,
    },
    "sam": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "mlp_ratio": 2.0,
        "image_size": 256,
        "window_size": 4,
        "global_attn_indexes": [1],
        "output_channels": 16,
        "initializer_range": 0.02,  # the default, 1e-10, is for weights that are loaded
    },
}


def tiny_model(
    tokenizer: Any, kinds: Iterable[str] = ("dino", "sam", "clip"), model_type: str = "qwen2_vl", **options: Any
) -> VPTModel:
    """A tiny VPT model with random weights; `options` are those of VPTModel."""
    kinds = tuple(kinds)
    towers = {kind: make_tower(kind, TINY_TOWERS[kind]) for kind in kinds if kind != "clip"}
    return VPTModel(tiny_shape(tokenizer, model_type).build(), kinds, towers, **options)
