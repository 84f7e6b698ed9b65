"""Versions, branches and pull requests: a tag is never moved, and nothing is proposed twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.hub.faults import Fault, Wrong
from helpers.hub.server import HubServer
from helpers.pushing import corpus, paths, planned, push, pushed, refused

from vpt_data.corpus import manifest
from vpt_data.corpus.card import USE
from vpt_data.corpus.reader import open_corpus
from vpt_data.exchange.hub import overview
from vpt_data.exchange.hub.content import Content
from vpt_data.exchange.hub.plan import Difference, Plan, Wishes
from vpt_data.exchange.hub.remote import Repository, Tree


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("built")


@pytest.fixture(scope="module")
def first(folder: Path) -> Path:
    return corpus(folder / "first")


@pytest.fixture(scope="module")
def second(folder: Path) -> Path:
    return corpus(folder / "second", rows=15)


def tags(hub: HubServer) -> dict[str, str]:
    refs = hub.repository("me/own").refs
    return {name.removeprefix("refs/tags/"): commit for name, commit in refs.items() if name.startswith("refs/tags/")}


def test_versions_are_counted(hub: HubServer, first: Path, second: Path) -> None:
    made = [pushed(place) for place in (first, second, first)]
    assert [done["tag"] for done in made] == ["v1", "v2", "v3"]
    assert tags(hub) == {done["tag"]: done["commit"] for done in made}
    for tag, place in (("v1", first), ("v2", second)):
        assert open_corpus(f"hf://datasets/me/own@{tag}").manifest == manifest.read(place)


def test_another_card_is_no_other_version(hub: HubServer, first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = pushed(first)["commit"]
    monkeypatch.setattr("vpt_data.corpus.card.USE", f"{USE}\nOne more sentence.")
    plan = planned(first)
    assert (paths(plan["upload"]), plan["tag"]) == (["README.md"], "v1")
    assert plan["card_difference"].splitlines()[:2] == ["--- README.md (now)", "+++ README.md"]
    assert "\n+One more sentence.\n" in plan["card_difference"]
    push(first)
    assert tags(hub) == {"v1": commit}


def test_a_push_that_ended_before_the_tag_is_completed(hub: HubServer, first: Path) -> None:
    hub.faults.plan(Fault(Wrong.FORBIDDEN, fits="/tag/"))
    refused(first)
    assert tags(hub) == {}
    done = pushed(first)
    assert tags(hub) == {"v1": done["commit"]}
    assert len(hub.repository("me/own").history()) == 2


def test_a_tag_of_ones_own_is_never_moved(hub: HubServer, first: Path, second: Path) -> None:
    done = pushed(first, "--tag", "release")
    assert pushed(first, "--tag", "release")["commit"] == done["commit"]
    assert refused(second, "--tag", "release") == (
        f"me/own: the tag release is at commit {done['commit'][:12]}, which holds something else, and a push never "
        "moves a tag; choose another --tag."
    )
    assert tags(hub) == {"release": done["commit"]}


def test_a_tag_stays_where_it_is_when_others_go_on(hub: HubServer, first: Path, second: Path) -> None:
    """Its commit holds what is pushed: with the same files in the newest one, and with others."""
    done = pushed(first, "--tag", "release")
    hub.commit("me/own", {".gitattributes": b"*.parquet filter=lfs\n"})
    assert push(first, "--tag", "release").startswith("Unchanged: ")
    push(second)
    push(first, "--tag", "release")
    assert tags(hub)["release"] == done["commit"]


@pytest.mark.parametrize("options", [(), ("--tag", "release")])
def test_a_tag_whose_answer_is_lost_is_found(hub: HubServer, first: Path, options: tuple[str, ...]) -> None:
    hub.faults.plan(Fault(Wrong.DROP_AFTER_EFFECT, fits="/tag/"))
    done = pushed(first, *options)
    assert tags(hub) == {done["tag"]: done["commit"]}
    assert len(hub.repository("me/own").history()) == 2


def test_a_branch_is_made_and_main_stays(hub: HubServer, first: Path, second: Path) -> None:
    main = pushed(first)["commit"]
    assert planned(second, "--revision", "next")["tag"] is None
    done = pushed(second, "--revision", "next")
    refs = hub.repository("me/own").refs
    assert (refs["refs/heads/main"], refs["refs/heads/next"]) == (main, done["commit"])
    assert tags(hub).keys() == {"v1"}
    assert pushed(second, "--revision", "next")["upload"] == []


def test_a_pull_request_is_opened_once(hub: HubServer, first: Path, second: Path) -> None:
    main = pushed(first)["commit"]
    done = pushed(second, "--create-pr", "--message", "More rows")
    assert (done["pull_request"], done["tag"]) == (1, None)
    assert hub.repository("me/own").discussions[0].title == "More rows"
    assert push(second, "--create-pr").startswith(f"Proposed already: {hub.url}/datasets/me/own/discussions/1  commit ")
    assert len(hub.repository("me/own").discussions) == 1
    assert hub.repository("me/own").at("main").oid == main
    assert hub.repository("me/own").at("refs/pr/1").oid == done["commit"]
    # It goes on in the same pull request.
    assert pushed(second, "--revision", "refs/pr/1")["upload"] == []
    hub.repository("me/own").discussions[0].status = "closed"
    assert pushed(second, "--create-pr")["pull_request"] == 2


def test_a_pull_request_whose_answer_is_lost_is_found(hub: HubServer, first: Path, second: Path) -> None:
    push(first)
    hub.faults.plan(Fault(Wrong.DROP_AFTER_EFFECT, fits="/commit/"))
    done = pushed(second, "--create-pr")
    assert done["pull_request"] == 1
    assert len(hub.repository("me/own").discussions) == 1
    assert paths(done["upload"])


def test_what_main_holds_is_not_proposed(hub: HubServer, first: Path) -> None:
    push(first)
    assert push(first, "--create-pr").startswith("Unchanged: ")
    assert hub.repository("me/own").discussions == []


def test_a_corpus_that_moves_into_a_folder_is_copied_on_the_hub(hub: HubServer, first: Path, folder: Path) -> None:
    push(first)
    other = corpus(folder, rows=6, name="other")
    plan = planned(first, other, "--repo", "me/own")
    moved = {shard.file for shard in manifest.read(first).splits["train"].shards} | {"dropped.parquet"}
    assert {f"own/{path}" for path in moved} <= set(paths(plan["copy"]))
    push(first, other, "--repo", "me/own")
    there = hub.contents("me/own")
    assert {there[f"own/{path}"] for path in moved} == {(first / path).read_bytes() for path in moved}
    assert not moved & there.keys()


def test_a_card_of_others_does_nothing_to_a_terminal() -> None:
    plan = Plan(True, None, Tree(""), Difference([], {}, [], []), None, False)
    shown = overview.text(Repository("me/other"), Content([], "me/other"), plan, Wishes(), "-\x1b]0;owned\a\n+mine")
    assert shown.splitlines()[-2:] == ["-\ufffd]0;owned\ufffd", "+mine"]
