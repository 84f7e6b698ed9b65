"""`--protocol paper`: the arithmetic of the published evaluation program, for comparison with its figures.

How it reads looks is `generation.paper`, how it asks and reads a judge `judge.prompt`; here is what it makes of a row:

- A row whose crop fails is in no mean, be it of answers or of regions.
- A first turn that asks for no look, or for looks of several kinds, is the answer, perception tokens included.
- There is one look; what is said after it is the answer, whatever it is and wherever it is cut.
- The judge sees the question with `<image>` and the sentence that asks for the look; its score is the first 0 or 1
  anywhere, and no reply is 0.
- Crops grow by a cell, 1,000 rows of each set are asked, and an answer has 1,024 tokens at most.

Its order of rows is not known here, and its draws of tokens (top_p .1, top_k 10, temperature .95) are not repeated: we
take the most likely token, which is what it draws as well wherever that token has a tenth of the probability.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from trainer.evaluation.metrics.looks import Asked
from trainer.evaluation.predictions import ENDS, Prediction, Read
from trainer.generation import paper
from trainer.generation.dialog import Ended

#: What the options of the command are where they are not given.
OPTIONS: Final = {"limit": 1000, "expand": 1, "max_new_tokens": 1024, "judge_as_published": True}


def read(one: Prediction, k: int) -> Read:
    """A prediction of a model with a k x k grid as the program scores it.

    What was asked in another way stays as it was asked: a row that was given no crop, and would be here, has no answer.
    """
    if one.ended is Ended.FAULT or not one.said:
        return Read(None, Asked((), (), Counter()))
    turn = paper.read(one.said[0], k)
    # Where looks of several kinds are asked for, the turn is the answer, and no crop is tried.
    left_out = turn.kind is not None and turn.failed > 0
    looks = Asked(turn.cells, turn.encoders, Counter({paper.CROP_FAILED: 1} if left_out else {}))
    if left_out:
        return Read(None, looks, left_out=True)
    after = one.said[1] if len(one.said) > 1 else None
    answer = one.answer if one.answer is not None else one.said[0] if turn.kind is None else after
    return Read(None if answer is None else ENDS.sub("", answer).strip(), looks)
