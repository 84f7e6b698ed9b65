"""What a model is made of besides weights: tokenizer, shapes and pictures, of its base or as a run has kept them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, Qwen2Tokenizer
from transformers.models.auto.image_processing_auto import get_image_processor_config

from trainer.config import NO_ENCODER, Config
from trainer.data.vision import Vision
from trainer.encoders.kind import Tower
from trainer.model import tiny
from trainer.model.shapes import TOWERS, shape_named
from trainer.training.run_folder import damaged, json_object
from vpt_data.errors import UsageError


def kinds_of(config: Config) -> list[str]:
    """The extra encoders of a model: one or none."""
    return [] if config.model.encoder == NO_ENCODER else [config.model.encoder]


def is_offline(config: Config) -> bool:
    """Whether the base is made here with random weights, and has no files."""
    return config.model.base in tiny.BASES or config.model.base.startswith("shape:")


def read(config: Config, run: Path | None, part: str, auto: Any) -> Any:
    """What a class of transformers reads of `tokenizer`, `vlm` or an encoder: of the base, or as a run has kept it."""
    if run is None:
        return _fetched(getattr(config.model, part, config.model.base), auto.from_pretrained)
    path = run / part
    # It takes a folder that is not there for a name on the Hub, and makes an empty tokenizer if the file is missing.
    json_object(path / ("tokenizer.json" if part == "tokenizer" else "config.json"))
    try:
        return auto.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, _reason(error)) from error


def _fetched(name: str, fetch: Callable[..., Any], **options: Any) -> Any:
    try:
        return fetch(name, **options)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{name}: no such folder here, and not available from the Hub ({_reason(error)}); download it elsewhere "
            "and give its folder, for instance --set model.base=DIR."
        ) from error


def _reason(error: Exception) -> str:
    """The first line of what transformers says."""
    return str(error).strip().partition("\n")[0].rstrip(".")


def tokenizer_beside(config: Config, weights: Path) -> Any:
    """The tokenizer in the folder of weights; UsageError where there is none."""
    folder = weights if weights.is_dir() else weights.parent
    if not (folder / "tokenizer.json").is_file():
        raise UsageError(
            f"model.base is {config.model.base}, which has no tokenizer, and {folder} has none; give --config of a "
            "real base, or a folder of `python -m trainer.export --form published`."
        )
    return _fetched(str(folder), Qwen2Tokenizer.from_pretrained, local_files_only=True)


def with_tokens(config: Config, tokenizer: Any) -> Any:
    """The tokenizer with the perception tokens of a configuration; those of a run has them already."""
    model, kind = config.model, next(iter(kinds_of(config)), None)
    return tiny.with_perception_tokens(tokenizer, kind, model.k, model.families)


def vlm_of(config: Config, tokenizer: Any) -> Any:
    """The stock model: tiny, of a known shape, or from the Hub."""
    base = config.model.base
    if base in tiny.BASES:
        return tiny.BASES[base][0](tokenizer).build()
    if base.startswith("shape:"):
        return shape_named(base.removeprefix("shape:")).build()
    auto: Any = AutoModelForImageTextToText
    return _fetched(base, auto.from_pretrained, dtype=torch.float32)


def tower_of(config: Config, kind: str, tower: type[Tower]) -> Tower:
    """The extra encoder, in the same ways."""
    if is_offline(config):
        return tower.made((tiny.TINY_TOWERS if config.model.base in tiny.BASES else TOWERS)[kind])
    return _fetched(getattr(config.model, kind), tower.fetched)


def vision_of(config: Config, saved: Path | None = None) -> Vision:
    """What pictures must be for the base model, or for that of a run in the folder `saved`.

    Sizes are those of the vision configuration, mean, deviation and the smallest size those of the image processor.
    """
    model, base = config.model, config.model.base
    nearest = model.pixels == "reference"
    if base in tiny.BASES:
        return replace(tiny.BASES[base][1](), nearest=nearest)
    if base.startswith("shape:"):
        return Vision(longest=model.longest, nearest=nearest)
    place = base if saved is None else str(saved / "vlm")
    shapes = read(config, saved, "vlm", AutoConfig).vision_config
    processor = _fetched(place, get_image_processor_config)
    if missing := {"image_mean", "image_std"} - processor.keys():
        raise UsageError(
            f"{place}: no {min(missing)} in preprocessor_config.json, expected the file of the base model; copy it "
            "into this folder."
        )
    least = processor.get("min_pixels") or (processor.get("size") or {}).get("shortest_edge") or 0
    sizes = {"patch": shapes.patch_size, "merge": shapes.spatial_merge_size, "frames": shapes.temporal_patch_size}
    mean, std = (tuple(processor[key]) for key in ("image_mean", "image_std"))
    return Vision(longest=model.longest, least=least, mean=mean, std=std, nearest=nearest, **sizes)


def processor_of(vision: Vision) -> dict[str, Any]:
    """The `preprocessor_config.json` of the stock image processor that gives the same pictures.

    It has no limit on a side, so pictures longer than `vision.longest` must be shrunk to it first.
    """
    unit = vision.patch * vision.merge
    least, most = max(vision.least, (2 * unit) ** 2), max(vision.longest, round(vision.longest / unit) * unit) ** 2
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "image_mean": vision.mean,
        "image_std": vision.std,
        "patch_size": vision.patch,
        "merge_size": vision.merge,
        "temporal_patch_size": vision.frames,
        "min_pixels": least,
        "max_pixels": most,
        "size": {"shortest_edge": least, "longest_edge": most},
    }
