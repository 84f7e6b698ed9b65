"""Many answers judged at the same time, each once, and the judge that needs no network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple, Protocol, TypeAlias

from trainer.evaluation.endpoint import NoReply
from trainer.evaluation.judge.cache import Replies
from trainer.evaluation.judge.prompt import asked, published_score, score
from trainer.evaluation.metrics.answers import exact

OFFLINE: Final = "offline"


class Item(NamedTuple):
    """One answer to be judged."""

    question: str
    right: str
    answer: str


#: A score in 0..1, or a sentence why there is none.
Verdict: TypeAlias = float | str


class Model(Protocol):
    """What answers prompts, such as `endpoint.Endpoint`."""

    @property
    def name(self) -> str:
        """What decides its replies."""

    def reply(self, prompt: str) -> str:
        """The reply to a prompt; NoReply where there is none."""


def offline(items: Sequence[Item]) -> list[Verdict]:
    """The judge for tests and first looks: 1 where an answer matches after the normalisation of VQA, else 0.

    >>> offline([Item("Which colour?", "red", "The red."), Item("Which colour?", "red", "blue")])
    [1.0, 0.0]
    """
    matches = exact([item.answer for item in items], [[item.right] for item in items])
    return list(matches.tolist())


def judge(
    items: Sequence[Item],
    model: Model,
    cache: Replies,
    workers: int = 8,
    as_published: bool = False,
    done: Callable[[int, int], None] = lambda done, total: None,
) -> list[Verdict]:
    """The verdict on each item, in their order; the same prompt is asked once, and never if its reply is in the cache.

    as_published  scores are read as the published program does, and what has none scores 0
    done          is called with the number of prompts that are done, and of all

    What fails is a sentence instead of a score, never a 0 by itself.
    """
    prompts = [asked(*item) for item in items]
    distinct = list(dict.fromkeys(prompts))
    pool = ThreadPoolExecutor(workers)
    try:
        found: dict[str, str] = {}
        replies = pool.map(lambda prompt: _reply(prompt, model, cache), distinct)
        for prompt, reply in zip(distinct, replies, strict=True):
            found[prompt] = reply
            done(len(found), len(distinct))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    read = _published if as_published else _read
    return [read(found[prompt]) for prompt in prompts]


class _Failed(str):
    """Why a prompt got no reply; any other text is a reply."""


def _reply(prompt: str, model: Model, cache: Replies) -> str:
    known = cache.get(model.name, prompt)
    if known is not None:
        return known
    try:
        reply = model.reply(prompt)
    except NoReply as failure:
        return _Failed(failure)
    cache.put(model.name, prompt, reply)
    return reply


def _read(reply: str) -> Verdict:
    if isinstance(reply, _Failed):
        return str(reply)
    value = score(reply)
    return f"no score in 0..1: {' '.join(reply.split())[:100]!r}" if value is None else value


def _published(reply: str) -> Verdict:
    return 0.0 if isinstance(reply, _Failed) else published_score(reply)
