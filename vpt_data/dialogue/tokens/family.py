"""A family of perception tokens: which strings they are, in which order, and what may follow what.

Corpora hold strings; ids depend on the tokenizer and on the families before.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Token(NamedTuple):
    """A token to add to a tokenizer.

    label    the class that accuracy is reported by; empty for a token that no answer holds, such as a pad
    special  it may vanish when a prediction is decoded; every other token must survive that
    """

    content: str
    label: str = ""
    special: bool = False


@dataclass(frozen=True, slots=True)
class Family:
    """Tokens that belong together; a span of them begins with `start`, where there is such a token.

    tokens   k -> the tokens on a k x k grid, in vocabulary order
    pattern  for RE2 and `re`, `<` first: whatever looks like one of its tokens, an index out of range included
    start    the token that a model opens a span with; None: a span begins with any of them
    follow   (tokens of an open span so far, `start` first; k) -> which may come next; None: anything may
    faults   (an assistant turn, k) -> what is wrong with its spans: cause -> how often
    look     whether a span asks for a second look, which the next turn shows
    """

    tokens: Callable[[int], Sequence[Token]]
    pattern: str
    start: str | None
    follow: Callable[[Sequence[str], int], Sequence[str] | None]
    faults: Callable[[str, int], Counter[str]]
    look: bool = False
