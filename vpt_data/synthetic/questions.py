"""Questions about scenes and birds of the drawn world, with the boxes that suffice to answer them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from vpt_data.synthetic.pages import Field
from vpt_data.synthetic.scenes import BIRD_ATTRIBUTES, Bird, Box, Motif, Scene

Phrases = Mapping[str, tuple[str, str]]
# How a motif's first thing stands to its second, and the second to the first.
PHRASES: Phrases = {
    "left": ("to the left of", "to the right of"),
    "above": ("above", "below"),
    "front": ("in front of", "behind"),
    "inside": ("inside", "around"),
}
VSR_PHRASES: Phrases = {
    "left": ("at the left side of", "at the right side of"),
    "above": ("above", "below"),
    "front": ("in front of", "behind"),
    "inside": ("inside", "surrounding"),
}


@dataclass(frozen=True, slots=True)
class Ask:
    """A question, its answer, the boxes that suffice to answer it; `full` = the answer as a sentence.

    `relation` is set where the question is about two things, `statement` then says it as VSR does (true or
    not); `names` are what the question calls its things.
    """

    question: str
    answer: str
    boxes: tuple[Box, ...]
    full: str
    relation: str = ""
    statement: str = ""
    names: tuple[str, ...] = ()


def a(name: str) -> str:
    """The name with its article: `an orange star`."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def plural(kind: str) -> str:
    """`cross` -> `crosses`, `kite` -> `kites`."""
    return kind + ("es" if kind.endswith(("s", "ch")) else "s")


def _what(facts: Scene, motif: Motif, phrases: Phrases, rng: random.Random) -> Ask:
    """Count a group; else ask for one of the two things by the other."""
    boxes = tuple(thing.box for thing in motif.things)
    if motif.form == "group":
        thing, n = motif.things[0], len(boxes)
        name = plural(facts.name(thing))
        return Ask(f"How many {name} are there?", str(n), boxes, f"There are {n} {name}.", names=(name,))
    which = rng.randrange(2)
    subject, reference = motif.things[which], motif.things[1 - which]
    names, phrase = (facts.name(subject), facts.name(reference)), phrases[motif.form][which]
    full = f"The {names[0]} is {phrase} the {names[1]}."
    if motif.form == "front" and rng.random() < 0.5:
        first, second = sorted((facts.name(thing) for thing in motif.things), reverse=rng.random() < 0.5)
        question = f"Which is {'nearer' if which == 0 else 'farther away'}, the {first} or the {second}?"
        return Ask(question, names[0], boxes, full, names=names)
    return Ask(f"What is {phrase} the {names[1]}?", subject.kind, boxes, full, phrase, full, names)


def _whether(facts: Scene, motif: Motif, phrases: Phrases, rng: random.Random, truth: bool) -> Ask:
    boxes = tuple(thing.box for thing in motif.things)
    yes = "Yes" if truth else "No"
    if motif.form == "group":
        n = len(boxes)
        count = n if truth else rng.choice([m for m in range(2, 7) if m != n])
        name = plural(facts.name(motif.things[0]))
        return Ask(f"Are there {count} {name}?", yes, boxes, f"{yes}, there are {n} {name}.", names=(name,))
    which = rng.randrange(2)
    names = (facts.name(motif.things[which]), facts.name(motif.things[1 - which]))
    right, wrong = phrases[motif.form][which], phrases[motif.form][1 - which]
    said_phrase = right if truth else wrong
    full = f"{yes}, the {names[0]} is {right} the {names[1]}."
    statement = f"The {names[0]} is {said_phrase} the {names[1]}."
    return Ask(f"Is the {names[0]} {said_phrase} the {names[1]}?", yes, boxes, full, said_phrase, statement, names)


def _color(facts: Scene, motif: Motif) -> Ask:
    thing, reference = motif.things[0], motif.things[1]
    other = facts.name(reference)
    what = f"the {thing.kind} {PHRASES[motif.form][0]} the {other}"
    boxes = (thing.box, reference.box)
    full = f"{what.capitalize()} is {thing.color}."
    return Ask(f"What color is {what}?", thing.color, boxes, full, names=(thing.kind, other))


def scene_asks(
    facts: Scene,
    rng: random.Random,
    truths: Iterator[bool],
    phrases: Phrases = PHRASES,
    relations_only: bool = False,
) -> Iterator[Ask]:
    """Questions about a scene: one a motif (open and yes/no in turn), then the other way round, then colours.

    `truths` says whether the next yes/no question is true: with one alternating iterator for a data set its
    answers are balanced. `relations_only` leaves out counting, either-or questions and colours, as VSR does.
    """
    motifs = [motif for motif in facts.motifs if not (relations_only and motif.form == "group")]
    rng.shuffle(motifs)
    for turn in range(2):
        for i, motif in enumerate(motifs):
            if (i + turn) % 2:
                yield _whether(facts, motif, phrases, rng, next(truths))
            else:
                ask = _what(facts, motif, phrases, rng)
                while relations_only and not ask.relation:
                    ask = _what(facts, motif, phrases, rng)
                yield ask
    if not relations_only:
        yield from (_color(facts, motif) for motif in motifs if motif.form != "group")


def caption(facts: Scene, motifs: int = 6) -> str:
    """One sentence that is true of the scene: `a red star to the left of a blue circle and 3 green rings`."""
    phrases = []
    for motif in facts.motifs[:motifs]:
        first = motif.things[0]
        if motif.form == "group":
            phrases.append(f"{len(motif.things)} {first.color} {plural(first.kind)}")
        else:
            second = motif.things[1]
            phrase = PHRASES[motif.form][0]
            phrases.append(f"{a(first.color)} {first.kind} {phrase} {a(second.color)} {second.kind}")
    return phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1]


def bird_ask(facts: Bird, rng: random.Random, truth: bool) -> Ask:
    """Two looks of the bird in one yes/no question, as Visual-CoT has them; `No` if one or both are wrong."""
    groups = rng.sample(sorted(facts.looks), 2)
    wrong = set() if truth else set(rng.sample(groups, rng.randint(1, 2)))
    features = []
    for group in groups:
        others = [look for look in BIRD_ATTRIBUTES[group] if look != facts.looks[group]]
        look = rng.choice(others) if group in wrong else facts.looks[group]
        features.append(f"{look} {group.split('_')[1]}")
    answer = "Yes" if truth else "No"
    return Ask(f"Does the bird in the picture have {features[0]} and {features[1]}?", answer, (facts.box,), answer)


def distinct(asks: Iterable[Ask], n: int) -> list[Ask]:
    """The first `n` asks with different questions (fewer only if there are no more)."""
    found: dict[str, Ask] = {}
    for ask in asks:
        found.setdefault(ask.question, ask)
        if len(found) == n:
            break
    return list(found.values())


_SIGN_QUESTIONS: Mapping[str, str] = {
    "textvqa": "what {} is on the {} sign?",
    "textcap": "Which {} can be read on the {} sign?",
    "german": "Was steht als {} auf dem {} Schild?",
}
_GERMAN: Mapping[str, str] = {
    "red": "roten", "blue": "blauen", "green": "grünen", "yellow": "gelben", "orange": "orangen",
    "purple": "violetten", "black": "schwarzen", "white": "weißen", "word": "Wort", "number": "Zahl",
}  # fmt: skip


def field_ask(field: Field) -> Ask:
    """The question a page's field comes with."""
    return Ask(field.question, field.value, (field.box,), field.value)


def sign_ask(field: Field, style: str) -> Ask:
    """A question about one line of a sign, in the words of a data set (`textvqa`, `textcap`) or in German."""
    what = "number" if field.value.isdigit() else "word"
    names = (what, field.color)
    if style == "german":
        names = (_GERMAN[what], _GERMAN[field.color])
    return Ask(_SIGN_QUESTIONS[style].format(*names), field.value, (field.box,), field.value)
