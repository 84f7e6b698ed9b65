"""Which rows a page shows: some by hash, the same for the same corpus, and those that people should look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data import hashing
from vpt_data.columns import Bools, Ints, column, flags
from vpt_data.errors import UsageError

#: The share of the places for rows with the worst problems of the whole corpus; and for rows that are not the same in a
#: second corpus.
PROBLEM_SHARE: Final = 0.1
DIFFERENT_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Choice:
    """What a command asks for.

    rows      how many rows at most
    ids       these rows and no others
    problems  rows with problems only, the worst first
    """

    rows: int = 200
    ids: Sequence[str] = ()
    problems: bool = False


@dataclass(frozen=True, slots=True)
class Chosen:
    """Lines of an index, ascending, and one sentence that says which they are."""

    lines: Ints
    sentence: str


def choose(index: pa.Table, choice: Choice, among: str, differ: Bools | None = None) -> Chosen:
    """Choose rows of an index (`index.INDEX`; of its columns id, severity, problems, repaired, iou and pictured).

    among    what the index holds, as the sentence has it: "rows of the corpus"
    differ   bool[N], the rows that are not the same in the second corpus

    Raises UsageError for an id that is not there.
    """
    if choice.ids:
        return _named(index, choice.ids)
    total = len(index)
    if choice.problems:
        worst = _worst(index, choice.rows)
        found = int(np.count_nonzero(_severity(index)))
        sentence = f"The {len(worst):,} worst of the {found:,} rows with problems, of {total:,} {among}."
        return Chosen(np.sort(worst), sentence)
    if total <= choice.rows:
        return Chosen(np.arange(total), f"All {total:,} {among}.")
    pictured = flags(column(index, "pictured"))
    order = np.lexsort((hashing.hashes(column(index, "id")), ~pictured))
    worst = _worst(index, int(PROBLEM_SHARE * choice.rows))
    changed = np.zeros(0, np.int64)
    if differ is not None:
        changed = order[(differ & ~_in(worst, total))[order]][: int(DIFFERENT_SHARE * choice.rows)]
    taken = _in(np.concatenate([worst, changed]), total)
    others = order[~taken[order]][: choice.rows - int(taken.sum())]
    parts = [f"{len(others):,} by the hash of their id"]
    if pictured.any() and not pictured.all():
        parts[0] += f" (those first whose image is there, {np.count_nonzero(pictured):,} of all)"
    parts += [f"{len(changed):,} that differ"] if len(changed) else []
    parts += [f"the {len(worst):,} with the worst problems"] if len(worst) else []
    listed = ", ".join(parts[:-1]) + f" and {parts[-1]}" if len(parts) > 1 else parts[0]
    sentence = f"{choice.rows:,} of {total:,} {among}: {listed}."
    return Chosen(np.sort(np.concatenate([worst, changed, others])), sentence)


def _in(lines: Ints, total: int) -> Bools:
    found = np.zeros(total, bool)
    found[lines] = True
    return found


def _named(index: pa.Table, ids: Sequence[str]) -> Chosen:
    wanted = pa.array(list(dict.fromkeys(ids)), pa.string())
    found = pc.index_in(wanted, value_set=column(index, "id"))
    if found.null_count:
        first = wanted.filter(found.is_null())[0].as_py()
        raise UsageError(f"No row has the id {first!r}; give ids as the column `id` has them, such as TAKE/KEY.")
    return Chosen(
        np.sort(found.to_numpy().astype(np.int64)), f"{len(wanted):,} row{'' if len(wanted) == 1 else 's'} by id."
    )


def _severity(index: pa.Table) -> Ints:
    values: Ints = column(index, "severity").to_numpy().astype(np.int64)
    return values


def _worst(index: pa.Table, places: int) -> Ints:
    """The lines of rows with problems: the places are shared out evenly over their kinds, the worst rows first.

    So a kind with few rows is not hidden behind one that half of the rows have.
    """
    problems, repaired = (column(index, name).to_numpy().astype(np.uint64) for name in ("problems", "repaired"))
    iou = column(index, "iou").fill_null(1.0).to_numpy()
    # By severity, then by the fit of the cells, then in the order of the corpus.
    order = np.lexsort((np.arange(len(index)), iou, -_severity(index)))
    bits = int(problems.max(initial=0)).bit_length()
    kinds = [(problems >> np.uint64(place)) & np.uint64(1) > 0 for place in range(bits)]
    queues = [queue for kind in (*kinds, repaired > 0) if len(queue := order[kind[order]][:places])]
    chosen: dict[int, None] = {}
    for turn in range(places):
        for queue in queues:
            if turn < len(queue) and len(chosen) < places:
                chosen.setdefault(int(queue[turn]))
    return np.fromiter(chosen, np.int64, len(chosen))
