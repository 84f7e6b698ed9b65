"""What is not pushed, and the sentence that says why; nothing is changed on the Hub by any of these.

None of them draws the card first, which takes minutes where a corpus is large.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from helpers.hub.server import HubServer
from helpers.pushing import corpus, push, pushed, refused

from vpt_data.corpus import manifest
from vpt_data.exchange.hub import card


def not_drawn(*_: object) -> NoReturn:
    raise AssertionError("the card was drawn before the push was refused")


@pytest.fixture(autouse=True)
def unchanged(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Call it when the Hub is as the test wants it: from then on no card is drawn, and nothing changes on the Hub."""
    begun: list[None] = []

    def begin() -> None:
        hub.faults.plan()
        monkeypatch.setattr(card, "pages", not_drawn)
        begun.append(None)

    yield begin
    assert not begun or not [seen.line for seen in hub.faults.log if seen.changes]


def edit(place: Path, change: Callable[[manifest.Manifest], object]) -> Path:
    made = manifest.read(place)
    change(made)
    manifest.write(made, place)
    return place


# The corpus -------------------------------------------------------------------------------------------------


def test_a_trial_is_pushed_with_force_only(own: Path, unchanged: Callable[[], None]) -> None:
    edit(own, lambda made: setattr(made, "limited", True))
    unchanged()
    assert refused(own) == (
        f"{own}: the corpus was made with --limit, so it is a trial of its recipe; build it without, or give --force."
    )


def test_a_trial_is_pushed_with_force(own: Path) -> None:
    edit(own, lambda made: setattr(made, "limited", True))
    assert pushed(own, "--force")["new"]


def test_a_corpus_without_rows_is_not_pushed(own: Path, unchanged: Callable[[], None]) -> None:
    def empty(made: manifest.Manifest) -> None:
        made.splits["train"].rows = 0

    edit(own, empty)
    unchanged()
    assert refused(own, "--force") == (
        f"{own}: the corpus has no rows, so there is nothing to publish; see dropped.parquet there."
    )


def test_an_unfinished_corpus_is_not_pushed(own: Path, unchanged: Callable[[], None]) -> None:
    (own / "manifest.json").unlink()
    unchanged()
    assert refused(own).startswith(f"{own}: no manifest.json, so this is no corpus, or its build has not finished;")


def test_a_corpus_in_a_store_is_not_pushed(unchanged: Callable[[], None]) -> None:
    unchanged()
    place = "s3://bucket/corpus?region=x&endpoint_override=http://127.0.0.1:1"
    assert refused(place).endswith(": a push needs the files on a disk; copy the corpus to a folder first.")


def test_what_check_finds_without_reading_rows_ends_the_push(own: Path, unchanged: Callable[[], None]) -> None:
    shard = max((own / "data").iterdir(), key=lambda path: path.stat().st_size)
    shard.write_bytes(shard.read_bytes()[:-1])
    (own / "data/notes.txt").touch()
    unchanged()
    sentence = refused(own)
    assert sentence.startswith(f"{own}: the files are not what the manifest says: shard_bytes (data/{shard.name}: ")
    assert "foreign_file (data/: data/notes.txt)" in sentence
    assert sentence.endswith(f"; see `vpt-data check {own}`, and build the corpus again.")


def test_bytes_that_are_not_those_of_the_manifest_are_not_published(hub: HubServer, own: Path) -> None:
    record = manifest.read(own).splits["train"].shards[0]
    text = (own / "manifest.json").read_text()
    (own / "manifest.json").write_text(text.replace(record.sha256, "0" * 64))
    assert refused(own) == (
        f"{own / record.file}: its bytes have the sha256 {record.sha256}, the manifest says {'0' * 64}; nothing was "
        "published, see `vpt-data check`, and build the corpus again."
    )
    assert list(hub.contents("me/own")) == [".gitattributes"]


# The command line -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a/b/c", "org/a--b", "org/a b", "org/.a", "org/" + "a" * 97])
def test_a_name_that_cannot_be(own: Path, name: str, unchanged: Callable[[], None]) -> None:
    unchanged()
    assert refused(own, "--repo", name, code=2) == (
        f"{name!r} cannot be the name of a data set on the Hub; give --repo ORG/NAME, at most 96 letters, digits, ., _ "
        "and -, without -- and .."
    )


def test_several_corpora_need_a_name(own: Path, unchanged: Callable[[], None]) -> None:
    unchanged()
    sentence = "Several corpora become one data set, which needs a name; give --repo ORG/NAME."
    assert refused(own, own, code=2) == sentence


def test_two_corpora_of_one_recipe_do_not_fit(own: Path, tmp_path: Path, unchanged: Callable[[], None]) -> None:
    other = shutil.copytree(own, tmp_path / "copy/own")
    unchanged()
    assert refused(own, other, "--repo", "org/name", code=2) == (
        f"{own} and {other}: a repository has one config of a name, and both the recipes and the folders of these "
        "corpora have the same; rename a folder."
    )


@pytest.mark.parametrize("name", ["data", "assets", "../own", "a/b", "README.md"])
def test_the_name_of_a_recipe_has_to_fit_into_the_repository(
    own: Path, tmp_path: Path, name: str, unchanged: Callable[[], None]
) -> None:
    other = Path(shutil.copytree(own, tmp_path / "other"))
    text = json.loads((other / "manifest.json").read_text())
    text["recipe"]["name"] = name
    (other / "manifest.json").write_text(json.dumps(text))
    unchanged()
    assert refused(own, other, "--repo", "org/name", code=2) == (
        f"{other}: its config would be called {name!r}, which cannot be the name of a folder in the repository; give "
        "the recipe another `name`."
    )


# The repository ---------------------------------------------------------------------------------------------


def test_files_of_others_are_named_and_not_touched(hub: HubServer, own: Path, unchanged: Callable[[], None]) -> None:
    hub.hub.create("me/own")
    hub.commit("me/own", {"README.md": b"# Mine\n", "data/train-00000-of-00001.parquet": b"x", "notes.txt": b"n"})
    unchanged()
    assert refused(own) == (
        "me/own: the repository holds README.md, data/train-00000-of-00001.parquet, notes.txt, which no push of "
        "vpt-data has put there; choose another repository, or give --force: files of the same name are replaced, "
        "others stay unless readers would take them for shards."
    )


def test_with_force_files_of_others_stay_unless_readers_would_read_them(hub: HubServer, own: Path) -> None:
    hub.hub.create("me/own")
    foreign = {"README.md": b"# Mine\n", "data/train-00000-of-00001.parquet": b"x", "notes.txt": b"n", "data/x": b"y"}
    hub.commit("me/own", {**foreign, "more/data/train-0.parquet": b"z"})
    done = pushed(own, "--force")
    assert done["delete"] == ["data/train-00000-of-00001.parquet"]
    there = hub.contents("me/own")
    assert there["README.md"].startswith(b"---\n")
    assert {"notes.txt", "data/x", "more/data/train-0.parquet"} < there.keys()


def test_a_manifest_of_another_tool_is_foreign(hub: HubServer, own: Path, unchanged: Callable[[], None]) -> None:
    hub.hub.create("me/own")
    hub.commit("me/own", {"manifest.json": b'{"name": "an app"}'})
    unchanged()
    assert refused(own).startswith("me/own: the repository holds manifest.json, which no push")


def test_a_config_of_an_earlier_push_is_not_taken_away(
    hub: HubServer, own: Path, tmp_path: Path, unchanged: Callable[[], None]
) -> None:
    other = corpus(tmp_path, rows=6, name="other")
    push(own, other, "--repo", "org/both")
    unchanged()
    assert refused(other, "--repo", "org/both") == (
        "org/both: the push would take away own, which an earlier push has put there; push it together with the "
        "others, choose another repository, or give --force."
    )


def test_with_force_a_config_of_an_earlier_push_is_taken_away(hub: HubServer, own: Path, tmp_path: Path) -> None:
    other = corpus(tmp_path, rows=6, name="other")
    push(own, other, "--repo", "org/both")
    push(other, "--repo", "org/both", "--force")
    assert not [path for path in hub.contents("org/both") if path.startswith(("own/", "other/"))]


def test_the_visibility_of_a_repository_is_not_changed(
    hub: HubServer, own: Path, unchanged: Callable[[], None]
) -> None:
    hub.hub.create("me/own")
    unchanged()
    assert refused(own, "--private") == (
        "me/own: the repository is public, and a push does not change that; make it private in its settings first, or "
        "push without --private."
    )


def test_images_that_may_not_be_handed_on_do_not_become_public(tmp_path: Path, unchanged: Callable[[], None]) -> None:
    mine = corpus(tmp_path, name="mine", mode="embed", terms="LicenseRef-mine")
    unchanged()
    assert refused(mine).startswith("Images in the shards whose terms forbid, or do not state, redistribution")


def test_without_a_token_nothing_is_pushed(own: Path, unchanged: Callable[[], None]) -> None:
    unchanged()
    assert "`hf auth login`" in refused(own, HF_TOKEN=None)


def test_a_private_repository_stays_private(hub: HubServer, own: Path) -> None:
    assert pushed(own, "--private")["private"]
    assert pushed(own)["private"]
    assert hub.repository("me/own").private


@pytest.mark.parametrize("revision", ["v1", "0" * 40])
def test_a_push_goes_to_a_branch(own: Path, revision: str, unchanged: Callable[[], None]) -> None:
    push(own)
    unchanged()
    assert refused(own, "--revision", revision) == (
        f"me/own: {revision} is no branch, and a push goes to a branch; correct --revision."
    )
    assert refused(own, "--revision", "refs/pr/7") == (
        "me/own: there is no refs/pr/7; see the pull requests of the repository."
    )
