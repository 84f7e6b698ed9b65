"""What the trainer takes from transformers: three classes, their positions, their real sizes, LoRA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import tiny_batches as tb
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bench.full_passes import full_passes
from trainer.data.sample import Sample
from trainer.encoders import towers_of
from trainer.model.adapter import Adapter
from trainer.model.phases import positions
from trainer.model.shapes import SHAPES, TOWERS, shape_named
from trainer.model.tiny import tiny_model, tiny_tokenizer
from trainer.model.vpt import VPTModel
from vpt_data.dialogue.tokens import added_tokens
from vpt_data.errors import UsageError

torch.set_num_threads(1)
TYPES = {"qwen2_vl": 14, "qwen2_5_vl": 14, "qwen3_vl": 16}


def stock_inputs(samples: Sequence[Sample]) -> dict[str, Tensor]:
    """A right-padded batch as the stock class takes it."""
    columns: dict[str, list[Tensor]] = {"input_ids": [], "labels": [], "attention_mask": [], "mm_token_type_ids": []}
    for sample in samples:
        kinds = torch.zeros_like(sample.input_ids)
        for slot in sample.slots:
            kinds[slot.start : slot.start + slot.length] = 1
        values = (sample.input_ids, sample.labels, torch.ones_like(kinds), kinds)
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
    pads = {"labels": -100}
    batch = {
        name: nn.utils.rnn.pad_sequence(column, batch_first=True, padding_value=pads.get(name, 0))
        for name, column in columns.items()
    }
    slots = [slot for sample in samples for slot in sample.slots]
    grids = torch.tensor([slot.grid for slot in slots])
    return {**batch, "pixel_values": torch.cat([slot.pixels for slot in slots]), "image_grid_thw": grids}


def stock_of(model: VPTModel) -> Any:
    stock: Any = tb.shape(model.vlm.config.model_type).build()
    stock.load_state_dict(model.vlm.state_dict())
    return stock


@pytest.mark.parametrize("model_type", TYPES)
def test_without_control_tokens_it_is_the_stock_class_bit_for_bit(model_type: str) -> None:
    model = tb.model(model_type=model_type).eval()
    patch = TYPES[model_type]
    stock = stock_of(model).eval()
    samples = [tb.plain(1, 5, patch), tb.region(2, 9, patch), tb.plain(3, 30, patch), tb.region(4, 5, patch)]
    with torch.no_grad():
        for sample in samples:
            assert torch.equal(model.logits([sample])[0], stock(**stock_inputs([sample])).logits[0])
        expected, got, out = stock(**stock_inputs(samples)), model.logits(samples), model(samples)
    # Samples in a row and samples padded to the longest are products of other sizes, so of other rounding.
    assert max((one - row[: len(one)]).abs().max() for one, row in zip(got, expected.logits, strict=True)) < 2e-5
    assert (out.loss / out.labels).item() == pytest.approx(expected.loss.item(), abs=1e-5)


@pytest.mark.parametrize("model_type", TYPES)
def test_every_class_runs_control_tokens_at_single_cost(model_type: str) -> None:
    model, patch = tb.model(model_type=model_type), TYPES[model_type]
    samples = [tb.reencode(1, "clip", 5, patch), tb.region(2, 5, patch), tb.reencode(3, "dino", 8, patch)]
    plan, states = full_passes(model, samples)
    expected = model.adapter.head(states[plan.cells]).split([len(sample.input_ids) for sample in samples])
    assert max((a - b).abs().max().item() for a, b in zip(model.logits(samples), expected, strict=True)) < 2e-5
    model(samples).loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_the_stock_forward_still_works_inside() -> None:
    """Our attention is set in its configuration; stock code that asks for masks must get them."""
    model = tb.model().eval()
    batch = stock_inputs([tb.plain(1), tb.region(2)])
    with torch.no_grad():
        assert torch.equal(model.vlm(**batch).logits, stock_of(model).eval()(**batch).logits)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(0, 4)), min_size=1))
def test_positions_are_those_of_transformers(seed: int, pictures: list[tuple[int, int, int]]) -> None:
    writer = tb.Writer(seed)
    writer.words(seed % 4)
    for rows, columns, words in pictures:
        writer.picture("vlm", rows, columns)
        writer.words(words)
    sample = writer.done()
    inner: Any = tb.model().vlm
    batch = stock_inputs([sample])
    expected, _ = inner.model.get_rope_index(
        batch["input_ids"], batch["mm_token_type_ids"], image_grid_thw=batch["image_grid_thw"]
    )
    assert torch.equal(positions(sample, 2), expected[:, 0])
    assert torch.equal(positions(sample, 2, start=5), expected[:, 0] + 5)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # dynamo looks at it
def test_compiled_layers_give_the_same_and_are_compiled_once() -> None:
    """Neither another layer nor another number of tokens, samples, pictures or phases makes another graph."""
    deeper = tb.shape()
    deeper = replace(deeper, text={**deeper.text, "num_hidden_layers": 4})
    plain, compiled = (tiny_model(tb.tokenizer(), ["dino"], deeper).train() for _ in range(2))
    compiled.load_state_dict(plain.state_dict())
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled.adapter.compile(backend="eager")
    graphs = []
    for samples in ([tb.reencode(1, "dino"), tb.plain(2)], [tb.twice(3, "dino", "dino")], [tb.plain(4, 30)]):
        assert compiled(samples).loss.item() == pytest.approx(plain(samples).loss.item(), rel=1e-5)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert graphs == [12, 12, 12]  # of the first layer and the others, text and vision, up to four pieces each


def on_meta(name: str, kind: str) -> VPTModel:
    with torch.device("meta"):
        towers = {kind: towers_of([kind])[kind].made(TOWERS[kind])} if kind != "clip" else {}
        return VPTModel(SHAPES[name].build(), [kind], towers)


def weights(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "kind", "published"),
    [
        ("qwen2_vl_2b", "dino", 2.75),
        ("qwen2_vl_2b", "sam", 2.76),
        ("qwen2_vl_2b", "clip", 2.45),
        ("qwen2_vl_7b", "clip", 8.32),
    ],
)
def test_real_sizes_are_the_published_ones(name: str, kind: str, published: float) -> None:
    """Counts of the published checkpoints, which hold two things that ours do not: see `extra`."""
    model = on_meta(name, kind)
    vlm: Any = model.vlm
    width, layers, inner = {"qwen2_vl_2b": (1536, 28, 8960), "qwen2_vl_7b": (3584, 28, 18_944)}[name]
    heads, keys, vocabulary = {"qwen2_vl_2b": (12, 256, 151_936), "qwen2_vl_7b": (28, 512, 152_064)}[name]
    assert width == heads * 128
    layer = 2 * width * width + width + 2 * (width * keys + keys) + 3 * width * inner + 2 * width
    parts = {
        "embeddings": (vlm.model.language_model.embed_tokens, vocabulary * width),
        "layers": (vlm.model.language_model.layers, layers * layer),
        "norm": (vlm.model.language_model.norm, width),
        "patches": (vlm.model.visual.patch_embed, 1280 * 3 * 2 * 14 * 14),
        "blocks": (vlm.model.visual.blocks, 32 * (4 * 1280**2 + 4 * 1280 + 8 * 1280**2 + 5 * 1280 + 4 * 1280)),
        "merger": (vlm.model.visual.merger, 2 * 1280 + 5120**2 + 5120 + 5120 * width + width),
        "tower": (model.towers, {"dino": 304_368_640, "sam": 308_278_272, "clip": 0}[kind]),
        "projector": (
            model.projectors,
            2 * width
            + width * width
            + width
            + {"dino": 2 * 1024 + 1024 * width + width, "sam": 2 * 256 + 256 * 16 * width + width, "clip": 0}[kind],
        ),
    }
    for part, (module, count) in parts.items():
        assert weights(module) == count, part
    head = 0 if SHAPES[name].tied else vocabulary * width
    assert weights(model) == sum(count for _, count in parts.values()) + head
    # A tied head is stored again, and the reference makes feature layers that it never calls.
    unused = {"dino": 0, "sam": 256 * width + width, "clip": 2 * width + width * width + width}[kind]
    extra = (vocabulary * width if SHAPES[name].tied else 0) + unused
    assert round((weights(model) + extra) / 1e9, 2) == published


def test_unknown_models_are_refused() -> None:
    class Other(nn.Module):
        config = type("Config", (), {"model_type": "llava"})()

    with pytest.raises(UsageError, match=r"^Model type 'llava' has no adapter, expected qwen2_vl, qwen2_5_vl or qwen3"):
        Adapter(Other())
    with pytest.raises(UsageError, match=r"^Unknown model shape 'qwen2_vl_3b'; did you mean qwen2_vl_7b or"):
        shape_named("qwen2_vl_3b")


def test_lora_trains_through_our_layer_loop_and_moves_new_rows_only() -> None:
    peft = pytest.importorskip("peft")
    model = tb.model(["dino"], checkpointing=True)
    ids = tb.tokenizer().convert_tokens_to_ids
    new = [ids("<|x_1|>"), ids("<|detection_action_start|>")]
    config = peft.LoraConfig(
        r=4, target_modules=r".*language_model.*(q_proj|down_proj)", trainable_token_indices={"embed_tokens": new}
    )
    peft.inject_adapter_in_model(config, model.vlm)
    model.towers.requires_grad_(False)
    before = model.adapter.embed(torch.arange(len(tb.tokenizer()))).detach()
    trained = {name for name, p in model.named_parameters() if p.requires_grad and "projectors" not in name}
    assert trained and all("lora_" in name or "trainable_tokens" in name for name in trained)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    samples = [tb.region(1), tb.reencode(2, "dino")]
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        out = model(samples)
        (out.loss / out.labels).backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
        optimizer.step()
        losses.append(out.loss.item())
    assert losses[2] < losses[0]
    moved = (model.adapter.embed(torch.arange(len(tb.tokenizer()))) - before).abs().amax(1) > 0
    assert moved.nonzero()[:, 0].tolist() == sorted(new)


def test_the_tiny_tokenizer_has_every_token_once_and_keeps_it() -> None:
    made = tiny_tokenizer(["what is it? it is a cat\n"], "sam", words=280)
    added = added_tokens("sam")
    first = made.convert_tokens_to_ids(added[0].content)
    assert [made(token.content).input_ids for token in added] == [[first + n] for n in range(len(added))]
    text = "".join(token.content for token in added[1:])
    assert made.decode(made(added[0].content + text).input_ids, skip_special_tokens=True) == text
    assert made.decode(made("ünseen words\n").input_ids) == "ünseen words\n"
