"""Downloads in processes of their own: killed, without disk, and from a Hub on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.fetching import FILE, ROWS, SHA, Desk
from helpers.hostile_server import Reply

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

COMMIT, LATER = "1" * 40, "2" * 40


def hub_run(desk: Desk, tmp_path: Path, *more: str, **env: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: huggingface_hub reads HF_ENDPOINT when it is imported."""
    told = environment() | {
        "HF_ENDPOINT": desk.server.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1", "HF_HUB_ETAG_TIMEOUT": "5",
    } | env  # fmt: skip
    return subprocess.run([*command(desk), *more], env=told, capture_output=True, text=True, timeout=60)


def test_a_hub_file_comes_at_one_commit_and_is_no_link(desk: Desk, tmp_path: Path) -> None:
    desk.write(
        '{ path = "mine/rows.jsonl", name = "metadata/rows.jsonl" }', '{ path = "mine/b.jsonl", name = "b.jsonl" }',
        top='hub = "org/set"',
    )  # fmt: skip
    desk.server.hub("org/set", COMMIT, {"metadata/rows.jsonl": ROWS})
    done = hub_run(desk, tmp_path)
    assert done.returncode == 1
    assert f"Note: HF_ENDPOINT is {desk.server.url}; it is asked instead of the Hub" in done.stderr
    assert f"Note: org/set: pinned to commit {COMMIT}, the newest one at first use.\n" in done.stderr
    assert "recorded on first use, not checked" not in done.stderr  # the Hub's own id of the file was compared
    assert done.stderr.splitlines()[-1] == (
        f"Error: mine/b.jsonl: org/set on the Hub ({desk.server.url}) has no b.jsonl at main; see its page."
    )
    file = desk.raw / "mine/rows.jsonl"
    assert file.read_bytes() == ROWS and not file.is_symlink()
    # The branch has moved on: the second file still comes from the commit of the first.
    desk.server.hub("org/set", LATER, {"metadata/rows.jsonl": b"{}", "b.jsonl": b'{"later": 1}'})
    desk.server.hub("org/set", COMMIT, {"b.jsonl": b'{"b": 1}'}, branch="old")
    done = hub_run(desk, tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)["sources"]["mine"]["files"]
    assert (first["state"], second["state"], second["checked"]) == ("there", "fetched", "hub")
    assert (desk.raw / "mine/b.jsonl").read_bytes() == b'{"b": 1}'
    assert desk.lock()["hub"] == {"org/set": COMMIT}
    assert desk.lock()["files"]["mine/b.jsonl"]["revision"] == COMMIT
    assert desk.files() == {"mine/rows.jsonl", "mine/b.jsonl"}
    assert {path.name for path in (desk.raw / ".vpt-data").iterdir()} <= {
        "downloads.json", "licenses.json", "lock", "hub",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ("size = 5", f"has {len(ROWS):,} bytes, the manifest says 5."),
        (f'sha256 = "{"0" * 64}"', f"sent bytes with sha256 {SHA}, the manifest says {'0' * 64}; nothing was kept."),
    ],
)
def test_a_hub_file_other_than_the_manifests_is_refused(desk: Desk, tmp_path: Path, known: str, said: str) -> None:
    desk.write(
        f'{{ path = "mine/rows.jsonl", name = "r.jsonl", {known} }}', top=f'hub = "org/set"\nrevision = "{COMMIT}"'
    )
    desk.server.hub("org/set", COMMIT, {"r.jsonl": ROWS})
    done = hub_run(desk, tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert desk.files() == set()


def test_a_hub_that_gives_other_bytes_than_it_says_is_refused(desk: Desk, tmp_path: Path) -> None:
    desk.write('{ path = "mine/rows.jsonl", name = "r.jsonl" }', top=f'hub = "org/set"\nrevision = "{COMMIT}"')
    reply = Reply(ROWS, etag=f'"{"a" * 64}"', headers={"X-Repo-Commit": COMMIT})
    desk.server.serve(f"/datasets/org/set/resolve/{COMMIT}/r.jsonl", reply)
    done = hub_run(desk, tmp_path)
    assert done.returncode == 1
    assert f"sent bytes with sha256 {SHA}, the Hub says {'a' * 64}; nothing was kept." in done.stderr
    assert desk.files() == set()


def test_a_hub_in_offline_mode_is_said(desk: Desk, tmp_path: Path) -> None:
    desk.write(FILE, top='hub = "org/set"')
    done = hub_run(desk, tmp_path, HF_HUB_OFFLINE="1")
    assert "cannot be reached in offline mode; unset HF_HUB_OFFLINE." in done.stderr
