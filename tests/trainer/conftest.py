"""What several tests of the trainer share and is slow to make."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of base models and encoders (see real_folders); not to be changed."""
    import real_folders

    return real_folders.bases(tmp_path_factory.mktemp("bases"))
