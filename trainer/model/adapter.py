"""Every touch point with the internals of transformers (5.x); nothing else in the trainer knows them.

Qwen2-VL, Qwen2.5-VL and Qwen3-VL have one layout: `vlm.model.visual`, `vlm.model.language_model.{layers, norm,
rotary_emb}`, `vlm.lm_head`. Attributes are looked up at each call, because peft puts its own modules in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, vision_utils
from transformers.masking_utils import sdpa_mask

from trainer.model.attention import Store, text_attention, vision_attention
from vpt_data.errors import UsageError

Rope = tuple[Tensor, Tensor]
Grid = tuple[int, int, int]
ATTENTION = "vpt"
VISION_ATTENTION = "vpt_flash"  # transformers hands the bounds of all pictures to names with "flash" only


class Adapter:
    """A stock `...ForConditionalGeneration` seen as what the trainer needs of it."""

    vlm: Any

    def __init__(self, vlm: nn.Module) -> None:
        self.vlm = vlm
        kind = self.vlm.config.model_type
        if kind not in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl"):
            raise UsageError(f"Model type {kind!r} has no adapter, expected qwen2_vl, qwen2_5_vl or qwen3_vl")
        # Never compiled: lengths of samples and pictures are other integers in each batch.
        apart: Any = torch.compiler.disable
        AttentionInterface.register(ATTENTION, apart(text_attention))
        AttentionInterface.register(VISION_ATTENTION, apart(vision_attention))
        AttentionMaskInterface.register(ATTENTION, sdpa_mask)  # so that the stock forward still masks
        self.text.config._attn_implementation = ATTENTION
        self.vision.config._attn_implementation = VISION_ATTENTION

    @property
    def text(self) -> Any:
        """The language model without its head."""
        return self.vlm.model.language_model

    @property
    def vision(self) -> Any:
        """The model's own vision tower, merger included."""
        return self.vlm.model.visual

    @property
    def layers(self) -> Sequence[nn.Module]:
        """Decoder layers; call them as modules, or the hooks of FSDP do not run."""
        return self.text.layers

    @property
    def width(self) -> int:
        """Width of the language model."""
        return self.vlm.config.text_config.hidden_size

    @property
    def merge(self) -> int:
        """Patches of a side that become one token."""
        return self.vlm.config.vision_config.spatial_merge_size

    @property
    def end_of_turn(self) -> int:
        """Id of `<|im_end|>`."""
        return self.vlm.config.text_config.eos_token_id

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids -> input embeddings."""
        return self.vlm.get_input_embeddings()(ids)

    def head(self, states: Tensor) -> Tensor:
        """Final states -> logits."""
        return self.vlm.lm_head(states)

    def norm(self, hidden: Tensor) -> Tensor:
        """States after the last layer -> final states."""
        return self.text.norm(hidden)

    def rope(self, hidden: Tensor, positions: Tensor) -> Rope:
        """Cosines and sines for positions int64[3, B, L]."""
        return self.text.rotary_emb(hidden, positions)

    def features(self, pixels: Tensor, grids: Sequence[Grid], layout: Mapping[str, Any]) -> tuple[Tensor, list[Tensor]]:
        """Patches of pictures with these grids, and their `layout` -> features [M, width] and what Qwen3-VL adds later.

        The list has one tensor [M, width] for each of the first layers, after which it is added to the picture's
        tokens (DeepStack); it is empty for other models.
        """
        seen = self.vlm.model.get_image_features(pixels, torch.tensor(grids), **layout)
        deep = [torch.cat(list(level)) for level in getattr(seen, "deepstack_features", None) or []]
        return torch.cat(list(seen.pooler_output)), deep

    @property
    def layout(self) -> Callable[[Sequence[Grid]], dict[str, Any]]:
        """From grids (t, h, w) in patches what the tower would compute of them on the device, and wait for."""
        vision = self.vision
        windows = (self.merge, vision.window_size, vision.patch_size) if hasattr(vision, "window_size") else None
        resampled = None
        if hasattr(vision, "num_grid_per_side"):
            resampled = {
                "num_grid_per_side": vision.num_grid_per_side,
                "mode": vision.interpolation_mode,
                "align_corners": vision.interpolation_align_corners,
                "spatial_merge_size": self.merge,
            }
        return partial(_layout, self.merge, windows, resampled)

    def compile(self, backend: str = "inductor") -> None:
        """Compile all layers of both transformers, except for attention: of one graph for any number of tokens."""
        for layer in (*self.layers, *self.vision.blocks):
            layer.compile(backend=backend, dynamic=True)

    def run_layer(self, layer: nn.Module, hidden: Tensor, rope: Rope, mask: Tensor | None, store: Store) -> Tensor:
        """One decoder layer [B, L, width] -> the same; `store` hands it earlier keys and keeps the new ones."""
        return layer(hidden, attention_mask=mask, position_embeddings=rope, store=store)


def _layout(
    merge: int, windows: tuple[int, int, int] | None, resampled: Mapping[str, Any] | None, grids: Sequence[Grid]
) -> dict[str, Any]:
    sizes = torch.tensor(grids)
    bounds = vision_utils.get_vision_cu_seqlens(sizes)
    found = {
        "position_ids": vision_utils.get_vision_position_ids(sizes, merge),
        "cu_seqlens": bounds,
        "max_seqlen": int(bounds.diff().max()),
    }
    if windows:  # Qwen2.5-VL
        found["window_index"], within = vision_utils.get_vision_window_index(sizes, *windows)
        found |= {"cu_window_seqlens": within, "max_window_seqlen": int(within.diff().max())}
    if resampled:  # Qwen3-VL
        indices, weights = vision_utils.get_vision_interpolation_indices_and_weights(sizes, **resampled)
        found |= {"interp_indices": indices, "interp_weights": weights}
    return found
