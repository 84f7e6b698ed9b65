"""Annotations -> samples, for every template in the same way.

`render` is a pure function of an ANNOTATION table and a `RenderRule` (a take with nothing left to look up): columns
in, columns out, no file is opened. Pass 1 asks the same questions beforehand through `regions.inspect_regions` (is a
region left, what was repaired) and `inspect_text` (whose text holds words that only a template may say), so that
each rule exists once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data.columns import (
    ASSISTANT,
    SYSTEM,
    USER,
    Bools,
    Ints,
    Messages,
    Views,
    column,
    first,
    messages,
    relist,
    repeated,
    structs,
    unlist,
    views,
)
from vpt_data.dialogue import ask, conversations
from vpt_data.dialogue.looks.look import Look
from vpt_data.dialogue.prompts import FORMAT_SUFFIXES
from vpt_data.dialogue.regions import RegionState, inspect_regions
from vpt_data.dialogue.rule import RenderRule
from vpt_data.dialogue.templates import WITHOUT_LOOK
from vpt_data.dialogue.tokens import neutralise, placeholders
from vpt_data.errors import UsageError
from vpt_data.schema import SAMPLE, RegionStatus, sample_ids


def inspect_text(annotations: pa.Table) -> Bools:
    """Rows [N] in whose text `render` neutralises something: a literal placeholder or `<|...|>` token.

    Looked at: all turns of a conversation, else question and target answer. The one `<image>` with which the
    first question of a conversation starts or ends is meant, if the record has an image.
    """
    talk = conversations.take_apart(annotations)
    answer = first(unlist(column(annotations, "answers")))
    hit: Bools = neutralise(column(annotations, "question"))[1] | neutralise(answer)[1]
    hit[talk.row] = neutralise(talk.body)[1]
    later = np.ones(len(talk.content), np.bool_)
    later[talk.at] = False
    hit[talk.turns.rows[later][neutralise(talk.content.filter(pa.array(later)))[1]]] = True
    return hit


class _Asked(NamedTuple):
    """Who says what, for N records: `user` and `answer` are neutralised, `question` and `answers` as given.

    shown   int64 [N], how many placeholders `user` holds
    before, after   the system turns of whole conversations and the turns behind the first question
    """

    user: pa.Array
    answer: pa.Array
    question: pa.Array
    answers: pa.Array
    shown: Ints
    before: Messages | None = None
    after: Messages | None = None


def _from_questions(annotations: pa.Table, rule: RenderRule) -> _Asked:
    question, answers = column(annotations, "question"), column(annotations, "answers")
    said = rule.form.says(annotations, rule) if rule.form.says else None
    if said is not None:
        question = said.question
    body = pc.fill_null(question, "")
    last = rule.ask is not None and rule.ask.endswith(ask.IMAGE_LAST)
    if rule.ask is not None:
        text = rule.ask.removesuffix(ask.IMAGE_LAST).rstrip()
        labels = ask.labels_of(annotations) if ask.uses_labels(text) else pa.repeat("", len(question))
        body, question = ask.asked(text, body, labels), ask.asked(text, question, labels)
    body = neutralise(body)[0]
    shown = conversations.image_counts(annotations)
    images = repeated("\n" + _marker(rule) if last else _marker(rule) + "\n", shown)
    user = pc.binary_join_element_wise(*((body, images) if last else (images, body)), "")
    answer = said.answer if said is not None else neutralise(pc.fill_null(first(unlist(answers)), ""))[0]
    return _Asked(user, answer, question, answers, shown)


def _marker(rule: RenderRule) -> str:
    """The placeholder in the first question: alignment trains an encoder's projector on its picture alone."""
    return placeholders()[rule.first_encoder]


def _from_talks(annotations: pa.Table, rule: RenderRule, turn: npt.NDArray[np.int32] | None) -> _Asked:
    talk = conversations.take_apart(annotations)
    every = np.arange(annotations.num_rows)
    pair = np.zeros(len(every), np.int64) if turn is None else np.maximum(turn, 0).astype(np.int64)
    conversations.check(annotations, talk, rule.take, pair)
    shown = np.minimum(conversations.image_counts(annotations), 1)
    user = conversations.first_questions(talk, shown > 0, _marker(rule))
    later = pa.array(pair > 0)
    asked_at = pa.array(talk.at + 2 * pair)
    if pc.any(later).as_py():
        split = conversations.later_questions(talk, asked_at, shown, _marker(rule), FORMAT_SUFFIXES)
        user = pc.if_else(later, split, user)
    question = pc.if_else(later, talk.content.take(asked_at), pc.utf8_trim(talk.body, "\n"))
    answer = talk.content.take(pa.array(talk.at + 2 * pair + 1))
    listed = column(annotations, "answers")
    as_given = pc.and_not(pc.greater(pc.fill_null(pc.list_value_length(listed), 0), 0), later)
    answers = pc.if_else(as_given, listed, relist(np.ones_like(every), answer, listed.type))
    before = None
    led = np.flatnonzero(talk.at > talk.turns.starts)
    if len(led):
        before = Messages(led, SYSTEM, neutralise(talk.content.take(pa.array(talk.at[led] - 1)))[0])
    after = conversations.later_turns(talk) if rule.whole else None
    return _Asked(user, neutralise(answer)[0], question, answers, shown, before, after)


def _look(annotations: pa.Table, rule: RenderRule) -> Look | None:
    needs_image = rule.form.needs_image and rule.expected is None and not rule.form.needs_region
    blind = np.flatnonzero(conversations.image_counts(annotations) == 0) if needs_image else ()
    if len(blind):
        raise UsageError(
            f"Take {rule.take}: {len(blind)} records have no image, but template {rule.template} needs one; "
            f'take them with template = "{WITHOUT_LOOK}", or leave them out by `dataset` or `forms`.'
        )
    if rule.form.look is None or not rule.looks_again:
        return None
    return rule.form.look(annotations, rule)


def render(annotations: pa.Table, rule: RenderRule, turn: npt.NDArray[np.int32] | None = None) -> pa.Table:
    """Dialogues for N selected annotations: a table with the columns of SAMPLE, rows in the same order.

    `turn` int32 [N] says which question of its conversation a row is (0, 1, ...; below 0 or None: the row is
    not part of a split). Image bytes and what is known of image files stay null: a later stage joins them.
    Every row must be eligible: `RegionState.OK` where the rule needs a region.

    Raises RawError if a conversation does not alternate or lacks the turn, UsageError if an encoder would
    have no image to look at.
    """
    if rule.source_conversations:
        asked = _from_talks(annotations, rule, turn)
    else:
        asked = _from_questions(annotations, rule)
    every = np.arange(annotations.num_rows)
    system = [] if asked.before is None else [asked.before]
    if rule.system is not None:
        system = [Messages(every, SYSTEM, pa.repeat(rule.system, len(every)))]
    shift = np.zeros(len(every), np.int64)
    for part in system:
        shift[part.rows] = 1
    look = _look(annotations, rule)
    user = asked.user
    if look and rule.prompted:
        user = pc.binary_join_element_wise(user, rule.form.tail(rule.source_conversations), "")
    spoken = [*system, Messages(every, USER, user)]
    if look:
        spoken += [Messages(every, ASSISTANT, look.call), Messages(every, USER, look.shown)]
    spoken.append(asked.after or Messages(every, ASSISTANT, asked.answer))
    rows = np.repeat(every, asked.shown)
    nth = np.arange(len(rows)) - np.repeat(np.cumsum(asked.shown) - asked.shown, asked.shown)
    shown = [Views(rows, shift[rows], nth, rule.first_encoder)]
    if look:
        shown.append(look.view._replace(turn=look.view.turn + shift[look.view.rows] + 2))
    columns = {
        "messages": messages(spoken, len(every)),
        "views": views(shown, len(every)),
        "looks": _kinds_of_looks(look, rule, len(every)),
    }
    return _samples(annotations, rule, turn, asked, columns)


def _kinds_of_looks(look: Look | None, rule: RenderRule, count: int) -> pa.Array:
    rows = look.view.rows if look else np.zeros(0, np.int64)
    kind = rule.encoder if rule.form.calls_encoder else "region"
    return relist(np.bincount(rows, minlength=count), pa.repeat(kind, len(rows)), SAMPLE.field("looks").type)


def _samples(
    annotations: pa.Table,
    rule: RenderRule,
    turn: npt.NDArray[np.int32] | None,
    asked: _Asked,
    dialogues: dict[str, pa.Array],
) -> pa.Table:
    count = annotations.num_rows
    control_arm = rule.form.calls_encoder and not rule.control_tokens
    same: dict[str, object] = {
        "take": rule.take,
        "split": rule.split,
        "task": rule.task,
        "template": WITHOUT_LOOK if control_arm else rule.template,
        "expected": rule.expected,
        "prompted": rule.prompted and rule.looks_again,
        "k": rule.k,
        "crop_margin_cells": rule.crop_margin_cells,
        "license": rule.license,
        "language": rule.language,
        "weight": rule.weight,
    }
    columns = {name: column(annotations, name) for name in SAMPLE.names if name in annotations.column_names}
    columns |= {name: _constant(value, SAMPLE.field(name).type, count) for name, value in same.items()}
    columns |= {"question": asked.question, "answers": asked.answers}
    if rule.expected is not None:
        columns["region_status"] = _evaluation_status(annotations)
    ids = sample_ids(rule.take, column(annotations, "key"), turn)
    columns |= {"id": ids, **_image_columns(annotations), **dialogues}
    return pa.Table.from_arrays([columns[name] for name in SAMPLE.names], schema=SAMPLE)


def _evaluation_status(annotations: pa.Table) -> pa.Array:
    """`region_status` of rows that stay even if their boxes are of no use: an IoU is for `given` ones alone."""
    given, found = column(annotations, "region_status"), inspect_regions(annotations)[1]
    unusable = (found == RegionState.OUTSIDE) | (found == RegionState.NO_SIZE)
    return pc.if_else(pa.array(unusable), RegionStatus.UNUSABLE.value, given)


def _constant(value: object, kind: pa.DataType, count: int) -> pa.Array:
    return pa.array([value], kind).take(pa.array(np.zeros(count, np.int64)))


def _image_columns(annotations: pa.Table) -> dict[str, pa.Array]:
    """`images` and `image_info` with what an annotation knows of them; the rest is null."""
    listed = unlist(column(annotations, "images"))
    path, width, height = (pc.struct_field(listed.values, name) for name in ("path", "width", "height"))
    blank = pa.nulls(len(path), pa.string())
    image, info = SAMPLE.field("images").type, SAMPLE.field("image_info").type
    files = structs(image.value_type, [blank.cast(pa.binary()), path])
    facts = structs(info.value_type, [width, height, blank, blank, blank])
    return {"images": relist(listed.lengths, files, image), "image_info": relist(listed.lengths, facts, info)}
