"""Every touch point with the internals of transformers (5.x); nothing else in the trainer knows them.

Qwen2-VL, Qwen2.5-VL and Qwen3-VL have one layout: `vlm.model.visual`, `vlm.model.language_model.{layers, norm,
rotary_emb}`, `vlm.lm_head`. Attributes are looked up at each call, because peft puts its own modules in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from vpt_data.errors import UsageError

KeyValue = tuple[Tensor, Tensor]
Rope = tuple[Tensor, Tensor]
Segments = tuple[tuple[int, int], ...]  # of each packed sample: its own tokens, and earlier ones that these see
ATTENTION = "vpt"


class Adapter:
    """A stock `...ForConditionalGeneration` seen as what the trainer needs of it."""

    vlm: Any

    def __init__(self, vlm: nn.Module) -> None:
        self.vlm = vlm
        kind = self.vlm.config.model_type
        if kind not in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl"):
            raise UsageError(f"Model type {kind!r} has no adapter, expected qwen2_vl, qwen2_5_vl or qwen3_vl")
        AttentionInterface.register(ATTENTION, _attention)
        AttentionMaskInterface.register(ATTENTION, sdpa_mask)  # so that the stock forward still masks
        self.text.config._attn_implementation = ATTENTION

    @property
    def text(self) -> Any:
        """The language model without its head."""
        return self.vlm.model.language_model

    @property
    def vision(self) -> nn.Module:
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

    def features(self, pixels: Tensor, grids: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Patches of n pictures with grids int64[n, 3] -> features [M, width] and what Qwen3-VL adds later.

        The list has one tensor [M, width] for each of the first layers, after which it is added to the picture's
        tokens (DeepStack); it is empty for other models.
        """
        seen = self.vlm.model.get_image_features(pixels, grids)
        deep = [torch.cat(list(level)) for level in getattr(seen, "deepstack_features", None) or []]
        return torch.cat(list(seen.pooler_output)), deep

    def compile(self, backend: str = "inductor") -> None:
        """Compile what takes no cache object: with one, a layer is compiled again for every kind of phase."""
        for layer in self.layers:
            for part in ("input_layernorm", "post_attention_layernorm", "mlp"):
                getattr(layer, part).compile(backend=backend, dynamic=True)

    def run_layer(
        self, layer: nn.Module, hidden: Tensor, rope: Rope, mask: Tensor | None, store: Store, segments: Segments | None
    ) -> Tensor:
        """One decoder layer [B, L, width] -> the same; `store` hands it earlier keys and keeps the new ones."""
        more = {"past_key_values": store, "use_cache": True, "segments": segments}
        return layer(hidden, attention_mask=mask, position_embeddings=rope, **more)


class Store:
    """Stands in for a cache object of transformers, for one call of one layer.

    Keys and values are [B, heads, tokens, head width]. `earlier` gives those that come before the layer's own.
    """

    def __init__(self, earlier: Callable[[], KeyValue] | None) -> None:
        self._earlier = earlier
        self.new: KeyValue = (torch.empty(0), torch.empty(0))

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *_: object, **__: object) -> KeyValue:
        """Keep a layer's own keys and values, return them after the earlier ones."""
        # Under autocast rotary embeddings make keys float32; keeping them so would double what is kept.
        self.new = (key.to(value.dtype), value)
        if self._earlier is None:
            return self.new
        keys, values = self._earlier()
        return torch.cat([keys, self.new[0]], dim=2), torch.cat([values, value], dim=2)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    segments: Segments | None = None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention as transformers asks for it; with `segments` each packed sample sees itself only.

    The first cells of `key` are the earlier ones of all samples, in their order; the last ones belong to `query`.
    """
    if segments is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    heads, count = query.shape[1] // key.shape[1], len(segments)
    own, earlier = ([lengths[place] for lengths in segments] for place in (0, 1))
    # Not slices: the gradient of each slice is a tensor of the whole length, so n samples would move n times as much.
    queries = torch.split(query.to(value.dtype), own, 2)
    keys, values = (torch.split(each, [*earlier, *own], 2) for each in (key, value))
    pieces = []
    for number, asked in enumerate(queries):
        mine, seen = (keys[count + number], values[count + number]), None
        if earlier[number]:
            mine = torch.cat([keys[number], mine[0]], 2), torch.cat([values[number], mine[1]], 2)
            seen = torch.ones(own[number], mine[0].shape[2], dtype=torch.bool, device=query.device)
            seen = seen.tril(earlier[number])
        # Without earlier keys the causal kernel needs no mask, which most of the work is.
        k, v = (each.repeat_interleave(heads, 1) for each in mine)
        pieces.append(scaled_dot_product_attention(asked, k, v, seen, is_causal=seen is None, scale=scaling))
    return torch.cat(pieces, dim=2).transpose(1, 2).contiguous(), None
