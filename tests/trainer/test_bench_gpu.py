"""The measurement at full size, made small: it trains, counts, and compares."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import train_gpu


def test_the_measurement_runs_on_any_machine(embedded_corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--config", "tiny", "--base", "tiny", "--steps", "3", "--warm", "1", "--rows", "4", "--rounds", "1"]
    train_gpu.main(["--corpus", str(embedded_corpus), *small, "--set", "run.device=cpu"])
    found = json.loads(capsys.readouterr().out)
    assert (found["steps"], found["samples_a_step"]) == (2, 4)
    assert found["tokens_per_s"] > found["samples_per_s"] > 0
    assert 0 <= found["data_wait"] < 1
    assert found["two_passes_over_one"]["low"] > 0
    assert "mfu" not in found  # nobody states the peak of a CPU
