"""Results as tables: the same ones as text on a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from trainer.evaluation.metrics.looks import TRIGGERED
from trainer.evaluation.results import Beside, Compared, Intervened, Results, Split, Value
from vpt_data.report import markdown_table, markdown_text, table

#: p below this, after the adjustment for several tests, is called a difference.
ALPHA: Final = 0.05
_DIFFERENCE: Final = ("difference", "95 %", "p", "adjusted", "found")


class Section(NamedTuple):
    """A table, and one sentence on how to read it.

    name    the same on every page: `answers`
    shares  of the rows whose cells have one, the share of each of the last cells in what the row counts
    """

    name: str
    title: str
    note: str
    head: list[str]
    rows: list[list[str]]
    shares: Sequence[Sequence[float]] = ()


def sections(results: Results) -> Iterator[Section]:
    """The tables that the results have something for."""
    yield Section(
        "answers",
        "Answers",
        "Mean of the metric with its 95 % interval over images; a row without an answer scores 0"
        + (", and one whose crop failed is left out." if results.settings.get("as_published") else "."),
        ["split", "rows", "images", "metric", "score", "95 %", "exact", "unparsed", "answered"],
        [_answers(name, split) for name, split in results.splits.items()]
        + [_average(name, value) for name, value in results.averages.items() if name in _AVERAGED],
    )
    if any("judge" in split.figures for split in results.splits.values()):
        yield _judge(results)
    if results.interventions:
        yield _interventions(results)
    if results.published is not None:
        yield _published(results.published)
    if yes_no := {name: split for name, split in results.splits.items() if "f1" in split.figures}:
        yield _yes_no(yes_no, results.averages)
    if regions := {name: split for name, split in results.splits.items() if split.regions}:
        yield _regions(regions)
        yield _sizes(regions)
    if looks := {name: split for name, split in results.splits.items() if split.triggers}:
        yield _triggers(looks)
    if invalid := [
        [name, cause, f"{count:,}"] for name, s in results.splits.items() for cause, count in s.invalid.items()
    ]:
        note = "Looks that no box or encoder can be made of, by cause; none of them counts as a region."
        yield Section("invalid", "Looks that cannot be used", note, ["split", "cause", "looks"], invalid)
    yield from _faults(results.splits)
    if results.against:
        yield _side_by_side(results)
        yield _against(results.against)


def _answers(name: str, split: Split) -> list[str]:
    figures = split.figures
    metric = split.metric if split.owner else f"{split.metric} (ours)"
    numbers = [_number(figures.get("score")), interval(figures.get("score")), _number(figures.get("exact"))]
    scored = f"{split.rows - split.unscored:,} of " if split.unscored else ""
    counts = [f"{scored}{split.rows:,}", f"{split.images:,}", metric]
    return [name, *counts, *numbers, _number(figures.get("unparsed")), f"{split.answered:,}"]


#: The averages that are means of the metric, and what the report calls them.
_AVERAGED: Final = {"score": "mean of the splits", "pope": "mean of the POPE parts"}


def _average(name: str, value: Value) -> list[str]:
    counts = [f"{value.rows:,}", f"{value.images:,}", "-"]
    return [_AVERAGED[name], *counts, _number(value), interval(value), "-", "-", "-"]


def _judge(results: Results) -> Section:
    rows = [
        [name, f"{split.figures['judge'].rows:,}", _number(split.figures["judge"]), interval(split.figures["judge"]),
         f"{split.judge_faults:,}"]
        for name, split in results.splits.items() if "judge" in split.figures
    ]  # fmt: skip
    if (value := results.averages.get("judge")) is not None:
        rows.append(["mean of the splits", f"{value.rows:,}", _number(value), interval(value), "-"])
    note = "Mean score of the judge; rows for which it gave none are left out and counted."
    return Section("judge", "Judge", note, ["split", "rows", "judge", "95 %", "no score"], rows)


def _published(beside: Beside) -> Section:
    rows = [
        [name, _number(one.ours), interval(one.ours), "-" if one.paper is None else f"{one.paper:.3f}",
         "-" if one.difference is None else f"{one.difference:+.3f}", one.verdict, one.why or "-"]
        for name, one in beside.splits.items()
    ]  # fmt: skip
    note = (
        f"{beside.model} in table {beside.table} of {beside.paper}, and the same figure of this run. "
        "Within, above or below: our interval holds the published value, or is on that side of it. "
        f"About the table: {beside.about}"
    )
    head = ["split", beside.figure, "95 %", "paper", "difference", "verdict", "why not comparable"]
    return Section("published", "Beside a published table", note, head, rows)


def _yes_no(splits: dict[str, Split], averages: dict[str, Value]) -> Section:
    names = ["accuracy", "precision", "recall", "f1", "yes_ratio", "unparsed", "owners_accuracy", "owners_f1"]
    rows = [
        [
            name,
            f"{split.rows:,}",
            *(_number(split.figures.get(figure)) for figure in names),
            interval(split.figures["f1"]),
        ]
        for name, split in splits.items()
    ]
    if (f1 := averages.get("pope_f1")) is not None:
        means = {"accuracy": averages["pope"]} | {name: averages.get(f"pope_{name}") for name in names[1:]}
        rows.append([_AVERAGED["pope"], f"{f1.rows:,}", *map(_number, means.values()), interval(f1)])
    note = "`unparsed` says neither and is wrong. `owners`: as POPE's own program reads the same answers."
    return Section("yes_no", "Yes or no", note, ["split", "rows", *names, "f1 95 %"], rows)


def _regions(splits: dict[str, Split]) -> Section:
    names = ["iou_box", "iogt_box", "iou_cells", "iogt_cells", "iou_box_named", "gold_iou", "best_iou"]
    rows = [
        [name, f"{split.regions['iou_box'].rows:,}", f"{split.regions['iou_box_named'].rows:,}",
         *(_number(split.regions[figure]) for figure in names), interval(split.regions["iou_box"])]
        for name, split in splits.items()
    ]  # fmt: skip
    note = (
        "Against the annotated box and against its cells, over the rows whose turns are known; no region scores 0, "
        "except in `named`. `gold_iou` is what "
        "the right tokens get, `best_iou` what no rectangle of cells can exceed."
    )
    return Section("regions", "Regions", note, ["split", "rows", "named", *names, "iou_box 95 %"], rows)


def _sizes(splits: dict[str, Split]) -> Section:
    names = ["iou_box", "iou_cells", "gold_iou", "best_iou"]
    rows = [
        [name, size, f"{values['iou_box'].rows:,}", *(_number(values[figure]) for figure in names),
         interval(values["iou_box"])]
        for name, split in splits.items() for size, values in split.sizes.items()
    ]  # fmt: skip
    note = "The same by the area of the annotated box, in cells of the grid."
    return Section("sizes", "Regions by size", note, ["split", "size", "rows", *names, "iou_box 95 %"], rows)


def _triggers(splits: dict[str, Split]) -> Section:
    counted = [
        (name, expected, [counts[kind] for kind in TRIGGERED])
        for name, split in splits.items()
        for expected, counts in split.triggers.items()
    ]
    rows = [[name, expected, *(f"{count:,}" for count in counts)] for name, expected, counts in counted]
    rows += [
        [name, "score", *(_number(split.trigger_scores.get(kind)) for kind in TRIGGERED)]
        for name, split in splits.items()
    ]
    note = (
        "Rows by the look that the corpus expects and the one that was asked for, and the mean score of each kind; "
        "without the rows of which only the answer is known."
    )
    shares = [[count / sum(counts) for count in counts] for _, _, counts in counted]
    return Section("looks", "Looks", note, ["split", "expected", *TRIGGERED], rows, shares)


def _faults(splits: dict[str, Split]) -> Iterator[Section]:
    rows = [[name, cause, f"{count:,}"] for name, split in splits.items() for cause, count in split.faults.items()]
    if rows:
        note = "They have no answer and score 0; by cause."
        yield Section("faults", "Rows that could not be asked", note, ["split", "cause", "rows"], rows)


def _interventions(results: Results) -> Section:
    note = (
        "The same model and rows, but it is shown or given something else than it asked for. The difference is the "
        "score then minus the score of the model as it is, paired by row; p is adjusted (Holm) for all lines. "
        "`changed` counts the rows in which something else was given, `of changed` is the difference over them, and "
        "`other answers` the share of them with another answer. `empty` is the share of rows without an answer or with "
        "an empty one: where it is high, a low score says that the model gives no answer, not a wrong one. Where "
        "a look causes the answer, `oracle` is at least as good as the model's own and the other lines are worse."
    )
    head = ["split", "intervention", "rows", "changed", "score", "empty", *_DIFFERENCE, "of changed", "other answers"]
    rows = [line for name, split in results.splits.items() for line in _arms(name, split, results.interventions)]
    return Section("interventions", "Interventions", note, head, rows)


def _arms(name: str, split: Split, arms: dict[str, dict[str, Intervened]]) -> list[list[str]]:
    """The lines of a split; that of the model as it is stands below the best that can be expected."""
    done = {arm: splits[name] for arm, splits in arms.items()}
    rows = [
        [name, arm, f"{one.rows:,}", f"{one.changed:,}", _number(one.score), _number(one.empty),
         *_difference(one.difference), _number(one.of_changed, sign=True), _number(one.other_answers)]
        for arm, one in done.items() if one.difference is not None
    ]  # fmt: skip
    if rows:
        scores = [_number(split.figures.get(figure)) for figure in ("score", "empty")]
        own = [name, "its own", f"{split.rows:,}", "-", *scores, *"-" * 7]
        rows.insert(sum(row[1].endswith("oracle") for row in rows[:1]), own)
    if idle := [arm for arm, one in done.items() if one.difference is None]:
        nothing = [f"{split.rows:,}", "0", *"-" * 6, "changed no row, so there is nothing to compare", "-", "-"]
        rows.append([name, ", ".join(idle), *nothing])
    return rows


def _side_by_side(results: Results) -> Section:
    rows = [
        [name, f"{split.rows:,}", _with_interval(split.figures.get("score"))]
        + [_shared(split, runs.get(name)) for runs in results.against.values()]
        for name, split in results.splits.items()
    ]
    note = (
        "Mean of the metric of this run and of others, each with its 95 % interval; of another run on the rows that "
        "both have, and how many these are where they are not all."
    )
    return Section("runs", "Runs side by side", note, ["split", "rows", "this run", *results.against], rows)


def _shared(split: Split, one: Compared | None) -> str:
    if one is None:
        return "-"
    return _with_interval(one.theirs) + ("" if one.rows == split.rows else f", {one.rows:,} rows")


def _against(runs: dict[str, dict[str, Compared]]) -> Section:
    rows = [
        [name, split, f"{one.rows:,}", f"{one.images:,}", *_difference(one)]
        for name, splits in runs.items() for split, one in splits.items()
    ]  # fmt: skip
    note = (
        "This run minus the other on the same rows; p of a paired test over images, adjusted (Holm) for all lines of "
        "this table."
    )
    head = ["other run", "split", "rows", "images", *_DIFFERENCE]
    return Section("against", "Differences from other runs", note, head, rows)


def _difference(one: Compared | None) -> list[str]:
    """The cells under _DIFFERENCE."""
    if one is None:
        return ["-"] * len(_DIFFERENCE)
    return [_number(one, sign=True), interval(one), _p(one.p), _p(one.p_holm), verdict(one)]


def verdict(one: Compared) -> str:
    """What may be said of a difference: `higher` or `lower` only where the adjusted p is below ALPHA."""
    if one.p_holm is None or one.value is None:
        return "too few images"
    if one.p_holm >= ALPHA:
        return "no difference found"
    return "higher" if one.value > 0 else "lower"


def _number(value: Value | Compared | None, sign: bool = False) -> str:
    if value is None or value.value is None:
        return "-"
    return f"{value.value:{'+' if sign else ''}.3f}"


def interval(value: Value | Compared | None) -> str:
    """The limits of a figure in words; `-` where there are none."""
    return "-" if value is None or value.low is None else f"{value.low:.3f} to {value.high:.3f}"


def _with_interval(value: Value | None) -> str:
    return f"{_number(value)} ({interval(value)})" if interval(value) != "-" else _number(value)


def _p(p: float | None) -> str:
    return "-" if p is None else f"{p:.4f}"


def as_text(results: Results) -> str:
    """The tables for a terminal."""
    return "\n\n".join(f"{part.title}: {part.note}\n{table(part.head, part.rows)}" for part in sections(results))


def as_markdown(results: Results, title: str) -> str:
    """The tables as a page, with what decides whether the figures can be compared with others at its end."""
    parts = [f"# {markdown_text(title)}", ""]
    for part in sections(results):
        rows = [[markdown_text(cell) for cell in row] for row in part.rows]
        parts += [f"## {part.title}", "", part.note, "", markdown_table(part.head, rows), ""]
    parts += [
        "## What these figures depend on",
        "",
        markdown_table(["what", "value"], [[markdown_text(cell) for cell in row] for row in facts(results)]),
        "",
    ]
    return "\n".join(parts)


def facts(results: Results) -> list[list[str]]:
    """What the figures depend on, by name."""
    groups = {
        "corpus": results.corpus,
        "items": results.items,
        "answers": {"sha256": results.answers},
        "settings": results.settings,
        "about": results.about,
        "judge": results.judge or {},
        "versions": results.versions,
        "metric": results.metrics,
    }
    return [[f"{group} {name}", str(value)] for group, entries in groups.items() for name, value in entries.items()]
