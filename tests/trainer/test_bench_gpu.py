"""The measurement at full size, made small: it trains, counts, and compares."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch._subclasses.fake_tensor import FakeTensorMode

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


def test_packed_samples_do_not_multiply_what_a_layer_moves() -> None:
    """The gradient of a slice fills a tensor of the whole length, so by slices n samples move n times as much."""
    samples = layer_traffic.rows(24)
    with FakeTensorMode(allow_non_fake_inputs=True):
        slices, split = (layer_traffic.one_layer(samples, False, how) for how in (layer_traffic.by_slices, None))
    assert split["forward_gb"] == slices["forward_gb"]
    assert split["backward_gb"] < 0.6 * slices["backward_gb"]
    assert split["backward_kernels"] < 0.7 * slices["backward_kernels"]


def test_the_loss_never_holds_more_than_a_chunk_of_logits() -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        whole, chunked, one = (layer_traffic.loss_peak(*how) for how in ((4096, 4096), (4096, 1024), (1024, 1024)))
    assert chunked < one + 0.6  # the sum of the head's gradients, beside that of a chunk
    assert whole > 2.5 * chunked
