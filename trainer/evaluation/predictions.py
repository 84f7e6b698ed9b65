"""Answers of a model, from a file with one JSON object a line or from our own generation.

The file needs an `id` of the corpus and either `answer`, the final text, or `turns`, all that the model said turn by
turn, with its perception tokens: looks are scored from them. Other keys are not read.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Final, NamedTuple, TypeAlias

import msgspec
import numpy as np

from trainer.evaluation.metrics.looks import Asked, asked
from trainer.generation.dialog import Ended, Record
from vpt_data.dialogue.tokens import SPECIAL_TOKEN
from vpt_data.errors import RawError

EXAMPLE: Final = '{"id": "POPE_action_test/coco_popular-1", "answer": "yes"}'
#: What some programs leave at the end of a turn.
ENDS: Final = re.compile(r"<\|(im_end|endoftext)\|>")
#: Ends of a row that leave no answer; its last turn is cut, or no answer at all.
_NO_ANSWER: Final = {Ended.INVALID_LOOK, Ended.TOKEN_LIMIT, Ended.FAULT}


#: What a column of int32 holds.
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
Cells: TypeAlias = Annotated[int, msgspec.Meta(ge=1, lt=2**31)]


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """What a model made of one row; the fields that a file can leave out are those of `generation.dialog.Record`.

    answer           the final text; without it the last turn is
    ended            None where nobody knows
    k                cells a side of the grid of its region tokens; None: that of the corpus
    control_norms    length of each control vector that the model made, in order
    control_vectors  encoder -> those of its first call, little-endian float32 [s, width]
    """

    id: str
    answer: str | None = None
    turns: tuple[str, ...] = ()
    ended: Ended | None = None
    k: Cells | None = None
    fault: str | None = None
    tokens: Count | None = None
    prompt_tokens: Count | None = None
    logprob: float | None = None
    seconds: float | None = None
    intervened: Count | None = None
    control_norms: tuple[float, ...] | None = None
    control_vectors: dict[str, bytes] | None = None

    @property
    def final(self) -> str | None:
        """The answer to score, without perception tokens; None where there is none.

        >>> Prediction(id="a", turns=("<|detection_action_start|>", "red<|im_end|>")).final
        'red'
        """
        if self.ended in _NO_ANSWER:
            return None
        said = self.answer if self.answer is not None else self.turns[-1] if self.turns else None
        return None if said is None else re.sub(SPECIAL_TOKEN, "", said).strip()

    @property
    def said(self) -> tuple[str, ...]:
        """All turns; the answer where nothing else is known."""
        return self.turns or (() if self.answer is None else (self.answer,))


class Read(NamedTuple):
    """A prediction as it is scored.

    answer    the answer without perception tokens; None where there is none, which scores 0
    looks     what its turns ask for
    left_out  the row is in no figure of answers and regions, as with the published program where a crop fails
    """

    answer: str | None
    looks: Asked
    left_out: bool = False


def read_as_said(one: Prediction, k: int) -> Read:
    """A prediction of a model with a k x k grid; a look that cannot be used is none."""
    return Read(one.final, asked(one.said, k))


def of_record(record: Record, k: int) -> Prediction:
    """What our own generation made of a row, with a model that has a k x k grid."""
    return Prediction(
        id=record.id,
        turns=record.turns,
        ended=record.ended,
        k=k,
        fault=record.fault and f"{record.fault.reason}: {record.fault.detail}",
        tokens=len(record.tokens),
        prompt_tokens=record.prompt_tokens,
        logprob=record.logprob,
        seconds=record.seconds,
        intervened=record.intervened,
        control_norms=tuple(float(n) for one in record.controls for n in np.linalg.norm(one.values, axis=-1)),
        # Of calls of the same encoder the first stays.
        control_vectors={one.kind: one.values.astype("<f4").tobytes() for one in reversed(record.controls)},
    )


def causes(faults: Iterable[str | None]) -> Counter[str]:
    """How many rows could not be asked, by cause.

    >>> causes(["image_missing: a.jpg", None, "image_missing: b.jpg"])
    Counter({'image_missing': 2})
    """
    return Counter(fault.partition(":")[0] for fault in faults if fault)


def read(file: Path) -> list[Prediction]:
    """The predictions of a file, in its order; RawError with the line of the first that is none."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise RawError(f"{file}: cannot be read ({error.strerror}); give a file with one prediction a line.") from error
    decoder = msgspec.json.Decoder(Prediction)
    found: list[Prediction] = []
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            one = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RawError(f"{file}: line {number}: {error}; expected one object a line, as {EXAMPLE}.") from error
        if one.answer is None and not one.turns and one.ended not in _NO_ANSWER:
            raise RawError(f"{file}: line {number}: neither `answer` nor `turns`; expected one of them, as {EXAMPLE}.")
        found.append(one)
    return found


def matched(
    predictions: Iterable[Prediction],
    ids: Sequence[str],
    where: str,
    missing_as_wrong: bool = False,
    others: Sequence[str] = (),
) -> list[Prediction]:
    """The predictions in the order of the ids, each once; `others` are ids that may come and are not asked for.

    Raises RawError for an id that comes twice or that nobody knows, and for ids without a prediction, unless these are
    to count as rows without an answer.
    """
    known, by_id = {*ids, *others}, dict[str, Prediction]()
    for one in predictions:
        if one.id in by_id:
            raise RawError(f"{where}: the id {one.id!r} comes twice; keep one answer for each row.")
        if one.id not in known:
            near = difflib.get_close_matches(one.id, known, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]!r}?" if near else "give the corpus that was asked."
            raise RawError(f"{where}: the id {one.id!r} is not in the corpus; {hint}")
        by_id[one.id] = one
    lost = [name for name in ids if name not in by_id]
    if lost and not missing_as_wrong:
        raise RawError(
            f"{where}: no answer for {len(lost):,} of {len(ids):,} rows, the first is {lost[0]!r}; add them, or count "
            "them as wrong with --missing-as-wrong."
        )
    return [by_id.get(name) or Prediction(id=name) for name in ids]
