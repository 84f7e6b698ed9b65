"""From a configuration to tokenizer, row encoder and model; also from the folder of a run."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainer import tiny
from trainer.config import Config
from trainer.corpus import Corpus
from trainer.encode import RowEncoder
from trainer.encoders import Tower, make_tower
from trainer.model import VPTModel, compat_named
from trainer.plan import Masking
from trainer.shapes import TOWERS, shape_named
from trainer.vision import Vision
from trainer.weights import load_weights
from vpt_data.errors import UsageError
from vpt_data.report import table

_TEXTS = 600  # rows that a tokenizer is learned from


def vision_of(config: Config) -> Vision:
    """Sizes of pictures."""
    return tiny.tiny_vision() if config.model.base == "tiny" else Vision(longest=config.model.longest)


def row_encoder(config: Config, tokenizer: Any) -> RowEncoder:
    """What turns rows into samples for this model."""
    return RowEncoder(tokenizer.backend_tokenizer, vision_of(config), k=config.model.k, cutoff=config.data.cutoff)


def make_tokenizer(config: Config, corpus: Corpus) -> Any:
    """The base model's tokenizer with perception tokens, or one learned from the first rows of the corpus."""
    base = config.model.base
    if base == "tiny" or base.startswith("shape:"):
        rows = islice(corpus.stream(0, 0), _TEXTS)
        texts = (message["content"] or "" for row in rows for message in row.fields["messages"])
        return tiny.tiny_tokenizer(texts, config.model.encoder, config.model.k)
    from transformers import AutoTokenizer

    return tiny.with_perception_tokens(_fetched(AutoTokenizer, base), config.model.encoder, config.model.k)


def make_model(config: Config, tokenizer: Any, saved: Path | None = None) -> VPTModel:
    """The model with the weights that a run begins with.

    `saved` is the folder of a run: its shapes are taken from there and no weights are read at all.
    """
    vlm, towers = _parts(config, tokenizer, saved)
    if (missing := len(tokenizer) - vlm.get_input_embeddings().num_embeddings) > 0:
        vlm.resize_token_embeddings(vlm.get_input_embeddings().num_embeddings + missing)
    model = VPTModel(
        vlm,
        [config.model.encoder],
        towers,
        masking=Masking(config.model.mask, config.seed, config.model.scope),
        compat=compat_named(config.model.compat),
        packing=config.data.packed,
        checkpointing=config.run.checkpointing,
    )
    if config.model.start and saved is None:
        begin = latest(Path(config.model.start)) or Path(config.model.start)
        if not begin.exists():
            raise UsageError(f"model.start is {config.model.start}, and nothing is there; give a run or a checkpoint.")
        load_weights(model, begin)
    if config.lora.rank:
        _add_lora(model, config)
    choose_trained(model, config.train, config.freeze)
    return model


def latest(run: Path) -> Path | None:
    """The newest checkpoint of a run."""
    return max(run.glob("step-*"), default=None)


def save_shapes(model: VPTModel, tokenizer: Any, folder: Path) -> None:
    """Write all that `make_model` and a tokenizer need besides weights."""
    tokenizer.save_pretrained(folder / "tokenizer")
    model.adapter.vlm.config.save_pretrained(folder / "vlm")
    for kind, tower in model.towers.items():
        assert isinstance(tower, Tower)
        config: Any = tower.encoder.config
        config.save_pretrained(folder / kind)


def load_run(folder: Path, config: Config, checkpoint: Path | None = None) -> tuple[VPTModel, Any]:
    """Model and tokenizer of a run, with the weights of `checkpoint` or of its last one."""
    found = checkpoint or latest(folder)
    if found is None:
        raise UsageError(f"{folder}: no checkpoint (step-...) in this folder; give the --out of a run.")
    tokenizer = load_tokenizer(folder)
    model = make_model(config, tokenizer, saved=folder)
    load_weights(model, found / "model.safetensors")
    return model, tokenizer


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a run."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder / "tokenizer")


def _parts(config: Config, tokenizer: Any, saved: Path | None) -> tuple[Any, dict[str, Tower]]:
    from transformers import AutoConfig, AutoModelForImageTextToText

    base, kind = config.model.base, config.model.encoder
    if saved is not None:
        stock: Any = AutoModelForImageTextToText
        vlm: Any = stock.from_config(AutoConfig.from_pretrained(saved / "vlm"))
        sizes = None if kind == "clip" else AutoConfig.from_pretrained(saved / kind).to_dict()
        return vlm, {} if sizes is None else {kind: make_tower(kind, sizes)}
    if base == "tiny" or base.startswith("shape:"):
        small = base == "tiny"
        vlm = (tiny.tiny_shape(tokenizer) if small else shape_named(base.removeprefix("shape:"))).build()
        numbers = (tiny.TINY_TOWERS if small else TOWERS).get(kind)
        return vlm, {} if numbers is None else {kind: make_tower(kind, numbers)}
    vlm = _fetched(AutoModelForImageTextToText, base, dtype=torch.float32)
    return vlm, {} if kind == "clip" else {kind: _fetched_tower(kind, getattr(config.model, kind))}


def _fetched(what: Any, name: str, **options: Any) -> Any:
    try:
        return what.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        raise _nowhere(name, error) from error


def _fetched_tower(kind: str, name: str) -> Tower:
    try:
        return make_tower(kind, pretrained=name)
    except (OSError, ValueError) as error:
        raise _nowhere(name, error) from error


def _nowhere(name: str, error: Exception) -> UsageError:
    reason = str(error).strip().splitlines()[0].rstrip(".")
    return UsageError(
        f"{name}: no such folder here, and not to be had from the Hub ({reason}); download it elsewhere and give its "
        "folder, for instance --set model.base=DIR."
    )


def _add_lora(model: VPTModel, config: Config) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError as error:
        raise UsageError("lora.rank needs peft; pip install 'vpt-data[train]', or set lora.rank=0.") from error
    layers = r".*language_model\.layers\..*_proj"
    lora = LoraConfig(r=config.lora.rank, lora_alpha=config.lora.alpha or 2 * config.lora.rank, target_modules=layers)
    inject_adapter_in_model(lora, model)


def choose_trained(model: nn.Module, train: Sequence[str], freeze: Sequence[str]) -> None:
    """Let gradients flow to weights that match `train` and not `freeze`; UsageError if a pattern matches nothing."""
    names = [name for name, _ in model.named_parameters()]
    for pattern in train:
        if not fnmatch.filter(names, pattern):
            raise UsageError(f"train: {pattern!r} matches no weight of the model; the first is {names[0]}.")
    for name, weight in model.named_parameters():
        weight.requires_grad_(_matches(name, train) and not _matches(name, freeze))
    if not any(weight.requires_grad for weight in model.parameters()):
        raise UsageError("train and freeze leave nothing to train; let train match a weight that freeze does not.")


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def trained_table(model: nn.Module) -> str:
    """Weights of each part of the model, and how many of them are trained."""
    count: Counter[str] = Counter()
    trained: Counter[str] = Counter()
    for name, weight in model.named_parameters():
        part = name.removeprefix("vlm.model.").removeprefix("vlm.").split(".")
        key = ".".join(part[:2]) if part[0] in ("towers", "projectors") else part[0]
        for group in (key, "all"):
            count[group] += weight.numel()
            trained[group] += weight.numel() * weight.requires_grad
    keys = [*(key for key in count if key != "all"), "all"]
    return table(("part", "weights", "trained"), [(key, f"{count[key]:,}", f"{trained[key]:,}") for key in keys])
