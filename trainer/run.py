"""`python -m trainer.run`: train a model on a corpus. Without arguments: a tiny one on the sample, offline.

What needs torch is imported where it is used, so that `check_packages` can say first that it is not there.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trainer import config as configs
from trainer.config import Config
from trainer.data.corpus import open_corpus
from trainer.entry import configuration, corpus_place
from trainer.packages import check_packages
from trainer.training import run_folder
from vpt_data.cli.common import fail, terminable
from vpt_data.errors import OutputError, UsageError, VptDataError

if TYPE_CHECKING:
    from trainer.training.loop import Trainer


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", "name", help="A file, or a name in trainer/configs; default: tiny.")
@click.option("--data", help="Corpus: a folder or hf://datasets/ORG/NAME; default: the sample, built if needed.")
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
        folder = out or Path("runs") / Path(name or "tiny").stem
        config = configuration(name, data, raw, overrides, folder if resume else None)
        check_packages()
        stopped = train(config, folder, resume)
    except VptDataError as error:
        fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        if run_folder.latest(folder):
            fail("Interrupted before the step was done; add --resume to continue from the last checkpoint.", 130)
        fail("Interrupted before the first checkpoint; run the same command again to start over.", 130)
    if stopped:
        fail("Interrupted; a checkpoint is written, add --resume to continue.", 130)


def train(config: Config, out: Path, resume: bool) -> bool:
    """Start or continue the run in `out`; whether Ctrl-C or SIGTERM ended it."""
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
    if ranks.rank == 0 and not trainer.stopped:
        _finish(trainer, trainer.step - before)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return trainer.stopped


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


def _finish(trainer: Trainer, made: int) -> None:
    """Draw the curve and say how the run ended; `made` is how many steps it still had."""
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
        click.echo(f"Trained: {trainer.out}  {trainer.step} steps{loss}")
    else:
        click.echo(f"Nothing left to train: {trainer.out} has all its {trainer.step} steps already{loss}")
    if skipped:
        click.echo(f"{skipped:,} rows were skipped; metrics.jsonl names them.")


if __name__ == "__main__":
    try:
        main(prog_name="python -m trainer.run")
    except SystemExit as end:
        if int(os.environ.get("WORLD_SIZE", "1")) == 1 or not isinstance(end.code, int):
            raise
        from trainer.training.parallel import leave

        leave(end.code)
