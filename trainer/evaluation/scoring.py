"""From records to results: the verdicts of a judge, and the figures with all that they depend on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import msgspec
import pyarrow as pa

from trainer.evaluation import comparing, records, results
from trainer.evaluation.items import Items
from trainer.evaluation.judge.agreement import agreement, sample
from trainer.evaluation.judge.cache import Replies
from trainer.evaluation.judge.panel import OFFLINE, Item, Verdict, offline
from trainer.evaluation.judge.panel import judge as panel
from trainer.evaluation.judge.prompt import PROMPT_ID
from trainer.evaluation.judge.server import judge_named
from trainer.evaluation.metrics.table import METRICS
from trainer.evaluation.results import Drawing, Results
from vpt_data import store
from vpt_data.cli.output import Bar
from vpt_data.corpus.reader import Corpus


def judged(
    table: pa.Table,
    model: str,
    second: str | None,
    as_published: bool,
    workers: int,
    questions: Mapping[str, str] | None = None,
) -> tuple[pa.Table, dict[str, Any]]:
    """The records with the verdicts of a judge, and what results.json says of it; `questions` as in `to_judge`."""
    rows, shown = records.to_judge(table, questions)
    verdicts = _verdicts(shown, model, as_published, workers)
    about: dict[str, Any] = {"model": model, "prompt": PROMPT_ID, "as_published": as_published}
    if second is not None:
        ids = table["id"].to_pylist()
        places = sample([ids[row] for row in rows])
        others = _verdicts([shown[place] for place in places], second, as_published, workers)
        agreed = agreement([verdicts[place] for place in places], others)
        about |= {"second": second, "agreement": msgspec.to_builtins(agreed)}
    return records.judged(table, rows, verdicts), about


def _verdicts(shown: Sequence[Item], model: str, as_published: bool, workers: int) -> list[Verdict]:
    if model == OFFLINE:
        return offline(shown)
    cache = Replies(store.cache() / "judge.sqlite")
    with closing(cache), closing(judge_named(model)) as endpoint, Bar(f"judged by {model}") as bar:
        return panel(shown, endpoint, cache, workers, as_published, bar)


def summary(
    corpus: Corpus,
    asked: Items,
    table: pa.Table,
    drawing: Drawing,
    settings: dict[str, Any],
    others: Mapping[str, pa.Table] | None = None,
    about: dict[str, Any] | None = None,
    judge: dict[str, Any] | None = None,
) -> Results:
    """The results of records of a corpus; `others` are the records of runs to compare with, by name."""
    made = corpus.manifest
    return Results(
        schema_version=results.SCHEMA_VERSION,
        versions=results.versions(),
        corpus={"recipe": made.recipe.name, "fingerprint": made.fingerprint, "limited": made.limited},
        items={"rows": table.num_rows, "images": len(set(asked.texts("image"))), "sha256": asked.sha256()},
        answers=results.answers_sha256(table),
        settings=results.settings(drawing, **settings),
        about=about or {},
        metrics={name: METRICS[name].meaning for name in sorted(set(table["metric"].to_pylist()))},
        splits=results.splits(table, drawing),
        averages=results.averages(table, drawing),
        judge=judge,
        against=comparing.against(table, others or {}, drawing),
    )
