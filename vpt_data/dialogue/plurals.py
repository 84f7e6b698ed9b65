"""The plural of a category's name, as questions about counts need it: rules for English nouns and a list of exceptions.

The names are those of COCO and LVIS. The published table, which a language model made, is not copied. A known fault of
ours: which names are used without a plural ("toilet paper") is known of those in the list below only.
"""

from __future__ import annotations

import re
from typing import Final

#: Names, and last words of names, that stay as they are: plurals already, or no plural in use.
_SAME: Final = frozenset((
    "asparagus", "bait", "beef", "binoculars", "broccoli", "brussels sprouts", "clippers", "cutlery", "deer",
    "elk", "earphones", "equipment", "fruit", "garbage", "garlic", "goggles", "grits", "headphones", "hummus",
    "jewelry", "machinery", "material", "money", "overalls", "pajamas", "pants", "pantyhose", "pliers",
    "salmon", "scissors", "shears", "sheep", "shorts", "silverware", "skis", "spectacles", "squid",
    "sunglasses", "sushi", "suspenders", "tights", "tongs", "trousers", "underdrawers",
))  # fmt: skip
_ONES: Final = {
    "child": "children", "die": "dice", "foot": "feet", "goose": "geese", "man": "men", "mouse": "mice",
    "person": "people", "tooth": "teeth", "woman": "women", "cactus": "cacti", "ox": "oxen", "quiz": "quizzes",
}  # fmt: skip
#: Words that end like a man (fireman) and are none.
_NO_MEN: Final = frozenset(("caiman", "human", "ottoman", "talisman"))
_F_TO_VES: Final = ("calf", "half", "knife", "leaf", "life", "loaf", "scarf", "shelf", "thief", "wife", "wolf")
_O_TO_OES: Final = frozenset(("buffalo", "echo", "hero", "mango", "mosquito", "potato", "tomato", "torpedo"))
#: What follows such a word belongs to the thing that is counted: jars of honey.
_JOINTS: Final = re.compile(r" (?:of|in|with|on|for|and|to) ")


def plural(name: str) -> str:
    """The plural of a name; what stands in parentheses behind it stays.

    >>> [plural(name) for name in ("bat (animal)", "bookshelf", "jar of honey", "wine glass", "sheep")]
    ['bats (animal)', 'bookshelves', 'jars of honey', 'wine glasses', 'sheep']
    """
    thing, mark, about = name.partition(" (")
    if joint := _JOINTS.search(thing):
        return plural(thing[: joint.start()]) + thing[joint.start() :] + mark + about
    before, blank, word = thing.rpartition(" ")
    return before + blank + _plural(word, thing) + mark + about


def _plural(word: str, thing: str) -> str:
    lower = word.lower()
    if lower in _SAME or thing.lower() in _SAME or lower.endswith(("fish", "meat", "wear")):
        return word
    for one, many in _ONES.items():
        if lower == one or (lower.endswith(one) and one in ("man", "woman", "tooth") and lower not in _NO_MEN):
            return word[: len(word) - len(one)] + many
    if lower.endswith(_F_TO_VES):
        return re.sub("fe?$", "ves", word)
    if re.search("[^aeiou]y$", lower):
        return word[:-1] + "ies"
    if lower in _O_TO_OES or re.search("(?:s|x|z|ch|sh)$", lower):
        return word + "es"
    return word + "s"
