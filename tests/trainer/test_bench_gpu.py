"""The measurement at full size, made small: it trains, counts, and compares."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import layer_traffic, train_gpu


def test_the_measurement_runs_on_any_machine(embedded_corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--config", "tiny", "--base", "tiny", "--steps", "3", "--warm", "1", "--rows", "4", "--rounds", "1"]
    train_gpu.main(["--corpus", str(embedded_corpus), *small, "--set", "run.device=cpu"])
    found = json.loads(capsys.readouterr().out)
    assert (found["steps"], found["samples_a_step"]) == (2, 4)
    assert found["tokens_per_s"] > found["samples_per_s"] > 0
    assert 0 <= found["data_wait"] < 1
    assert found["two_passes_over_one"]["low"] > 0
    assert "mfu" not in found  # nobody states the peak of a CPU


def test_what_a_layer_moves_and_starts() -> None:
    """One call of the kernel for all samples: neither pieces nor keys repeated for each head."""
    samples, found = layer_traffic.rows(24), {}
    for name in layer_traffic.VARIANTS:
        with layer_traffic.variant(name):
            found[name] = layer_traffic.one_layer(samples, False)
    for part in ("forward", "backward"):
        assert found["gpu"][f"{part}_gb"] < found["before"][f"{part}_gb"]
        assert found["gpu"][f"{part}_kernels"] < 0.6 * found["before"][f"{part}_kernels"]
        assert found["cpu"][f"{part}_kernels"] < found["before"][f"{part}_kernels"]


def test_the_loss_never_holds_more_than_a_chunk_of_logits() -> None:
    with layer_traffic.variant("gpu"):
        whole, chunked, one = (layer_traffic.loss_peak(*how) for how in ((4096, 4096), (4096, 1024), (1024, 1024)))
    assert chunked < one + 0.6  # the sum of the head's gradients, beside that of a chunk
    assert whole > 2.5 * chunked
