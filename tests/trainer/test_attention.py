"""Attention over packed samples and pictures: as a GPU computes it, by a stand-in for its kernel, and as a CPU does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import tiny_batches as tb
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainer.data.sample import Sample
from trainer.model import attention
from trainer.model.phases import Segments
from trainer.model.vpt import VPTModel

torch.set_num_threads(1)


def written_out(
    query: Tensor, key: Tensor, value: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int,
    *, scale: float | None = None, window_size: tuple[int, int] = (-1, -1), enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """What `varlen_attn` computes: of a causal sequence the last query sees all keys, as in FlashAttention 2.1."""
    assert window_size in ((-1, -1), (-1, 0))
    assert enable_gqa or query.shape[1] == key.shape[1]
    group, lengths = query.shape[1] // key.shape[1], (cu_q.diff().tolist(), cu_k.diff().tolist())
    assert (max_q, max_k) == (max(lengths[0]), max(lengths[1]))
    assert (sum(lengths[0]), sum(lengths[1])) == (len(query), len(key))
    found = []
    for start, stop, first, last in zip(cu_q, cu_q[1:], cu_k, cu_k[1:], strict=False):
        logits = torch.einsum("qhd,khd->hqk", query[start:stop], key[first:last].repeat_interleave(group, 1))
        logits = logits * (scale or query.shape[2] ** -0.5)
        if window_size == (-1, 0):
            number, count = logits.shape[1:]
            later = torch.arange(count) > torch.arange(number)[:, None] + count - number
            logits = logits.masked_fill(later, -torch.inf)
        found.append(torch.einsum("hqk,khd->qhd", logits.softmax(-1), value[first:last].repeat_interleave(group, 1)))
    return torch.cat(found)


def as_on_a_gpu(kernel: Any = written_out) -> Any:
    return mock.patch.multiple(attention, by_kernel=lambda value: True, varlen_attn=kernel)


def outcome(model: VPTModel, samples: list[Sample]) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    model(samples).loss.backward()
    with torch.no_grad():
        logits = torch.cat(model.logits(samples))
    return logits, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(model: VPTModel, samples: list[Sample]) -> None:
    expected, gradients = outcome(model, samples)
    with as_on_a_gpu():
        got, found = outcome(model, samples)
    assert (got - expected).abs().max() < 2e-5
    for name, gradient in gradients.items():
        assert (found[name] - gradient).abs().max() / gradient.abs().max().clamp(min=1e-3) < 1e-4, name


@pytest.mark.parametrize("model_type", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_a_gpu_computes_what_a_cpu_does(model_type: str) -> None:
    """Phases with and without earlier keys, and the vision tower with pictures of several sizes and windows."""
    patch = 16 if model_type == "qwen3_vl" else 14
    samples = [tb.reencode(1, "dino", 5, patch), tb.region(2, 5, patch), tb.reencode(3, "clip", 8, patch)]
    assert_same(tb.model(model_type=model_type), samples)


@settings(max_examples=15)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(1, 9)), min_size=1, max_size=5),
    st.integers(1, 3),
)
def test_a_gpu_computes_what_a_cpu_does_for_any_layout(layout: list[tuple[int, bool, int]], count: int) -> None:
    samples = []
    for seed, (kind, masked, words) in enumerate(layout):
        made = [
            tb.plain(seed, words),
            tb.region(seed, words),
            tb.reencode(seed, "clip", words, control_tokens=count),
            tb.twice(seed, "dino", "clip", count),
            *tb.edges(seed, "dino", count)[1:],
        ]
        samples.append(replace(made[kind], masked=masked and bool(made[kind].controls)))
    assert_same(tb.model(control_tokens=count), samples)


def test_what_the_kernel_is_given() -> None:
    """Half precision and one dtype, also where rotary embeddings made queries float32; rows of unit stride."""
    given: list[tuple[Tensor, ...]] = []

    def note(query: Tensor, key: Tensor, value: Tensor, cu_q: Tensor, cu_k: Tensor, *rest: Any, **how: Any) -> Tensor:
        given.append((query, key, value, cu_q, cu_k))
        assert all(type(longest) is int for longest in rest)
        return query * 1

    model, samples = tb.model(["clip"]), [tb.reencode(1, "clip"), tb.plain(2)]
    with as_on_a_gpu(note), torch.autocast("cpu", torch.bfloat16):
        model(samples)
    vision, text = model.vlm.config.vision_config, model.vlm.config.text_config
    assert len(given) == vision.depth + text.num_hidden_layers * 2  # all pictures at once, and two phases
    for query, key, value, cu_q, cu_k in given:
        assert {query.dtype, key.dtype, value.dtype} == {torch.bfloat16}
        assert {cu_q.dtype, cu_k.dtype} == {torch.int32}
        assert all(each.stride(-1) == 1 for each in (query, key, value, cu_q, cu_k))
        assert query.shape[2] == key.shape[2] == value.shape[2]
        assert key.shape == value.shape
        assert (int(cu_q[-1]), int(cu_k[-1])) == (len(query), len(key))
    heads = {(query.shape[1], key.shape[1]) for query, key, *_ in given}
    assert heads == {(vision.num_heads,) * 2, (text.num_attention_heads, text.num_key_value_heads)}
    lengths = [(len(query), len(key)) for query, key, *_ in given]
    assert lengths[-1][0] < lengths[-1][1], "the last phase sees keys of the one before"


@pytest.mark.parametrize("model_type", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_a_step_reads_nothing_from_the_device(model_type: str) -> None:
    """Tensors on the device have no values here, so whatever asked for one would raise; on a GPU it would wait."""
    patch = 16 if model_type == "qwen3_vl" else 14
    model = tb.model(model_type=model_type).to(torch.bfloat16).to("meta")
    samples = [tb.reencode(1, "dino", 5, patch), tb.region(2, 5, patch), tb.reencode(3, "clip", 8, patch)]
    with mock.patch.object(attention, "by_kernel", lambda value: True):
        out = model([*samples, replace(tb.reencode(4, "sam", 8, patch), masked=True)])
    out.loss.backward()
    assert out.loss.is_meta
    assert all(weight.grad is not None for weight in model.parameters())


def test_segments_count_on_the_host() -> None:
    segments = Segments.of([3, 1], [5, 1], torch.tensor([0, 1, 2, 3, 4, 5]))
    assert (segments.queries, segments.keys) == ((3, 1), (5, 1))
    assert segments.bounds.tolist() == [[0, 3, 4], [0, 5, 6]]
    assert segments.bounds.dtype is torch.int32
