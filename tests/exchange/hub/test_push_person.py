"""A person in front of a terminal is asked, may say no, and may interrupt; the same command goes on from there."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.hub.answers import Answer, Asked
from helpers.hub.client import VPT_DATA, environment
from helpers.hub.faults import Wrong
from helpers.hub.server import HubServer
from helpers.pushing import corpus


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("built"))


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer() as running:
        yield running
        assert running.broken == []


def start(server: HubServer, own: Path, home: Path, stdin: int, *options: str, **env: str) -> subprocess.Popen[str]:
    command = [*VPT_DATA, "push-to-hub", str(own), *options]
    return subprocess.Popen(
        command,
        env=environment(server.url, home, **env),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answered(server: HubServer, own: Path, home: Path, answer: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a push by somebody who types this."""
    keyboard, terminal = pty.openpty()
    process = start(server, own, home, terminal)
    os.write(keyboard, f"{answer}\n".encode())
    out, err = process.communicate(timeout=120)
    os.close(terminal)
    os.close(keyboard)
    return process.returncode, out, err


def test_the_question_comes_after_the_account_of_what_will_happen(server: HubServer, own: Path, tmp_path: Path) -> None:
    code, out, err = answered(server, own, tmp_path, "n")
    assert (code, err.splitlines()[-1]) == (1, "Push this? [y/N]: Nothing was pushed.")
    assert f"repository: {server.url}/datasets/me/own (new, public), branch main" in out
    assert not [seen for seen in server.faults.log if seen.changes]
    code, out, err = answered(server, own, tmp_path, "y")
    assert (code, out.splitlines()[-1].split(" ")[0]) == (0, "Pushed:")
    # Where nothing is left to do, nothing is asked.
    code, out, err = answered(server, own, tmp_path, "")
    assert (code, "Push this?" in err) == (0, False)
    assert out.splitlines()[-1].startswith("Unchanged: ")


def test_an_interrupt_says_how_to_go_on(
    server: HubServer, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes while the bytes of a large file are on their way."""
    reached, interrupted, answer = threading.Event(), threading.Event(), server.answer

    def slow(asked: Asked, wrong: Wrong | None = None) -> Answer:
        if asked.path.startswith("/large/"):
            reached.set()
            interrupted.wait(60)
        return answer(asked, wrong)

    monkeypatch.setattr(server, "answer", slow)
    process = start(server, own, tmp_path, subprocess.DEVNULL, "--yes")
    assert reached.wait(60)
    process.send_signal(signal.SIGINT)
    interrupted.set()
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.splitlines()[-1]) == (
        130,
        "Error: Interrupted; run the same command again to continue.",
    )
    assert list(server.contents("me/own")) == [".gitattributes"]
    second = start(server, own, tmp_path, subprocess.DEVNULL, "--yes")
    assert (second.wait(60), second.communicate()[0].split(" ")[0]) == (0, "Pushed:")
