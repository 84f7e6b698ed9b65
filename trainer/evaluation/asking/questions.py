"""The questions of a corpus as a model is asked them, by protocol."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from typing import Any, Final, Literal, TypeAlias, get_args

import msgspec

from trainer.evaluation.items import of_rotation, rotation
from trainer.evaluation.metrics import choices
from trainer.generation.dialog import Decoding, Row, before_answer
from vpt_data import __version__
from vpt_data.corpus.reader import Corpus
from vpt_data.dialogue.prompts import crops_turn
from vpt_data.dialogue.templates import TEMPLATES

Protocol: TypeAlias = Literal["prompted", "free", "direct", "paper"]
PROTOCOLS: Final[tuple[str, ...]] = get_args(Protocol)
#: What `trainer.generation.interventions` can change, and how; said here so that it can be listed without torch.
INTERVENTIONS: Final = (
    "crop=oracle", "crop=shifted", "crop=random", "crop=whole", "crop=none", "tokens=oracle", "tokens=random",
    "control=mean", "control=swap", "control=random", "control=zero",
)  # fmt: skip
_DECODING: Final[dict[str, dict[str, Any]]] = {
    "direct": {"max_actions": 0},
    "paper": {"max_actions": 1, "as_published": True},
}
_COLUMNS: Final = ("id", "take", "source", "expected", "messages", "views", "images", "image_info", "k")


def questions(corpus: Corpus, wanted: Mapping[str, Collection[str]], protocol: Protocol) -> Iterator[Row]:
    """The wanted rows (split -> ids), up to their last answer, with their images; what follows them is not read.

    free      as they are: the model decides whether it looks
    prompted  with the sentence of prompted rows that asks for the look which is expected; as they are in takes that
              the recipe calls `prompted = false`
    direct    as they are, for a model that may not look (`decoding`)
    paper     as prompted, for a model whose looks are read as the published program does
    """
    for row in _asked(corpus, wanted, images=True):
        yield _prompted(row, corpus) if protocol in {"prompted", "paper"} else row


def whole_texts(corpus: Corpus, wanted: Mapping[str, Collection[str]]) -> dict[str, str]:
    """Id -> the whole question of wanted rows as prompted, with its `<image>`."""
    rows = (_prompted(row, corpus) for row in _asked(corpus, wanted, images=False))
    return {row["id"]: row["messages"][-1]["content"] for row in rows}


def _asked(corpus: Corpus, wanted: Mapping[str, Collection[str]], *, images: bool) -> Iterator[Row]:
    """The wanted rows up to their last answer, some of them with the options of the question rotated."""
    columns = [name for name in _COLUMNS if images or name != "images"]
    for split, names in wanted.items():
        turns: dict[str, list[int | None]] = {}
        for name, turn in map(of_rotation, names):
            turns.setdefault(name, []).append(turn)
        found = (row for row in corpus.rows(split, columns, images) if row["id"] in turns)
        for row in islice(found, len(turns)):
            asked = before_answer(row, -1)
            yield from (asked if turn is None else _rotated(asked, turn) for turn in turns[row["id"]])


def _rotated(row: Row, turn: int) -> Row:
    *before, last = row["messages"]
    text = choices.rotated(last["content"], turn)
    return {**row, "id": rotation(row["id"], turn), "messages": [*before, {**last, "content": text}]}


def _prompted(row: Row, corpus: Corpus) -> Row:
    take = corpus.manifest.recipe.resolved.get("take", {}).get(row["take"], {})
    if row["expected"] not in TEMPLATES or take.get("prompted") is False:
        return row
    *before, last = row["messages"]
    # Questions from conversations end differently; of the sources of evaluation rows, these are LLaVA's.
    sentence = TEMPLATES[row["expected"]].tail(conversation=row["source"] == "llava")
    return {**row, "messages": [*before, {**last, "content": last["content"] + sentence}]}


def made_with() -> dict[str, str]:
    """What decides the questions beside corpus and protocol: the version, and a hash of the sentences that are added.

    The hash differs also between two versions that have the same name, as under development.
    """
    tails = {name: [one.tail(conversation=False), one.tail(conversation=True)] for name, one in TEMPLATES.items()}
    sentences = msgspec.json.encode([tails, crops_turn(1), crops_turn(2)])
    return {"vpt-data": __version__, "sentences": hashlib.sha256(sentences).hexdigest()}


def decoding(protocol: Protocol, **how: Any) -> Decoding:
    """How answers are generated under a protocol; `how` are fields of Decoding."""
    return Decoding(**how, **_DECODING.get(protocol, {}))
