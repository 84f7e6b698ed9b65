"""Interventions of an evaluation: which there are to ask, what they need of the answers without one, what came of them.

An arm is one intervention, asked on the same rows and weights as the model as it is.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trainer.evaluation.asking.questions import INTERVENTIONS
from trainer.evaluation.comparing import adjusted, compared
from trainer.evaluation.items import Items
from trainer.evaluation.metrics.table import METRICS
from trainer.evaluation.predictions import Prediction
from trainer.evaluation.records import groups
from trainer.evaluation.results import Compared, Drawing, Intervened, empty, mean_value, numbers
from vpt_data.errors import UsageError

ALL: Final = "all"
#: The look that each kind of intervention changes.
_LOOKS: Final = {"crop": "region", "tokens": "region", "control": "reencode"}
#: These put vectors of other rows in place of a row's own.
_OF_OTHERS: Final = ("control=mean", "control=swap")


def chosen(names: Collection[str], asked: Items, protocol: str) -> list[str]:
    """The arms in the order of INTERVENTIONS; `all` are those that change a look which some row expects."""
    if names and protocol == "direct":
        raise UsageError("--intervene changes looks, and --protocol direct forbids them; choose another protocol.")
    expected = set(asked.texts("expected"))
    found = [
        name for name in INTERVENTIONS if name in names or (ALL in names and _LOOKS[name.partition("=")[0]] in expected)
    ]
    if names and not found:
        raise UsageError("--intervene all: no row expects a look that could be changed; evaluate without it.")
    return found


def touches(arm: str, one: Prediction, gold: Collection[str]) -> bool:
    """Whether an arm may change a row that has answered so by itself; the others need not be asked again.

    gold  ids of rows whose box is known
    """
    what = arm.partition("=")[0]
    if what == "tokens":
        return one.id in gold
    return bool(one.control_norms) if what == "control" else any("<|x_" in turn for turn in one.said)


def of_others(arm: str, asked: Items, own: Sequence[Prediction]) -> dict[str, dict[str, npt.NDArray[np.float32]]]:
    """Id -> encoder -> the control vectors, flat, that an arm puts in place of the row's own; {} for most arms.

    They are those of first calls, of rows of the same split and encoder. For `mean` their mean; for `swap` each row has
    those of another one, with another image unless most rows have the same. So they depend on which rows are asked, and
    not on who shares a batch. A row that is the only one keeps its own.
    """
    if arm not in _OF_OTHERS:
        return {}
    made = sorted(
        (split, kind, image, one.id, values)
        for split, image, one in zip(asked.texts("split"), asked.texts("image"), own, strict=True)
        for kind, values in (one.control_vectors or {}).items()
    )
    found: dict[str, dict[str, npt.NDArray[np.float32]]] = {}
    for (_, kind), group in groupby(made, key=lambda entry: entry[:2]):
        *_, images, ids, values = zip(*group, strict=True)
        if len(ids) < 2:
            continue
        vectors = np.stack([np.frombuffer(one, "<f4").astype(np.float32) for one in values])
        mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
        # Rows of an image stand together: this far away there is another one.
        step = max(Counter(images).values()) % len(ids) or 1
        for place, name in enumerate(ids):
            found.setdefault(name, {})[kind] = mean if arm == "control=mean" else vectors[(place + step) % len(ids)]
    return found


def donors(others: Mapping[str, Mapping[str, npt.NDArray[np.float32]]]) -> str:
    """A hash of the rows whose vectors `of_others` has distributed."""
    return hashlib.sha256(msgspec.json.encode(sorted((name, *kinds) for name, kinds in others.items()))).hexdigest()


def compare(own: pa.Table, arms: Mapping[str, pa.Table], drawing: Drawing) -> dict[str, dict[str, Intervened]]:
    """What arms did: arm -> split -> the records of it against those of the model as it is, of the same rows in order.

    p is adjusted for all arms and splits together.
    """
    parts = {name: pa.array(rows) for name, rows in groups(own).items()}
    tests = len(arms) * len(parts)
    found = {
        arm: {name: _split(own.filter(rows), table.filter(rows), drawing, tests) for name, rows in parts.items()}
        for arm, table in arms.items()
    }
    for field in ("difference", "judge"):
        raw = {
            arm: {name: one for name, split in of_arm.items() if (one := getattr(split, field)) is not None}
            for arm, of_arm in found.items()
        }
        for arm, of_arm in adjusted(raw).items():
            for name, one in of_arm.items():
                found[arm][name] = msgspec.structs.replace(found[arm][name], **{field: one})
    return found


def _split(own: pa.Table, arm: pa.Table, drawing: Drawing, tests: int) -> Intervened:
    changed = numbers(arm, "intervened") > 0
    images, highest = own["image"].to_pylist(), METRICS[own["metric"][0].as_py()].highest

    def difference(column: str, rows: npt.NDArray[np.bool_], highest: float) -> Compared | None:
        ours, theirs = (np.where(rows, numbers(table, column), np.nan) for table in (arm, own))
        # A row without one of the scores has no difference.
        if np.isnan((ours - theirs)[changed]).all():
            return None
        return compared(ours, theirs, images, drawing, highest, tests)

    others = np.array([a != b for a, b in zip(own["answer"].to_pylist(), arm["answer"].to_pylist(), strict=True)])
    every = np.ones_like(changed)
    return Intervened(
        rows=len(changed),
        images=len(set(images)),
        changed=int(changed.sum()),
        score=mean_value(numbers(arm, "score"), images, drawing, highest),
        empty=empty(arm, drawing),
        difference=difference("score", every, highest),
        of_changed=difference("score", changed, highest),
        other_answers=mean_value(np.where(changed, others, np.nan), images, drawing) if changed.any() else None,
        judge=difference("judge", every, 1.0),
    )
