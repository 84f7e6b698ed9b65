"""The offline default: real classes at toy size, and a tokenizer trained on the spot.

It exists so that everything can be run and tested in seconds without weights from the internet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from transformers import AddedToken, Qwen2Tokenizer

from trainer.data.vision import Vision
from trainer.encoders import towers_of
from trainer.model.shapes import Shape, rope
from trainer.model.vpt import VPTModel
from vpt_data.dialogue.tokens import REGION, added_tokens

# In the order of Qwen2-VL, which puts them after the words and before the perception tokens.
QWEN_TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)


def tiny_vision() -> Vision:
    """Sizes of pictures for the tiny towers: at most 16 tokens through each of them."""
    return Vision(longest=112, dino=56, sam=256)


def tiny_tokenizer(
    texts: Iterable[str], encoder: str | None, k: int = 8, words: int = 512, families: Sequence[str] = (REGION,)
) -> Any:
    """A Qwen2 tokenizer of at most `words` byte pairs learned from texts, with all tokens of a model for `encoder`."""
    return with_perception_tokens(base_tokenizer(texts, words), encoder, k, families)


def base_tokenizer(texts: Iterable[str], words: int = 512) -> Any:
    """The same without perception tokens, as a base model has it."""
    empty: Any = Qwen2Tokenizer()
    tokenizer = empty.train_new_from_iterator(texts, vocab_size=words, show_progress=False)
    tokenizer.add_tokens([AddedToken(t, special=True, normalized=False) for t in QWEN_TOKENS], special_tokens=True)
    return tokenizer


def with_perception_tokens(tokenizer: Any, encoder: str | None, k: int, families: Sequence[str] = (REGION,)) -> Any:
    """The tokenizer itself with the tokens of families and of an encoder (None: of none) in the published order."""
    for token in added_tokens(encoder, k, families):
        # A plain token survives `skip_special_tokens`, so that calls and regions can be read off decoded text.
        added = AddedToken(token.content, special=token.special, normalized=False)
        tokenizer.add_tokens([added], special_tokens=token.special)
    return tokenizer


#: Of random weights. The 0.02 of the classes is for widths of thousands; at 64 hardly anything gets through a layer.
_SPREAD = 0.15


def tiny_shape(tokenizer: Any) -> Shape:
    """A Qwen2-VL of two layers for a tokenizer."""
    text = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": len(tokenizer),
        # A head has eight frequencies. With the usual 10,000 the three for columns turn by 0.003 a column or less.
        "rope_parameters": rope(2.0, 2, 3, 3),
        "initializer_range": _SPREAD,
        "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>"),
        "bos_token_id": None,
    }
    tower = {"depth": 2, "num_heads": 2, "embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2}
    vision = {**tower, "initializer_range": _SPREAD}
    names = {"image": "image_pad", "video": "video_pad", "vision_start": "vision_start", "vision_end": "vision_end"}
    special = {f"{key}_token_id": tokenizer.convert_tokens_to_ids(f"<|{name}|>") for key, name in names.items()}
    return Shape("qwen2_vl", text, vision, True, special)


def small_shape(tokenizer: Any) -> Shape:
    """One that finds the plates of `synthetic.plates` and reads them: a layer more, a wider tower, and wider heads.

    Half of a head turns with time alone: all tokens of a picture have the same time, so that half can compare what they
    show wherever they are.
    """
    tiny = tiny_shape(tokenizer)
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "rope_parameters": rope(2.0, 8, 4, 4)}
    text = {"num_hidden_layers": 3, **heads}
    vision = {"embed_dim": 64, "num_heads": 4, "patch_size": 7, "spatial_merge_size": 1}
    return replace(tiny, text={**tiny.text, **text}, vision={**tiny.vision, **vision})


def small_vision() -> Vision:
    """A token a patch: a place on the wall of `synthetic.plates` is one token, a crop of it sixteen."""
    return Vision(longest=28, patch=7, merge=1, dino=56, sam=256)


#: Values of `model.base` that are made on the spot.
BASES = {"tiny": (tiny_shape, tiny_vision), "small": (small_shape, small_vision)}

_TOWER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2.0}
TINY_TOWERS: dict[str, dict[str, Any]] = {
    "dino": {**_TOWER, "mlp_ratio": 2, "image_size": 56},
    # The default of initializer_range, 1e-10, is for weights that are loaded.
    "sam": {**_TOWER, "image_size": 256, "window_size": 4, "global_attn_indexes": [1], "output_channels": 16}
    | {"initializer_range": 0.02},
}


def tiny_model(tokenizer: Any, kinds: Iterable[str], shape: Shape | None = None, **options: Any) -> VPTModel:
    """A tiny VPT model with random weights; `options` are those of VPTModel."""
    kinds = tuple(kinds)
    towers = {kind: tower.made(TINY_TOWERS[kind]) for kind, tower in towers_of(kinds).items()}
    return VPTModel((shape or tiny_shape(tokenizer)).build(), kinds, towers, **options)
