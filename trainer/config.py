"""Configuration of a run: strict TOML, typed. A file may extend another one beside it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from vpt_data.dialogue.tokens import FAMILIES, REGION
from vpt_data.dialogue.tokens.reencode import ENCODERS
from vpt_data.errors import UsageError, unknown_name
from vpt_data.recipe import literal, read_table

CONFIGS = Path(__file__).parent / "configs"
NO_ENCODER = "none"  # model.encoder of a model that looks at regions only
Count = Annotated[int, Meta(ge=0)]
Some = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0, le=1)]
BelowOne = Annotated[float, Meta(ge=0, lt=1)]
Parallel = Literal["ddp", "fsdp2"]
Amount = Annotated[float, Meta(ge=0)]


#: Keys of older configurations: values with which they mean what is always done now, and what to do about others.
_REMOVED = {
    ("data", "packed"): ((True, False), ""),
    ("model", "scope"): (("strict",), "leave it out: a control token of a masked row sees nothing of the user turn"),
    ("model", "compat"): (("paper",), "leave it out, and set model.positions_1d=true for weights trained with it"),
}


class Model(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What is trained.

    encoder  extra encoder; `none`: the model looks at regions only, and nothing else is loaded
    base     `tiny` or `small`; `shape:NAME` (of trainer/model/shapes.py, with random weights); else a folder or a name
             on the Hub
    start    run, checkpoint or published weights to begin with: a whole model
    families of perception tokens beside those of the encoder, in vocabulary order (`FAMILIES` of vpt_data's tokens)
    control_tokens  of a look through another encoder, as in the corpus
    longest  longer side in pixels of a picture for the model's own tower (paper: 224 and 512)
    pixels   `once`: pictures are resized once; `reference`: shrunk by nearest neighbour first, as in the reference code
    mask     share of the samples with mask modelling (see `Sample.masked`); another one in every epoch
    positions_1d  count image tokens like text, as the reference does in training: for weights that it trained
    """

    base: str = "tiny"
    encoder: str = "dino"
    dino: str = "facebook/dinov2-large"
    sam: str = "facebook/sam-vit-large"
    start: str = ""
    families: list[str] = msgspec.field(default_factory=lambda: [REGION])
    k: Some = 8
    control_tokens: Some = 1
    longest: int = 512
    pixels: Literal["once", "reference"] = "once"
    mask: Share = 0.0
    positions_1d: bool = False


class Data(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Where rows come from (`corpus` empty: the sample corpus; `synthetic:plates`: see
    `vpt_data.synthetic.plates`) and how they become batches; see `data.Settings`.

    validation  split of rows that are not trained on, such as `holdout`: the loss on `validation_rows` of it is logged
    """

    corpus: str = ""
    raw: str = ""
    split: str = "train"
    validation: str = ""
    validation_rows: Some = 1024
    takes: list[str] = []
    rows: Some = 256
    tokens: Some = 16_384
    cutoff: Some = 2048
    window: Some = 16_384
    workers: Count = 0


class Optim(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """AdamW, linear warm-up over a share of all steps, then cosine to zero; `steps` 0: as many as `epochs` have."""

    lr: Amount = 2e-5
    warmup: Share = 0.03
    epochs: Some = 1
    steps: Count = 0
    clip: Amount = 1.0
    weight_decay: Amount = 0.0
    beta1: BelowOne = 0.9
    beta2: BelowOne = 0.999


class Lora(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """LoRA on all linear layers of the language model; rank 0: none. Other weights follow `train` and `freeze`."""

    rank: Count = 0
    alpha: Count = 0


class Settings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How the machine is used, which changes no result beyond rounding.

    checkpointing  the layers, or a share of them, that run again in the backward pass instead of being kept
    save_every  steps between checkpoints, of which the last `keep` stay
    keep_weights  of older ones the weights stay
    validate_every  steps between losses on the rows of `data.validation`; the last step has one as well
    ids  log what each step trained on
    """

    parallel: Parallel = "ddp"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    checkpointing: bool | Share = True
    compile: bool = False
    threads: Count = 0
    save_every: Some = 1000
    keep: Some = 1
    keep_weights: bool = False
    validate_every: Some = 500
    ids: bool = False


class Config(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A run. `train` and `freeze` are globs of weight names: what matches `train` and not `freeze` is trained."""

    model: Model = Model()
    data: Data = Data()
    optim: Optim = Optim()
    lora: Lora = Lora()
    run: Settings = Settings()
    train: list[str] = msgspec.field(default_factory=lambda: ["*"])
    freeze: list[str] = msgspec.field(default_factory=lambda: ["towers.*"])
    seed: int = 0


def load(name: str, overrides: Iterable[str] = ()) -> Config:
    """The configuration of a file, or of a name in trainer/configs, with `key=value` overrides."""
    if not name.endswith(".toml") and not (CONFIGS / f"{name}.toml").is_file():
        known = sorted(path.stem for path in CONFIGS.glob("*.toml"))
        if Path(name).exists():
            raise UsageError(
                f"{name}: not a configuration; give a file whose name ends in .toml, or one of {', '.join(known)}."
            )
        raise unknown_name("configuration", name, known)
    return decode(_merged(Path(name) if name.endswith(".toml") else CONFIGS / f"{name}.toml"), name, overrides)


def decode(table: dict[str, Any], name: str, overrides: Iterable[str] = ()) -> Config:
    """A configuration from a table; UsageError names the key that is wrong."""
    for override in overrides:
        table = _over(table, _override(override))
    table = _without_removed(table, name)
    try:
        config = msgspec.convert(table, Config)
    except msgspec.ValidationError as error:
        raise UsageError(f"Configuration {name}: {error}; see trainer/config.py for all keys.") from error
    if config.model.encoder not in (*ENCODERS, NO_ENCODER):
        raise unknown_name("value of model.encoder", config.model.encoder, (*ENCODERS, NO_ENCODER))
    if config.data.validation == config.data.split:
        raise UsageError(
            f"Configuration {name}: data.validation is {config.data.split}, the split that is trained on; name another "
            "one, such as the split holdout of a corpus that was built with the key holdout."
        )
    for family in config.model.families:
        if family not in FAMILIES:
            raise unknown_name("value of model.families", family, FAMILIES)
    return config


def _without_removed(table: dict[str, Any], name: str) -> dict[str, Any]:
    """The table without keys that older runs have, if these change nothing."""
    for (section, key), (same, advice) in _REMOVED.items():
        inner = table.get(section)
        if not isinstance(inner, dict) or key not in inner:
            continue
        if inner[key] not in same:
            raise UsageError(
                f"Configuration {name}: {section}.{key} is {inner[key]!r}, which the trainer no longer has; {advice}."
            )
        table = {**table, section: {other: value for other, value in inner.items() if other != key}}
    return table


def differences(before: Config, now: Config) -> list[str]:
    """What keeps a run from going on with `now`, one sentence each."""
    old, new = _flat(before), _flat(now)
    return [f"{key} was {old[key]!r} and is {new[key]!r} now" for key in old if old[key] != new[key]]


def _flat(config: Config) -> dict[str, Any]:
    """All values that a run depends on: places may move, memory may need smaller micro-batches, and the loader itself
    knows the corpus.
    """
    table = msgspec.to_builtins(config)
    values = {"train": config.train, "freeze": config.freeze, "seed": config.seed}
    for section in ("model", "data", "optim", "lora"):
        values |= {f"{section}.{key}": value for key, value in table[section].items()}
    free = {f"data.{key}" for key in ("corpus", "raw", "tokens", "workers", "validation", "validation_rows")}
    return {key: value for key, value in values.items() if key not in free}


def _merged(path: Path, *seen: Path) -> dict[str, Any]:
    """The table of a file over that of the file which it extends."""
    if path.resolve() in seen:
        raise UsageError(f"{path}: `extends` leads back to the file itself; let one of them extend nothing.")
    table = read_table(path)
    if (base := table.pop("extends", None)) is None:
        return table
    return _over(_merged(path.parent / f"{base}.toml", path.resolve(), *seen), table)


def _over(base: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    """One table over another, section by section."""
    merged = {**base, **table}
    for key in base.keys() & table.keys():
        if isinstance(base[key], dict) and isinstance(table[key], dict):
            merged[key] = {**base[key], **table[key]}
    return merged


def _override(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set {text!r}: expected key=value, for instance optim.lr=1e-5.")
    found = literal(value)
    for part in reversed(key.strip().split(".")):
        found = {part: found}
    return found
