"""Checkpoints of a run: a folder `step-NNNNNNN` that is there complete or not at all."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from trainer.model import VPTModel
from trainer.setup import latest
from vpt_data.errors import CorpusError

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def save(
    run: Path, model: VPTModel, optimizer: torch.optim.Optimizer, state: dict[str, Any], *, rank: int, keep: int
) -> None:
    """Write weights, optimiser, generators and `state` (with its `step`), and remove all but the last `keep`.

    All ranks must call it, for sharded weights are gathered; the first one writes.
    """
    first = {id(weight): name for name, weight in reversed(model.state_dict(keep_vars=True).items())}
    weights: dict[str, Any] = get_model_state_dict(model, options=_WHOLE)
    moments = get_optimizer_state_dict(model, optimizer, options=_WHOLE)
    if rank:
        return
    final = run / f"step-{state['step']:07d}"
    fresh = run / f".{final.name}.partial"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    # Tied weights are one tensor, which safetensors writes once.
    save_file({name: weights[name].contiguous() for name in first.values()}, fresh / "model.safetensors")
    torch.save({"optimizer": moments, "generators": _generators()}, fresh / "optimizer.pt")
    (fresh / "state.json").write_text(json.dumps(state, indent=2), encoding="utf-8")
    for file in fresh.iterdir():
        with file.open("rb") as written:
            os.fsync(written.fileno())
    shutil.rmtree(final, ignore_errors=True)
    fresh.rename(final)
    for old in sorted(run.glob("step-*"))[:-keep]:
        shutil.rmtree(old)


def restore(run: Path, model: VPTModel, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put back the optimiser and the generators of the last checkpoint; its state."""
    found = latest(run)
    assert found is not None
    try:
        state: dict[str, Any] = json.loads((found / "state.json").read_text(encoding="utf-8"))
        kept = torch.load(found / "optimizer.pt", map_location="cpu", weights_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise CorpusError(
            f"{found}: not a whole checkpoint ({error}); remove it to go on from the one before."
        ) from error
    set_optimizer_state_dict(model, optimizer, kept["optimizer"], options=StateDictOptions(full_state_dict=True))
    torch.set_rng_state(kept["generators"]["cpu"])
    if torch.cuda.is_available() and "cuda" in kept["generators"]:
        torch.cuda.set_rng_state(kept["generators"]["cuda"])
    return state


def _generators() -> dict[str, torch.Tensor]:
    found = {"cpu": torch.get_rng_state()}
    return {**found, "cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else found
