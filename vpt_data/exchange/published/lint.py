"""Lint files in the published VPT format: JSON rows of `messages`, `images` and a list of images per encoder.

The format hides crops in file names (`path_x1,y1,x2,y2`), and about 6 % of the published region rows hold a
token that does not exist (`<|x_8|>`): both are looked at here. Memory is bounded: rows come chunk by chunk.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data.columns import Bools, Ints, flags, numbers
from vpt_data.dialogue.templates import TEMPLATES
from vpt_data.dialogue.tokens import SPECIAL_TOKEN, grid, placeholders
from vpt_data.dialogue.tokens.grid import RegionFault, decode
from vpt_data.dialogue.tokens.reencode import ENCODERS, ActionFault, decode_action, token_pattern
from vpt_data.errors import CorpusError
from vpt_data.exchange.published.crops import contradictions
from vpt_data.report import Broken, CheckResult, Findings
from vpt_data.sources.reading.json_records import Records, read_records
from vpt_data.store import AnyPath
from vpt_data.upstream.rawfile import RawFile

K: Final = 8
#: The template that writes the prompt of each kind of look.
_ASKING: Final = {"region": "region", "action": "reencode"}


def image_lists() -> dict[str, str]:
    """The list of a row that holds the images shown through each encoder; `vlm` is the model's own."""
    return {"vlm": "images", **{name: entry.images_column for name, entry in ENCODERS.items()}}


def row_keys() -> set[str]:
    """The keys of a row."""
    return {"messages", *image_lists().values()}


def rules() -> dict[str, str]:
    """What must hold, by the name of each rule."""
    return {
        "malformed": "every record is an object with messages (role, content) and lists of paths",
        "keys": f"a row has the keys {', '.join(sorted(row_keys()))} and no other",
        "roles": "messages of user and assistant alternate, an assistant last",
        **{
            f"placeholders_{name}": f"as many {placeholders()[encoder]} stand in the messages as {name} has"
            for encoder, name in image_lists().items()
        },
        "extra_lists": f"at most one of {', '.join(entry.images_column for entry in ENCODERS.values())} is filled",
        "region_index_x": f"column indices of region tokens are 0..{K - 1}: others are no tokens",
        "region_index_y": f"row indices of region tokens are 0..{K - 1}: others are no tokens",
        **{f"region_{fault}": "region tokens are start, x, y, x, y, end, near before far" for fault in RegionFault},
        **{f"action_{fault}": "an action is start, control token, end, of one encoder" for fault in ActionFault},
        "action_control_tokens": "an action has one control token",
        "action_list": "the list of images of the encoder that an action calls is filled",
        "action_turns": "a row with an action has four turns",
        "region_crops": "there is one crop for each group of region tokens",
        "crop_suffix": "a crop reads back as PATH_x1,y1,x2,y2, and a path without one is not taken for a crop",
        "crop_box": "a crop has 0 <= x1 < x2 and 0 <= y1 < y2",
        "crop_cells": "a crop shows the cells that its tokens name, on an image of some size",
        "special_text": "no token of the form <|...|> stands in user turns",
    }


_INDEX: Final = re.compile(r"<\|([xy])_(-?[0-9]+)\|>")
#: What a writer meant as a crop: four numbers at the very end.
_CROP: Final = r"_(-?[0-9.]+),(-?[0-9.]+),(-?[0-9.]+),(-?[0-9.]+)$"
_CORNERS: Final = ("x1", "y1", "x2", "y2")
_INTEGERS: Final = "_" + ",".join(rf"(?P<{name}>-?\d{{1,9}})" for name in _CORNERS) + "$"


class Message(msgspec.Struct, gc=False):
    """One message of a published row."""

    role: str
    content: str


#: A row whose values have the right types: `messages`, and a list for each of `image_lists`.
_Row: TypeAlias = Any


def row_type() -> type[msgspec.Struct]:
    """The type of a row whose values have the right types; keys that it does not know are passed over."""
    lists: list[tuple[str, Any, Any]] = [
        (name, list[str], msgspec.field(default_factory=list)) for name in image_lists().values()
    ]
    return msgspec.defstruct("Row", [("messages", list[Message]), *lists], gc=False)


#: How files that can be linted are called.
SUFFIXES: Final = (".json", ".jsonl", ".json.gz", ".jsonl.gz")


def lint(path: AnyPath) -> CheckResult:
    """Check every row of a published file (one JSON array or JSON lines, plain or .gz).

    Raises CorpusError for what is no such file by its name, RawError for a file that is empty or neither.
    """
    linter = linted(path)
    return CheckResult(str(path), "published", linter.rows, linter.findings.findings(), rules(), linter.counts())


def linted(path: AnyPath) -> Linter:
    """What `lint` finds, with the rows that break each rule; raises the same."""
    linter = Linter(path.name)
    for part in read_records(RawFile(published_file(path), path.name), dict[str, Any]):
        linter.add(part)
    return linter


def published_file(path: AnyPath) -> AnyPath:
    """The path itself; CorpusError for what is no published file by its name."""
    if not (path.is_file() and path.name.endswith(SUFFIXES)):
        found = "a file of another kind" if path.exists() else "there is no such file or folder"
        expected = f"expected a corpus folder or a published VPT file ({SUFFIXES[0]}, {SUFFIXES[1]}, also .gz)"
        raise CorpusError(f"{path}: {found}; {expected}.")
    return path


@dataclass(frozen=True, slots=True)
class _Texts:
    """The messages of some rows: `text[m]` is the `place[m]`-th of row `row[m]`; `lengths` count them."""

    row: Ints
    place: Ints
    lengths: Ints
    user: Bools
    assistant: Bools
    text: pa.Array


class _Groups(NamedTuple):
    """Groups of region tokens: how many each row has, and the cells [G, 4] of the sound ones, row by row in order."""

    counts: Ints
    row: Ints
    cells: Ints


class Linter:
    """Adds up what is found; rows are named by their 0-based number in the file.

    broken   the rows that break each rule, in parts
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self.findings = Findings(rules())
        self.rows = 0
        self.broken: dict[str, list[Ints]] = {}
        self._row = row_type()
        self._kinds: Counter[str] = Counter()
        self._prompts: Counter[str] = Counter()

    def counts(self) -> dict[str, dict[str, int]]:
        """What is counted for information."""
        groups = {"kinds of rows": self._kinds, "prompts": self._prompts}
        return {name: dict(sorted((+counts).items())) for name, counts in groups.items()}

    def add(self, part: Records) -> None:
        """Check the records of one chunk."""
        self.rows += len(part.values) + len(part.bad)
        for drop in part.bad:
            self._found("malformed", [drop.row], drop.detail)
        self._keys(part)
        values, number = self._typed(part)
        if not values:
            return
        texts = _texts(values)
        kinds = {name: np.zeros(len(values), np.bool_) for name in ("region", *ENCODERS)}
        self._roles(texts, number)
        self._lists(values, texts, number)
        groups = self._regions(texts, number, kinds["region"])
        self._actions(values, texts, number, kinds)
        self._crops(values, number, groups)
        special = texts.user & flags(pc.match_substring_regex(texts.text, SPECIAL_TOKEN))
        self._found("special_text", number[texts.row[special]])
        self._count(values, texts, kinds)

    def _found(self, rule: str, rows: Iterable[int] | Ints, detail: str = "") -> None:
        bad = np.unique(np.asarray(list(rows), np.int64))
        if len(bad):
            example = f"row {bad[0]}: {detail}" if detail else f"row {bad[0]}"
            self.findings.add(self._where, Broken(rule, len(bad), example))
            self.broken.setdefault(rule, []).append(bad)

    def _keys(self, part: Records) -> None:
        wrong: dict[str, list[int]] = {}
        due = row_keys()
        for value, row in zip(part.values, part.row.tolist(), strict=True):
            if value.keys() != due:
                found = [f"no {key}" for key in sorted(due - value.keys())]
                found += [f"unknown {key}" for key in sorted(value.keys() - due)]
                wrong.setdefault(", ".join(found), []).append(row)
        for detail, rows in wrong.items():
            self._found("keys", rows, detail)

    def _typed(self, part: Records) -> tuple[list[_Row], Ints]:
        """The rows whose values have the right types, with their numbers."""
        try:
            rows: list[_Row] = msgspec.convert(part.values, list[self._row])  # type: ignore[name-defined]
            return rows, part.row
        except msgspec.ValidationError:
            pass  # some row is at fault; find out which
        good: list[_Row] = []
        numbers_of: list[int] = []
        for value, row in zip(part.values, part.row.tolist(), strict=True):
            try:
                good.append(msgspec.convert(value, self._row))
                numbers_of.append(row)
            except msgspec.ValidationError as error:
                self._found("malformed", [row], str(error))
        return good, np.asarray(numbers_of, np.int64)

    def _roles(self, texts: _Texts, number: Ints) -> None:
        due = np.where(texts.place % 2 == 0, texts.user, texts.assistant)
        odd = np.flatnonzero((texts.lengths % 2 == 1) | (texts.lengths == 0))
        self._found("roles", number[np.concatenate([texts.row[~due], odd])])

    def _lists(self, values: list[_Row], texts: _Texts, number: Ints) -> None:
        filled = np.zeros(len(values), np.int64)
        for encoder, name in image_lists().items():
            lengths = _lengths(values, name)
            words = numbers(pc.count_substring(texts.text, placeholders()[encoder]), 0)
            shown = np.bincount(texts.row, weights=words, minlength=len(values)).astype(np.int64)
            bad = np.flatnonzero(shown != lengths)
            detail = f"{shown[bad[0]]} in the messages, {lengths[bad[0]]} in the list" if len(bad) else ""
            self._found(f"placeholders_{name}", number[bad], detail)
            filled += (lengths > 0) & (encoder in ENCODERS)
        self._found("extra_lists", number[filled > 1])

    def _regions(self, texts: _Texts, number: Ints, region: Bools) -> _Groups:
        """Check region tokens, and take down what they name. Each distinct text is decoded once."""
        counts = np.zeros(len(number), np.int64)
        at, cells = [np.zeros(0, np.int64)], [np.zeros((0, 4), np.int64)]
        for text, messages in _distinct(texts, texts.assistant, grid.TOKEN):
            rows, spoken = texts.row[messages], decode(text, K)
            region[rows] = True
            np.add.at(counts, rows, max(1, text.count(grid.START)))
            at.append(np.repeat(messages, len(spoken.cells)))
            cells.append(np.tile(np.array(spoken.cells, np.int64).reshape(-1, 4), (len(messages), 1)))
            for axis in sorted({axis for axis, index in _INDEX.findall(text) if not _on_grid(index)}):
                self._found(f"region_index_{axis}", number[rows], text)
            for fault in spoken.faults:
                if fault != RegionFault.INDEX_OUT_OF_RANGE:  # reported by axis above
                    self._found(f"region_{fault}", number[rows], text)
        order = np.argsort(np.concatenate(at), kind="stable")
        return _Groups(counts, texts.row[np.concatenate(at)[order]], np.concatenate(cells)[order])

    def _actions(self, values: list[_Row], texts: _Texts, number: Ints, kinds: dict[str, Bools]) -> None:
        acting = np.zeros(len(values), bool)
        for text, messages in _distinct(texts, texts.assistant, token_pattern()):
            rows = texts.row[messages]
            acting[rows] = True
            for call in decode_action(text):
                kinds[call.encoder][rows] = True
                if call.fault:
                    self._found(f"action_{call.fault}", number[rows], text)
                elif call.control_tokens != 1:
                    self._found("action_control_tokens", number[rows], text)
        for encoder, entry in ENCODERS.items():
            called = [row for row in np.flatnonzero(kinds[encoder]) if not getattr(values[row], entry.images_column)]
            self._found("action_list", [int(number[row]) for row in called])
        self._found("action_turns", number[acting & (texts.lengths != 4)])

    def _crops(self, values: list[_Row], number: Ints, groups: _Groups) -> None:
        lengths = _lengths(values, "images")
        row = np.repeat(np.arange(len(values)), lengths)
        paths = pa.array([path for value in values for path in value.images], pa.string())
        meant = flags(pc.match_substring_regex(paths, _CROP))
        # The published loader looks for `_` behind the last dot and takes what follows it for four integers.
        tail = pc.replace_substring_regex(paths, r"^(?s:.*)\.", "")
        taken = flags(pc.match_substring(tail, "_"))
        found = pc.extract_regex(tail, _INTEGERS)
        parsed = taken & flags(found.is_valid())
        self._paths("crop_suffix", (meant | taken) & ~parsed, paths, number[row])
        corners = np.stack([numbers(pc.struct_field(found, name).cast(pa.int64()), 0) for name in _CORNERS])
        wrong = (corners[:2] < 0).any(axis=0) | (corners[:2] >= corners[2:]).any(axis=0)
        self._paths("crop_box", parsed & wrong, paths, number[row])
        crops = np.bincount(row[meant], minlength=len(values))
        bad = np.flatnonzero(crops != groups.counts)
        detail = f"{groups.counts[bad[0]]} groups, {crops[bad[0]]} crops" if len(bad) else ""
        self._found("region_crops", number[bad], detail)
        # Only rows where every group is sound and has its crop can be laid side by side, group by crop.
        sound = (np.bincount(groups.row, minlength=len(values)) == crops) & (crops == groups.counts)
        sound[row[meant & (~parsed | wrong)]] = False
        shown = np.flatnonzero(meant & sound[row])
        some = paths.take(pa.array(shown))
        image = pc.replace_substring_regex(some, _CROP, "")
        cells = groups.cells[sound[groups.row]]
        differ = contradictions(row[shown], image, cells, corners.T[shown], K)
        self._paths("crop_cells", differ, some, number[row[shown]])

    def _paths(self, rule: str, bad: Bools, paths: pa.Array, number: Ints) -> None:
        if bad.any():
            self._found(rule, number[bad], paths[int(bad.argmax())].as_py())

    def _count(self, values: list[_Row], texts: _Texts, kinds: dict[str, Bools]) -> None:
        """Count kinds of rows, and whether their question asks for the look."""
        held = np.stack(list(kinds.values()), axis=1)
        for code, count in enumerate(np.bincount(held @ (1 << np.arange(len(kinds)))).tolist()):
            names = [name for place, name in enumerate(kinds) if code >> place & 1]
            if names:
                self._kinds["+".join(names)] += count
        extra = np.stack([_lengths(values, entry.images_column) > 0 for entry in ENCODERS.values()]).any(axis=0)
        plain, alignment = ~held.any(axis=1), extra & (_lengths(values, "images") == 0)
        self._kinds["alignment"] += int((plain & alignment).sum())
        self._kinds["plain"] += int((plain & ~alignment).sum())
        first = np.flatnonzero(texts.place == 0)
        text, row = texts.text.take(pa.array(first)), texts.row[first]
        looks: dict[str, Bools] = {"region": held[:, 0], "action": np.any(held[:, 1:], axis=1)}
        for name, template in _ASKING.items():
            mine, sentence = looks[name][row], TEMPLATES[template].prompt
            ends, holds = flags(pc.ends_with(text, sentence)), flags(pc.match_substring(text, sentence))
            self._prompts[f"{name} prompted"] += int((mine & ends).sum())
            self._prompts[f"{name} free"] += int((mine & ~holds).sum())
            self._prompts[f"{name} prompt elsewhere"] += int((mine & holds & ~ends).sum())


def _lengths(values: list[_Row], name: str) -> Ints:
    return np.fromiter((len(getattr(value, name)) for value in values), np.int64, len(values))


def _texts(values: list[_Row]) -> _Texts:
    lengths = _lengths(values, "messages")
    row = np.repeat(np.arange(len(values)), lengths)
    place = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    role = pa.array([message.role for value in values for message in value.messages], pa.string())
    text = pa.array([message.content for value in values for message in value.messages], pa.string())
    return _Texts(row, place, lengths, flags(pc.equal(role, "user")), flags(pc.equal(role, "assistant")), text)


def _distinct(texts: _Texts, among: Bools, pattern: str) -> Iterable[tuple[str, Ints]]:
    """Each distinct text of these messages in which the pattern occurs, with the messages that hold it."""
    where = np.flatnonzero(among & flags(pc.match_substring_regex(texts.text, pattern)))
    encoded = texts.text.take(pa.array(where)).dictionary_encode()
    which = numbers(encoded.indices, 0)
    order = np.argsort(which, kind="stable")
    messages = np.split(where[order], np.cumsum(np.bincount(which))[:-1]) if len(which) else []
    return zip(encoded.dictionary.to_pylist(), messages, strict=True)


def _on_grid(index: str) -> bool:
    return len(index) == 1 and "0" <= index < str(K)
