"""From a configuration to what is trained, and from the folder of a run to a model that is used or trained on."""

from __future__ import annotations

import fnmatch
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer

from trainer.config import Config
from trainer.data.corpus import Corpus
from trainer.data.encode import SYSTEM, RowEncoder
from trainer.data.loader import Loader, Settings
from trainer.data.vision import Vision
from trainer.encoders import towers_of
from trainer.encoders.kind import Tower
from trainer.model import tiny
from trainer.model.vpt import VPTModel
from trainer.model.weights import cast, load_weights, without_memory
from trainer.training.base import (
    is_offline,
    kinds_of,
    processor_of,
    read,
    tokenizer_beside,
    tower_of,
    vision_of,
    vlm_of,
    with_tokens,
)
from trainer.training.checkpoint import writing
from trainer.training.run_folder import configuration, latest
from vpt_data import store
from vpt_data.errors import UsageError
from vpt_data.report import table

if TYPE_CHECKING:
    from trainer.training.parallel import Ranks

_TEXTS = 600  # rows that a tokenizer is learned from


def row_encoder(config: Config, tokenizer: Any, vision: Vision) -> RowEncoder:
    """What turns rows into samples for this model."""
    words, model = tokenizer.backend_tokenizer, config.model
    return RowEncoder(words, vision, model.k, cutoff=config.data.cutoff, control_tokens=model.control_tokens)


def make_loader(config: Config, corpus: Corpus, encoder: RowEncoder, ranks: Ranks) -> tuple[Loader, int]:
    """The rows for a rank, and how many optimiser steps the whole run has."""
    data, per_epoch = config.data, -(-corpus.rows // config.data.rows)
    total = config.optim.steps or config.optim.epochs * per_epoch
    epochs, pin = -(-total // per_epoch), ranks.device.type == "cuda"
    mask, seed = config.model.mask, config.seed
    settings = Settings(data.rows, data.tokens, epochs, seed, mask, data.window, data.workers, pin)
    return _loader(config, corpus, encoder, settings, ranks), total


def held_out(config: Config, corpus: Corpus, encoder: RowEncoder, ranks: Ranks) -> Loader:
    """Rows of the split `data.validation` as one step without mask modelling, the same for any number of ranks."""
    data, pin = config.data, ranks.device.type == "cuda"
    settings = Settings(
        data.validation_rows, data.tokens, window=data.window, workers=data.workers, pin=pin, alike=True, first=True
    )
    return _loader(config, corpus, encoder, settings, ranks)


def _loader(config: Config, corpus: Corpus, encoder: RowEncoder, settings: Settings, ranks: Ranks) -> Loader:
    raw = Path(config.data.raw) if config.data.raw else None
    return Loader(corpus, encoder, settings, raw=raw, rank=ranks.rank, world=ranks.world)


def make_tokenizer(config: Config, corpus: Corpus) -> Any:
    """The base model's tokenizer with perception tokens, or one learned from the first rows of the corpus."""
    if not is_offline(config):
        return with_tokens(config, read(config, None, "tokenizer", AutoTokenizer))
    texts = (text for row in islice(corpus.stream(0, 0), _TEXTS) for text in _texts(row.fields["messages"]))
    return with_tokens(config, tiny.base_tokenizer(texts))


def _texts(messages: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """What a row says, with the words of the template: spelled by letters they would be most of a row's tokens."""
    yield f"system\n{SYSTEM}"
    yield from (f"{message['role']}\n{message['content'] or ''}" for message in messages)


def make_model(config: Config, tokenizer: Any) -> VPTModel:
    """The model with the weights that a run begins with."""
    model = _of_base(config, tokenizer)
    if config.model.start:
        begin = latest(Path(config.model.start)) or Path(config.model.start)
        if not begin.exists():
            raise UsageError(f"model.start is {config.model.start}, and nothing is there; give a run or a checkpoint.")
        load_weights(model, begin, partial(_scaling, begin))
    return _adapted(model, config)


def _of_base(config: Config, tokenizer: Any) -> VPTModel:
    """The model with the weights of its base and of its encoder."""
    towers = {kind: tower_of(config, kind, tower) for kind, tower in towers_of(kinds_of(config)).items()}
    return _composed(config, vlm_of(config, tokenizer), towers, tokenizer)


def _composed(config: Config, vlm: Any, towers: Mapping[str, Tower], tokenizer: Any) -> VPTModel:
    if len(tokenizer) > vlm.get_input_embeddings().num_embeddings:
        vlm.resize_token_embeddings(len(tokenizer))
    return VPTModel(
        vlm,
        kinds_of(config),
        towers,
        control_tokens=config.model.control_tokens,
        positions_1d=config.model.positions_1d,
        checkpointing=config.run.checkpointing,
    )


def _adapted(model: VPTModel, config: Config) -> VPTModel:
    """The model with LoRA, and with gradients for what is trained."""
    if config.lora.rank:
        _add_lora(model, config)
    choose_trained(model, config.train, config.freeze)
    return model


def _scaling(begin: Path) -> float:
    """The factor of the LoRA weights in a checkpoint, from the configuration of its run."""
    for folder in (begin, *begin.parents[:2]):
        before = configuration(folder)
        if before is not None and before.lora.rank:
            return (before.lora.alpha or 2 * before.lora.rank) / before.lora.rank
    raise UsageError(
        f"{begin}: holds weights of LoRA, and no config.json of a run beside it gives their factor; give the folder of "
        "the run."
    )


def save_run(folder: Path, config: Config, model: VPTModel, tokenizer: Any, vision: Vision) -> None:
    """Write all of a run but weights, over what a run without a checkpoint has left."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.jsonl").unlink(missing_ok=True)
        save_shapes(model, tokenizer, folder)
        store.write(folder / "vlm" / "preprocessor_config.json", json.dumps(processor_of(vision), indent=2).encode())
        # Last: with it there is a run.
        store.write(folder / "config.json", json.dumps(msgspec.to_builtins(config), indent=2).encode())


def save_shapes(model: VPTModel, tokenizer: Any, folder: Path) -> None:
    """Write all that `make_model` and a tokenizer need besides weights."""
    tokenizer.save_pretrained(folder / "tokenizer")
    model.adapter.vlm.config.save_pretrained(folder / "vlm")
    for kind, tower in model.towers.items():
        tower.encoder.config.save_pretrained(folder / kind)


class Loaded(NamedTuple):
    """A trained model and what it must be given."""

    config: Config
    model: VPTModel
    tokenizer: Any
    vision: Vision


def open_run(place: Path, dtype: torch.dtype = torch.float32) -> Loaded:
    """The model of a run, or of one of its checkpoints, for use: weights of LoRA are merged."""
    chosen = place.name.startswith(("step-", "weights-"))
    folder = place.parent if chosen else place
    config = configuration(folder) or Config()  # without one there are no checkpoints
    weights = _weights(folder, place if chosen else latest(folder))
    model, tokenizer = _filled(config, folder, weights, dtype, merge=True)
    return Loaded(config, model, tokenizer, vision_of(config, folder))


def open_published(weights: Path, config: Config, dtype: torch.dtype = torch.float32) -> Loaded:
    """The same with the weights of a whole model, without a run: shapes and tokenizer are those of the base.

    A base that is made here has no tokenizer: it is the one beside the weights, as an export has it.
    """
    if is_offline(config):
        tokenizer = tokenizer_beside(config, weights)
        model = _of_base(config, tokenizer)
        cast(model.parameters(), dtype)
        load_weights(model, weights)
    else:
        model, tokenizer = _filled(config, None, weights, dtype, merge=True)
    return Loaded(config, model, tokenizer, vision_of(config))


def load_run(folder: Path, config: Config) -> tuple[VPTModel, Any]:
    """Model and tokenizer of a run with its last weights, to be trained further: those of LoRA stay apart."""
    return _filled(config, folder, _weights(folder, latest(folder)), torch.float32, merge=False)


def _weights(folder: Path, checkpoint: Path | None) -> Path:
    if checkpoint is None or not checkpoint.is_dir():
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder; give the --out of a run.")
        name = checkpoint.name if checkpoint else "(step-...)"
        raise UsageError(f"{folder}: no checkpoint {name} in this folder; give the --out of a run.")
    return checkpoint / "model.safetensors"


def _filled(
    config: Config, run: Path | None, weights: Path, dtype: torch.dtype, *, merge: bool
) -> tuple[VPTModel, Any]:
    """A model that gets memory with its weights only, and its tokenizer."""
    tokenizer = with_tokens(config, read(config, run, "tokenizer", AutoTokenizer))
    with without_memory():
        shapes = read(config, run, "vlm", AutoConfig)
        shapes.text_config.vocab_size = max(shapes.text_config.vocab_size, len(tokenizer))
        auto: Any = AutoModelForImageTextToText
        classes = towers_of(kinds_of(config))
        towers = {k: tower.made(read(config, run, k, tower.classes()[1]).to_dict()) for k, tower in classes.items()}
        model = _composed(config, auto.from_config(shapes, dtype=torch.float32), towers, tokenizer)
    if not merge:
        model = _adapted(model, config)
    cast(model.parameters(), dtype)
    load_weights(model, weights, partial(_scaling, weights) if merge else None)
    return model, tokenizer


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


def unaligned(config: Config, model: VPTModel) -> str:
    """One sentence if language model or control layer are trained with a projector of random weights; else empty."""
    kinds = list(towers_of(kinds_of(config)))
    if not kinds or config.model.start or is_offline(config):
        return ""
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    if trained == {name for name, _ in model.named_parameters() if name.startswith("projectors.")}:
        return ""
    return (
        f"Warning: the projector of {kinds[0]} begins with random weights; train it first (--config "
        f"alignment_{kinds[0]}), and begin with that run: --set model.start=RUN."
    )


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
