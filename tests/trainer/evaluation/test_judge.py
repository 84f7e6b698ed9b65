"""A judge over real HTTP: what goes wrong is asked again or reported, and is never a silent 0."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from helpers.chat_server import Act, ChatServer, Handler, body, says, silence, status
from hypothesis import given
from hypothesis import strategies as st

from trainer.evaluation.judge import prompt
from trainer.evaluation.judge.agreement import agreement, sample
from trainer.evaluation.judge.cache import Replies
from trainer.evaluation.judge.panel import Item, Verdict, judge
from trainer.evaluation.judge.server import judge_named
from vpt_data.errors import OutputError, UsageError

ITEM = Item("Which colour is {it}?", "red", "Red.")


class Bench:
    """A judge before a server: `waits` are the seconds that it would have waited."""

    def __init__(self, server: ChatServer, folder: Path, timeout: float, attempts: int) -> None:
        self.server, self.waits = server, list[float]()
        self.cache = Replies(folder / "judge.sqlite")
        self.model = judge_named("gpt-4o", timeout, attempts, self.waits.append)

    def judge(self, *items: Item, as_published: bool = False) -> list[Verdict]:
        return judge(items, self.model, self.cache, workers=4, as_published=as_published)


@contextmanager
def bench(
    folder: Path,
    patch: pytest.MonkeyPatch,
    *acts: Act,
    always: Act | None = None,
    timeout: float = 10,
    attempts: int = 4,
) -> Iterator[Bench]:
    patch.setenv("OPENAI_API_KEY", "a key")
    with ChatServer(*acts, always=always) as server:
        patch.setenv("OPENAI_BASE_URL", server.url)
        made = Bench(server, folder, timeout, attempts)
        with closing(made.model), closing(made.cache):
            yield made


def test_the_prompt_is_that_of_the_paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with bench(tmp_path, monkeypatch, says("score: 0.4")) as at:
        assert at.judge(ITEM) == [0.4]
        [asked] = at.server.asked
    assert asked == {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": prompt.asked(*ITEM)}],
        "temperature": 0,
        "max_tokens": 64,
    }
    assert prompt.asked(*ITEM).startswith("You are responsible for proofreading the answers, you need to give a score ")
    assert prompt.asked(*ITEM).endswith(
        "the higher the score.\n\nQuestion: Which colour is {it}?\nStandard answer: red\nModel's answer: Red.\n"
    )


PASSING = {
    "a busy server": (status(429), [1.0]),
    "a busy server that says when": (status(429, Retry_After="7"), [7.0]),
    "a server that asks for an hour": (status(503, Retry_After="3600"), [60.0]),
    "a date to wait for": (status(429, Retry_After="Sat, 21 Nov 2026 20:00:00 GMT"), [1.0]),
    "an error of the server": (status(500), [1.0]),
    "half a body": (body('{"choices": [{"mess', length=500), [1.0]),
    "a body that ends too early": (body('{"choices": [{"mess'), [1.0]),
    "a page": (body("<html>Please log in</html>", "text/html"), [1.0]),
    "a body that is not UTF-8": (body('{"choices": [{"message": {"content": "\udce9"}}]}'), [1.0]),
    "another JSON": (body("[1, 2]"), [1.0]),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_may_pass_is_asked_again(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    act, waits = PASSING[name]
    with bench(tmp_path, monkeypatch, act, says("score: 0.5")) as at:
        assert at.judge(ITEM) == [0.5]
        assert at.waits == waits
        assert len(at.server.asked) == 2


def test_a_server_that_is_silent_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with bench(tmp_path, monkeypatch, silence, says("score: 0.5"), timeout=0.3) as at:
        assert at.judge(ITEM) == [0.5]
        assert at.waits == [1.0]


def test_in_the_end_it_is_a_failure_and_not_a_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with bench(tmp_path, monkeypatch, always=status(502)) as at:
        assert at.judge(ITEM) == ['HTTP 502: {"error": {"message": "status 502"}} (4 attempts)']
        assert at.waits == [1.0, 2.0, 4.0]
        # Nothing of it is in the cache: another run asks again.
        at.server.always = says("score: 1")
        assert at.judge(ITEM) == [1.0]


def test_nobody_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with bench(tmp_path, monkeypatch) as at:
        pass
    again = Bench(at.server, tmp_path, 1, 2)
    with closing(again.model), closing(again.cache):
        [verdict] = again.judge(ITEM)
    assert isinstance(verdict, str)
    assert verdict.startswith("no connection: ")
    assert verdict.endswith(" (2 attempts)")


@pytest.mark.parametrize(
    ("reply", "failure"),
    [
        (says("The answer seems right to me."), "no score in 0..1: 'The answer seems right to me.'"),
        (says("score: 5"), "no score in 0..1: 'score: 5'"),
        (says("score: -0.5"), "no score in 0..1: 'score: -0.5'"),
        (says("Score: 5/10"), "no score in 0..1: 'Score: 5/10'"),
        (says("score: 0,5"), "no score in 0..1: 'score: 0,5'"),
        (says("score: 1 out of 10"), "no score in 0..1: 'score: 1 out of 10'"),
        (says("score: 1e-2"), "no score in 0..1: 'score: 1e-2'"),
        (says("score: 0.1.2"), "no score in 0..1: 'score: 0.1.2'"),
        (says("score: 1%"), "no score in 0..1: 'score: 1%'"),
        (says("score: 0 - 1"), "no score in 0..1: 'score: 0 - 1'"),
        (says("score: 1 or score: 0"), "no score in 0..1: 'score: 1 or score: 0'"),
        (says(""), "no score in 0..1: ''"),
        (says(None), "the reply has no text"),
        (body('{"choices": []}'), "the reply has no text"),
        (status(400), 'HTTP 400: {"error": {"message": "status 400"}}'),
    ],
)
def test_a_reply_without_a_score_is_a_failure_of_its_row(
    reply: Act, failure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bench(tmp_path, monkeypatch, always=reply) as at:
        assert at.judge(ITEM) == [failure]
        assert (len(at.server.asked), at.waits) == (1, [])


@pytest.mark.parametrize("code", [401, 403, 404])
def test_a_server_that_refuses_all_ends_it(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with bench(tmp_path, monkeypatch, always=status(code)) as at, pytest.raises(UsageError) as caught:
        at.judge(ITEM)
    assert str(caught.value) == (
        f'The judge gpt-4o at {at.server.url}/ cannot be asked (HTTP {code}: {{"error": '
        f'{{"message": "status {code}"}}}}); check its name, OPENAI_BASE_URL and OPENAI_API_KEY.'
    )


def test_nothing_is_asked_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [ITEM, ITEM._replace(answer="blue"), ITEM]
    with bench(tmp_path, monkeypatch, always=says("score: 0.3")) as at:
        assert at.judge(*items) == [0.3] * 3
        assert len(at.server.asked) == 2
        again = Bench(at.server, tmp_path, 10, 4)
        with closing(again.model), closing(again.cache):
            assert again.judge(*items) == [0.3] * 3
        assert len(at.server.asked) == 2
        # Another model is another judge.
        at.model.model = "gpt-5"
        assert at.judge(ITEM) == [0.3]
        assert len(at.server.asked) == 3


def test_answers_are_judged_at_the_same_time_and_stay_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meeting = threading.Barrier(4, timeout=30)

    def together(handler: Handler) -> None:
        meeting.wait()
        says("score: 0.5")(handler)

    items = [ITEM._replace(answer=str(number)) for number in range(8)]
    with bench(tmp_path, monkeypatch, *[together] * 4, always=says("score: 1")) as at:
        verdicts = at.judge(*items)
        assert verdicts == at.judge(*items) == [at.judge(item)[0] for item in items]
    assert sorted(map(float, verdicts)) == [0.5] * 4 + [1.0] * 4
    assert len(at.server.asked) == 8


def test_as_published_everything_has_a_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the published program makes of the same replies, for comparison: 10, 1 and twice a silent 0."""
    replies = ["Score: 5/10", "The full mark is 1, score: 0.4", "score: .5", None]
    for reply, published in zip(replies, [10.0, 1.0, 0.0, 0.0], strict=True):
        with bench(tmp_path / str(published) / str(reply)[:3], monkeypatch, always=says(reply)) as at:
            assert at.judge(ITEM, as_published=True) == [published]


def test_no_key_and_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UsageError, match=r"^The judge has no key; set OPENAI_API_KEY, and OPENAI_BASE_URL for "):
        judge_named("gpt-4o")
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(UsageError, match=r"openai, which is not installed; pip install 'vpt-data\[judge\]'\.$"):
        judge_named("gpt-4o")


def test_a_cache_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "judge.sqlite").write_text("not a database, but long enough for SQLite to see that it is none")
    with pytest.raises(OutputError, match=r"judge\.sqlite: the cache of the judge cannot be used \(.*\); delete it\.$"):
        Replies(tmp_path / "judge.sqlite")


@given(
    st.floats(0, 1).map(lambda value: round(value, 3)), st.sampled_from(["score: {}", "Score = {}", "**score**: {}."])
)
def test_a_score_is_read_as_it_is_written(value: float, form: str) -> None:
    assert prompt.score(form.format(value)) == value


VERDICTS = st.lists(st.tuples(*[st.sampled_from([0.0, 0.2, 0.5, 1.0, "no reply"])] * 2), max_size=20)


@given(VERDICTS)
def test_agreement_has_bounds_and_needs_no_order(pairs: list[tuple[Verdict, Verdict]]) -> None:
    first, second = [one for one, _ in pairs], [other for _, other in pairs]
    found, turned = agreement(first, second), agreement(second, first)
    assert (found.items, found.same, found.same_side) == (turned.items, turned.same, turned.same_side)
    assert found.kappa is None or -1 <= found.kappa <= 1
    assert found.kappa == pytest.approx(turned.kappa)
    mine = agreement(first, first)
    assert mine.items == 0 or (mine.same, mine.difference) == (1.0, 0.0)
    assert mine.kappa is None or mine.kappa == pytest.approx(1.0)


def test_kappa_by_hand() -> None:
    """20 both right, 15 both wrong, 5 and 10 on two sides: observed .7, by chance .5."""
    first = [1.0] * 25 + [0.0] * 25
    second = [1.0] * 20 + [0.0] * 5 + [1.0] * 10 + [0.0] * 15
    found = agreement(first, second)
    assert (found.items, found.same_side) == (50, 0.7)
    assert found.kappa == pytest.approx(0.4)


def test_the_sample_is_the_same_for_everyone() -> None:
    """It does not depend on what a model answers: rows are chosen by their ids."""
    ids = [f"POPE_action_test/{number}" for number in range(500)]
    chosen = {ids[place] for place in sample(ids)}
    turned = ids[::-1]
    assert len(chosen) == 200
    assert {turned[place] for place in sample(turned)} == chosen
    assert len(sample(ids[:3])) == 3
