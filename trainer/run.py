"""`python -m trainer.run`: train a model on a corpus. Without arguments: a small one on drawn plates, offline.

What needs torch is imported where it is used, so that `check_packages` can say first that it is not there.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trainer import config as configs
from trainer.config import Config
from trainer.data.corpus import open_corpus
from trainer.entry import DEFAULT_RUN, PLATES, RUNS, configuration, corpus_place, default_name
from trainer.packages import check_packages
from trainer.training import run_folder
from vpt_data.cli.common import fail, terminable
from vpt_data.errors import OutputError, UsageError, VptDataError
from vpt_data.report import table

if TYPE_CHECKING:
    from trainer.training.loop import Trainer


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", "name", help="A file, or a name in trainer/configs; default: plates, with --data tiny.")
@click.option("--data", help="Corpus: a folder or hf://datasets/ORG/NAME; default: that of the configuration.")
@click.option("--raw", help="Raw root of a corpus without pixels.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run; default: runs/CONFIG.")
@click.option("--resume", is_flag=True, help="Continue from the last checkpoint in --out, with its configuration.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a value of the configuration.")
def main(
    name: str | None, data: str | None, raw: str | None, out: Path | None, resume: bool, overrides: tuple[str, ...]
) -> None:
    """Train a model on a corpus of `vpt-data build`."""
    with terminable():
        _main(name, data, raw, out, resume, overrides)


def _main(
    name: str | None, data: str | None, raw: str | None, out: Path | None, resume: bool, overrides: tuple[str, ...]
) -> None:
    try:
        folder = out or RUNS / Path(name or default_name(data)).stem
        config = configuration(name, data, raw, overrides, folder if resume else None)
        check_packages()
        report = train(config, folder, resume)
    except VptDataError as error:
        fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        if run_folder.latest(folder):
            fail("Interrupted before the step was done; add --resume to continue from the last checkpoint.", 130)
        fail("Interrupted before the first checkpoint; run the same command again to start over.", 130)
    if report is None:
        fail("Interrupted; a checkpoint is written, add --resume to continue.", 130)
    if report:
        click.echo(f"{report}\nNext: {_next(config, folder)}")


def train_default() -> None:
    """Train the run of this command without arguments to its end, unless it is; KeyboardInterrupt on Ctrl-C."""
    last = run_folder.latest(DEFAULT_RUN)
    config = configuration(None, None, None, (), DEFAULT_RUN)
    if last is not None and int(last.name.removeprefix("step-")) >= config.optim.steps:
        return
    check_packages()
    state = "is not there; it is trained first" if last is None else "is not at its end; it goes on first"
    click.echo(f"{DEFAULT_RUN} {state}, for a minute or two.", err=True)
    report = train(config, DEFAULT_RUN, last is not None)
    if report is None:
        raise KeyboardInterrupt
    click.echo(report, err=True)


def train(config: Config, out: Path, resume: bool) -> str | None:
    """Start or continue the run in `out`; how it ended, on the first rank, and None after Ctrl-C or SIGTERM."""
    import torch

    from trainer.training import base, loop, parallel, setup

    ranks = parallel.join(config.run.device, config.run.parallel)
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    started = run_folder.latest(out) is not None
    _refuse(config, out, resume, started)
    resume = resume and started
    torch.manual_seed(config.seed)
    if ranks.rank == 0:
        corpus_place(config.data.corpus)
    if ranks.world > 1:
        torch.distributed.barrier()
    raw = Path(config.data.raw) if config.data.raw else None
    open_split = functools.partial(open_corpus, corpus_place(config.data.corpus), takes=config.data.takes, raw=raw)
    corpus = open_split(config.data.split)
    if resume:
        model, tokenizer = setup.load_run(out, config)
    else:
        tokenizer = setup.make_tokenizer(config, corpus)
        model = setup.make_model(config, tokenizer)
    encoder = setup.row_encoder(config, tokenizer, base.vision_of(config, out if resume else None))
    if ranks.rank == 0:
        click.echo(setup.trained_table(model), err=True)
        if not resume:
            if warning := setup.unaligned(config, model):
                click.echo(warning, err=True)
            setup.save_run(out, config, model, tokenizer, encoder.vision)
    loader, total = setup.make_loader(config, corpus, encoder, ranks)
    held_out = None
    if config.data.validation:
        held_out = functools.partial(setup.held_out, config, open_split(config.data.validation), encoder, ranks)
    trainer = loop.Trainer(model, loader, config, out, ranks, total, held_out)
    if resume:
        trainer.restore()
    before = trainer.step
    trainer.run()
    report = "" if ranks.rank or trainer.stopped else _finish(trainer, trainer.step - before)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return None if trainer.stopped else report


def _refuse(config: Config, out: Path, resume: bool, started: bool) -> None:
    """Neither overwrite a run nor continue one of another configuration."""
    if not resume and started:
        raise OutputError(f"{out}: holds a run; add --resume to continue it, or give another folder with --out.")
    run_folder.refuse_exported(out)
    if not resume:
        return
    before = run_folder.configuration(out)
    if before is None:
        raise UsageError(f"{out}: no run to continue; leave out --resume, or give the --out of the run.")
    if changes := configs.differences(before, config):
        raise UsageError(
            f"{out}: {changes[0]}, so the run cannot continue as it was; start a new one with model.start={out}."
        )


def _finish(trainer: Trainer, made: int) -> str:
    """Draw the curve; the lines on how the run ended. `made` is how many steps it still had."""
    from trainer.training.checkpoint import writing
    from trainer.training.plot import draw

    entries = run_folder.read_metrics(trainer.out)
    losses = [entry["loss"] for entry in entries]
    held = run_folder.validations(trainer.out)
    with writing(trainer.out):
        draw(losses, trainer.out / "loss.png", held)
    skipped = sum(len(entry["skipped"]) for entry in entries)
    end = losses[-10:]
    loss = f", loss {sum(end) / len(end):.3f} (mean of the last ten)" if end else ""
    loss += f", {list(held.values())[-1]:.3f} on the split {trainer.config.data.validation}" if held else ""
    if made:
        lines = [f"Trained: {trainer.out}  {trainer.step} steps{loss}"]
    else:
        lines = [f"Nothing left to train: {trainer.out} has all its {trainer.step} steps already{loss}"]
    if skipped:
        lines.append(f"{skipped:,} rows were skipped; metrics.jsonl names them.")
    lines += _learned(run_folder.last_validation(trainer.out))
    return "\n".join(lines)


def _learned(validation: Mapping[str, Any]) -> list[str]:
    """What the tokens of rows say that the model was not trained on, beside what needs no picture."""
    if "majority" not in validation:
        return []
    rows = [
        (name, f"{validation['accuracy'][name]:.2f}", f"{usual:.2f}") for name, usual in validation["majority"].items()
    ]
    note = f"On {validation['samples']:,} rows that it was not trained on, the share of tokens that are right, and that"
    return [f"{note} of always saying the most frequent one:", table(("tokens", "right", "most frequent"), rows)]


def _next(config: Config, out: Path) -> str:
    """The command that asks the model, for the corpora that have questions of their own."""
    command = "python -m trainer.evaluate"
    if config.data.corpus not in ("", PLATES):
        return f"{command} --checkpoint {out} --data CORPUS, where CORPUS is one for evaluation (docs/evaluation.md)."
    return command if out == DEFAULT_RUN else f"{command} --checkpoint {out}"


if __name__ == "__main__":
    try:
        main(prog_name="python -m trainer.run")
    except SystemExit as end:
        if int(os.environ.get("WORLD_SIZE", "1")) == 1 or not isinstance(end.code, int):
            raise
        from trainer.training.parallel import leave

        leave(end.code)
