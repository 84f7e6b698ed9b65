"""`python -m trainer.evaluate`: ask a model the questions of an evaluation corpus, and score what was said.

Both arms share everything after the answers: those of a model of ours are written as a file of predictions. What needs
torch is imported where it is used; answers from a file need none.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import msgspec
import pyarrow as pa

from trainer import config as configs
from trainer.evaluation import asking, folder, items, predictions, records, report, results
from trainer.evaluation.asking import INTERVENTIONS, PROTOCOLS, Protocol
from trainer.evaluation.judge.agreement import agreement, sample
from trainer.evaluation.judge.cache import Replies
from trainer.evaluation.judge.endpoint import Endpoint
from trainer.evaluation.judge.panel import OFFLINE, Item, Verdict, offline
from trainer.evaluation.judge.panel import judge as panel
from trainer.evaluation.judge.prompt import PROMPT_ID
from trainer.evaluation.metrics.table import METRICS
from trainer.evaluation.predictions import Prediction
from trainer.evaluation.results import Drawing, Results
from vpt_data import store
from vpt_data.cli.common import fail, json_option, terminable
from vpt_data.cli.output import Bar
from vpt_data.corpus.reader import Corpus, open_corpus
from vpt_data.errors import UsageError, VptDataError, unknown_name

if TYPE_CHECKING:
    from trainer.data.encode import RowEncoder
    from trainer.generation.dialog import Decoding
    from trainer.model.vpt import VPTModel

TINY = Path("runs/tiny")
#: The facts of `ask`.
STATED = {"model", "corpus", "protocol", "intervention", "generation"}


class Source(NamedTuple):
    """The model to ask, and how: options of the command line."""

    checkpoint: Path | None
    weights: Path | None
    config: str | None
    raw: Path | None
    protocol: Protocol
    intervene: str | None
    max_new_tokens: int
    expand: int
    batch: int
    device: str
    dtype: str


class Scoring(NamedTuple):
    """How answers are scored: the other options."""

    chosen: tuple[str, ...]
    facts: tuple[str, ...]
    missing_as_wrong: bool
    against: Path | None
    judge: str | None
    second_judge: str | None
    judge_as_published: bool
    judge_workers: int
    resamples: int
    seed: int


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--predictions", "file", type=click.Path(path_type=Path), help="Answers of any model, one JSON object a line."
)
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Or ask a run of ours; default: runs/tiny.")
@click.option("--weights", type=click.Path(path_type=Path), help="Or weights of a whole model, with --config.")
@click.option("--config", help="With --weights: a name in trainer/configs, or a file.")
@click.option(
    "--data", help="Evaluation corpus: a folder or hf://datasets/ORG/NAME; default: the sample, built if needed."
)
@click.option("--raw", type=click.Path(path_type=Path), help="Raw root of a corpus without pixels.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the evaluation; default: evaluations/NAME.")
@click.option("--split", "names", multiple=True, help="A split of the corpus; default: all of them.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first N rows of each split.")
@click.option(
    "--protocol", type=click.Choice(PROTOCOLS), default="prompted", show_default=True, help="How looks are asked for."
)
@click.option("--intervene", type=click.Choice(INTERVENTIONS), help="Show or say something else than the model does.")
@click.option("--max-new-tokens", default=256, show_default=True, help="Over all turns of a row.")
@click.option("--expand", default=0, show_default=True, help="Cells by which a crop grows; the published program: 1.")
@click.option("--batch", type=click.IntRange(min=1), default=16, show_default=True, help="Rows at a time.")
@click.option("--device", default="cpu", show_default=True, help="Device of torch.")
@click.option(
    "--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True, help="Of weights."
)
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
    file: Path | None,
    data: str | None,
    out: Path | None,
    names: tuple[str, ...],
    limit: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Ask a model the questions of an evaluation corpus, or take its answers from a file, and score them."""
    try:
        source = _source(file, {name: options.pop(name) for name in Source._fields})
        name = file.stem if file else _name(source)
        place = out or Path("evaluations") / name
        title = f"Answers of {file.name if file else name}"
        found = _evaluate(file or source, data, place, names, limit, Scoring(**options), title)
    except VptDataError as error:
        fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        fail("Interrupted; the same command goes on from what is written so far.", 130)
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
        return
    click.echo(report.as_text(found))
    click.echo(f"\nWritten: {place / folder.PAGE}, {place / folder.RESULTS}, {place / folder.RECORDS}")


def _evaluate(
    answers: Path | Source,
    data: str | None,
    out: Path,
    names: Sequence[str],
    limit: int | None,
    how: Scoring,
    title: str,
) -> Results:
    """Answers from a file or of a model, scored and written; what can be wrong with the options is found first."""
    if how.second_judge is not None and how.judge is None:
        raise UsageError("--second-judge needs --judge: it judges what the first one did.")
    if how.against is not None and how.against.resolve() == out.resolve():
        raise UsageError(f"--against {how.against}: is also the folder to write; name another one with --out.")
    metrics, about = _metrics(how.chosen), _pairs("--about", how.facts, "model=ours-2b")
    if isinstance(answers, Source) and (own := sorted(STATED & about.keys())):
        raise UsageError(f"--about {own[0]}: an evaluation that asks a model states it by itself; use another name.")
    other = None if how.against is None else folder.read_records(how.against)
    corpus = _corpus(data)
    for split in metrics.keys() - corpus.manifest.splits.keys():
        raise unknown_name("split of --metric", split, corpus.manifest.splits)
    asked = items.read(corpus, names, limit)
    more: dict[str, Any] = {}
    if isinstance(answers, Source):
        asked = asked.on_grid(_grid(answers))
        with terminable():
            given, more = ask(corpus, asked, answers, out)
    else:
        folder.check_results(out)
        others = items.read(corpus).texts("id") if names or limit else ()
        read = predictions.read(answers)
        given = predictions.matched(read, asked.texts("id"), str(answers), how.missing_as_wrong, others)
    if faults := Counter(one.fault.partition(":")[0] for one in given if one is not None and one.fault):
        causes = ", ".join(f"{cause} {count:,}" for cause, count in sorted(faults.items()))
        click.echo(f"{faults.total():,} of {len(given):,} rows could not be asked and score 0: {causes}", err=True)
    table = records.scored(asked, given, metrics)
    if not isinstance(answers, Source):
        folder.check_results(out, results.answers_sha256(table))
    verdict = None
    if how.judge is not None:
        table, verdict = judged(table, how.judge, how.second_judge, how.judge_as_published, how.judge_workers)
    settings = {"splits": list(names), "limit": limit, "metrics": metrics, "missing_as_wrong": how.missing_as_wrong}
    found = summary(corpus, asked, table, Drawing(how.resamples, how.seed), settings, other, about | more, verdict)
    folder.write(out, found, table, title)
    return found


def _source(file: Path | None, options: dict[str, Any]) -> Source:
    source = Source(**options)
    if sum(given is not None for given in (file, source.checkpoint, source.weights)) > 1:
        raise UsageError("Give one of --predictions, --checkpoint and --weights.")
    if (source.weights is None) != (source.config is None):
        raise UsageError("Give --weights PATH together with --config NAME.")
    if file is None and source.checkpoint is None and source.weights is None:
        if not TINY.is_dir():
            raise UsageError(
                f"No model: {TINY} is not there; train it with `python -m trainer.run`, or give --checkpoint, "
                "--weights or --predictions."
            )
        return source._replace(checkpoint=TINY)
    return source


def _name(source: Source) -> str:
    return (source.checkpoint or source.weights or TINY).resolve().name


def _grid(source: Source) -> int:
    """Cells a side of the model's grid, which its tokens are read on whatever the corpus has."""
    from trainer import config as configs
    from trainer.training import run_folder

    if source.config is not None:
        return configs.load(source.config).model.k
    place = source.checkpoint or TINY
    found = run_folder.configuration(place if (place / "config.json").is_file() else place.parent)
    return found.model.k if found else 8


def _corpus(data: str | None) -> Corpus:
    if data is not None:
        return open_corpus(data)
    from trainer.entry import sample_corpus

    return open_corpus(sample_corpus("sample_eval"))


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


def ask(corpus: Corpus, asked: items.Items, source: Source, out: Path) -> tuple[list[Prediction], dict[str, Any]]:
    """What a model of ours says to the items, and the facts that decide it; goes on with the answers in `out`."""
    from trainer.entry import check_packages
    from trainer.generate import check_device

    check_packages()
    check_device(source.device)
    how = asking.decoding(source.protocol, max_new_tokens=source.max_new_tokens, expand=source.expand)
    about = {
        "model": _identity(source),
        "corpus": corpus.manifest.fingerprint,
        "protocol": source.protocol,
        "intervention": source.intervene,
        "generation": {**asdict(how), "dtype": source.dtype},
    }
    answers = folder.Answers(out, about)
    ids = asked.texts("id")
    wanted = set(ids) - {one.id for one in answers.read()}
    if wanted:
        _answer(corpus, asked, source, how, wanted, answers)
    by_id = {one.id: one for one in answers.read()}
    return [by_id[name] for name in ids], about


def _answer(
    corpus: Corpus, asked: items.Items, source: Source, how: Decoding, wanted: set[str], answers: folder.Answers
) -> None:
    from trainer.generation.answers import answer
    from trainer.generation.interventions import intervention

    model, encoder = _model(source)
    policy = None
    if source.intervene is not None:
        policy = intervention(source.intervene, asked.gold(encoder.k), encoder.k, source.expand)
    by_split: dict[str, set[str]] = {}
    for split, name in zip(asked.texts("split"), asked.texts("id"), strict=True):
        if name in wanted:
            by_split.setdefault(split, set()).add(name)
    rows = asking.questions(corpus, by_split, source.protocol)
    begin = time.perf_counter()
    with answers.adding() as file, Bar("asked") as bar:
        said = answer(model, encoder, rows, how, policy, batch=source.batch, raw=source.raw)
        for number, record in enumerate(said, 1):
            answers.add(file, predictions.of_record(record))
            bar(number, len(wanted))
    seconds = time.perf_counter() - begin
    click.echo(f"asked: {len(wanted):,} rows in {seconds:.1f} s ({len(wanted) / seconds:.1f} rows a second)", err=True)


def _model(source: Source) -> tuple[VPTModel, RowEncoder]:
    from trainer.generate import loaded, published

    if source.weights is not None:
        return published(source.weights, str(source.config), (), source.device, source.dtype)
    assert source.checkpoint is not None
    return loaded(source.checkpoint, source.device, source.dtype)


def _identity(source: Source) -> dict[str, str]:
    """Which weights are asked, and with which shapes: hashes of their files and of what --config holds."""
    from trainer.training import run_folder

    shapes = ""
    if source.config is not None:
        shapes = hashlib.sha256(msgspec.json.encode(configs.load(source.config))).hexdigest()
    place = source.weights or source.checkpoint or TINY
    within = place if source.weights else run_folder.latest(place) or place
    files = [within] if within.is_file() else sorted(within.glob("*.safetensors"))
    if not files:
        raise UsageError(f"{place}: holds no checkpoint; give the --out of a run, or weights.")
    hashed = hashlib.sha256("".join(store.sha256(file) for file in files).encode()).hexdigest()
    return {"weights": hashed, "config": shapes}


def judged(
    table: pa.Table, model: str, second: str | None, as_published: bool, workers: int
) -> tuple[pa.Table, dict[str, Any]]:
    """The records with the verdicts of a judge, and what results.json says of it."""
    rows, shown = records.to_judge(table)
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
    with closing(cache), closing(Endpoint(model)) as endpoint, Bar(f"judged by {model}") as bar:
        return panel(shown, endpoint, cache, workers, as_published, bar)


def summary(
    corpus: Corpus,
    asked: items.Items,
    table: pa.Table,
    drawing: Drawing,
    settings: dict[str, Any],
    other: pa.Table | None = None,
    about: dict[str, Any] | None = None,
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


if __name__ == "__main__":
    main(prog_name="python -m trainer.evaluate")
