"""Downloads in processes of their own: killed, without disk, and from a Hub on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.fetching import FILE, ROWS, SHA, Desk
from helpers.hostile_server import Reply
from helpers.hub import client
from helpers.hub.server import HubServer

ROOT = Path(__file__).resolve().parents[2]


# Kills and full disks --------------------------------------------------------------------------------------


INTERRUPTED = "Error: Interrupted; run the same command again to continue.\n"


def command(desk: Desk) -> list[str]:
    return [sys.executable, "-m", "vpt_data", *desk.arguments()]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 130), (signal.SIGINT, 130)])
def test_a_killed_download_goes_on_where_it_was(desk: Desk, number: signal.Signals, code: int) -> None:
    data = b'{"a": 1}\n' * (24 << 17)  # 28 MB
    desk.serve(Reply(data, pace=0.004), data)
    running = subprocess.Popen(
        command(desk), env=environment(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    part = desk.raw / "mine/rows.jsonl.part"
    while not part.exists() or part.stat().st_size < 10 << 20:
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(number)
    stderr = running.communicate()[1]
    assert (running.returncode, stderr) == (code, INTERRUPTED if code == 130 else "")
    assert desk.files() == {"mine/rows.jsonl.part", "mine/rows.jsonl.part.json"}
    assert desk.works()["sha256"] == hashlib.sha256(data).hexdigest()
    _, second = desk.server.asked(f"{desk.base}rows.jsonl")
    assert second.range is not None and second.status == 206
    assert second.sent <= len(data) - (8 << 20)
    assert desk.files() == {"mine/rows.jsonl"}


def test_a_full_disk_is_said_and_what_came_is_kept(desk: Desk) -> None:
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000));"
        "from vpt_data.cli.main import main; main(sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, *desk.arguments()], env=environment(), capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "Error: mine/rows.jsonl: cannot be written (File too large); free some space and run the same command again, "
        "what came is kept.\n"
    )
    assert (desk.raw / "mine/rows.jsonl.part").stat().st_size == 50_000
    assert desk.works()["sha256"] == SHA
    _, second = desk.server.asked(f"{desk.base}rows.jsonl")
    assert second.range is not None and second.sent < len(ROWS)


# The Hub ---------------------------------------------------------------------------------------------------


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as running:
        running.hub.create("org/set")
        yield running


def hub_run(desk: Desk, hub: HubServer, *more: str, **env: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: huggingface_hub reads HF_ENDPOINT when it is imported."""
    settings = client.environment(hub.url, desk.raw.parent / "hf", token=None, HF_HUB_ETAG_TIMEOUT="5", **env)
    return subprocess.run([*command(desk), *more], env=settings, capture_output=True, text=True, timeout=60)


def test_a_hub_file_comes_at_one_commit_and_is_no_link(desk: Desk, hub: HubServer) -> None:
    commit = hub.commit("org/set", {"metadata/rows.jsonl": ROWS, "b.jsonl": b'{"b": 1}'}).oid
    desk.write(
        '{ path = "mine/rows.jsonl", name = "metadata/rows.jsonl" }', '{ path = "mine/c.jsonl", name = "c.jsonl" }',
        top='hub = "org/set"',
    )  # fmt: skip
    done = hub_run(desk, hub)
    assert done.returncode == 1
    assert f"Note: HF_ENDPOINT is {hub.url}; it is asked instead of the Hub" in done.stderr
    assert f"Note: org/set: pinned to commit {commit}, the newest one at first use.\n" in done.stderr
    assert "recorded on first use, not checked" not in done.stderr  # the Hub's own id of the file was compared
    assert done.stderr.splitlines()[-1] == (
        f"Error: mine/c.jsonl: org/set on the Hub ({hub.url}) has no c.jsonl at main; see its page."
    )
    file = desk.raw / "mine/rows.jsonl"
    assert file.read_bytes() == ROWS and not file.is_symlink()
    # The branch has moved on: another file still comes from the commit of the first.
    hub.commit("org/set", {"metadata/rows.jsonl": b"{}", "b.jsonl": b'{"later": 1}'})
    desk.write(
        '{ path = "mine/rows.jsonl", name = "metadata/rows.jsonl" }', '{ path = "mine/b.jsonl", name = "b.jsonl" }',
        top='hub = "org/set"',
    )  # fmt: skip
    done = hub_run(desk, hub, "--json")
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)["sources"]["mine"]["files"]
    assert (first["state"], second["state"], second["checked"]) == ("there", "fetched", "hub")
    assert (desk.raw / "mine/b.jsonl").read_bytes() == b'{"b": 1}'
    assert desk.lock()["hub"] == {"org/set": commit}
    assert desk.lock()["files"]["mine/b.jsonl"]["revision"] == commit
    assert desk.files() == {"mine/rows.jsonl", "mine/b.jsonl"}
    assert {path.name for path in (desk.raw / ".vpt-data").iterdir()} <= {
        "downloads.json", "licenses.json", "lock", "hub",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ("size = 5", f"has {len(ROWS):,} bytes, the manifest says 5."),
        (f'sha256 = "{"0" * 64}"', f"sent bytes with sha256 {SHA}, the manifest says {'0' * 64}; nothing was kept."),
    ],
)
def test_a_hub_file_other_than_the_manifests_is_refused(desk: Desk, hub: HubServer, known: str, message: str) -> None:
    commit = hub.commit("org/set", {"r.jsonl": ROWS}).oid
    desk.write(
        f'{{ path = "mine/rows.jsonl", name = "r.jsonl", {known} }}', top=f'hub = "org/set"\nrevision = "{commit}"'
    )
    done = hub_run(desk, hub)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert desk.files() == set()


def test_a_hub_that_gives_other_bytes_than_it_says_is_refused(desk: Desk, hub: HubServer) -> None:
    promised = bytes(len(ROWS))
    commit = hub.commit("org/set", {"r.parquet": promised}).oid
    sha256 = hashlib.sha256(promised).hexdigest()
    hub.repository("org/set").objects[sha256] = ROWS
    desk.write('{ path = "mine/rows.jsonl", name = "r.parquet" }', top=f'hub = "org/set"\nrevision = "{commit}"')
    done = hub_run(desk, hub)
    assert done.returncode == 1
    assert f"sent bytes with sha256 {SHA}, the Hub says {sha256}; nothing was kept." in done.stderr
    assert desk.files() == set()


def test_a_hub_in_offline_mode_is_said(desk: Desk, hub: HubServer) -> None:
    desk.write(FILE, top='hub = "org/set"')
    done = hub_run(desk, hub, HF_HUB_OFFLINE="1")
    assert "cannot be reached in offline mode; unset HF_HUB_OFFLINE." in done.stderr
