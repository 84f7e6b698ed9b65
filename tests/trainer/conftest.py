"""What several tests of the trainer share and is slow to make."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of base models and encoders (see real_folders); not to be changed."""
    import real_folders

    return real_folders.bases(tmp_path_factory.mktemp("bases"))


@pytest.fixture(scope="session")
def finished(embedded_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps with the weights of each, the last in a checkpoint; not to be changed."""
    from runs import small, start

    out = tmp_path_factory.mktemp("runs") / "run"
    assert start(*small(embedded_corpus, out, "run.save_every=1", "run.keep_weights=true")).exit_code == 0
    return out
