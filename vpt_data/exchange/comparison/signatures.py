"""Of each row a few hashes: by some a row is found again on the other side, by others it is compared.

Nothing here depends on how a row is stored: a crop is its box in pixels, an image is its identity and not its path, the
sentence that asks for a look belongs to the text and not to the question.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data.columns import column, first, flags, of_images, relist, unlist
from vpt_data.dialogue.templates import TEMPLATES
from vpt_data.dialogue.tokens import IMAGE, SPECIAL_TOKEN, placeholders
from vpt_data.hashing import canonical, hashes
from vpt_data.images.identity import identities

#: What rows of two sides are found by, the surest first: their id; all that is compared; image, question and answers;
#: image and question.
KEYS: Final = ("by_id", "by_all", "by_answer", "by_question")
#: What is compared, and what a difference in it means.
PARTS: Final = {
    "text": "another text, tokens of looks and the kind of placeholder aside",
    "tokens": "other tokens of looks in the assistant's turns",
    "crops": "other pixels are shown",
    "images": "other images, in other turns, or through another encoder",
}
SIGNATURE: Final = pa.schema(
    [("name", pa.string()), ("take", pa.string()), *((name, pa.uint64()) for name in (*KEYS, *PARTS))]
)
_PLACEHOLDER: Final = "|".join(map(re.escape, placeholders().values()))
_PROMPTS: Final = [entry.prompt for entry in TEMPLATES.values() if entry.prompt]


def signatures(names: pa.Array, samples: pa.Table) -> pa.Table:
    """SIGNATURE of each row; `samples` has the columns of a sample that `side.COLUMNS` names."""
    spoken, views = unlist(column(samples, "messages")), unlist(column(samples, "views"))
    role, content = (pc.struct_field(spoken.values, name) for name in ("role", "content"))
    bare, tokens = _parted(pc.fill_null(content, ""))
    plain = pc.replace_substring_regex(bare, _PLACEHOLDER, IMAGE)
    image = _first_image(samples)
    question = _question(spoken.rows, role, plain, len(samples))
    answers = _answers(spoken.rows, role, bare, len(samples))
    shown, _ = of_images(views, unlist(column(samples, "images")))
    of_views = _identities(samples).take(pa.array(shown)) if len(shown) else pa.array([], pa.string())
    turn, encoder, box = (pc.struct_field(views.values, name) for name in ("turn", "encoder", "box"))
    parts = {
        "text": [_lists(spoken.lengths, role), _lists(spoken.lengths, plain)],
        "tokens": [_lists(spoken.lengths, tokens)],
        "crops": [_lists(views.lengths, box)],
        "images": [_lists(views.lengths, each) for each in (of_views, turn, encoder)],
        "by_id": [column(samples, "id")],
        "by_answer": [image, question, answers],
        "by_question": [image, question],
    }
    found = {name: pa.array(hashes(canonical(*columns))) for name, columns in parts.items()}
    found["by_all"] = pa.array(hashes(canonical(*(found[name] for name in PARTS))))
    return pa.table({"name": names, "take": samples["take"], **found}).select(SIGNATURE.names)


def _lists(lengths: np.ndarray, values: pa.Array) -> pa.Array:
    return relist(lengths, values, pa.list_(values.type))


def _parted(content: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Each text without the tokens of looks, and these tokens; each distinct text with a token is looked at once."""
    special = pc.match_substring_regex(content, SPECIAL_TOKEN)
    texts = content.filter(special).dictionary_encode()
    known = texts.dictionary.to_pylist()
    bare = pa.array([re.sub(SPECIAL_TOKEN, "", text) for text in known], pa.string()).take(texts.indices)
    tokens = pa.array(["".join(re.findall(SPECIAL_TOKEN, text)) for text in known], pa.string()).take(texts.indices)
    empty = pa.repeat("", len(content))
    return pc.replace_with_mask(content, special, bare), pc.replace_with_mask(empty, special, tokens)


def _identities(samples: pa.Table) -> pa.Array:
    """Which image each image of all rows is; in no known folder by its name alone, since folders are named at will."""
    named = identities(pc.struct_field(unlist(column(samples, "images")).values, "path"))
    return pc.replace_substring_regex(named, r"^file:(?s:.*)/", "file:")


def _first_image(samples: pa.Table) -> pa.Array:
    listed = unlist(column(samples, "images"))
    return first(listed._replace(values=_identities(samples)))


def _question(row: np.ndarray, role: pa.Array, text: pa.Array, count: int) -> pa.Array:
    """The first question of each row without placeholder, prompt and blanks around it."""
    user = np.flatnonzero(flags(pc.equal(role, "user")))
    rows, at = np.unique(row[user], return_index=True)
    asked = pc.utf8_trim_whitespace(pc.replace_substring(text.take(pa.array(user[at])), IMAGE, ""))
    for prompt in _PROMPTS:
        asked = pc.if_else(pc.ends_with(asked, prompt), pc.utf8_slice_codeunits(asked, 0, -len(prompt)), asked)
    place = np.full(count, -1)
    place[rows] = np.arange(len(rows))
    return pc.utf8_trim_whitespace(asked).take(pa.array(place, mask=place < 0))


def _answers(row: np.ndarray, role: pa.Array, text: pa.Array, count: int) -> pa.Array:
    """What the assistant of each row says, tokens aside: list<string>[N]."""
    said = flags(pc.and_(pc.equal(role, "assistant"), pc.greater(pc.binary_length(text), 0)))
    return _lists(np.bincount(row[said], minlength=count), text.filter(pa.array(said)))
