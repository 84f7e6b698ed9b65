"""Raw root and corpus in an object store: the same bytes as on a disk, through a local S3 server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from helpers import end_to_end, small_corpora
from helpers.command import error, run
from helpers.object_store import objects, served

from vpt_data import store
from vpt_data.corpus import manifest
from vpt_data.errors import CorpusError
from vpt_data.pipeline.plan import Mode
from vpt_data.store import AnyPath, RemotePath

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def options() -> Iterator[str]:
    """The end of every URL that points to the server."""
    with served() as address:
        yield address


def place(name: str, options: str) -> RemotePath:
    found = store.at(f"s3://bucket/{name}{options}")
    assert isinstance(found, RemotePath)
    return found


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny raw root and its recipe; not to be changed."""
    folder = tmp_path_factory.mktemp("disk")
    small_corpora.write_raw(folder / "raw")
    end_to_end.recipe_file(folder, small_corpora.RECIPE, "tiny.toml")
    return folder


@pytest.fixture(scope="module")
def raw(disk: Path, options: str) -> RemotePath:
    """The same raw root in the store; not to be changed."""
    root = place("raw", options)
    for path in sorted((disk / "raw").rglob("*.*")):
        store.write(root / store.below(path, disk / "raw"), path.read_bytes())
    return root


@pytest.fixture
def out(request: pytest.FixtureRequest, options: str) -> RemotePath:
    """A place in the store that nobody has used."""
    return place(f"corpora/{request.node.name}".replace("[", "-").replace("]", ""), options)


@pytest.fixture(scope="module")
def local(disk: Path) -> Path:
    """The corpus on a disk; not to be changed."""
    return end_to_end.build(disk / "tiny.toml", disk / "raw", disk / "embed", "shards=2", mode="embed")


class Command:
    """`vpt-data build` of the tiny recipe from one place to another."""

    def __init__(self, recipe: Path, raw: AnyPath, out: AnyPath) -> None:
        self.out = out
        options = ["--raw", str(raw), "--out", str(out), "--set", "shards=2", "--workers", "1"]
        self.arguments = ["build", "--recipe", str(recipe), *options]

    def __call__(self, *more: str, mode: Mode = "embed", **env: str) -> Result:
        result = run(*self.arguments, "--images", mode, *more, **env)
        assert result.exit_code == 0, result.output
        return result

    def error(self, *more: str) -> str:
        return error(*self.arguments, "--images", "embed", *more)


@pytest.fixture
def build(disk: Path, raw: RemotePath, out: RemotePath) -> Command:
    """From the store to the store."""
    return Command(disk / "tiny.toml", raw, out)


@pytest.fixture(scope="module")
def there(disk: Path, raw: RemotePath, options: str) -> RemotePath:
    """A corpus that was built from the store to the store; not to be changed."""
    corpus = place("corpora/there", options)
    assert f"Built: {corpus}  " in Command(disk / "tiny.toml", raw, corpus)().stdout
    return corpus


def test_all_in_the_store(disk: Path, raw: RemotePath, there: RemotePath, local: Path) -> None:
    assert objects(there) == end_to_end.contents(local)
    assert manifest.read(there) == manifest.read(local)
    assert f"Already built: {there}  " in Command(disk / "tiny.toml", raw, there)().stdout


def test_only_the_raw_root_in_the_store(disk: Path, raw: RemotePath, tmp_path: Path, local: Path) -> None:
    Command(disk / "tiny.toml", raw, tmp_path / "corpus")()
    assert end_to_end.contents(tmp_path / "corpus") == end_to_end.contents(local)


@pytest.fixture
def to_store(disk: Path, out: RemotePath) -> Command:
    """From the disk, which is faster to read, to the store."""
    return Command(disk / "tiny.toml", disk / "raw", out)


def test_ranks(to_store: Command, out: RemotePath, local: Path) -> None:
    build = to_store
    build("--engine", "ranks", RANK="1", WORLD_SIZE="2")
    assert build.error("--seal") == (
        f"{out}: 3 of 6 blocks of shards are not written yet, the first is number 0; run all ranks to their end "
        "(a rank that died can be run again), then --seal."
    )
    build("--engine", "ranks", RANK="0", WORLD_SIZE="2")
    build("--seal")
    assert objects(out) == end_to_end.contents(local)


def test_a_killed_build_is_continued(to_store: Command, out: RemotePath, local: Path) -> None:
    build = to_store
    command = [sys.executable, "-m", "vpt_data", *build.arguments, "--images", "embed"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ))
    while process.poll() is None and not store.names(out / ".work" / "shards"):
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    with pytest.raises(CorpusError):
        manifest.read(out)
    build()
    assert objects(out) == end_to_end.contents(local)


def test_another_recipe_needs_fresh_and_two_workers_make_it(
    to_store: Command, disk: Path, out: RemotePath, local: Path, tmp_path: Path
) -> None:
    build, other = to_store, end_to_end.build(disk / "tiny.toml", disk / "raw", tmp_path / "x", "shards=2", "seed=1")
    for name, data in end_to_end.contents(other).items():
        store.write(out / name, data)
    assert build.error() == f"{out}: holds a corpus with other recipe, --images; use --fresh to replace it."
    build("--fresh", "--workers", "2")
    assert objects(out) == end_to_end.contents(local)


def test_a_prefix_that_holds_other_objects_is_left_alone(build: Command, out: RemotePath) -> None:
    store.write(out / "notes.txt", b"mine")
    assert build.error() == f"{out}: the folder holds other files; give an empty or new folder for the corpus."
    assert objects(out) == {"notes.txt": b"mine"}


def test_there_is_no_such_raw_root(disk: Path, out: RemotePath, options: str) -> None:
    gone = place("gone", options)
    found = Command(disk / "tiny.toml", gone, out).error()
    assert found == f"{gone}: there is no such raw root; give --raw DIR or set VPT_DATA_RAW."


@pytest.mark.parametrize("size", [0, 100, 12 << 20])  # one request, and an upload in parts
@pytest.mark.parametrize("before", [{}, {"a": b"old"}])
def test_a_file_that_fails_half_way_leaves_what_was_there(out: RemotePath, size: int, before: dict[str, bytes]) -> None:
    for name, data in before.items():
        store.write(out / name, data)
    with pytest.raises(KeyboardInterrupt), store.creating(out / "a") as file:
        file.write(b"x" * size)
        assert objects(out) == before
        raise KeyboardInterrupt
    assert objects(out) == before
    store.write(out / "a", b"x" * size)
    assert objects(out) == {"a": b"x" * size}


def test_an_upload_that_the_store_breaks_off_leaves_what_was_there(
    out: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second part is refused; closing the stream must not make an object of the first."""
    from moto.s3.exceptions import InvalidPart
    from moto.s3.models import S3Backend

    store.write(out / "a", b"old")
    with monkeypatch.context() as patch:
        taken, take = [], S3Backend.upload_part

        def refuse(*arguments: Any, **options: Any) -> Any:
            taken.append(arguments)
            if len(taken) > 1:
                raise InvalidPart  # one that clients do not try again
            return take(*arguments, **options)

        patch.setattr(S3Backend, "upload_part", refuse)
        with pytest.raises(OSError):
            store.write(out / "a", b"x" * (25 << 20))
    assert len(taken) > 1
    assert objects(out) == {"a": b"old"}


def test_an_interrupt_during_an_upload_does_not_publish_a_part(
    out: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(out / "a", b"old")
    upload = RemotePath.upload

    def interrupted(path: RemotePath) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return upload(path)

    monkeypatch.setattr(RemotePath, "upload", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.write(out / "a", b"x" * (12 << 20))
    assert objects(out)["a"] in {b"old", b"x" * (12 << 20)}


# What reads a corpus -------------------------------------------------------------------------------------------


def output_of(*arguments: str | Path, code: int = 0) -> str:
    """What a command says on stdout."""
    result = run(*arguments)
    assert result.exit_code == code, result.output
    return result.stdout


def test_check_and_stats(there: RemotePath, local: Path) -> None:
    assert output_of("check", str(there)).replace(str(there), "-") == output_of("check", local).replace(str(local), "-")
    assert output_of("stats", str(there)) == output_of("stats", local)


def test_check_makes_shards_again_and_compares_two_corpora(
    there: RemotePath, raw: RemotePath, local: Path, disk: Path, tmp_path: Path
) -> None:
    again = output_of("check", str(there), "--rebuild", "2", "--raw", str(raw))
    assert "2 of 2 shards made again have the same bytes." in again
    alike = ("--near-duplicates", "--against")
    here = output_of("check", local, *alike, local).replace(str(local), "-")
    assert output_of("check", str(there), *alike, str(there)).replace(str(there), "-") == here
    end_to_end.build(disk / "tiny.toml", disk / "raw", tmp_path / "reference", "shards=2")
    looked = output_of("check", tmp_path / "reference", *alike, str(there), "--raw", str(raw))
    assert "could not be read" not in looked


def test_check_finds_what_is_wrong(there: RemotePath, out: RemotePath) -> None:
    for name, data in objects(there).items():
        store.write(out / name, data[:-1] + b"?" if name.endswith("0-of-00002.parquet") else data)
    store.write(out / "data/notes.txt", b"mine")
    (out / "dropped.parquet").unlink()
    found = json.loads(output_of("check", str(out), "--json", code=3))
    rules = {finding["rule"]: finding["example"] for finding in found["findings"]}
    assert set(rules) == {"shard_sha256", "shard_readable", "foreign_file", "side_table"}
    assert (rules["foreign_file"], rules["side_table"]) == ("data/notes.txt", "not there")


def test_check_reads_a_published_file(out: RemotePath) -> None:
    row = {"messages": [{"role": "user", "content": "<image>\nWhat?"}, {"role": "assistant", "content": "A dog."}]}
    lists = {"images": ["a.jpg"], "detection_images": [], "seg_images": [], "clip_images": []}
    store.write(out / "rows.json", json.dumps([{**row, **lists}]).encode())
    assert output_of("check", str(out / "rows.json")).splitlines()[-1] == f"{out / 'rows.json'}: 1 rows, nothing found."


def test_render(there: RemotePath, out: RemotePath, local: Path, tmp_path: Path) -> None:
    output_of("render", local, "--encoder", "clip", "--out", tmp_path / "here")
    expected = end_to_end.contents(tmp_path / "here")
    assert f"Built: {out}  " in output_of("render", str(there), "--encoder", "clip", "--out", str(out))
    assert objects(out) == expected
    refused = error("render", str(there), "--encoder", "clip", "--out", str(out))
    assert refused == f"{out}: the folder is not empty; give an empty or new folder for the rendered corpus."


def test_a_render_that_was_interrupted_is_begun_anew(there: RemotePath, out: RemotePath, local: Path) -> None:
    store.write(out / ".render.json", b"{}\n")
    store.write(out / "data/train-00007-of-00008.parquet", b"half")
    store.write(out / "dropped.parquet", b"half")
    output_of("render", str(there), "--encoder", "dino", "--out", str(out))
    assert objects(out) == end_to_end.contents(local)


def test_there_is_no_such_corpus(there: RemotePath, options: str) -> None:
    gone = str(place("corpora/gone", options))
    expected = "expected a corpus folder or a published VPT file (.json, .jsonl, also .gz)."
    assert error("check", gone) == f"{gone}: there is no such file or folder; {expected}"
    folder = f"{gone}: there is no such folder; give the output folder of `vpt-data build`."
    assert error("stats", gone) == folder
    assert error("render", gone, "--encoder", "clip", "--out", f"{gone}-out") == folder
    assert error("check", str(there), "--near-duplicates", "--against", gone) == folder


@pytest.mark.parametrize("command", [["check"], ["stats"], ["render", "--encoder", "clip", "--out", "x"]])
def test_an_address_that_names_no_store(command: list[str]) -> None:
    message = error(*command, "nowhere://bucket/corpus", code=2)
    assert message.startswith("nowhere://bucket/corpus: not a place that can be opened (")
    assert message.endswith("); give a folder, or s3://BUCKET/PREFIX.")
