"""What a push makes of a repository, and what it says before and after."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
from helpers import end_to_end
from helpers.command import error, run
from helpers.hub.server import HubServer
from helpers.pushing import corpus, paths, planned, push, pushed

from vpt_data.corpus import manifest
from vpt_data.corpus.reader import open_corpus


def of_corpus(folder: Path) -> dict[str, bytes]:
    """The files of a corpus that are published as they are."""
    return {path: data for path, data in end_to_end.contents(folder).items() if not path.endswith((".md", ".lock"))}


def of_card(found: Iterable[str]) -> set[str]:
    """Those of these paths that are the card of a repository with one corpus, or belong to it."""
    return {path for path in found if path in {"README.md", "croissant.json"} or path.startswith("assets/")}


def test_the_files_of_the_corpus_arrive_as_they_are(hub: HubServer, own: Path) -> None:
    assert push(own, "--repo", "org/name").startswith(f"Pushed: {hub.url}/datasets/org/name  commit ")
    there = hub.contents("org/name")
    assert of_corpus(own).items() <= there.items()
    assert there.keys() - of_corpus(own).keys() - of_card(there) == {".gitattributes"}
    assert {"README.md", "croissant.json", "assets/row-region.png"} <= of_card(there)
    assert list(open_corpus("hf://datasets/org/name").rows()) == list(open_corpus(own).rows())


def test_without_a_name_the_repository_is_that_of_the_recipe(hub: HubServer, own: Path) -> None:
    done = pushed(own)
    assert (done["repo"], done["new"], done["private"], done["tag"]) == ("me/own", True, False, "v1")
    assert hub.repository("me/own").refs["refs/tags/v1"] == done["commit"] == hub.repository("me/own").at("main").oid


def test_an_unchanged_corpus_makes_no_commit(hub: HubServer, own: Path) -> None:
    first = pushed(own)
    second = pushed(own)
    assert (second["commit"], second["upload"], second["tag"]) == (first["commit"], [], "v1")
    assert len(hub.repository("me/own").history()) == 2
    assert push(own).startswith(f"Unchanged: {hub.url}/datasets/me/own")


def test_only_what_changed_is_uploaded(hub: HubServer, own: Path, tmp_path: Path) -> None:
    push(own)
    raw = tmp_path / "raw_own"
    shutil.copytree(own.parent, raw, dirs_exist_ok=True)
    changed = corpus(tmp_path / "again", rows=13)
    before, after = (manifest.read(folder).splits["train"].shards for folder in (own, changed))
    new = {shard.file for shard in after} - {shard.file for shard in after if shard in before}
    assert len(new) == 1
    hub.faults.plan()
    done = pushed(changed)
    uploaded = set(paths(done["upload"]))
    assert uploaded - of_card(uploaded) == {*new, "manifest.json", "origins.parquet"} and "README.md" in uploaded
    sent = sum(seen.received for seen in hub.faults.log if seen.path.startswith("/large/"))
    large = [entry["bytes"] for entry in done["upload"] if entry["path"].endswith((".parquet", ".png"))]
    assert sent == sum(large)
    assert done["tag"] == "v2"
    assert of_corpus(changed).items() <= hub.contents("me/own").items()


def test_the_dry_run_needs_no_token_and_changes_nothing(
    hub: HubServer, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    plan = planned(own, "--repo", "org/name")
    assert plan["new"] and not plan["private"]
    assert set(paths(plan["upload"])) - of_card(paths(plan["upload"])) == {*of_corpus(own)}
    assert plan["configs"] == {"default": {"train": 12}}
    assert not [seen for seen in hub.faults.log if seen.changes]
    shown = run("push-to-hub", own, "--repo", "org/name", "--dry-run").stdout
    assert f"repository: {hub.url}/datasets/org/name (new, public), branch main" in shown
    assert "readers see: config default: train 12 rows" in shown


def test_without_a_terminal_nobody_is_asked(own: Path) -> None:
    sentence = "A push asks before it changes anything, and nobody can answer here; give --yes, or --dry-run to look."
    assert error("push-to-hub", own, code=2) == sentence
    assert error("push-to-hub", own, "--json", code=2) == sentence


def test_several_corpora_are_configs_of_one_repository(hub: HubServer, own: Path, tmp_path: Path) -> None:
    other = corpus(tmp_path, rows=6, name="other")
    done = pushed(own, other, "--repo", "org/both")
    assert done["configs"] == {"own": {"train": 12}, "other": {"train": 6}}
    there = hub.contents("org/both")
    for folder, place in (("own", own), ("other", other)):
        assert {f"{folder}/{path}": data for path, data in of_corpus(place).items()}.items() <= there.items()
        assert open_corpus(f"hf://datasets/org/both/{folder}").manifest == manifest.read(place)
    assert json.loads(there["own/manifest.json"])["fingerprint"] == manifest.read(own).fingerprint


def test_corpora_of_one_recipe_are_named_after_their_folders(hub: HubServer, own: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(own, tmp_path / "own_sam"))
    assert pushed(own, other, "--repo", "org/both")["configs"] == {"own": {"train": 12}, "own_sam": {"train": 12}}
    assert pushed(own, other, "--repo", "org/both")["upload"] == []
