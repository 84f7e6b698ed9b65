"""The questions of a corpus as a model is asked them, by protocol."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from typing import Any, Final, Literal, TypeAlias, get_args

from trainer.generation.dialog import Decoding, Row, before_answer
from vpt_data.corpus.reader import Corpus
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
_COLUMNS: Final = ("id", "source", "expected", "messages", "views", "images", "image_info", "k")


def questions(corpus: Corpus, wanted: Mapping[str, Collection[str]], protocol: Protocol) -> Iterator[Row]:
    """The wanted rows (split -> ids), up to their last answer, with their images; what follows them is not read.

    free      as they are: the model decides whether it looks
    prompted  with the sentence of prompted rows that asks for the look which is expected
    direct    as they are, for a model that may not look (`decoding`)
    paper     as prompted, for a model whose looks are read as the published program does
    """
    for split, ids in wanted.items():
        found = (row for row in corpus.rows(split, _COLUMNS) if row["id"] in ids)
        for row in islice(found, len(ids)):
            asked = before_answer(row, -1)
            yield _prompted(asked) if protocol in {"prompted", "paper"} else asked


def whole_texts(corpus: Corpus, wanted: Mapping[str, Collection[str]]) -> dict[str, str]:
    """Id -> the whole question of wanted rows as prompted, with its `<image>`."""
    columns = [name for name in _COLUMNS if name != "images"]
    rows = (
        row for split, ids in wanted.items() for row in corpus.rows(split, columns, images=False) if row["id"] in ids
    )
    asked = (_prompted(before_answer(row, -1)) for row in rows)
    return {row["id"]: row["messages"][-1]["content"] for row in asked}


def _prompted(row: Row) -> Row:
    if row["expected"] not in TEMPLATES:
        return row
    *before, last = row["messages"]
    # Questions from conversations end differently; of the sources of evaluation rows, these are LLaVA's.
    sentence = TEMPLATES[row["expected"]].tail(conversation=row["source"] == "llava")
    return {**row, "messages": [*before, {**last, "content": last["content"] + sentence}]}


def decoding(protocol: Protocol, **how: Any) -> Decoding:
    """How answers are generated under a protocol; `how` are fields of Decoding."""
    return Decoding(**how, **_DECODING.get(protocol, {}))
