"""Text for the synthetic raw root: already JSON-escaped ASCII, drawn in bulk from a seeded generator."""

from __future__ import annotations

from typing import Any

import numpy as np

Rng = np.random.Generator

_NOUNS = (
    "bird bus cat car chair couch table tree fence sign umbrella skateboard bench laptop keyboard mouse"
    " plate cup bottle bowl horse dog truck train boat surfboard kite lamp window door shelf book clock"
    " vase suitcase backpack helmet shirt jacket hat shoe wall floor counter sink towel mirror curtain"
    " pillow blanket phone camera pizza sandwich carrot apple banana cake plant flower rock hill road"
    " sidewalk bridge tower building roof man woman boy girl child player driver"
)
_ADJECTIVES = (
    "small large red blue green yellow white black brown grey orange pink purple wooden metal plastic"
    " striped shiny old young tall short round square empty full open closed wet dry bright dark clean"
    " dirty broken new spotted"
)
_GLUE = "the a of in and is to with on are it that an as for there or at this by be two from which can has also"
_RELATIONS = (
    "to the left of,to the right of,above,below,next to,behind,in front of,on top of,near,under,inside"
    ",beside,holding,wearing,facing,far from,leaning against,covering"
)
_HEADS = (
    "What is,Who is,Is there,Which kind of object is,What color is the thing,How many objects are"
    ",Do you see anything,What is the item,Are there any people,What kind of animal is,On which side is"
)
_CONSONANTS = "b c d f g h l m n p r s t v w st tr pl"
_VOWELS = "a e i o u ar en or il"
_MARKS = (".", ",", ".\\n\\n", ":", '\\"', " \\u2013", "caf\\u00e9", ".\\n- ", "\\u2019s")
NOUNS, ADJECTIVES = tuple(_NOUNS.split(" ")), tuple(_ADJECTIVES.split(" "))
RELATIONS, HEADS = tuple(_RELATIONS.split(",")), tuple(_HEADS.split(","))
_SYLLABLES = tuple(a + b for a in _CONSONANTS.split(" ") for b in _VOWELS.split(" "))


class Words:
    """Two pools of running text to cut from: `plain` words, and `prose` with marks and line breaks.

    Every cut starts at a random word, so that texts differ while making one costs a slice. Pools are a few
    megabytes: small against memory, large against the window of a compressor.
    """

    def __init__(self, rng: Rng, pool_words: int = 1_500_000) -> None:
        """Build both pools from `rng`; `pool_words` is the number of words of the larger one."""
        self.rng = rng
        words = np.array([*_GLUE.split(" "), *NOUNS, *ADJECTIVES, *_invented(rng, 4_000)], dtype=object)
        weight = 1.0 / (np.arange(len(words)) + 6.0)
        picks = rng.choice(len(words), size=pool_words, p=weight / weight.sum())
        prose = words[picks]
        marked = rng.random(pool_words) < 0.12
        prose[marked] += rng.choice(np.array(_MARKS, dtype=object), size=int(marked.sum()))
        self._prose, self._prose_at = _pool(prose)
        self._plain, self._plain_at = _pool(words[picks[: pool_words // 3]])

    def plain(self, count: int, low: int, high: int) -> list[str]:
        """`count` texts of `low` to `high` words without marks or line breaks."""
        return self._cut(self._plain, self._plain_at, count, low, high)

    def prose(self, count: int, low: int, high: int) -> list[str]:
        """`count` texts of `low` to `high` words with punctuation, quotes, escapes and line breaks."""
        return self._cut(self._prose, self._prose_at, count, low, high)

    def _cut(self, pool: str, at: np.ndarray[Any, Any], count: int, low: int, high: int) -> list[str]:
        length = self.rng.integers(low, high + 1, count)
        first = self.rng.integers(0, len(at) - high - 1, count)
        starts, stops = at[first].tolist(), (at[first + length] - 1).tolist()
        return [pool[a:b] for a, b in zip(starts, stops, strict=True)]

    def pick(self, options: tuple[str, ...], count: int) -> list[str]:
        """`count` independent draws from `options`."""
        return [options[i] for i in self.rng.integers(0, len(options), count).tolist()]

    def questions(self, count: int) -> list[str]:
        """`count` questions of about 46 characters (40 million combinations): head, thing, relation, noun."""
        heads, relations = self.pick(HEADS, count), self.pick(RELATIONS, count)
        left, right = self.things(count), self.pick(NOUNS, count)
        return [f"{h} the {a} {r} the {b}?" for h, a, r, b in zip(heads, left, relations, right, strict=True)]

    def things(self, count: int) -> list[str]:
        """`count` noun phrases such as `wooden bench`."""
        adjectives, nouns = self.pick(ADJECTIVES, count), self.pick(NOUNS, count)
        return [f"{a} {n}" for a, n in zip(adjectives, nouns, strict=True)]

    def short(self, count: int) -> list[str]:
        """`count` one-word answers, a sixth of them Yes or No."""
        return self.pick(("Yes", "No", "Yes", "No", "left", "right", "2", "3", *NOUNS[:16]), count)


def unique_ints(rng: Rng, count: int, limit: int) -> np.ndarray[Any, Any]:
    """`count` distinct numbers in 1..limit, in random order."""
    return rng.choice(limit, size=count, replace=False) + 1


def unique_hex(rng: Rng, count: int, digits: int = 16) -> list[str]:
    """`count` distinct lower-case hex names of `digits` characters (7 to 16)."""
    names: dict[str, None] = {}
    while len(names) < count:
        drawn = rng.integers(0, 2 ** (4 * digits) - 1, count - len(names), dtype=np.uint64, endpoint=True)
        names.update((f"{value:0{digits}x}", None) for value in drawn.tolist())
    return list(names)


def _invented(rng: Rng, count: int) -> list[str]:
    syllables = rng.integers(0, len(_SYLLABLES), (count, 3))
    return ["".join(_SYLLABLES[i] for i in row[: 2 + row[0] % 2]) for row in syllables.tolist()]


def _pool(words: np.ndarray[Any, Any]) -> tuple[str, np.ndarray[Any, Any]]:
    listed = words.tolist()
    lengths = np.fromiter(map(len, listed), dtype=np.int64, count=len(listed))
    starts = np.concatenate([[0], np.cumsum(lengths + 1)])
    return " ".join(listed), starts
