"""The synthetic `llava_v1_5_mix665k.json`: one JSON array in the owners' shape, counts, forms and sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from bench.raw_words import Rng, Words, unique_hex, unique_ints

COUNTS = {
    "conversation": 56_700,
    "detail": 23_240,
    "reasoning": 77_772,
    "vqav2": 82_783,
    "okvqa": 8_998,
    "choice": 66_160,
    "refcoco": 48_447,
    "vg": 86_417,
    "ocr_vqa": 80_000,
    "gqa": 72_140,
    "textvqa": 21_953,
    "text": 40_688,
}
BATCH = 16_384
TEXT_ONLY_WORDS = 480  # longest text-only answer; with it the whole file comes to the real 1.03 GB
DESCRIBE = "Please provide a short description for this region: "
LOCATE = "Please provide the bounding box coordinate of the region this sentence describes: "
SHORT = "\\nAnswer the question using a single word or phrase."
OPTION = "\\nAnswer with the option's letter from the given choices directly."
OCR_TOKENS = "\\nReference OCR token: "
DETAIL = (
    "Describe the following image.",
    "What is this photo about?",
    "Analyze the image in a comprehensive and detailed manner.",
    "What do you see happening in this image?",
    "Explain the visual content of the image in great detail.",
    "Can you describe the main features of this image for me?",
    "What are the key elements in this picture?",
    "Write a detailed description of the given image.",
)
WHY = (
    "What might be the reason for",
    "How could someone benefit from",
    "What challenges might arise from",
    "Why might it be important to notice",
    "What can be inferred about",
    "What precautions should be taken around",
)
GENRES = (
    "Travel",
    "History",
    "Self-Help",
    "Science & Math",
    "Romance",
    "Cookbooks",
    "Computers",
    "Arts & Photography",
)
_TO_GPT = '"}, {"from": "gpt", "value": "'
_TO_HUMAN = '"}, {"from": "human", "value": "'


class LlavaMix:
    """Makes the records of every sub-source in batches, over distinct images where the owners' are."""

    def __init__(self, words: Words, rng: Rng, counts: dict[str, int], coco: list[int], gqa: list[int]) -> None:
        """`coco` and `gqa`: image numbers to draw from; `counts`: records per form (see COUNTS)."""
        self.words, self.rng, self.counts = words, rng, counts
        self.made = dict.fromkeys(counts, 0)
        self.images = self._image_names(coco, gqa)
        self.makers: dict[str, Callable[[int], list[str]]] = {
            "conversation": self._conversation,
            "detail": self._detail,
            "reasoning": self._reasoning,
            "vqav2": lambda n: self._short_turns(n, self.turn_counts(n, 4.4, 3, 13)),
            "okvqa": lambda n: self._short_turns(n, np.ones(n, dtype=np.int64)),
            "gqa": lambda n: self._short_turns(n, self.turn_counts(n, 13.4, 1, 56)),
            "choice": self._choice,
            "refcoco": self._regions_coco,
            "vg": self._regions_vg,
            "ocr_vqa": self._ocr,
            "textvqa": self._captions,
            "text": self._text_only,
        }

    def records(self, form: str, count: int) -> list[str]:
        """The next `count` records of `form`, each the JSON text of one object."""
        start = self.made[form]
        self.made[form] = start + count
        bodies = self.makers[form](count)
        if form == "text":
            ids = unique_hex(self.rng, count, 7)
            return [f'{{"id": "{i}_0", "model": "", {body}' for i, body in zip(ids, bodies, strict=True)]
        heads = self.images[form][start : start + count]
        return [f"{{{head}, {body}" for head, body in zip(heads, bodies, strict=True)]

    def turn_counts(self, count: int, mean: float, low: int, high: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """`count` pair counts in low..high whose mean is about `mean` (geometric above `low`)."""
        drawn = low - 1 + self.rng.geometric(1.0 / (mean - low + 1), count)
        return np.minimum(drawn, high).astype(np.int64)

    def _image_names(self, coco: list[int], gqa: list[int]) -> dict[str, list[str]]:
        def of_coco(form: str, distinct: float) -> list[str]:
            count = self.counts[form]
            pool = self.rng.permutation(np.array(coco))[: max(1, round(count * distinct))]
            picked = np.concatenate([pool, self.rng.choice(pool, count)])[:count]
            return [
                f'"id": "{i:012d}", "image": "coco/train2017/{i:012d}.jpg"'
                for i in self.rng.permutation(picked).tolist()
            ]

        share = {"choice": 0.25, "refcoco": 0.58}
        names = {
            form: of_coco(form, share.get(form, 1.0))
            for form in ("conversation", "detail", "reasoning", "vqav2", "okvqa", "choice", "refcoco")
        }
        names["gqa"] = [f'"id": {i}, "image": "gqa/images/{i}.jpg"' for i in gqa[: self.counts["gqa"]]]
        folders = ("VG_100K", "VG_100K_2")
        names["vg"] = [
            f'"id": "{folders[i % 2]}/{i}", "image": "vg/{folders[i % 2]}/{i}.jpg"'
            for i in unique_ints(self.rng, self.counts["vg"], 2_417_997).tolist()
        ]
        names["ocr_vqa"] = [
            f'"id": "{i:010d}", "image": "ocr_vqa/images/{i:010d}.jpg"'
            for i in unique_ints(self.rng, self.counts["ocr_vqa"], 4_000_000).tolist()
        ]
        names["textvqa"] = [
            f'"id": "{i}", "image": "textvqa/train_images/{i}.jpg"'
            for i in unique_hex(self.rng, self.counts["textvqa"])
        ]
        return names

    def _conversation(self, count: int) -> list[str]:
        turns = self.rng.integers(4, 6, count)
        total = int(turns.sum())
        return self._dialogue(turns, self.words.questions(total), self.words.prose(total, 20, 72), end_share=0.45)

    def _detail(self, count: int) -> list[str]:
        one = np.ones(count, dtype=np.int64)
        return self._dialogue(one, self.words.pick(DETAIL, count), self.words.prose(count, 75, 125), end_share=0.5)

    def _reasoning(self, count: int) -> list[str]:
        heads, things, tails = (
            self.words.pick(WHY, count),
            self.words.questions(count),
            self.words.plain(count, 2, 5),
        )
        asked = [f"{h} {t[:-1]} {e}?" for h, t, e in zip(heads, things, tails, strict=True)]
        return self._dialogue(np.ones(count, dtype=np.int64), asked, self.words.prose(count, 70, 115), end_share=0.5)

    def _short_turns(self, count: int, turns: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[str]:
        total = int(turns.sum())
        return self._dialogue(turns, self.words.questions(total), self.words.short(total), suffix=SHORT)

    def _choice(self, count: int) -> list[str]:
        options = [self.words.things(count) for _ in range(4)]
        asked = [
            f"{q}\\nA. {a}\\nB. {b}\\nC. {c}\\nD. {d}{OPTION}"
            for q, a, b, c, d in zip(self.words.questions(count), *options, strict=True)
        ]
        return self._dialogue(np.ones(count, dtype=np.int64), asked, self.words.pick(("A", "B", "C", "D"), count))

    def _regions_coco(self, count: int) -> list[str]:
        return self._regions(np.maximum(1, 10 - self.rng.geometric(0.3, count)))

    def _regions_vg(self, count: int) -> list[str]:
        return self._regions(np.maximum(6, 11 - self.rng.geometric(0.8, count)))

    def _regions(self, turns: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[str]:
        total = int(turns.sum())
        edges = np.sort(np.round(self.rng.random((2, total, 2)), 2), axis=0)
        boxes = np.concatenate([edges[0], edges[1]], axis=1).tolist()
        texts, forward = self.words.plain(total, 2, 6), (self.rng.random(total) < 0.5).tolist()
        asked, answers = [], []
        for box, text, describe in zip(boxes, texts, forward, strict=True):
            asked.append(f"{DESCRIBE}{box}." if describe else f"{LOCATE}{text}.")
            answers.append(f"{text.capitalize()}." if describe else str(box))
        return self._dialogue(turns, asked, answers)

    def _ocr(self, count: int) -> list[str]:
        authors, titles = self.words.plain(count, 2, 3), self.words.plain(count, 4, 11)
        genres, others = self.words.pick(GENRES, count), self.words.pick(GENRES, count)
        keep, noun = (self.rng.random(count) < 0.85).tolist(), self.words.pick(("book", "text"), count)
        asked: list[str] = []
        answers: list[str] = []
        for author, title, genre, other, word in zip(authors, titles, genres, others, noun, strict=True):
            asked += [
                f"Who is the author of this {word}?",
                f"What is the title of this {word}?",
                f"What type of {word} is this?",
                f"Is this {word} related to {genre}?",
                f"Is this a {other} {word}?",
            ]
            answers += [author.title(), title.capitalize(), genre, "Yes", "Yes" if other == genre else "No"]
        turns = np.full(count, 5)
        if not all(keep):
            gone = {5 * i + 3 for i, kept in enumerate(keep) if not kept}
            asked = [text for i, text in enumerate(asked) if i not in gone]
            answers = [text for i, text in enumerate(answers) if i not in gone]
            turns = turns - ~np.array(keep)
        return self._dialogue(turns, asked, answers, suffix=SHORT)

    def _captions(self, count: int) -> list[str]:
        tokens = [text.replace(" ", ", ") for text in self.words.plain(count, 4, 22)]
        asked = [f"Provide a one-sentence caption for the provided image.{OCR_TOKENS}{text}" for text in tokens]
        answers = [f"{text.capitalize()}." for text in self.words.plain(count, 6, 13)]
        return self._dialogue(np.ones(count, dtype=np.int64), asked, answers)

    def _text_only(self, count: int) -> list[str]:
        turns = self.rng.integers(2, 7, count)
        total = int(turns.sum())
        return self._dialogue(
            turns, self.words.prose(total, 8, 60), self.words.prose(total, 80, TEXT_ONLY_WORDS), image=False
        )

    def _dialogue(
        self,
        turns: np.ndarray[tuple[int], np.dtype[np.int64]],
        asked: list[str],
        answers: list[str],
        *,
        suffix: str = "",
        end_share: float = 0.0,
        image: bool = True,
    ) -> list[str]:
        """The `conversations` member: `turns[i]` pairs of (asked, answers), the placeholder in the first."""
        stops = np.cumsum(turns).tolist()
        at_end = (self.rng.random(len(stops)) < end_share).tolist()
        pairs = [f"{q}{_TO_GPT}{a}" for q, a in zip(asked, answers, strict=True)]
        records, start = [], 0
        for stop, last in zip(stops, at_end, strict=True):
            if image:
                first = f"{asked[start]}\\n<image>" if last else f"<image>\\n{asked[start]}"
                pairs[start] = f"{first}{suffix}{_TO_GPT}{answers[start]}"
            records.append(f'"conversations": [{{"from": "human", "value": "{_TO_HUMAN.join(pairs[start:stop])}"}}]}}')
            start = stop
        return records


def write_mix(path: Path, mix: LlavaMix, rng: Rng) -> int:
    """Write the array: image records of all forms shuffled, text-only ones last. Returns their number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with path.open("wb", buffering=1 << 20) as file:
        for batch in _batches(mix, rng):
            file.write(b"[" if count == 0 else b", ")
            file.write(", ".join(batch).encode("ascii"))
            count += len(batch)
        file.write(b"[]" if count == 0 else b"]")
    return count


def _batches(mix: LlavaMix, rng: Rng) -> Iterator[list[str]]:
    forms = [form for form in mix.counts if form != "text"]
    order = rng.permutation(np.repeat(np.arange(len(forms)), [mix.counts[form] for form in forms]))
    for start in range(0, len(order), BATCH):
        codes = order[start : start + BATCH]
        rows = np.empty(len(codes), dtype=object)
        for code, form in enumerate(forms):
            places = np.flatnonzero(codes == code)
            if len(places):
                rows[places] = mix.records(form, len(places))
        yield rows.tolist()
    for start in range(0, mix.counts["text"], BATCH // 4):
        yield mix.records("text", min(BATCH // 4, mix.counts["text"] - start))
