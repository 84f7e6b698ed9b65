"""The measurement of the loader, made small: all arms run, and what ranks read is counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_batches as tb

from bench import loader


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves files open
def test_the_loader_beside_its_peers(
    embedded_corpus: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("webdataset")
    monkeypatch.setattr(loader, "WARM", 1)
    monkeypatch.setattr(loader, "planner_2b", lambda: tb.model(["dino"]).planner)
    assert loader.main(["--corpus", str(embedded_corpus), "--rows", "20", "--rounds", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["rows_per_cpu_second"]) == set(found["pictures"])
    assert min(found["pictures"].values()) >= 20 and 0 < found["same_work"] < 1


def test_what_ranks_read(embedded_corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loader.main(["--corpus", str(embedded_corpus), "--ranks", "1", "2"])
    found = json.loads(capsys.readouterr().out)
    assert found["1"]["text_mb"] * 2 == found["2"]["text_mb"], "every rank reads all text"
    assert all(0 < read <= found["1"]["images_mb"][0] for read in found["2"]["images_mb"])


def test_a_peer_that_is_missing(
    embedded_corpus: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "find_spec", lambda name: None)
    assert loader.main(["--corpus", str(embedded_corpus)]) == 1
    expected = "webdataset is not installed; run `pip install webdataset` to compare with it.\n"
    assert capsys.readouterr().err == expected
