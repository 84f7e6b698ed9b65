"""What the Hub refuses is one sentence that says what to do; what passes is tried again; no token is printed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import httpx2
import pytest
from helpers.hub import accounts
from helpers.hub.client import VPT_DATA, environment
from helpers.hub.faults import Fault, Wrong
from helpers.hub.server import HubServer
from helpers.pushing import corpus, planned, push, pushed, refused, run

from vpt_data.errors import HubError
from vpt_data.exchange.hub.answers import OutOfReach, Passing, asking, redacted
from vpt_data.exchange.hub.push import Patience
from vpt_data.exchange.hub.remote import Repository

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN, with a token that may write"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("built"))


# Who may push -----------------------------------------------------------------------------------------------


def test_without_a_token(hub: HubServer, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert refused(own) == f"own: there is no token for {hub.url}; {LOG_IN}."


@pytest.mark.parametrize("token", [accounts.EXPIRED, "hf_never", "not\neven one"])
def test_with_a_token_that_is_not_accepted(
    hub: HubServer, own: Path, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    assert re.fullmatch(rf"own: {hub.url} does not accept the token \(Invalid .*\); {LOG_IN}\.", refused(own))


def test_a_token_that_expires_on_the_way(hub: HubServer, own: Path) -> None:
    hub.faults.plan(Fault(Wrong.EXPIRED, fits="/commit/"))
    reason = "Invalid credentials in Authorization header"
    assert refused(own) == f"me/own: {hub.url} does not accept the token ({reason}); {LOG_IN}."
    assert len(hub.repository("me/own").history()) == 1


def test_with_a_token_that_only_reads(hub: HubServer, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", accounts.READ)
    assert refused(own) == f"own: the token of me is one that only reads; {LOG_IN}."


def test_into_an_organization_of_others(hub: HubServer, own: Path) -> None:
    sentence = refused(own, "--repo", "elsewhere/own")
    assert sentence.startswith(
        "elsewhere/own: this account or its token may not do that (You don't have the rights to "
    )
    assert sentence.endswith(
        "; use a token with the role write, and be a member of elsewhere who may write, or propose the change with "
        "--create-pr."
    )


def test_into_a_private_repository_of_others(hub: HubServer, own: Path) -> None:
    hub.hub.create("org/own", private=True)
    hub.tokens[accounts.WRITE] = accounts.Token(accounts.User("me", ()))
    assert "may not do that" in refused(own, "--repo", "org/own")


def test_a_name_that_is_taken(hub: HubServer, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.hub.create("me/own", private=True)
    monkeypatch.setattr(Repository, "find", lambda *_: None)  # as the Hub answers those who may not see it
    assert refused(own) == (
        "me/own: the name is taken by a repository that this account does not see; choose another with --repo."
    )


def test_others_propose(hub: HubServer, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.hub.create("org/own")
    monkeypatch.setenv("HF_TOKEN", accounts.STRANGER)
    assert "may not do that" in refused(own, "--repo", "org/own")
    assert pushed(own, "--repo", "org/own", "--create-pr")["pull_request"] == 1
    assert hub.repository("org/own").discussions[0].author == "stranger"


def test_into_a_repository_whose_terms_are_not_accepted(
    hub: HubServer, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(own, "--repo", "org/own")
    hub.repository("org/own").gated = "manual"
    assert push(own, "--repo", "org/own").startswith("Unchanged: "), "its owner has accepted them"
    monkeypatch.setenv("HF_TOKEN", accounts.STRANGER)
    assert refused(own, "--repo", "org/own", "--create-pr") == (
        "org/own: the repository asks who reads it to accept its terms; do that on its page first."
    )


# What the Hub cannot do -------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [Wrong.QUOTA, Wrong.PAYMENT])
def test_no_room_is_left(hub: HubServer, own: Path, wrong: Wrong) -> None:
    hub.faults.plan(Fault(wrong, fits="/commit/"))
    sentence = refused(own)
    assert re.fullmatch(
        r"me/own: the account has no room left \(P.*\); free some, or get more, and push again\.", sentence
    )


def test_offline(hub: HubServer, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.utils._http._GLOBAL_CLIENT", None)
    assert refused(own) == "own: nothing can be pushed in offline mode; unset HF_HUB_OFFLINE."
    monkeypatch.setattr("huggingface_hub.utils._http._GLOBAL_CLIENT", None)


def test_nobody_listens(hub: HubServer, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://me:secret@127.0.0.1:9")
    sentence = refused(own)
    assert sentence.startswith("own: http://127.0.0.1:9 cannot be reached (")
    assert sentence.endswith("; check the network, and HF_ENDPOINT if it is set.")


# What passes ------------------------------------------------------------------------------------------------

ROUTES = [
    "/whoami-v2",
    "GET /api/datasets/me/own$",
    "/refs",
    "/tree/",
    "/repos/create",
    "/preupload/",
    "/commit/",
    "/tag/",
]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("wrong", [Wrong.ERROR, Wrong.SLOW_DOWN, Wrong.DROP, Wrong.DROP_AFTER_EFFECT])
def test_trouble_is_tried_again(hub: HubServer, own: Path, route: str, wrong: Wrong) -> None:
    hub.faults.plan(Fault(wrong, fits=route))
    done = pushed(own)
    assert (done["tag"], hub.faults.planned[0].struck) == ("v1", 1)
    assert len(hub.repository("me/own").history()) == 2


def test_a_commit_of_somebody_else_is_looked_at_first(hub: HubServer, own: Path) -> None:
    hub.hub.create("me/own")
    hub.faults.plan(Fault(Wrong.STALE, fits="/commit/"))
    result = run(own, "--yes")
    assert result.exit_code == 0
    assert (
        f"me/own: {hub.url} answered 412 (A commit has happened since. Please refresh and try again); trying again in "
        "0 s." in result.stderr
    )
    assert [commit.title for commit in hub.repository("me/own").history()][1] == "somebody else"


def test_trouble_that_stays_ends_the_push(hub: HubServer, own: Path) -> None:
    hub.faults.plan(Fault(Wrong.BUSY, fits="/commit/", times=1000))
    assert refused(own) == (
        f"me/own: {hub.url} answered 503 (Service Unavailable); run the same command again later to continue."
    )
    assert hub.faults.planned[0].struck == 8


def insisted(
    *errors: Exception, progress: list[int] | None = None, first: bool = False
) -> tuple[list[float], list[str]]:
    """The pauses and messages of an attempt that fails in these ways and then succeeds."""
    left, slept, said = list(errors), [], []

    def attempt() -> str:
        if left:
            raise left.pop(0)
        return "done"

    made = iter(progress or [])
    patience = Patience(said.append, slept.append)
    assert patience.insist(attempt, lambda: next(made, 0), first) == "done"
    return slept, said


def test_pauses_grow_and_follow_what_the_hub_asks_for() -> None:
    slept, said = insisted(Passing("it broke"), Passing("it is busy", 30), Passing("it broke"))
    assert slept == [1, 30, 5]
    assert said[1] == "it is busy; trying again in 30 s."


def test_progress_makes_patient() -> None:
    slept, _ = insisted(*[Passing("it broke")] * 10, progress=list(range(30)))
    assert set(slept) == {1}
    with pytest.raises(HubError, match=r"it broke; run the same command again later to continue\."):
        insisted(*[Passing("it broke")] * 10)


def test_a_very_long_wait_is_not_waited_for() -> None:
    with pytest.raises(HubError, match="run the same command again later"):
        insisted(Passing("it is busy", 3600))


def test_an_endpoint_that_was_there_before_is_waited_for() -> None:
    assert insisted(OutOfReach("gone"))[0] == [1]
    with pytest.raises(HubError, match="gone; check the network, and HF_ENDPOINT if it is set"):
        insisted(OutOfReach("gone"), first=True)


# Tokens -----------------------------------------------------------------------------------------------------


def test_a_token_is_taken_out_wherever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "plainsecret")
    assert redacted("a hf_AbC123 b plainsecret c") == "a <token> b <token> c"
    with pytest.raises(HubError) as caught, asking("org/name"):
        raise httpx2.LocalProtocolError("Illegal header value b'Bearer plainsecret'")
    assert str(caught.value) == (
        "org/name: the request cannot be sent (Illegal header value b'Bearer <token>'); check the token, and "
        "HF_ENDPOINT."
    )


@pytest.mark.parametrize("options", [(), ("--debug",)])
def test_no_token_is_printed_at_any_verbosity(
    hub: HubServer, own: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """With a token that a header cannot hold, the client itself quotes it."""
    token = accounts.WRITE + "\u20ac"
    env = environment(hub.url, tmp_path, token, HF_DEBUG="1", VPT_DATA_HUB_PAUSE="0")
    command = [*VPT_DATA, *options, "push-to-hub", str(own), "--yes"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert ("Traceback" in done.stderr) == bool(options)
    assert "<token>" in done.stderr or not options
    assert accounts.WRITE not in done.stdout + done.stderr


def test_the_endpoint_is_named_when_it_is_another(hub: HubServer, own: Path) -> None:
    note = f"Note: HF_ENDPOINT is {hub.url}; it is used in place of the Hub, and gets your token."
    hub.faults.plan(Fault(Wrong.EXPIRED, fits="/whoami"))
    assert run(own, "--dry-run").stderr.startswith(f"{note}\nError: ")  # before the token is sent
    assert planned(own)["endpoint"] == hub.url
