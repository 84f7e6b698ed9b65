"""A build that ends early, however it ends, is continued by the same command to the same bytes."""

from __future__ import annotations

import errno
import io
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner
from helpers import end_to_end
from helpers.processes import arguments, await_any, await_none, finish, members, start
from helpers.soak import some_of

from vpt_data.cli.main import main
from vpt_data.corpus import manifest
from vpt_data.errors import OutputError

GO_ON = "Error: Interrupted; run the same command again to continue.\n"

#: The process is gone in the moment of its N-th rename: no handler runs, no buffer is written.
GONE_AT_RENAME = """
import os, sys
from vpt_data.cli.main import main
left, replace = int(sys.argv.pop(1)), os.replace
def replace_or_die(*paths):
    global left
    left -= 1
    if left < 0:
        os._exit(77)
    replace(*paths)
os.replace = replace_or_die
main()
"""

#: The same in the moment in which the N-th file has been opened for writing and holds nothing yet.
GONE_AT_WRITE = """
import io, os, sys
from vpt_data.cli.main import main
left, real = int(sys.argv.pop(1)), io.open
def open_or_die(file, mode="r", *rest, **more):
    global left
    opened = real(file, mode, *rest, **more)
    left -= "w" in mode
    if left < 0:
        os._exit(77)
    return opened
io.open = open_or_die
main()
"""

#: No file may grow beyond so many bytes, as on a disk that has no more room.
NO_ROOM = """
import resource, sys
from vpt_data.cli.main import main
size = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
main()
"""


def run(program: str, first: int, raw: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, str(first), *arguments(raw, out, workers=1)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


class Moments(NamedTuple):
    """How many renames a whole build does, and how many files it opens for writing."""

    renames: int
    writes: int


@pytest.fixture(scope="module")
def moments(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Moments:
    out = tmp_path_factory.mktemp("count") / "corpus"
    renames, modes = [], []
    replace, real = os.replace, io.open

    def opened(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
        modes.append(mode)
        return real(file, mode, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", lambda *paths: (renames.append(paths), replace(*paths)))
        patch.setattr(io, "open", opened)
        end_to_end.build("sample", sample_root, out, mode="embed")
    return Moments(len(renames), sum("w" in mode for mode in modes))


def one_of(count: int, part: int) -> int:
    """A moment in each quarter of the build, and its last."""
    return count - 1 if part == 4 else random.Random(part).randrange(part * count // 4, (part + 1) * count // 4)


#: test_moments.py tries the other moments.
GONE = [(program, kind, part) for part in range(5) for program, kind in
        ((GONE_AT_RENAME, "renames"), (GONE_AT_WRITE, "writes"))]  # fmt: skip


@pytest.mark.parametrize(("program", "kind", "part"), some_of(GONE, 1, 4, 8))
def test_a_build_that_vanished_is_continued(
    sample_root: Path, embedded_corpus: Path, tmp_path: Path, moments: Moments, program: str, kind: str, part: int
) -> None:
    out = tmp_path / "corpus"
    gone = run(program, one_of(getattr(moments, kind), part), sample_root, out)
    assert gone.returncode == 77, gone.stderr
    assert not (out / "manifest.json").exists()
    finish(sample_root, out, embedded_corpus)


def test_a_build_that_vanished_again_and_again_is_continued(
    sample_root: Path, embedded_corpus: Path, tmp_path: Path, moments: Moments
) -> None:
    out = tmp_path / "corpus"
    for moment in (moments.renames // 3, 3):
        assert run(GONE_AT_RENAME, moment, sample_root, out).returncode == 77
    finish(sample_root, out, embedded_corpus)


@pytest.mark.parametrize("moment", some_of([".work/plan.json", ".work/inputs/*.json", "data/*.parquet*"], 1))
def test_a_killed_build_is_continued_and_leaves_no_worker(
    sample_root: Path, embedded_corpus: Path, tmp_path: Path, moment: str
) -> None:
    out = tmp_path / "corpus"
    process = start(sample_root, out, workers=2)
    await_any(out, moment, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    finish(sample_root, out, embedded_corpus)
    await_none(process.pid)
    assert end_to_end.contents(out) == end_to_end.contents(embedded_corpus)


SIGNALS = [(number, moment) for number in (signal.SIGINT, signal.SIGTERM)
           for moment in (".work/plan.json", ".work/inputs/*.json", ".work/parts/*")]  # fmt: skip


@pytest.mark.parametrize(("number", "moment"), some_of(SIGNALS, 0, 2, 4))
def test_an_interrupt_is_one_sentence(
    sample_root: Path, embedded_corpus: Path, tmp_path: Path, number: signal.Signals, moment: str
) -> None:
    """Ctrl-C reaches every process of a terminal's group, workers included; so does the SIGTERM of a scheduler."""
    out = tmp_path / "corpus"
    process = start(sample_root, out, workers=2)
    await_any(out, moment, process)
    os.killpg(process.pid, number)
    stdout, stderr = process.communicate()
    assert (process.returncode, stdout, stderr) == (130, "", GO_ON)
    await_none(process.pid)
    finish(sample_root, out, embedded_corpus)


def test_a_rank_that_is_terminated_gives_its_work_back(
    sample_root: Path, embedded_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`kill` reaches the rank alone, and twice where a launcher passes it on."""
    out = tmp_path / "corpus"
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    process = start(sample_root, out, 2, "--engine", "ranks")
    await_any(out, ".work/inputs/*.claim", process)
    process.terminate()
    process.terminate()
    assert (process.communicate(), process.returncode) == (("", GO_ON), 130)
    await_none(process.pid)
    assert not list(out.rglob("*.claim"))
    finish(sample_root, out, embedded_corpus)


def test_a_worker_that_is_killed_is_one_sentence(sample_root: Path, embedded_corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    process = start(sample_root, out, workers=2)
    await_any(out, ".work/inputs/*.json", process)
    for pid in members(process.pid, "spawn_main"):
        os.kill(pid, signal.SIGKILL)
    stdout, stderr = process.communicate()
    assert (process.returncode, stdout) == (1, "")
    assert stderr == (
        "Error: A worker process was killed, perhaps because memory ran out; run the same command again to continue, "
        "with fewer --workers if memory is short.\n"
    )
    finish(sample_root, out, embedded_corpus)


def test_no_room_for_a_shard_keeps_what_is_finished(sample_root: Path, embedded_corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    room = 400_000
    assert max(map(len, end_to_end.shards(embedded_corpus).values())) > room
    first = run(NO_ROOM, room, sample_root, out)
    assert (first.returncode, first.stdout) == (1, "")
    assert first.stderr.startswith("Error: ")
    assert first.stderr.count("\n") == 1
    assert "File too large" in first.stderr
    assert not (out / "manifest.json").exists()
    assert not list((out / "data").glob("*.tmp"))
    parts = {path: path.stat().st_mtime_ns for path in (out / ".work/inputs").iterdir()}
    assert parts
    assert run(NO_ROOM, room, sample_root, out).returncode == 1
    assert {path: path.stat().st_mtime_ns for path in (out / ".work/inputs").iterdir()} == parts
    finish(sample_root, out, embedded_corpus)


@pytest.mark.parametrize("written", [0, 3])
def test_a_full_disk_is_one_sentence(
    sample_root: Path, embedded_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """The disk has room for `written` more files that are flushed to it."""
    left = iter([True] * written)

    def fsync(number: int) -> None:
        if not next(left, False):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = tmp_path / "corpus"
    monkeypatch.setattr(os, "fsync", fsync)
    failed = CliRunner().invoke(main, arguments(sample_root, out, workers=1))
    assert (failed.exit_code, failed.stdout) == (1, "")
    assert failed.stderr.count("\n") == 1
    assert "disk is full" in failed.stderr or "No space left on device" in failed.stderr
    monkeypatch.undo()
    finish(sample_root, out, embedded_corpus)


@pytest.mark.parametrize("fresh", [True, False])
def test_starting_over_may_be_killed_too(
    fresh: bool, sample_root: Path, embedded_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--fresh removes the old corpus file by file; killed in the middle of it, a build goes on with or without it."""
    out = end_to_end.build("sample_eval", sample_root, tmp_path / "corpus")
    removed: list[Path] = []
    unlink = Path.unlink

    def unlink_or_die(path: Path, missing_ok: bool = False) -> None:
        if len(removed) == 6:
            raise KeyboardInterrupt
        removed.append(path)
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink_or_die)
        with pytest.raises(KeyboardInterrupt):
            end_to_end.build("sample", sample_root, out, mode="embed", fresh=True)
    assert list((out / "data").iterdir())
    end_to_end.build("sample", sample_root, out, mode="embed", fresh=fresh)
    assert end_to_end.contents(out) == end_to_end.contents(embedded_corpus)


def test_a_build_killed_after_its_manifest_tidies_up(
    sample_root: Path, embedded_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "corpus"
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *args, **kwargs: None)
        end_to_end.build("sample", sample_root, out, mode="embed")
    assert (out / ".work").is_dir()
    finish(sample_root, out, embedded_corpus)


def test_a_shard_that_is_done_is_not_made_again(sample_root: Path, tmp_path: Path) -> None:
    out = end_to_end.build("sample", sample_root, tmp_path / "corpus")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    end_to_end.build("sample", sample_root, out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_changed_inputs_are_not_mixed_into_an_unfinished_build(tmp_path: Path) -> None:
    own = end_to_end.recipe_file(tmp_path)
    raw = end_to_end.own_root(tmp_path / "raw", end_to_end.own_rows(20))
    out = tmp_path / "corpus"
    options = ["build", "--recipe", str(own), "--raw", str(raw), "--out", str(out), "--workers", "1"]
    strict = CliRunner().invoke(main, [*options, "--strict", "--set", 'take.mine.files=["own/*.jsonl", "own/x"]'])
    assert strict.exit_code == 1
    end_to_end.own_root(raw, end_to_end.own_rows(21))
    again = CliRunner().invoke(main, options)
    cure = "give the same again to continue, or use --fresh to start over"
    assert (again.exit_code, again.stderr) == (
        1,
        f"Error: {out}: holds an unfinished build with other recipe, input files; {cure}.\n",
    )


def test_a_build_that_failed_on_its_input_starts_again_once_it_is_corrected(tmp_path: Path) -> None:
    own = end_to_end.recipe_file(tmp_path)
    raw = end_to_end.own_root(tmp_path / "raw", end_to_end.own_rows(20))
    options = ["build", "--recipe", str(own), "--raw", str(raw), "--out", str(tmp_path / "corpus"), "--workers", "1"]
    failed = CliRunner().invoke(main, [*options, "--set", 'take.mine.columns.question="frage"'])
    assert failed.exit_code == 2
    assert (tmp_path / "corpus/.work/plan.json").is_file()
    resumed = CliRunner().invoke(main, options)
    assert resumed.exit_code == 0, resumed.stderr
    assert manifest.read(tmp_path / "corpus").splits["train"].rows == 20


@pytest.mark.parametrize("harm", ["gone", "cut"])
def test_a_corpus_without_all_its_shards_is_not_confirmed(harm: str, sample_root: Path, tmp_path: Path) -> None:
    out = end_to_end.build("sample_eval", sample_root, tmp_path / "corpus")
    shard = min((out / "data").iterdir())
    if harm == "gone":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(OutputError) as found:
        end_to_end.build("sample_eval", sample_root, out)
    assert str(found.value) == (
        f"{out}: data/{shard.name} is gone or not as the manifest says; use --fresh to build the corpus again."
    )
