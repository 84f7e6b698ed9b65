"""`python -m trainer.evaluate`: score answers to the questions of an evaluation corpus."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from trainer.evaluation import items, predictions, records, report, results
from trainer.evaluation.judge.agreement import agreement, sample
from trainer.evaluation.judge.cache import Replies
from trainer.evaluation.judge.endpoint import Endpoint
from trainer.evaluation.judge.panel import OFFLINE, Item, Verdict, offline
from trainer.evaluation.judge.panel import judge as panel
from trainer.evaluation.judge.prompt import PROMPT_ID
from trainer.evaluation.metrics.table import METRICS
from trainer.evaluation.results import Drawing, Results
from vpt_data import store
from vpt_data.cli.common import fail, json_option
from vpt_data.cli.output import Bar
from vpt_data.corpus.reader import Corpus, open_corpus
from vpt_data.errors import CorpusError, OutputError, UsageError, VptDataError, unknown_name

RESULTS, RECORDS, PAGE = "results.json", "records.parquet", "report.md"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--predictions",
    "file",
    type=click.Path(path_type=Path),
    required=True,
    help="Answers of any model: one JSON object a line, with `id` and `answer` or `turns`.",
)
@click.option("--data", required=True, help="Evaluation corpus: a folder or hf://datasets/ORG/NAME.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for results, records and report.")
@click.option("--split", "names", multiple=True, help="A split of the corpus; default: all of them.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first N rows of each split.")
@click.option("--metric", "chosen", multiple=True, metavar="TAKE=NAME", help="Score a take with another metric.")
@click.option("--about", "facts", multiple=True, metavar="KEY=VALUE", help="A fact on the model, for the results.")
@click.option("--missing-as-wrong", is_flag=True, help="Rows without a prediction score 0; else they are an error.")
@click.option("--against", type=click.Path(path_type=Path), help="Results of another run, compared row by row.")
@click.option("--judge", help="Also ask a judge: a model behind $OPENAI_BASE_URL, or `offline` for matching texts.")
@click.option("--second-judge", help="Another one, for 200 of the answers: how far both agree.")
@click.option("--judge-as-published", is_flag=True, help="Read its replies as the published program does.")
@click.option("--judge-workers", type=click.IntRange(min=1), default=8, show_default=True, help="Requests at a time.")
@click.option("--resamples", type=click.IntRange(min=100), default=2000, show_default=True, help="Draws of intervals.")
@click.option("--seed", default=0, show_default=True, help="Seed of these draws.")
@json_option
def main(
    file: Path,
    data: str,
    out: Path,
    names: tuple[str, ...],
    limit: int | None,
    chosen: tuple[str, ...],
    facts: tuple[str, ...],
    missing_as_wrong: bool,
    against: Path | None,
    judge: str | None,
    second_judge: str | None,
    judge_as_published: bool,
    judge_workers: int,
    resamples: int,
    seed: int,
    as_json: bool,
) -> None:
    """Score the answers of a model to the questions of an evaluation corpus."""
    try:
        if second_judge is not None and judge is None:
            raise UsageError("--second-judge needs --judge: it judges what the first one did.")
        metrics, about = _metrics(chosen), _pairs("--about", facts, "model=ours-2b")
        other = None if against is None else read_records(against)
        _check_folder(out)
        corpus = open_corpus(data)
        asked = items.read(corpus, names, limit)
        others = items.read(corpus).texts("id") if names or limit else ()
        given = predictions.matched(predictions.read(file), asked.texts("id"), str(file), missing_as_wrong, others)
        table = records.scored(asked, given, metrics)
        settings = {"splits": list(names), "limit": limit, "metrics": metrics, "missing_as_wrong": missing_as_wrong}
        verdict = None
        if judge is not None:
            table, verdict = judged(table, judge, second_judge, judge_as_published, judge_workers)
        found = summary(corpus, asked, table, Drawing(resamples, seed), settings, other, about, verdict)
        write(out, found, table, f"Answers of {file.name}")
    except VptDataError as error:
        fail(str(error), error.exit_code)
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
        return
    click.echo(report.as_text(found))
    click.echo(f"\nWritten: {out / PAGE}, {out / RESULTS}, {out / RECORDS}")


def _metrics(chosen: Sequence[str]) -> dict[str, str]:
    found = _pairs("--metric", chosen, "POPE_action_test=pope_owners")
    for name in found.values():
        if name not in METRICS:
            raise unknown_name("metric", name, METRICS)
    return found


def _pairs(option: str, given: Sequence[str], example: str) -> dict[str, str]:
    for text in given:
        if not text.partition("=")[0] or "=" not in text:
            raise UsageError(f"{option} {text}: expected a name and a value, for instance {example}.")
    return {text.partition("=")[0]: text.partition("=")[2] for text in given}


def _check_folder(out: Path) -> None:
    """OutputError for a folder that holds something else; before anything is computed."""
    if out.is_dir() and any(out.iterdir()) and not (out / RESULTS).is_file():
        raise OutputError(f"{out}: holds files that are no results of an evaluation; name another folder.")
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file; name a folder.")


def judged(
    table: pa.Table, model: str, second: str | None, as_published: bool, workers: int
) -> tuple[pa.Table, dict[str, Any]]:
    """The records with the verdicts of a judge, and what results.json says of it."""
    rows, shown = records.to_judge(table)
    verdicts = _verdicts(shown, model, as_published, workers)
    about: dict[str, Any] = {"model": model, "prompt": PROMPT_ID, "as_published": as_published}
    if second is not None:
        places = sample(shown)
        others = _verdicts([shown[place] for place in places], second, as_published, workers)
        agreed = agreement([verdicts[place] for place in places], others)
        about |= {"second": second, "agreement": msgspec.to_builtins(agreed)}
    return records.judged(table, rows, verdicts), about


def _verdicts(shown: Sequence[Item], model: str, as_published: bool, workers: int) -> list[Verdict]:
    if model == OFFLINE:
        return offline(shown)
    cache = Replies(store.cache() / "judge.sqlite")
    with closing(cache), closing(Endpoint(model)) as endpoint, Bar(f"judged by {model}") as bar:
        return panel(shown, endpoint, cache, workers, as_published, bar)


def summary(
    corpus: Corpus,
    asked: items.Items,
    table: pa.Table,
    drawing: Drawing,
    settings: dict[str, Any],
    other: pa.Table | None = None,
    about: dict[str, str] | None = None,
    judge: dict[str, Any] | None = None,
) -> Results:
    """The results of records of a corpus; `other` are the records of a run to compare with."""
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
        against={} if other is None else results.against(table, other, drawing),
    )


def write(out: Path, found: Results, table: pa.Table, title: str) -> None:
    """The three files of an evaluation; results.json comes last, so that a folder with it is whole."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / RESULTS).unlink(missing_ok=True)
        with store.creating(out / RECORDS) as file:
            pq.write_table(table, file, compression="zstd")
        store.write(out / PAGE, report.as_markdown(found, title).encode())
        text = json.dumps(msgspec.to_builtins(found), indent=2, ensure_ascii=False) + "\n"
        store.write(out / RESULTS, text.encode())
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror}).") from error


def read_records(folder: Path) -> pa.Table:
    """The records of an evaluation that is done; CorpusError where there is none."""
    if not (folder / RESULTS).is_file():
        raise CorpusError(f"{folder}: holds no {RESULTS}; name the folder of an evaluation that is done.")
    try:
        table = pq.read_table(folder / RECORDS, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(f"{folder / RECORDS}: not readable ({error}); run that evaluation again.") from error
    if not table.schema.equals(records.RECORD):
        raise CorpusError(f"{folder / RECORDS}: written by another version; run that evaluation again.")
    return table


if __name__ == "__main__":
    main(prog_name="python -m trainer.evaluate")
