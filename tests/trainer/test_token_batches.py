"""Micro-batches on their way to the model: one copy, no wait for the device, each picture once."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
import tiny_batches as tb
import torch
from hypothesis import given
from hypothesis import strategies as st
from loaders import TEXTS, row, row_encoder
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.data.corpus import open_corpus
from trainer.data.loader import Loader, Micro, Settings
from trainer.data.parcel import Parcel
from trainer.data.sample import Batch, Sample
from trainer.model import attention
from trainer.model.tiny import tiny_model, tiny_tokenizer, tiny_vision
from trainer.model.vpt import VPTModel

torch.set_num_threads(1)


class Pair(NamedTuple):
    one: Any
    other: Any


DTYPES = st.sampled_from([torch.int64, torch.int32, torch.float32, torch.uint8, torch.bool, torch.bfloat16])
TENSORS = st.builds(
    lambda shape, dtype: torch.randint(0, 2, shape).to(dtype).permute(tuple(reversed(range(len(shape))))),
    st.lists(st.integers(0, 3), max_size=2),
    DTYPES,
)
TREES = st.recursive(TENSORS | st.none() | st.integers(), lambda inner: st.lists(inner) | st.builds(Pair, inner, inner))


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, list | Pair):
        return type(one) is type(other) and len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


@given(TREES)
def test_a_parcel_holds_what_was_put_in(tree: Any) -> None:
    parcel = Parcel.of({"tree": tree})
    assert equal(pickle.loads(pickle.dumps(parcel)).opened()["tree"], tree)
    assert parcel.data.dtype == torch.uint8


class Waits(TorchDispatchMode):
    """Copies to a device without values, which stands for a GPU; `torch.tensor` there is one, too."""

    def __init__(self) -> None:
        super().__init__()
        self.copied = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in ("_to_copy", "copy_"):
            source = args[-1] if func.overloadpacket.__name__ == "copy_" else args[0]
            self.copied += bool(out.is_meta and not source.is_meta)
        return out


class Made(TorchFunctionMode):
    """Counts tensors that are made of numbers of the host."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.count += func in (torch.tensor, torch.as_tensor) and out.is_meta
        return out


def first(corpus: Path, encoder: str, model: VPTModel, **options: Any) -> Micro:
    reader = Loader(open_corpus(str(corpus)), row_encoder(encoder), Settings(rows=24, tokens=2048, **options))
    reader.planner = model.planner
    return next(iter(reader))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_micro_batch_is_one_copy_and_no_wait(embedded_corpus: Path, workers: int) -> None:
    """On the device tensors have no values here: whatever asks for one raises, where it would wait on a GPU."""
    model = tiny_model(tiny_tokenizer(TEXTS, "dino"), ("dino",)).to(torch.bfloat16).to("meta")
    micro, vision = first(embedded_corpus, "dino", model, workers=workers), tiny_vision()
    micro.batch(vision, "meta")  # mean and deviation of pixels go there once for all
    with mock.patch.object(attention, "by_kernel", lambda value: True), Made() as made, Waits() as waits:
        batch = micro.batch(vision, "meta")
        out = model(batch)
        out.loss.backward()
    assert out.loss.is_meta and len(batch.plan.phases) == micro.phases == 2
    assert (waits.copied, made.count) == (1, 0)


def clip_row(id: str) -> dict[str, Any]:
    """A picture, a look at it through CLIP, at a crop, and at the crop through CLIP."""
    call = "<|clip_action_start|><|clip_action|><|clip_action_end|>"
    turns = ["<image>\nWhat?", call, "<clip_image>", call, "<image><clip_image>", "A dog."]
    crop = {"turn": 4, "box": [0, 0, 40, 30]}
    views = [{"turn": 0}, {"turn": 2, "encoder": "clip"}, crop, {**crop, "encoder": "clip"}]
    return row(id, *turns, views=views)


def test_views_of_one_picture_in_one_size_share_it() -> None:
    sample = row_encoder("clip").encode(clip_row("a/1"))
    assert [slot.shares for slot in sample.slots] == [None, 0, None, 2]
    other = row("a/2", "<image><image>", "A dog.", views=[{"turn": 0}, {"turn": 0, "box": [0, 0, 80, 60]}])
    assert [slot.shares for slot in row_encoder("clip").encode(other).slots] == [None, None]
    looks = [{"turn": 0}, {"turn": 0, "encoder": "dino"}, {"turn": 0, "encoder": "dino"}]
    call = "<|detection_action_start|><|detection_action|><|detection_action_end|>"
    mixed = row("a/3", "<image><detection_image><detection_image>", call, views=looks)
    assert [slot.shares for slot in row_encoder("dino").encode(mixed).slots] == [None, None, 1]


def looking(seed: int, shared: bool) -> Sample:
    """A look through CLIP at the picture of the question."""
    writer = tb.Writer(seed)
    writer.question()
    writer.action("clip")
    writer.look("clip", 4, 4)
    writer.answer()
    first = writer.slots[0]
    again = {"pixels": None, "shares": 0} if shared else {"pixels": first.pixels}
    writer.slots[1] = replace(writer.slots[1], **again)
    return writer.done()


def test_a_shared_picture_is_encoded_once_and_changes_nothing() -> None:
    """Half the patches, the same loss and gradients."""
    model = tb.model(["clip"])
    patches: list[int] = []
    model.adapter.vision.register_forward_pre_hook(lambda tower, given: patches.append(len(given[0])))
    found = []
    for shared in (False, True):
        model.zero_grad()
        out = model([looking(1, shared), tb.plain(2), looking(3, shared)])
        out.loss.backward()
        found.append((out.loss.item(), [weight.grad for weight in model.parameters() if weight.grad is not None]))
    (loss, gradients), (other, others) = found
    assert patches == [5 * 64, 3 * 64]
    assert other == pytest.approx(loss, rel=1e-5)
    assert max(float((a - b).abs().max()) for a, b in zip(gradients, others, strict=True)) < 1e-5


def test_a_batch_without_samples_is_two_tokens_without_labels() -> None:
    model = tb.model(["dino"])
    batch = model.batch([])
    assert isinstance(batch, Batch) and len(batch.plan.cells) == 2
    out = model(batch)
    assert (out.loss.item(), out.labels.item(), int(out.total.sum())) == (0.0, 0.0, 0)
    out.loss.backward()
