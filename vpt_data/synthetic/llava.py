"""LLaVA: the instruction mix, whose parts differ only in their wording, and the pretraining pairs."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, cycle, islice

from vpt_data.synthetic.formats import Row, Writer
from vpt_data.synthetic.pages import GENRES, Page, word
from vpt_data.synthetic.pools import Shot, quota
from vpt_data.synthetic.questions import Ask, a, caption, distinct, field_ask, scene_asks
from vpt_data.synthetic.scenes import COCO_IDS, SHAPES, Box, Scene, Size, stream

_SHORT = "\nAnswer the question using a single word or phrase."
_CHOICE = "\nAnswer with the option's letter from the given choices directly."
_DETAILS = (
    "Describe the following image.",
    "Write a detailed description of the given image.",
    "What do you see happening in this image?",
    "Can you describe the main features of this image for me?",
)
_BRIEFLY = (
    "Provide a brief description of the given image.",
    "Describe the image concisely.",
    "Give a short and clear explanation of the subsequent image.",
    "Summarize the visual content of the image.",
)
_TALK = (
    (
        "How do I keep a list sorted while I add to it?",
        "Insert each new item at the place found by bisection.",
    ),
    ("Suggest a name for a small bakery.", "How about The Warm Crumb?"),
    (
        "What is the difference between weather and climate?",
        "Climate is the average of weather over many years.",
    ),
    (
        "Write a haiku about rain.",
        "Rain on the tin roof / a drummer who knows one song / and never tires of it.",
    ),
    ("How many minutes are there in a day?", "There are 1,440 minutes in a day."),
)
# In every eighth free-form record the first turn ends with the image.
_IMAGE_LAST = 8


def write_llava(
    writer: Writer,
    rows: int,
    seed: int,
    scenes: Mapping[str, Sequence[Shot[Scene]]],
    pages: Mapping[str, Sequence[Shot[Page]]],
) -> None:
    """`llava_v1_5_mix665k.json`: one array, image records shuffled, text-only records at its end.

    Dirt: one exact duplicate, one empty answer, one record without turns, one text-only record that mentions
    `<image>` in its text. Ids are integers for GQA and repeat for COCO images asked about twice.
    """
    records = [
        *_coco_records(scenes["coco"], rows, seed),
        *(_short_record(shot, seed, int(shot.name[:-4])) for shot in scenes["gqa"][: quota("llava_gqa", rows)]),
        *(_region_record(shot, seed, f"VG_100K/{shot.name[:-4]}") for shot in scenes["llava_vg"]),
        *(_cover_record(shot, seed) for shot in pages["llava_ocr"]),
        *(_caption_record(shot) for shot in pages["signs"][: quota("llava_textvqa", rows)]),
    ]
    stream(seed, "llava", "order").shuffle(records)
    text_only = [_talk_record(stream(seed, "talk", n), n) for n in range(quota("llava_text", rows))]
    text_only[1]["conversations"][0]["value"] = "What does the tag <image> stand for in a prompt?"
    empty: Row = {**records[3], "conversations": _turns([(records[3]["conversations"][0]["value"], "")])}
    bare: Row = {**records[4], "conversations": []}
    middle = len(records) // 2
    writer.array(
        "llava/llava_v1_5_mix665k.json",
        [*records[:middle], records[2], empty, bare, *records[middle:], *text_only],
    )


def write_pretrain(writer: Writer, shots: Sequence[Shot[Scene]], seed: int) -> None:
    """`blip_laion_cc_sbu_558k.json`: an instruction with `<image>` before or after it, and a caption."""
    records: list[Row] = []
    for shot in shots:
        rng = stream(seed, "pretrain", shot.name)
        text = rng.choice(_BRIEFLY)
        asked = f"<image>\n{text}" if rng.random() < 0.5 else f"{text}\n<image>"
        turns = _turns([(asked, caption(shot.facts, motifs=2))])
        records.append({"id": shot.name[6:-4], "image": shot.name, "conversations": turns})
    writer.array("llava_pretrain/blip_laion_cc_sbu_558k.json", records)


def _turns(pairs: Sequence[tuple[str, str]]) -> list[Row]:
    return [{"from": role, "value": text} for pair in pairs for role, text in zip(("human", "gpt"), pair, strict=True)]


def _record(image_id: str | int, path: str, pairs: Sequence[tuple[str, str]], image_last: bool = False) -> Row:
    asked, answer = pairs[0]
    first = f"{asked}\n<image>" if image_last else f"<image>\n{asked}"
    return {"id": image_id, "image": path, "conversations": _turns([(first, answer), *pairs[1:]])}


def _coco_records(shots: Sequence[Shot[Scene]], rows: int, seed: int) -> Iterator[Row]:
    """Conversations, short answers and choices (8 : 7 : 5), then descriptions and regions; two an image."""
    forms = cycle("cccssxccsxccsxccssxx")
    kinds = [*islice(forms, quota("llava_dialogue", rows))]
    kinds += ["d"] * quota("llava_detail", rows) + ["r"] * quota("llava_region", rows)
    free = count()
    for i, kind in enumerate(kinds):
        visit, at = divmod(i, len(shots))
        shot = shots[at]
        name = shot.name[:-4]
        if kind == "s":
            yield _short_record(shot, seed, name, visit)
        elif kind == "x":
            yield _choice_record(shot, seed, visit)
        elif kind == "r":
            yield _region_record(shot, seed, name)
        else:
            last = next(free) % _IMAGE_LAST == 3
            yield _record(name, shot.path, _free_pairs(shot, seed, kind, visit), image_last=last)


def _asks(shot: Shot[Scene], seed: int, visit: int) -> tuple[random.Random, list[Ask]]:
    """Twelve questions in an order of chance; a second record about the image begins with the sixth."""
    rng = stream(seed, "llava", shot.path)
    asks = distinct(scene_asks(shot.facts, rng, cycle(rng.sample((True, False), 2))), 12)
    start = 5 * visit % len(asks)
    return stream(seed, "llava", shot.path, visit), asks[start:] + asks[:start]


def _free_pairs(shot: Shot[Scene], seed: int, kind: str, visit: int) -> list[tuple[str, str]]:
    rng, asks = _asks(shot, seed, visit)
    if kind == "d":
        text = caption(shot.facts)
        return [(rng.choice(_DETAILS), f"The image shows {text}. All of them lie on a plain ground.")]
    return [(ask.question, ask.full) for ask in asks[: rng.randint(1, 4)]]


def _short_record(shot: Shot[Scene], seed: int, image_id: str | int, visit: int = 0) -> Row:
    """Only the first question carries the demand for a short answer."""
    rng, asks = _asks(shot, seed, visit)
    pairs = [(ask.question, ask.answer.capitalize()) for ask in asks[: rng.randint(1, 7)]]
    return _record(image_id, shot.path, [(pairs[0][0] + _SHORT, pairs[0][1]), *pairs[1:]])


def _choice_record(shot: Shot[Scene], seed: int, visit: int) -> Row:
    rng, asks = _asks(shot, seed, visit)
    names = tuple(COCO_IDS) if shot.facts.by_kind else SHAPES
    ask = next(ask for ask in asks if ask.answer in names)
    options = [ask.answer, *rng.sample([name for name in names if name not in (ask.answer, *ask.names)], 3)]
    rng.shuffle(options)
    listed = "".join(f"\n{letter}. {option}" for letter, option in zip("ABCD", options, strict=True))
    letter = "ABCD"[options.index(ask.answer)]
    return _record(shot.name[:-4], shot.path, [(ask.question + listed + _CHOICE, letter)])


def _shares(box: Box, size: Size) -> str:
    """The box as LLaVA writes it: two-decimal shares of width and height."""
    return str([round(v / size[i % 2], 2) for i, v in enumerate(box)])


def _region_record(shot: Shot[Scene], seed: int, image_id: str) -> Row:
    rng, pairs = stream(seed, "llava", "region", shot.path), []
    alone = [motif.things[0] for motif in shot.facts.motifs if motif.form != "group"]
    for thing in rng.sample(alone, min(3, len(alone))):
        name, shares = f"{thing.color} {thing.kind}", _shares(thing.box, shot.facts.size)
        if rng.random() < 0.5:
            ask = "Please provide the bounding box coordinate of the region this sentence describes:"
            pairs.append((f"{ask} {name}.", shares))
        else:
            pairs.append((f"Please provide a short description for this region: {shares}.", f"{a(name).capitalize()}."))
    return _record(image_id, shot.path, pairs)


def _cover_record(shot: Shot[Page], seed: int) -> Row:
    rng, fields = stream(seed, "llava", "cover", shot.name), shot.facts.fields
    pairs = [(ask.question, ask.answer) for ask in map(field_ask, fields)]
    rng.shuffle(pairs)
    genre = fields[2].value
    other = rng.choice([name for name in GENRES if name != genre])
    pairs += [(f"Is this book related to {genre}?", "Yes"), (f"Is this book related to {other}?", "No")]
    return _record(shot.name[:-4], shot.path, [(pairs[0][0] + _SHORT, pairs[0][1]), *pairs[1:]])


def _caption_record(shot: Shot[Page]) -> Row:
    fields = shot.facts.fields
    tokens = ", ".join(field.value for field in fields)
    asked = f"Provide a one-sentence caption for the provided image.\nReference OCR token: {tokens}"
    answer = f"A street with {a(fields[0].color)} sign that says {fields[0].value} and {fields[1].value}."
    return _record(shot.name[:-4], shot.path, [(asked, answer)])


def _talk_record(rng: random.Random, n: int) -> Row:
    """A text-only record: no image, but an empty `model`."""
    pairs = rng.sample(_TALK, 2)
    pairs[0] = (f"My name is {word(rng).capitalize()}. {pairs[0][0]}", pairs[0][1])
    return {"id": f"{word(rng, 3)}_{n}", "model": "", "conversations": _turns(pairs)}
