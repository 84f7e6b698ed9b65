"""Weights from files: our own checkpoints and the published VPT ones (of transformers 4.45), by name, and strictly."""

from __future__ import annotations

import contextlib
import pickle
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vpt_data.errors import CorpusError

#: How names begin there and here; each way is read, and `published_name` goes back.
_BEGINNINGS = {
    "visual.": "vlm.model.visual.",
    "model.": "vlm.model.language_model.",
    "lm_head.": "vlm.lm_head.",
    "detection_model.": "towers.dino.encoder.",
    "seg_model.": "towers.sam.encoder.vision_encoder.",
    "detection_projector.": "projectors.dino.",
    "seg_projector.": "projectors.sam.",
    "clip_projector.": "projectors.clip.",
}
#: Other beginnings that are read: of later transformers, of a whole SamModel, of the CLIP checkpoint on the Hub.
_ALIASES = {
    "model.visual.": "visual.",
    "model.language_model.": "model.",
    "seg_model.vision_encoder.": "seg_model.",
    "depth_projector.": "clip_projector.",
}
_DINO = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}
_LORA = re.compile(r"(.+)\.(base_layer|lora_A\.default|lora_B\.default)\.weight")
# Modules that the reference makes and never calls, and tables that are computed.
_UNUSED = re.compile(r"projectors\.clip\.(layernorm|linear)_feature\.|projectors\.sam\.linear_feature\.|.*\.inv_freq$")


def our_name(name: str) -> str | None:
    """The name of a published weight in our model; None for one that nothing uses.

    >>> our_name("detection_model.encoder.layer.0.attention.output.dense.bias")
    'towers.dino.encoder.encoder.layer.0.attention.o_proj.bias'
    """
    name = _begun(_begun(name, _ALIASES), _BEGINNINGS)
    if name.startswith("towers.dino."):
        for theirs, ours in _DINO.items():
            name = name.replace(theirs, ours)
    return None if _UNUSED.match(name) else name


def published_name(name: str) -> str:
    """The inverse: how the published files call a weight of our model.

    >>> published_name("vlm.model.language_model.norm.weight")
    'model.norm.weight'
    """
    if name.startswith("towers.dino."):
        for theirs, ours in _DINO.items():
            name = name.replace(ours, theirs)
    return _begun(name, {ours: theirs for theirs, ours in _BEGINNINGS.items()})


def _begun(name: str, beginnings: Mapping[str, str]) -> str:
    """The name with its beginning replaced, if it is one of these."""
    old = next((old for old in beginnings if name.startswith(old)), "")
    return beginnings.get(old, "") + name.removeprefix(old)


def read_weights(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a file, or of all `*.safetensors`, else `pytorch_model*.bin`, of a folder."""
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors")) or sorted(path.glob("pytorch_model*.bin"))
    if not files:
        raise CorpusError(f"{path}: no *.safetensors and no pytorch_model*.bin, expected a checkpoint folder or file")
    for file in files:
        try:
            if file.suffix == ".safetensors":
                with safe_open(file, framework="pt") as weights:
                    yield from ((name, weights.get_tensor(name)) for name in weights.keys())  # noqa: SIM118
            else:
                yield from torch.load(file, map_location="cpu", mmap=True, weights_only=True).items()
        except (OSError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
            reason = str(error).partition("\n")[0]
            step = file.parent.name.startswith("step-") and len(list(file.parent.parent.glob("step-*"))) > 1
            advice = f"remove {file.parent} to use the checkpoint before it" if step else "copy or download it again"
            raise CorpusError(f"{file}: not a whole file of weights ({reason}); {advice}.") from error


def cast(weights: Iterable[nn.Parameter], dtype: torch.dtype) -> None:
    """Change the type of weights alone: `Module.to` would round the tables of rotary embeddings, too."""
    for weight in weights:
        weight.data = weight.data.to(dtype)


@contextlib.contextmanager
def without_memory() -> Iterator[None]:
    """Weights of modules made inside get memory only by `load_weights`; buffers are computed as usual."""
    register = nn.Module.register_parameter

    def on_meta(module: nn.Module, name: str, weight: nn.Parameter | None) -> None:
        # One that is there already may be tied, so it stays the object that it is.
        if weight is not None and not weight.is_meta:
            weight = nn.Parameter(weight.to("meta"), requires_grad=weight.requires_grad)
        register(module, name, weight)

    nn.Module.register_parameter = on_meta  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def merged(weights: Iterable[tuple[str, Tensor]], scaling: Callable[[], float]) -> Iterator[tuple[str, Tensor]]:
    """Weights with those of LoRA added to the layers that they stand beside; `scaling` is asked if there are any."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in weights:
        found = _LORA.fullmatch(name)
        if found is None:
            yield name.replace(".base_layer.", "."), tensor
            continue
        layer, part = found.groups()
        mine = parts.setdefault(layer, {})
        mine[part] = tensor
        if len(mine) == 3:
            change = mine["lora_B.default"].float() @ mine["lora_A.default"].float()
            # In float32: a run on a GPU keeps frozen layers in bfloat16, which has no room for small changes.
            yield f"{layer}.weight", mine["base_layer"].float() + scaling() * change
            del parts[layer]


def load_weights(model: nn.Module, path: Path, scaling: Callable[[], float] | None = None) -> None:
    """Fill a VPT model from published or own weights, in the model's dtype.

    `scaling` gives the factor of LoRA weights, which are then merged. CorpusError lists everything that is missing,
    unexpected or of another shape.
    """
    wanted = model.state_dict(keep_vars=True)
    owners: dict[int, str] = {}
    tied = {name: owners.setdefault(id(weight), name) for name, weight in wanted.items()}
    source: dict[str, tuple[str, Tensor]] = {}
    wrong: list[str] = []
    for theirs, tensor in merged(read_weights(path), scaling) if scaling else read_weights(path):
        name = our_name(theirs)
        if name is None:
            continue
        if name not in wanted:
            wrong.append(f"unexpected {theirs}")
            continue
        first, twin = source.setdefault(tied[name], (theirs, tensor))
        if wanted[name].shape != tensor.shape:
            wrong.append(f"shape {list(tensor.shape)} of {theirs}, expected {list(wanted[name].shape)}")
        elif not torch.equal(twin, tensor):
            both = " and ".join(sorted((first, theirs)))
            wrong.append(f"{both} differ, but the model ties them")
    wrong += [f"missing {name}" for name in owners.values() if name not in source]
    if wrong:
        listed = "; ".join(sorted(wrong)[:20])
        raise CorpusError(
            f"{path}: {len(wrong)} weights do not fit the model: {listed}{'; ...' if len(wrong) > 20 else ''}; check "
            "that encoder, model size and control tokens are those of the checkpoint"
        )
    with torch.no_grad():
        for name, (_, tensor) in source.items():
            weight = wanted[name]
            if weight.is_meta:
                # The object stays, for tied layers share it.
                filled = nn.Parameter(tensor.to(weight.dtype, copy=True), requires_grad=weight.requires_grad)
                torch.utils.swap_tensors(weight, filled)  # type: ignore[no-untyped-call]
            else:
                weight.copy_(tensor)
