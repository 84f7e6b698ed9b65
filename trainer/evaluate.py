"""`python -m trainer.evaluate`: ask a model the questions of an evaluation corpus, and score what was said.

Both arms share everything after the answers: those of a model are written as a file of predictions. Answers from a
file need no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec
import pyarrow as pa

from trainer.entry import DEFAULT_RUN, evaluation_corpus
from trainer.evaluation import arms, comparing, folder, items, paper, predictions, records, report, results, scoring
from trainer.evaluation.asking import model, questions, server
from trainer.evaluation.asking.model import STATED, Asking, Source
from trainer.evaluation.asking.questions import INTERVENTIONS, PROTOCOLS
from trainer.evaluation.asking.server import Served
from trainer.evaluation.items import Items
from trainer.evaluation.metrics.table import METRICS
from trainer.evaluation.page import render
from trainer.evaluation.predictions import Prediction
from trainer.evaluation.published import verdicts
from trainer.evaluation.results import Drawing, Results
from trainer.evaluation.usage import check_used
from trainer.run import train_default
from vpt_data.cli.common import fail, json_option, terminable
from vpt_data.corpus.reader import Corpus, open_corpus
from vpt_data.errors import UsageError, VptDataError, unknown_name


class File(NamedTuple):
    """Answers that somebody else has made; `raw` is where images are that the corpus does not have."""

    path: Path
    raw: Path | None

    @property
    def name(self) -> str:
        """What the folder of its results is called."""
        return self.path.stem


class Scoring(NamedTuple):
    """What else is asked of a model, and how answers are scored: the other options.

    as_paper  answers are read as the published program does
    """

    as_paper: bool
    circular: bool
    intervene: tuple[str, ...]
    chosen: tuple[str, ...]
    facts: tuple[str, ...]
    missing_as_wrong: bool
    against: tuple[Path, ...]
    published: str | None
    judge: str | None
    second_judge: str | None
    judge_as_published: bool | None
    judge_workers: int
    resamples: int
    seed: int


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--predictions", "file", type=click.Path(path_type=Path), help="Answers of any model, one JSON object a line."
)
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), help="Or ask a run of ours; default: runs/plates, trained first."
)
@click.option("--weights", type=click.Path(path_type=Path), help="Or weights of a whole model, with --config.")
@click.option("--config", help="With --weights: a name in trainer/configs, or a file.")
@click.option("--server", help="Or ask a model behind an address with the interface of OpenAI, with --model.")
@click.option("--model", "model_name", metavar="NAME", help="With --server: the name of the model there.")
@click.option(
    "--data", help="Evaluation corpus: a folder or hf://datasets/ORG/NAME; default: plates_eval or sample_eval."
)
@click.option("--raw", type=click.Path(path_type=Path), help="Raw root of a corpus without pixels.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the evaluation; default: evaluations/NAME.")
@click.option("--split", "names", multiple=True, help="A split of the corpus; default: all of them.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first N rows of each split; paper: 1000.")
@click.option("--circular", is_flag=True, help="Ask questions with options in every rotation; right if all are.")
@click.option(
    "--protocol",
    type=click.Choice(PROTOCOLS),
    default="prompted",
    show_default=True,
    help="How looks are asked for; paper: all of the evaluation is as in the published program.",
)
@click.option(
    "--intervene",
    multiple=True,
    type=click.Choice([arms.ALL, *INTERVENTIONS]),
    help="Then show or say something else than the model does; `all`: for the looks that the rows expect.",
)
@click.option(
    "--max-new-tokens", type=click.IntRange(min=1), help="Over all turns of a row; default: 256, paper: 1024."
)
@click.option(
    "--expand", type=click.IntRange(min=0), help="Cells by which a crop grows on every side; default: 0, paper: 1."
)
@click.option(
    "--longest",
    type=click.IntRange(min=1),
    metavar="PIXELS",
    help="Longer side of what the model sees at most, such as 224 or 512; default: as it was trained.",
)
@click.option("--batch", type=click.IntRange(min=1), default=16, show_default=True, help="Rows at a time.")
@click.option(
    "--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Threads that decode images ahead."
)
@click.option("--device", default="cpu", show_default=True, help="Device of torch.")
@click.option(
    "--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True, help="Of weights."
)
@click.option("--metric", "chosen", multiple=True, metavar="TAKE=NAME", help="Score a take with another metric.")
@click.option("--about", "facts", multiple=True, metavar="KEY=VALUE", help="A fact on the model, for the results.")
@click.option("--missing-as-wrong", is_flag=True, help="Rows without a prediction score 0; else they are an error.")
@click.option(
    "--against", multiple=True, type=click.Path(path_type=Path), help="Results of another run, compared row by row."
)
@click.option("--published", metavar="PAPER:ROW", help="Beside a row of a published table; `list` names them.")
@click.option("--judge", help="Also ask a judge: a model behind $OPENAI_BASE_URL, or `offline` for matching texts.")
@click.option("--second-judge", help="Another one, for 200 of the answers: how far both agree.")
@click.option(
    "--judge-as-published", is_flag=True, default=None, help="Read its replies as the published program does."
)
@click.option("--judge-workers", type=click.IntRange(min=1), default=8, show_default=True, help="Requests at a time.")
@click.option("--resamples", type=click.IntRange(min=100), default=2000, show_default=True, help="Draws of intervals.")
@click.option("--seed", default=0, show_default=True, help="Seed of these draws.")
@json_option
def main(
    file: Path | None,
    data: str | None,
    out: Path | None,
    names: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Ask a model the questions of an evaluation corpus, or take its answers from a file, and score them."""
    try:
        options = _filled(options, file)
        limit, as_paper = options.pop("limit"), options["protocol"] == "paper"
        how = Scoring(as_paper, **{name: options.pop(name) for name in Scoring._fields[1:]})
        answers = _answers(file, options.pop("checkpoint"), options.pop("weights"), options)
        check_used(click.get_current_context())
        place = out or Path("evaluations") / answers.name
        found = _evaluate(answers, data, place, names, limit, how)
    except VptDataError as error:
        fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        fail("Interrupted; the same command goes on from what is written so far.", 130)
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
        return
    click.echo(report.as_text(found))
    click.echo(f"\nWritten: {place / folder.PAGE}, {place / folder.RESULTS}, {place / folder.RECORDS}")


def _filled(options: dict[str, Any], file: Path | None) -> dict[str, Any]:
    """The options with the defaults of their protocol, and where nothing is named all interventions."""
    default = paper.OPTIONS if options["protocol"] == "paper" else {"expand": 0, "max_new_tokens": 256}
    named = (file, options["checkpoint"], options["weights"], options["server"])
    if not any(named) and options["protocol"] != "direct":
        options["intervene"] = options["intervene"] or (arms.ALL,)
    return {name: default.get(name) if given is None else given for name, given in options.items()}


def _answers(
    file: Path | None, checkpoint: Path | None, weights: Path | None, options: dict[str, Any]
) -> File | Source | Served:
    """Whose answers are scored: those of a file, or of a model that is asked, where none is named the default run."""
    url, name = options.pop("server"), options.pop("model_name")
    if sum(given is not None for given in (file, checkpoint, weights, url)) > 1:
        raise UsageError("Give one of --predictions, --checkpoint, --weights and --server.")
    if (url is None) != (name is None):
        raise UsageError("Give --server URL together with --model NAME.")
    if (weights is None) != (options["config"] is None):
        raise UsageError("Give --weights PATH together with --config NAME.")
    if url is not None:
        shared = {field: options[field] for field in Served._fields[2:]}
        return Served(url, name, **shared)
    if file is not None:
        return File(file, options["raw"])
    return Source(place=checkpoint or weights or DEFAULT_RUN, **options)


class Task(NamedTuple):
    """What is the same for a model as it is and under each intervention."""

    corpus: Corpus
    asked: Items
    metrics: dict[str, str]
    settings: dict[str, Any]
    how: Scoring

    @property
    def drawing(self) -> Drawing:
        """How intervals are drawn."""
        return Drawing(self.how.resamples, self.how.seed)

    def records(self, given: Sequence[Prediction]) -> pa.Table:
        """The scores of answers, but for those of a judge."""
        read = paper.read if self.how.as_paper else predictions.read_as_said
        found = records.scored(self.asked, given, self.metrics, read)
        return records.circular(found) if self.how.circular else found

    def done(
        self,
        given: Sequence[Prediction],
        about: dict[str, Any],
        second: str | None = None,
        others: Mapping[str, pa.Table] | None = None,
    ) -> tuple[pa.Table, Results]:
        """Records and results of answers; `second` is another judge, `others` are records to compare with."""
        _report_faults(given)
        how, table, verdict = self.how, self.records(given), None
        if how.judge is not None:
            rows = self.asked.by_split(self.asked.texts("id"))
            shown = questions.whole_texts(self.corpus, rows) if how.as_paper else None
            as_published = bool(how.judge_as_published)
            table, verdict = scoring.judged(table, how.judge, second, as_published, how.judge_workers, shown)
        settings = self.settings
        return table, scoring.summary(self.corpus, self.asked, table, self.drawing, settings, others, about, verdict)


def _evaluate(
    answers: File | Source | Served, data: str | None, out: Path, names: Sequence[str], limit: int | None, how: Scoring
) -> Results:
    """Answers, scored and written; what can be wrong with the options is found first."""
    _check(answers, out, how)
    metrics, about = _metrics(how.chosen), _pairs("--about", how.facts, "model=ours-2b")
    if not isinstance(answers, File) and (own := sorted(STATED & about.keys())):
        raise UsageError(f"--about {own[0]}: an evaluation that asks a model states it by itself; use another name.")
    others = {name: folder.read_records(place) for name, place in comparing.run_names(how.against).items()}
    if isinstance(answers, Source) and answers.place == DEFAULT_RUN and answers.config is None:
        with terminable():
            train_default()
    corpus = _corpus(data, answers)
    asked = _asked(corpus, names, limit, metrics)
    if how.circular:
        asked = asked.circular()
    wanted, given = list[str](), list[Prediction]()
    if isinstance(answers, Source):
        wanted = arms.chosen(how.intervene, asked, answers.protocol)
        asked = asked.on_grids([model.grid(answers)] * asked.table.num_rows)
    elif isinstance(answers, File):
        folder.check_results(out)
        given = _of_file(answers, asked, items.read(corpus).every_id() if names or limit else (), how)
        asked = asked.on_grids([one.k for one in given])
    settings = {"splits": list(names), "limit": limit, "metrics": metrics, "missing_as_wrong": how.missing_as_wrong}
    settings |= {"as_published": how.as_paper, "circular": how.circular}
    task = Task(corpus, asked, metrics, settings, how)
    asking = Asking(corpus, asked, answers, out) if isinstance(answers, Source) else None
    with terminable():
        if asking is not None:
            given, more = asking.own(), asking.about()
        elif isinstance(answers, Served):
            given, more = server.ask(corpus, asked, answers, out)
        else:
            folder.check_results(out, results.answers_sha256(task.records(given)))
            more = {}
    about |= more
    table, found = task.done(given, about, how.second_judge, others)
    if how.published is not None:
        found = msgspec.structs.replace(found, published=verdicts.beside(how.published, found))
    title = f"Answers of {answers.name}"
    page = partial(render.page_of, title=title, corpus=corpus, asked=asked, records=table, raw=answers.raw)
    folder.write(out, found, table, title, page(found))
    if asking is not None and wanted:
        tables = {arm: _intervened(task, asking, arm, given, about, title) for arm in wanted}
        found = msgspec.structs.replace(found, interventions=arms.compare(table, tables, task.drawing))
        folder.write(out, found, table, title, page(found))
    return found


def _check(answers: File | Source | Served, out: Path, how: Scoring) -> None:
    """UsageError for options that do not go together, and for a raw root that is not there."""
    if answers.raw is not None and not answers.raw.is_dir():
        raise UsageError(f"{answers.raw}: no such folder; give the raw root that holds the images of these rows.")
    if how.second_judge is not None and how.judge is None:
        raise UsageError("--second-judge needs --judge: it judges what the first one did.")
    if how.circular and how.judge is not None:
        raise UsageError("--circular compares letters, and a judge texts; leave out --judge.")
    if how.intervene and not isinstance(answers, Source):
        raise UsageError("--intervene needs a model of ours; give --checkpoint or --weights.")
    if how.published is not None:
        verdicts.check_name(how.published)
    for place in how.against:
        if place.resolve() == out.resolve():
            raise UsageError(f"--against {place}: is also the folder to write; name another one with --out.")


def _asked(corpus: Corpus, names: Sequence[str], limit: int | None, metrics: Mapping[str, str]) -> Items:
    """The rows that are asked; UsageError for the metric of a take that they do not have."""
    asked = items.read(corpus, names, limit)
    takes = sorted(set(asked.texts("take")))
    for take in metrics.keys() - takes:
        raise unknown_name("take of --metric", take, takes)
    return asked


def _of_file(answers: File, asked: Items, others: Sequence[str], how: Scoring) -> list[Prediction]:
    """The answers of a file; `others` are ids of rows that are not asked and may be in it."""
    ids, where = asked.texts("id"), str(answers.path)
    return predictions.matched(predictions.read(answers.path), ids, where, how.missing_as_wrong, others)


def _intervened(
    task: Task, asking: Asking, arm: str, own: Sequence[Prediction], about: dict[str, Any], title: str
) -> pa.Table:
    """The records of an intervention, whose evaluation is written."""
    with terminable():
        given = asking.intervened(arm, own)
    table, found = task.done(given, about | asking.about(arm))
    folder.write(asking.out / arm, found, table, f"{title}, {arm}")
    return table


def _report_faults(given: Sequence[Prediction]) -> None:
    """Rows that a model could not be asked are easily taken for wrong answers."""
    faults = predictions.causes(one.fault for one in given)
    if faults:
        causes = ", ".join(f"{cause} {count:,}" for cause, count in sorted(faults.items()))
        click.echo(f"{faults.total():,} of {len(given):,} rows could not be asked and score 0: {causes}", err=True)


def _corpus(data: str | None, answers: File | Source | Served) -> Corpus:
    if data is not None:
        return open_corpus(data)
    trained_on = model.trained_on(answers) if isinstance(answers, Source) else ""
    return open_corpus(evaluation_corpus(trained_on))


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


if __name__ == "__main__":
    main(prog_name="python -m trainer.evaluate")
