"""Runs of the trainer as tests begin them, in this process."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from trainer import run


def start(*arguments: str) -> Result:
    found = CliRunner().invoke(run.main, arguments)
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found


def small(corpus: Path, out: Path, *more: str, steps: int = 4) -> list[str]:
    values = [f"optim.steps={steps}", "data.rows=8", "data.tokens=2048", *more]
    sets = [word for value in values for word in ("--set", value)]
    return ["--data", str(corpus), "--out", str(out), *sets]
