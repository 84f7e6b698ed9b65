"""Runs compared with each other, on the rows that they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trainer.evaluation.metrics.table import METRICS
from trainer.evaluation.records import groups
from trainer.evaluation.results import Compared, Drawing, mean_value, numbers
from trainer.evaluation.statistics import difference, holm, mean_columns
from vpt_data.errors import UsageError

#: What makes rows of two runs the same question, scored alike.
_SAME: Final = ("id", "question", "answers", "metric")


def run_names(folders: Sequence[Path]) -> dict[str, Path]:
    """A name for each folder of results: its last part, with the parts before it where two have the same.

    >>> list(run_names([Path("/runs/a/own"), Path("/runs/b/own"), Path("/runs/random")]))
    ['a/own', 'b/own', 'random']
    """
    places = {folder.resolve(): folder for folder in folders}
    names = [place.name for place in places]
    return {
        place.name if names.count(place.name) == 1 else _longer(place, list(places)): folder
        for place, folder in places.items()
    }


def _longer(place: Path, places: Sequence[Path]) -> str:
    """As many of its last parts as tell it from the others."""
    count = 2
    while sum(one.parts[-count:] == place.parts[-count:] for one in places) > 1:
        count += 1
    return "/".join(place.parts[-count:])


def against(records: pa.Table, others: Mapping[str, pa.Table], drawing: Drawing) -> dict[str, dict[str, Compared]]:
    """The scores of these records minus those of other runs: name of the run -> split -> the difference.

    Only the rows that both have and score are compared. A row is the same if its id, question, right answers and metric
    are; p is adjusted for all splits of all runs together. Raises UsageError where a run has no row that is the same.
    """
    found = {name: _splits(records, other, drawing, len(others)) for name, other in others.items()}
    for name, splits in found.items():
        if not splits:
            raise UsageError(
                f"--against {name}: no row of this run has the id, question, right answers and metric of a row that is "
                "evaluated now; name the results of the same corpus."
            )
    return adjusted(found)


def adjusted(found: Mapping[str, Mapping[str, Compared]]) -> dict[str, dict[str, Compared]]:
    """The same with p adjusted (Holm) for all of them."""
    tested = [(name, split) for name, splits in found.items() for split, one in splits.items() if one.p is not None]
    p = dict(zip(tested, holm([found[name][split].p or 0.0 for name, split in tested]), strict=True))
    return {
        name: {split: msgspec.structs.replace(one, p_holm=p.get((name, split))) for split, one in splits.items()}
        for name, splits in found.items()
    }


def _splits(records: pa.Table, other: pa.Table, drawing: Drawing, runs: int) -> dict[str, Compared]:
    """Split -> the difference from one of the runs, before p is adjusted; without the splits that share no row."""
    theirs = {row["id"]: row for row in other.select([*_SAME, "score"]).to_pylist()}
    found = {}
    parts = groups(records)
    for name, here in parts.items():
        mine = records.filter(pa.array(here))
        rows = mine.select(list(_SAME)).to_pylist()
        shared = [all(theirs.get(row["id"], {}).get(key) == row[key] for key in _SAME) for row in rows]
        if any(shared):
            both = mine.filter(pa.array(shared))
            other_scores = np.array([theirs[row]["score"] for row in both["id"].to_pylist()], np.float64)
            highest = METRICS[both["metric"][0].as_py()].highest
            ours, images = numbers(both, "score"), both["image"].to_pylist()
            found[name] = compared(ours, other_scores, images, drawing, highest, runs * len(parts))
    return found


def compared(
    ours: npt.NDArray[np.float64],
    other: npt.NDArray[np.float64],
    images: Sequence[str],
    drawing: Drawing,
    highest: float = 1.0,
    tests: int = 1,
) -> Compared:
    """Scores of two runs on the same rows, float64 [N] each, 0 to `highest`, NaN where there is none.

    Only rows with both scores are compared; `tests` is for how many comparisons p is adjusted later (`adjusted`).
    """
    both = ~np.isnan(ours) & ~np.isnan(other)
    ours, other = ours[both], other[both]
    images = [image for image, kept in zip(images, both, strict=True) if kept]
    one = difference(
        mean_columns(ours),
        mean_columns(other),
        images,
        resamples=drawing.resamples,
        seed=drawing.seed,
        bounds=(-highest, highest),
        tests=tests,
    )
    return Compared(
        ours=mean_value(ours, images, drawing, highest),
        theirs=mean_value(other, images, drawing, highest),
        value=one.value if one.rows else None,
        low=one.low,
        high=one.high,
        p=one.p,
        p_holm=None,
        rows=one.rows,
        images=one.images,
    )
