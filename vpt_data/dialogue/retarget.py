"""Finished samples -> the same samples for another encoder, or prompted instead of free choice and back.

Only what a template wrote is touched: a turn that is an action call and nothing else, a turn that is a
placeholder and nothing else, the placeholder of an alignment row, the prompt at the very end of a question.
Free text never.
"""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data.columns import ASSISTANT, ROLES, SYSTEM, USER, Bools, Ints, column, flags, relist, replaced, unlist
from vpt_data.dialogue.templates import TEMPLATES
from vpt_data.dialogue.tokens.reencode import ENCODERS, Encoder, encoder_named
from vpt_data.errors import CorpusError
from vpt_data.schema import SAMPLE


def retarget(
    samples: pa.Table,
    encoder: str | None = None,
    prompted: bool | None = None,
    conversations: frozenset[str] = frozenset(),
) -> pa.Table:
    """Samples for `encoder` (None: as they are), with or without prompt sentences (None: as they are).

    `conversations` names the sources whose questions are turns of conversations: no blank precedes their
    prompt. Ids, order and every other column stay. Raises CorpusError where the question of a prompted row
    does not end with its prompt.
    """
    if encoder is not None:
        samples = _for_encoder(samples, encoder_named(encoder))
    if prompted is not None:
        samples = _prompted(samples, prompted, conversations)
    return samples


def _for_encoder(samples: pa.Table, wanted: Encoder) -> pa.Table:
    spoken = unlist(column(samples, "messages"))
    role, text = (pc.struct_field(spoken.values, name) for name in ("role", "content"))
    user, assistant = pc.equal(role, ROLES[USER]), pc.equal(role, ROLES[ASSISTANT])
    through = [name for name, template in TEMPLATES.items() if template.first_encoder]
    first_encoder = flags(pc.is_in(column(samples, "template"), pa.array(through, pa.string())))[spoken.rows]
    input_turn = pc.and_(pa.array(first_encoder), user)
    for other in ENCODERS.values():
        if other != wanted:
            call = pc.and_(pc.match_substring_regex(text, _call_pattern(other)), assistant)
            text = _replace(text, call, f"{other.stem}_action", f"{wanted.stem}_action")
            shown = pc.and_(pc.or_(pc.equal(text, other.placeholder), input_turn), user)
            text = _replace(text, shown, other.placeholder, wanted.placeholder)
    seen = unlist(column(samples, "views"))
    view = {field.name: pc.struct_field(seen.values, field.name) for field in seen.values.type}
    view["encoder"] = _renamed(view["encoder"], wanted.name)
    looks = unlist(column(samples, "looks"))
    samples = replaced(samples, "messages", spoken, [role, text])
    samples = replaced(samples, "views", seen, list(view.values()))
    at = samples.schema.get_field_index("looks")
    names = relist(looks.lengths, _renamed(looks.values, wanted.name), SAMPLE.field("looks").type)
    return samples.set_column(at, samples.schema.field(at), names)


def _call_pattern(encoder: Encoder) -> str:
    start, control, end = (re.escape(token) for token in (encoder.start, encoder.control, encoder.end))
    return f"^{start}(?:{control})+{end}$"


def _replace(text: pa.Array, where: pa.Array, old: str, new: str) -> pa.Array:
    if not pc.any(where).as_py():
        return text
    return pc.replace_with_mask(text, where, pc.replace_substring(text.filter(where), old, new))


def _renamed(names: pa.Array, wanted: str) -> pa.Array:
    return pc.if_else(pc.is_in(names, pa.array(list(ENCODERS))), wanted, names)


def _prompted(samples: pa.Table, prompted: bool, conversations: frozenset[str]) -> pa.Table:
    """Rows that look twice get or lose the sentence at the end of their first question."""
    template = column(samples, "template")
    looks = np.asarray(unlist(column(samples, "looks")).lengths > 0)
    changed = looks & (flags(column(samples, "prompted")) != prompted)
    talk = flags(pc.is_in(column(samples, "source"), pa.array(sorted(conversations), pa.string())))
    spoken = unlist(column(samples, "messages"))
    role, text = (pc.struct_field(spoken.values, name) for name in ("role", "content"))
    for name in (name for name, entry in TEMPLATES.items() if entry.prompt):
        for conversation in (False, True):
            rows = np.flatnonzero(changed & flags(pc.equal(template, name)) & (talk == conversation))
            if len(rows):
                led = flags(pc.equal(role.take(pa.array(spoken.starts[rows])), ROLES[SYSTEM]))
                asked = spoken.starts[rows] + led
                text = _with_tail(samples, text, rows, asked, TEMPLATES[name].tail(conversation), prompted)
    states = pc.if_else(pa.array(changed), prompted, column(samples, "prompted"))
    at = samples.schema.get_field_index("prompted")
    samples = samples.set_column(at, samples.schema.field(at), states)
    return replaced(samples, "messages", spoken, [role, text])


def _with_tail(samples: pa.Table, text: pa.Array, rows: Ints, asked: Ints, tail: str, wanted: bool) -> pa.Array:
    """`text` with `tail` put behind, or taken off, the values at `asked`: the questions of samples `rows`."""
    before = text.take(pa.array(asked))
    if wanted:
        after = pc.binary_join_element_wise(before, tail, "")
    else:
        ends = flags(pc.ends_with(before, tail))
        if not ends.all():
            name = column(samples, "id")[int(rows[np.argmin(ends)])].as_py()
            raise CorpusError(
                f"Sample {name}: marked as prompted, but its question does not end with {tail!r}; "
                "build the corpus again, or name its source among the conversations."
            )
        after = pc.utf8_slice_codeunits(before, 0, -len(tail))
    mask: Bools = np.zeros(len(text), np.bool_)
    mask[asked] = True
    return pc.replace_with_mask(text, pa.array(mask), after)
