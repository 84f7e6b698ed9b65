"""Questions in a recipe's own words: what `ask` may hold of a record, and how it is filled in."""

from __future__ import annotations

import re
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data.columns import Bools, column, flags, relist, unlist
from vpt_data.dialogue.tokens import neutralise
from vpt_data.errors import UsageError, unknown_name

_WORD: Final = re.compile(r"\{(\w*)\}")
#: What may stand in braces. `label` and `category` are one thing: what the boxes of a record are labelled with (in own
#: COCO-format data that is the category), each name once, in the order of the boxes.
_LABELS: Final = ("label", "category")
WORDS: Final = ("question", *_LABELS)
#: At the end of `ask`: the image comes after the question and not before it.
IMAGE_LAST: Final = "{image}"


def check(text: str, where: str) -> None:
    """Raise UsageError for a word in braces that nothing stands for: it would be training text as it is."""
    for word in _WORD.findall(text.removesuffix(IMAGE_LAST)):
        if word not in WORDS:
            known = ", ".join(f"{{{each}}}" for each in WORDS)
            hint = str(unknown_name("word", word, WORDS)).partition("; ")[2] if word else ""
            near = f"; {hint}" if hint.startswith("did") else "."
            raise UsageError(f"{where}: `ask` holds {{{word}}}, and only {known} can be filled in{near}")


def uses_labels(text: str | None) -> bool:
    """Whether it can only be asked of a record whose boxes have labels."""
    return any(word in _LABELS for word in _WORD.findall(text or ""))


def asked(text: str, question: pa.Array, labels: pa.Array) -> pa.Array:
    """`text` once for each question, with the words of the record in it.

    >>> asked("A {label}? {question}", pa.array(["Is it red?"]), pa.array(["car"])).to_pylist()
    ['A car? Is it red?']
    """
    # Odd parts are the words in braces.
    parts = [question if at % 2 and part == "question" else labels if at % 2 else part
             for at, part in enumerate(_WORD.split(text))]  # fmt: skip
    whole = [pa.repeat(part, len(question)) if isinstance(part, str) else part for part in parts]
    return pc.binary_join_element_wise(*whole, "")


def labels_of(annotations: pa.Table) -> pa.Array:
    """The labels of each record's boxes as one text: each once, in the order of the boxes, "" without any."""
    given = unlist(column(annotations, "regions"))
    label = pc.struct_field(given.values, "label")
    named = flags(pc.is_valid(label))
    names, row = label.filter(pa.array(named)).dictionary_encode(), given.rows[named]
    _, first = np.unique(
        np.column_stack([row, names.indices.to_numpy(zero_copy_only=False)]), axis=0, return_index=True
    )
    first.sort()
    counts = np.bincount(row[first], minlength=annotations.num_rows)
    once = names.dictionary_decode().cast(pa.string()).take(pa.array(first))
    return pc.binary_join(relist(counts, once, pa.list_(pa.string())), ", ")


def have_labels(annotations: pa.Table) -> Bools:
    """Whether any box of each record has a label, bool [N]."""
    given = unlist(column(annotations, "regions"))
    named = flags(pc.is_valid(pc.struct_field(given.values, "label")))
    return np.bincount(given.rows[named], minlength=annotations.num_rows) > 0


def have_tokens(annotations: pa.Table) -> Bools:
    """Whether any label of each record holds what `ask` neutralises, a placeholder or special token: bool [N]."""
    given = unlist(column(annotations, "regions"))
    hit = neutralise(pc.struct_field(given.values, "label"))[1]
    return np.bincount(given.rows[hit], minlength=annotations.num_rows) > 0
