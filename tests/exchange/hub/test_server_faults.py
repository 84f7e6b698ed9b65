"""Faults of the test Hub: each strikes the request that it is planned for, and does what its name says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from helpers.hub import accounts
from helpers.hub.client import environment
from helpers.hub.faults import Fault, Wrong
from helpers.hub.server import HubServer
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

LARGE = bytes(range(256)) * 40
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the client itself
STATUS = {
    Wrong.ERROR: 500, Wrong.BUSY: 503, Wrong.SLOW_DOWN: 429, Wrong.WAIT: 429, Wrong.EXPIRED: 401,
    Wrong.FORBIDDEN: 403, Wrong.QUOTA: 403, Wrong.PAYMENT: 402,
}  # fmt: skip


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer() as running:
        running.hub.create("org/name")
        yield running
        assert running.broken == []


@pytest.fixture(autouse=True)
def plain_lfs_without_pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", pauses.append)
    return pauses


def commit(server: HubServer, *names: str) -> None:
    added = [CommitOperationAdd(name, LARGE + name.encode()) for name in names]
    HfApi(server.url, accounts.WRITE).create_commit("org/name", added, commit_message="a", repo_type="dataset")


def test_what_goes_wrong_with_a_commit(server: HubServer) -> None:
    """The request for the commit itself is not repeated by the client."""
    for wrong in Wrong:
        if wrong.kills or wrong is Wrong.STALE:
            continue
        name = f"{wrong}.parquet"
        server.faults.plan(Fault(wrong, fits="POST .*/commit/main"))
        with pytest.raises((HfHubHTTPError, httpx2.TransportError)) as caught:
            commit(server, name)
        status = caught.value.response.status_code if isinstance(caught.value, HfHubHTTPError) else None
        assert status == STATUS.get(wrong), wrong
        assert (name in server.contents("org/name")) == (wrong in {Wrong.DROP_AFTER_EFFECT, Wrong.DROP_IN_ANSWER}), (
            wrong
        )
        assert server.faults.planned[0].struck == 1


def test_somebody_elses_commit_comes_first(server: HubServer) -> None:
    server.faults.plan(Fault(Wrong.STALE, fits="POST .*/commit/main"))
    commit(server, "a.parquet")
    assert [one.author for one in server.repository("org/name").history()] == ["me", "somebody", "me"]


@pytest.mark.parametrize("wrong", [wrong for wrong in Wrong if wrong.kills])
def test_a_client_that_is_killed(server: HubServer, tmp_path: Path, wrong: Wrong) -> None:
    server.faults.plan(Fault(wrong, fits="POST .*/commit/main"))
    program = (
        "from huggingface_hub import HfApi; HfApi().upload_file(path_or_fileobj=b'1', path_in_repo='a.parquet', "
        "repo_id='org/name', repo_type='dataset')"
    )
    process = subprocess.Popen([sys.executable, "-c", program], env=environment(server.url, tmp_path))
    server.victim = process.pid
    assert process.wait(60) == -9
    assert ("a.parquet" in server.contents("org/name")) == (wrong is Wrong.KILL_AFTER_EFFECT)


def test_half_of_a_body_is_thrown_away(server: HubServer) -> None:
    server.faults.plan(Fault(Wrong.DROP_IN_BODY, fits="PUT "))
    commit(server, "a.parquet")
    received = [seen.received for seen in server.faults.log if seen.method == "PUT"]
    assert received == [(len(LARGE) + 9) // 2, len(LARGE) + 9], "the client sends it again, whole"


def test_requests_are_counted_among_those_that_fit(server: HubServer) -> None:
    server.faults.plan(Fault(Wrong.ERROR, at=1, fits="PUT ", times=2))
    commit(server, "a.parquet", "b.parquet", "c.parquet")
    statuses = [seen.status for seen in server.faults.log if seen.method == "PUT"]
    assert statuses.count(500) == 2 and statuses.count(200) == 3
    assert {seen.wrong for seen in server.faults.log if seen.status == 500} == {Wrong.ERROR}


def test_a_pause_is_asked_for(server: HubServer, plain_lfs_without_pauses: list[float]) -> None:
    server.faults.plan(Fault(Wrong.WAIT, fits="objects/batch"))
    commit(server, "a.parquet")
    assert plain_lfs_without_pauses == [2.0], "one second, and the client's own"


def test_those_who_only_look_on_are_not_counted(server: HubServer) -> None:
    server.faults.plan(Fault(Wrong.ERROR))
    assert (
        HfApi(server.quiet_url, token=False).dataset_info("org/name").sha
        == server.repository("org/name").at("main").oid
    )
    assert server.faults.log == [] and server.faults.planned[0].struck == 0
