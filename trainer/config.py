"""Configuration of a run: strict TOML, typed. A file may extend another one beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from vpt_data.errors import UsageError, unknown_name
from vpt_data.recipe import literal, read_table

CONFIGS = Path(__file__).parent / "configs"
EncoderName = Literal["dino", "sam", "clip"]


class Model(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What is trained.

    base     `tiny`; `shape:NAME` (an entry of trainer.shapes with random weights); else a folder or a name on the Hub
    start    run, checkpoint or published weights to begin with: a whole model
    longest  longer side in pixels of a picture for the model's own tower (paper: 224 and 512)
    mask     share of samples with mask modelling, in `scope`
    """

    base: str = "tiny"
    encoder: EncoderName = "dino"
    dino: str = "facebook/dinov2-large"
    sam: str = "facebook/sam-vit-large"
    start: str = ""
    k: int = 8
    longest: int = 512
    mask: float = 0.0
    scope: Literal["strict", "paper"] = "strict"
    compat: Literal["paper", "reference"] = "paper"


class Data(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Where rows come from (`corpus` empty: the sample corpus) and how they become batches; see `data.Settings`."""

    corpus: str = ""
    raw: str = ""
    split: str = "train"
    takes: list[str] = []
    rows: int = 256
    tokens: int = 16_384
    packed: bool = True
    cutoff: int = 2048
    window: int = 16_384
    workers: int = 0


class Optim(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """AdamW, linear warm-up over a share of all steps, then cosine to zero; `steps` 0: as many as `epochs` have."""

    lr: float = 2e-5
    warmup: float = 0.03
    epochs: int = 1
    steps: int = 0
    clip: float = 1.0
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999


class Lora(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """LoRA on all linear layers of the language model; rank 0: none. Other weights follow `train` and `freeze`."""

    rank: int = 0
    alpha: int = 0


class Settings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How the machine is used, which changes no result beyond rounding; `ids` logs what each step trained on."""

    parallel: Literal["ddp", "fsdp2"] = "ddp"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    checkpointing: bool = True
    compile: bool = False
    threads: int = 0
    save_every: int = 200
    keep: int = 2
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
    return decode(_merged(_located(name)), name, overrides)


def decode(table: dict[str, Any], name: str, overrides: Iterable[str] = ()) -> Config:
    """A configuration from a table; UsageError names the key that is wrong."""
    for override in overrides:
        _set(table, override)
    try:
        found = msgspec.convert(table, Config)
    except msgspec.ValidationError as error:
        raise UsageError(f"Configuration {name}: {error}; see trainer/config.py for all keys.") from error
    for key, value, least in (
        ("data.rows", found.data.rows, 1), ("optim.epochs", found.optim.epochs, 1),
        ("optim.steps", found.optim.steps, 0), ("run.save_every", found.run.save_every, 1),
        ("run.keep", found.run.keep, 1), ("model.k", found.model.k, 1), ("lora.rank", found.lora.rank, 0),
    ):  # fmt: skip
        if value < least:
            raise UsageError(f"Configuration {name}: {key} is {value}, expected {least} or more.")
    return found


def differences(before: Config, now: Config) -> Iterator[str]:
    """What keeps a run from going on with `now`, one sentence each."""
    old, new = (msgspec.to_builtins(config) for config in (before, now))
    for config in (old, new):
        # These change no result; places may move, and the loader itself knows the corpus.
        config.pop("run")
        for key in ("corpus", "raw", "workers"):
            config["data"].pop(key)
    for key, value in _flat(old):
        now_value = dict(_flat(new))[key]
        if now_value != value:
            yield f"{key} was {value!r} and is {now_value!r} now"


def _flat(table: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from ((f"{key}.{inner}", one) for inner, one in _flat(value))
        else:
            yield key, value


def _located(name: str) -> Path:
    if name.endswith(".toml"):
        return Path(name)
    if not (CONFIGS / f"{name}.toml").is_file():
        raise unknown_name("configuration", name, [path.stem for path in CONFIGS.glob("*.toml")])
    return CONFIGS / f"{name}.toml"


def _merged(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    if path.resolve() in seen:
        raise UsageError(f"{path}: `extends` leads back to the file itself; let one of them extend nothing.")
    table = read_table(path)
    base = table.pop("extends", None)
    if base is None:
        return table
    merged = _merged(path.parent / f"{base}.toml", (*seen, path.resolve()))
    for key, value in table.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = {**merged[key], **value} if both else value
    return merged


def _set(table: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    *parents, last = key.strip().split(".")
    if not equals or not last:
        raise UsageError(f"--set {override!r}: expected key=value, for instance optim.lr=1e-5.")
    for part in parents:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise UsageError(f"--set {override!r}: {part} is a value, not a table.")
    table[last] = literal(text)
