"""Attention over samples, or pictures, that stand one after the other: each sees itself only.

On a GPU in half precision it is one call of torch's kernel for sequences of unlike length; elsewhere each is cut out
and has a call of its own. The attention modules of transformers call these functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from trainer.model.phases import Segments

KeyValue = tuple[Tensor, Tensor]
Found = tuple[Tensor, Tensor | None]


class Store:
    """Keys and values of one layer, [B, heads, tokens, head width]: `earlier` before its own, which become `new`.

    `segments` are the packed samples, None where there is a mask instead. Not a dataclass: a compiler would look into
    it, and compile once more for other values.
    """

    def __init__(self, earlier: KeyValue | None, segments: Segments | None) -> None:
        self.earlier, self.segments = earlier, segments
        self.new: KeyValue = (torch.empty(0), torch.empty(0))

    def seen(self, key: Tensor, value: Tensor) -> KeyValue:
        """Keep a layer's own keys and values, return them after the earlier ones."""
        # Under autocast rotary embeddings make keys float32; keeping them so would double what is kept.
        self.new = (key.to(value.dtype), value)
        if self.earlier is None:
            return self.new
        return torch.cat([self.earlier[0], self.new[0]], dim=2), torch.cat([self.earlier[1], value], dim=2)


def text_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    store: Store | None = None,
    scaling: float | None = None,
    **kwargs: Any,
) -> Found:
    """Of the language model: [B, heads, L, w] -> [B, L, heads, w], over earlier keys and own ones [B, heads, L, w]."""
    if store is not None:
        key, value = store.seen(key, value)
    segments = store.segments if store else None
    if segments is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    if segments.order is not None:
        key, value = (each.index_select(2, segments.order) for each in (key, value))
    if by_kernel(value):
        longest = max(segments.queries), max(segments.keys)
        return _kernel(query, key, value, segments.bounds, longest, causal=True, scale=scaling), None
    return _split(query, key, value, segments.queries, segments.keys, causal=True, scale=scaling), None


def vision_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    cu_seq_lens_q: Tensor,
    max_length_q: int,
    scaling: float | None = None,
    **_: Any,
) -> Found:
    """Of the vision tower: [1, heads, L, w] -> [1, L, heads, w]; int32[n + 1] is where each of n pictures begins."""
    if by_kernel(value):
        bounds = cu_seq_lens_q[None].expand(2, -1)
        return _kernel(query, key, value, bounds, (max_length_q, max_length_q), causal=False, scale=scaling), None
    lengths = cu_seq_lens_q.diff().tolist()
    return _split(query, key, value, lengths, lengths, causal=False, scale=scaling), None


def by_kernel(value: Tensor) -> bool:
    """Whether torch's kernel for sequences of unlike length takes such values."""
    return value.is_cuda and value.dtype in (torch.bfloat16, torch.float16)


def _kernel(
    query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, longest: tuple[int, int], *, causal: bool, scale: Any
) -> Tensor:
    # Under autocast rotary embeddings make queries and keys float32. Of causal sequences the last query sees all keys.
    queries, keys, values = (each.to(value.dtype)[0].transpose(0, 1) for each in (query, key, value))
    found: Any = varlen_attn(
        queries, keys, values, bounds[0], bounds[1], *longest,
        scale=scale, window_size=(-1, 0) if causal else (-1, -1), enable_gqa=True,
    )  # fmt: skip
    return found[None]


def _split(
    query: Tensor, key: Tensor, value: Tensor, queries: Sequence[int], keys: Sequence[int], *, causal: bool, scale: Any
) -> Tensor:
    # Not slices: the gradient of each slice is a tensor of the whole length, so n samples would move n times as much.
    asked = torch.split(query.to(value.dtype), list(queries), 2)
    k_parts, v_parts = (torch.split(each.to(value.dtype), list(keys), 2) for each in (key, value))
    pieces = []
    for q, k, v in zip(asked, k_parts, v_parts, strict=True):
        earlier, seen = k.shape[2] - q.shape[2], None
        # Without earlier keys the causal kernel needs no mask, which most of the work is.
        if causal and earlier:
            seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril(earlier)
        how = {"is_causal": causal and not earlier, "enable_gqa": q.shape[1] != k.shape[1]}
        pieces.append(scaled_dot_product_attention(q, k, v, seen, scale=scale, **how))
    return torch.cat(pieces, dim=2).transpose(1, 2).contiguous()
