"""The sample corpus of evaluation rows, which all tests of a file of answers share."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import end_to_end

from trainer.evaluation import items
from vpt_data.corpus.reader import open_corpus


@pytest.fixture(scope="session")
def corpus(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return end_to_end.build("sample_eval", sample_root, tmp_path_factory.mktemp("evaluation") / "corpus")


@pytest.fixture(scope="session")
def embedded(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same corpus with its pixels, for a model that is asked."""
    return end_to_end.build("sample_eval", sample_root, tmp_path_factory.mktemp("model") / "corpus", mode="embed")


@pytest.fixture(scope="session")
def run(embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an untrained model."""
    from asked_runs import made

    return made(tmp_path_factory.mktemp("runs") / "run", embedded, 0)


@pytest.fixture(scope="session")
def asked(corpus: Path) -> items.Items:
    return items.read(open_corpus(str(corpus)))
