"""What is asked of a model, how it is decoded, and what becomes of it; without torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from vpt_data.dialogue.tokens import IMAGE
from vpt_data.errors import UsageError

OUT_OF_TOKENS: Final = "out_of_tokens"
OVER_THE_CAP: Final = "over_the_cap"

#: The columns id, messages, views, images, image_info and k of a corpus, as pyarrow or `datasets` give them; others
#: are for policies and metrics. Generation needs a row that ends with a question: see `before_answer`.
Row = Mapping[str, Any]


def question(image: Image.Image, text: str, turns: Sequence[tuple[str, str]] = (), *, id: str = "question") -> Row:
    """A row that asks about an image; `turns` are questions and answers before it.

    The image comes in the first question, where `<image>` stands in it, else in front of it. A model that was trained
    with prompts such as `prompts.REGION_PROMPT` expects them at the end of the question.
    """
    texts = [part for pair in turns for part in pair] + [text]
    if IMAGE not in texts[0]:
        texts[0] = f"{IMAGE}\n{texts[0]}"
    return {
        "id": id,
        "messages": [{"role": ("user", "assistant")[n % 2], "content": part} for n, part in enumerate(texts)],
        "views": [{"turn": 0, "image": 0, "encoder": "vlm", "box": None, "cells": None}],
        "images": [image],
        "image_info": [{"width": image.width, "height": image.height}],
    }


def before_answer(row: Row, number: int = 0) -> Row:
    """The row up to its answer `number`, which the model is to give: 0 is the first, -1 the last.

    A look is an answer, too: before the last one of a row that looks at a region, the region and its crop are given.
    """
    answers = [at for at, message in enumerate(row["messages"]) if message["role"] == "assistant"]
    if not -len(answers) <= number < len(answers):
        raise UsageError(f"Sample {row['id']}: answer {number} of {len(answers)}; give a row with answers.")
    end = answers[number]
    views = [view for view in row["views"] if view["turn"] < end]
    return {**row, "messages": row["messages"][:end], "views": views}


@dataclass(frozen=True)
class Decoding:
    """How to generate.

    max_new_tokens  of a row, over all its turns
    max_actions     turns of a row that may ask for a look; then the tokens that open one cannot be chosen
    force           what the first turn begins with: `region` or an encoder of the model; None: free choice
    expand          cells by which crops grow on every side; the published evaluation uses 1, training 0
    on_invalid      after a turn whose looks are all invalid a row ends (`stop`), or answers without (`continue`)
    grammar         only well-formed spans of perception tokens can be chosen; else what is not is counted
    hide            after the first control token a row does not see its first user turn (see `Sample.masked`)
    temperature     0: the most likely token; else tokens are drawn, with `seed` and the id of the row
    as_published    looks are read as the published program does (`generation.paper`)
    """

    max_new_tokens: int = 256
    max_actions: int = 2
    force: str | None = None
    expand: int = 0
    on_invalid: Literal["stop", "continue"] = "stop"
    grammar: bool = False
    hide: bool = False
    temperature: float = 0.0
    seed: int = 0
    as_published: bool = False

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.max_actions < 0 or self.expand < 0:
            raise UsageError(
                f"max_new_tokens, max_actions and expand are {self.max_new_tokens}, {self.max_actions} and "
                f"{self.expand}, expected at least 1, 0 and 0"
            )
        if self.force is not None and self.max_actions == 0:
            raise UsageError(f"force is {self.force!r} and max_actions is 0, expected at least 1 to force an action")


class Shown(NamedTuple):
    """A second look: `region` with cells and box of its crop (pixels of the image, half open), or an encoder."""

    kind: str
    cells: tuple[int, int, int, int] | None = None
    box: tuple[int, int, int, int] | None = None


class ControlVectors(NamedTuple):
    """What a model made for a call of an encoder: float32 [s, width]."""

    kind: str
    values: npt.NDArray[np.float32]


class Ended(StrEnum):
    """How the last turn of a row ended.

    end_of_turn   the model ended it: `text` is its answer
    cap           the same, after it wanted a look beyond `max_actions` that it was not given
    invalid_look  every look that it asked for is invalid, and `on_invalid` is `stop`: there is no answer
    token_limit   after `max_new_tokens`: the text is cut
    fault         the row could not be asked, or what it asked for not be shown: see `Record.fault`
    """

    END_OF_TURN = "end_of_turn"
    CAP = "cap"
    INVALID_LOOK = "invalid_look"
    TOKEN_LIMIT = "token_limit"
    FAULT = "fault"


class Fault(NamedTuple):
    """Why a row has no answer: a reason of vpt_data's `Reason` or `too_long`, and one sentence."""

    reason: str
    detail: str


@dataclass(frozen=True)
class Record:
    """What became of one row under generation; every row gives one.

    id             of the row
    text           the last turn as said, with its perception tokens and without its end; empty before the first turn
    turns          all turns of the model in order, the last one included
    looks          what it asked for after the prompt and was valid, in order; a policy may have shown something else
    invalid        `region_` or `action_` and a fault of `RegionFault` or `ActionFault`, `out_of_tokens`, `over_the_cap`
                   (how often a look was wanted beyond `max_actions`) -> how often
    ended          how the last turn ended; only `end_of_turn` and `cap` give an answer
    tokens         ids of all its turns, forced ones included, without their ends
    fault          set if and only if `ended` is `fault`
    prompt_tokens  tokens that it was given: the prompt and the turns that show looks, pictures included
    intervened     how often a policy changed what the model was given: began a turn, showed looks otherwise, replaced
                   control vectors; what comes out as it would have been does not count
    controls       the control vectors of all calls, those of its prompt included, in order, as the model made them
    logprob        natural logarithm of the probability of the last turn, its end included, as far as the model chose
                   its tokens; at temperature 1 and without masks. None if the last turn has not ended
    seconds        the row's share of the time of its batch, so that all rows add up to the whole

    Equal records say the same; how that came about, what rounding changes and what it cost is not compared.
    """

    id: str
    text: str
    turns: tuple[str, ...]
    looks: tuple[Shown, ...]
    invalid: Counter[str]
    ended: Ended
    tokens: tuple[int, ...]
    prompt_tokens: int
    fault: Fault | None = None
    intervened: int = field(default=0, compare=False)
    controls: tuple[ControlVectors, ...] = field(default=(), compare=False)
    logprob: float | None = field(default=None, compare=False)
    seconds: float = field(default=0.0, compare=False)
