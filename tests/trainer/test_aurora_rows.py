"""Rows with depth and pixel tokens are trained on as they are, and generated within the grammar of their families."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from helpers import end_to_end

from trainer.data.encode import RowEncoder
from trainer.generation.vocabulary import Vocabulary
from trainer.model.tiny import tiny_tokenizer, tiny_vision
from vpt_data.dialogue.tokens import depth, label_names


@pytest.fixture(scope="module")
def encoder() -> RowEncoder:
    tokenizer = tiny_tokenizer(["The depth map is . Bounding box"], None, families=["depth", "pixels"])
    return RowEncoder(tokenizer.backend_tokenizer, tiny_vision(), cutoff=1024)


def test_every_row_of_the_joint_corpus_is_trained_on(encoder: RowEncoder, sample_root: Path, tmp_path: Path) -> None:
    """Each perception token of an answer is one label of its class: nothing is cut into pieces."""
    corpus = end_to_end.build("aurora_joint", sample_root, tmp_path / "out", "take.count_boxes.share=0.5", mode="embed")
    seen: Counter[str] = Counter()
    for row in end_to_end.rows(corpus):
        sample = encoder.encode(row)
        found = Counter(label_names()[label] for label in sample.classes.tolist())
        answer = row["messages"][-1]["content"]
        assert found["depth"] + found["depth_code"] == answer.count("<DEPTH_") and found["pixel"] == answer.count(
            "<PIXEL_"
        )
        seen += found
    assert seen["depth_code"] == 50 * seen["depth"] > 0 and seen["pixel"] > 0


def test_the_grammar_wants_a_hundred_codes_after_a_start(encoder: RowEncoder) -> None:
    words = Vocabulary(encoder, [])
    size = encoder.tokenizer.get_vocab_size()
    start, end, code, pixel = (encoder.token_id(word) for word in (depth.START, depth.END, "<DEPTH_7>", "<PIXEL_7>"))
    free = words.grammar([], size)
    assert free[start] and free[pixel] and not free[code] and not free[end]
    inside = words.grammar([start, *[code] * 99], size)
    assert inside.sum() == depth.CODES and inside[code]
    assert words.grammar([start, *[code] * 100], size).nonzero().tolist() == [[end]]
    after = words.grammar([start, *[code] * 100, end], size)
    assert after[pixel] and not after[code]
    assert words.faults("<DEPTH_1> (<PIXEL_1>)") == {"depth_no_start": 1, "pixel_wrong_count": 1}
