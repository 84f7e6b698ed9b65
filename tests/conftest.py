"""Options and fixtures that all tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import end_to_end
from helpers.fetching import Desk, Fetch
from helpers.hostile_server import HostileServer
from helpers.soak import SOAK
from hypothesis import settings

from vpt_data.synthetic import write_sample

# A shell that starts the suite in the background lets it ignore Ctrl-C, and every process of a test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A loaded machine is slow now and then; that is no finding.
settings.register_profile("vpt", deadline=None, max_examples=500 if SOAK else 50)
settings.load_profile("vpt")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write tests/golden/*.txt anew")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Indexes of archives go to a cache folder of this run, not to the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_power_cut() -> Iterator[None]:
    """No test of this process waits for a disk: nothing here outlives the machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda number: None)
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real rows and reference tensors, which may not be part of the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("the shared test data is not here")
    return folder


@pytest.fixture(scope="session")
def sample_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample raw root, small; not to be changed."""
    root = tmp_path_factory.mktemp("sample") / "raw"
    write_sample(root, rows=200)
    return root


@pytest.fixture(scope="session")
def reference_corpus(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample corpus without pixels; not to be changed."""
    return end_to_end.build("sample", sample_root, tmp_path_factory.mktemp("reference") / "corpus")


@pytest.fixture(scope="session")
def embedded_corpus(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample corpus with its images; not to be changed."""
    return end_to_end.build("sample", sample_root, tmp_path_factory.mktemp("embedded") / "corpus", mode="embed")


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    """What a download may meet, on 127.0.0.1."""
    with HostileServer() as running:
        yield running


@pytest.fixture
def fetch(tmp_path: Path, server: HostileServer) -> Fetch:
    """One file of that server, to be fetched into a folder of this test."""
    return Fetch(tmp_path, server)


@pytest.fixture
def desk(tmp_path: Path, server: HostileServer) -> Desk:
    """A manifest and a raw root of this test, served by that server."""
    return Desk(tmp_path, server)
