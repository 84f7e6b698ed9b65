"""Publishing from end to end, in processes of their own: what is pushed is what `datasets` and the trainer read."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers import pushing
from helpers.hub import accounts
from helpers.hub.client import VPT_DATA, environment, point_at, python_json
from helpers.hub.faults import Fault, Wrong
from helpers.hub.server import HubServer
from helpers.hub.watching import digest

from trainer.data.corpus import open_corpus as open_for_training
from trainer.run import main as train
from vpt_data.corpus import manifest
from vpt_data.corpus.reader import open_corpus


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer(page=4) as running:
        yield running
        assert running.broken == []


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("corpora")
    return pushing.corpus(folder, 24, mode="embed"), pushing.corpus(folder, 9, "more", mode="embed")


def command(server: HubServer, folder: Path, *arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    """`vpt-data` against that server."""
    settings = environment(server.url, folder / "home", **{"VPT_DATA_HUB_PAUSE": "0", **env})
    line = [*VPT_DATA, *map(str, arguments)]
    return subprocess.run(line, env=settings, capture_output=True, text=True, timeout=120)


def push(server: HubServer, folder: Path, *arguments: str | Path, **env: str) -> str:
    done = command(server, folder, "push-to-hub", *arguments, "--repo", "org/name", "--yes", **env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def open_at(server: HubServer, folder: Path, place: str) -> str:
    """The fingerprint of a corpus on the Hub."""
    program = "import json, sys, vpt_data; print(json.dumps(vpt_data.open_corpus(sys.argv[1]).manifest.fingerprint))"
    return str(python_json(program, environment(server.quiet_url, folder / "reader", token=None), place))


LOAD = """
import json, sys
import datasets
from helpers.hub.watching import digest
found = {}
for how in json.loads(sys.argv[1]):
    splits = datasets.load_dataset("org/name", **how)
    row = next(iter(splits["train"]))
    assert [image.size for image in row["images"]] == [(640, 480)], row["images"]
    rows = (row for split in splits.values() for row in split.select_columns(["id", "messages"]))
    found[json.dumps(how)] = digest(rows)
print(json.dumps(found))
"""


def test_datasets_and_the_trainer_read_what_was_pushed(
    server: HubServer, corpora: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two configs: the first one is the default."""
    push(server, tmp_path, *corpora)
    rows = {corpus.name: list(digest(open_corpus(corpus).rows(images=False))) for corpus in corpora}
    hows = {
        json.dumps({"name": name, "revision": revision, "streaming": streaming}): rows[name or "own"]
        for name, revision in ((None, "main"), ("own", "v1"), ("more", server.repository("org/name").at("main").oid))
        for streaming in (False, True)
    }
    reader = environment(server.quiet_url, tmp_path / "reader", token=None)
    assert python_json(LOAD, reader, json.dumps([json.loads(how) for how in hows])) == hows
    place = "hf://datasets/org/name/own"
    assert open_at(server, tmp_path, place) == manifest.read(corpora[0]).fingerprint
    sets = [word for value in ("optim.steps=1", "data.rows=4", "data.tokens=2048") for word in ("--set", value)]
    point_at(server.quiet_url, monkeypatch)
    trained = CliRunner().invoke(train, ["--data", place, "--out", str(tmp_path / "run"), *sets])
    assert trained.exit_code == 0, trained.output
    state = json.loads((tmp_path / "run/step-0000001/state.json").read_text())
    assert state["loader"]["corpus"] == open_for_training(str(corpora[0])).identity


def test_shards_of_another_number_replace_those_of_before(server: HubServer, tmp_path: Path) -> None:
    push(server, tmp_path, pushing.corpus(tmp_path / "four", 24))
    server.faults.plan()
    fewer = pushing.corpus(tmp_path / "two", 24, overrides=("shards=2",))
    assert "4 deleted" in push(server, tmp_path, fewer)
    shards = [path for path in server.contents("org/name") if path.startswith("data/")]
    assert shards == [shard.file for shard in manifest.read(fewer).splits["train"].shards] and len(shards) == 2
    assert len(server.repository("org/name").history()) == 3
    old = server.contents("org/name", "v1")
    assert len([path for path in old if path.startswith("data/")]) == 4, "the version of before stays as it was"


def test_no_token_is_printed_however_much_is_logged(
    server: HubServer, corpora: tuple[Path, Path], tmp_path: Path
) -> None:
    """The client's own logs of requests that succeed, that are repeated and that are refused."""
    loud = {"HF_DEBUG": "1", "HF_HUB_VERBOSITY": "debug"}
    words = ["push-to-hub", corpora[0], "--repo", "org/name", "--yes"]
    faults = [Fault(Wrong.BUSY, fits="commit/main"), Fault(Wrong.ERROR, fits="PUT "), Fault(Wrong.DROP, fits="batch")]
    server.faults.plan(*faults)
    done = command(server, tmp_path, *words, **loud)
    assert (done.returncode, [fault.struck for fault in faults]) == (0, [1, 1, 1]), done.stderr
    assert "authorization" in done.stderr.lower(), "the client logs the headers of its requests"
    text = done.stdout + done.stderr
    for wrong, token, options in (
        (Wrong.FORBIDDEN, accounts.WRITE, []), (Wrong.QUOTA, accounts.WRITE, ["--debug"]),
        (Wrong.BUSY, accounts.EXPIRED, ["--debug"]),
    ):  # fmt: skip
        server.faults.plan(Fault(wrong, fits="/api/datasets/org/name"))
        done = command(server, tmp_path, *options, *words, **loud, HF_TOKEN=token)
        assert done.returncode == 1 and ("Traceback" in done.stderr) == bool(options), done.stderr
        text += done.stdout + done.stderr
    assert not [secret for secret in accounts.SECRETS if secret in text]


DOWNLOAD = """
import hashlib, json, sys
from pathlib import Path
from huggingface_hub import hf_hub_download
def sha256(path):
    return hashlib.sha256(Path(hf_hub_download("org/name", path, repo_type="dataset")).read_bytes()).hexdigest()
print(json.dumps({path: sha256(path) for path in json.loads(sys.argv[1])}))
"""


def test_what_goes_through_xet_comes_back(corpora: tuple[Path, Path], tmp_path: Path) -> None:
    """The large files are in the store of hf_xet, which only its own client reads."""
    (tmp_path / "store").mkdir()
    with HubServer(xet=tmp_path / "store") as server:
        done = [
            command(
                server,
                tmp_path,
                "push-to-hub",
                corpora[0],
                "--repo",
                "org/name",
                "--yes",
                HF_HUB_DISABLE_XET="0",
            )
            for _ in range(2)
        ]
        if done[0].returncode != 0 and "local:" in done[0].stderr:
            pytest.skip("this hf_xet does not know local:// as a store")
        assert [(one.returncode, one.stdout.split(":")[0]) for one in done] == [(0, "Pushed"), (0, "Unchanged")], done
        assert server.repository("org/name").objects == {}, "no byte of them came to the server"
        assert len(server.repository("org/name").history()) == 2
        shards = {shard.file: shard.sha256 for shard in manifest.read(corpora[0]).splits["train"].shards}
        for path in shards:
            server.know(corpora[0] / path)
        reader = environment(server.url, tmp_path / "reader", HF_HUB_DISABLE_XET="0")
        assert python_json(DOWNLOAD, reader, json.dumps(list(shards))) == shards
        assert server.broken == []
