"""What the folder of a run holds besides weights, read back; without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trainer import config as configs
from trainer.config import Config
from vpt_data.errors import CorpusError, UsageError

METRICS = "metrics.jsonl"


def latest(run: Path) -> Path | None:
    """The newest checkpoint of a run."""
    return max(run.glob("step-*"), default=None)


def configuration(run: Path) -> Config | None:
    """The configuration of a run; None if there is no run.

    CorpusError if there are checkpoints and a configuration that cannot be read, UsageError for an exported model.
    """
    table = _table(run)
    return None if table is None else configs.decode(table, str(run / "config.json"))


def refuse_exported(run: Path) -> None:
    """UsageError if the folder has an exported model; what a start without a checkpoint has left is not looked at."""
    _table(run)


def _table(run: Path) -> dict[str, Any] | None:
    try:
        table = json_object(run / "config.json")
    except CorpusError:
        if latest(run) is None:
            return None
        raise
    if "model_type" in table:
        raise UsageError(
            f"{run}: an exported model and no run; give the run that it was made from, or the whole model with "
            "--weights and --config."
        )
    return table


def json_object(path: Path) -> dict[str, Any]:
    """A JSON file of a run, at any depth of its folder; CorpusError if it is missing or cut off."""
    try:
        table = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise damaged(path, getattr(error, "strerror", None) or str(error)) from error
    if not isinstance(table, dict):
        raise damaged(path, "not a JSON object")
    return table


def damaged(path: Path, reason: str) -> CorpusError:
    """One sentence on a part of a run that only a copy can bring back."""
    return CorpusError(
        f"{path}: cannot be read ({reason}); put back a copy of it, or train on from the weights in a new run with "
        "--set model.start=RUN."
    )


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The steps in the log of a run; see `read_log`."""
    return [entry for entry in read_log(run) if "validation" not in entry]


def validations(run: Path) -> dict[int, float]:
    """The loss of each validation in the log of a run, by step."""
    return {entry["step"]: entry["validation"]["loss"] for entry in read_log(run) if "validation" in entry}


def last_validation(run: Path) -> dict[str, Any]:
    """All that the log of a run has on its last validation; empty without one."""
    return next((entry["validation"] for entry in reversed(read_log(run)) if "validation" in entry), {})


def read_log(run: Path) -> list[dict[str, Any]]:
    """The steps in the log of a run and its validations; a last line that was cut off or damaged is left out.

    CorpusError if it is not the last one.
    """
    path = run / METRICS
    if not path.is_file():
        return []
    # What follows the last line break was cut off by a kill.
    lines = path.read_bytes().split(b"\n")[:-1]
    entries = []
    for number, line in enumerate(lines, 1):
        entry = _step(line)
        if entry is not None:
            entries.append(entry)
        elif number < len(lines):
            raise CorpusError(
                f"{path}: line {number} is not a step in JSON; remove this line and continue with --resume."
            )
    return entries


def _step(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    known = isinstance(entry, dict) and ({"step", "loss", "skipped"} <= entry.keys() or "validation" in entry)
    return entry if known else None
