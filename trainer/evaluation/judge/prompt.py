"""What a judge is asked, word for word as the paper's evaluation does, and how its reply is read."""

from __future__ import annotations

import re
from typing import Final

#: The name of PROMPT in results; it changes with every letter of it.
PROMPT_ID: Final = "vpt-2025-03"
#: From the authors' evaluation program, which has it from Visual-CoT; the paper prints other names of the fields.
PROMPT: Final = (
    "You are responsible for proofreading the answers, you need to give a score to the model's answer by referring to "
    "the standard answer, based on the given question. The full score is 1 point and the minimum score is 0 points. "
    "Please output the score in the form 'score: <score>'. The evaluation criteria require that the closer the model's "
    "answer is to the standard answer, the higher the score.\n"
    "\nQuestion: {question}\nStandard answer: {right}\nModel's answer: {answer}\n"
)
#: What a reply may hold, as published.
MAX_TOKENS: Final = 64

_SCORE: Final = re.compile(r"score\W{0,4}[:=]\W{0,4}?(-?\d*\.?\d+)(?:\s*(?:/|(?:out )?of\b)\s*(\d+(?:\.\d+)?))?", re.I)
#: What makes another number of the one before: `0,5`, `1e-2`, `1 %`, `0 - 1`.
_GOES_ON: Final = re.compile(r"[.,]?\d|e[-+]?\d|\s*%|\s*-\s*\d", re.IGNORECASE)
_PUBLISHED: Final = re.compile(r"[01]\.?\d*")


def asked(question: str, right: str, answer: str) -> str:
    """The whole prompt for one answer; braces in the texts stay as they are.

    >>> asked("Which colour?", "red", "Red.").splitlines()[-3:]
    ['Question: Which colour?', 'Standard answer: red', "Model's answer: Red."]
    """
    return PROMPT.format(question=question, right=right, answer=answer)


def score(reply: str) -> float | None:
    """The score of a reply, None where it has none in 0..1 or several that differ.

    >>> [score(text) for text in ("score: 0.4", "Score: 1/1", "The full score is 1. score: .5", "score: 5/10", "right")]
    [0.4, 1.0, 0.5, None, None]
    >>> [score(text) for text in ("score: 1 out of 1.", "score: 1 out of 10", "score: 0,5", "score: 0.4, good")]
    [1.0, None, None, 0.4]
    """
    found = set()
    for match in _SCORE.finditer(reply):
        number, whole = match.groups()
        if (whole and float(whole) != 1) or _GOES_ON.match(reply, match.end()):
            return None
        found.add(float(number))
    value = found.pop() if len(found) == 1 else None
    return value if value is not None and 0 <= value <= 1 else None


def published_score(reply: str) -> float:
    """The score as the published program reads it: the first 0 or 1 with the digits after it, anywhere, else 0.

    For comparison only: `score: 5/10` is 10 for it.

    >>> [published_score(text) for text in ("score: 0.4", "score: 5/10", "Full mark 1, score: 0.4", "right")]
    [0.4, 10.0, 1.0, 0.0]
    """
    found = _PUBLISHED.search(reply)
    return float(found.group()) if found else 0.0
