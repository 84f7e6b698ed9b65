"""`python -m trainer.run`: train a model on a corpus. Without arguments: a tiny one on the sample, offline."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vpt_data.commands import fail, sample_root
from vpt_data.errors import OutputError, UsageError, VptDataError

if TYPE_CHECKING:
    from trainer.config import Config
    from trainer.corpus import Corpus
    from trainer.loop import Ranks, Trainer


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", "name", help="A file, or a name in trainer/configs; default: tiny.")
@click.option("--data", help="Corpus: a folder or hf://datasets/ORG/NAME; default: the sample, built if needed.")
@click.option("--raw", help="Raw root of a corpus without pixels.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run; default: runs/CONFIG.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in --out, with its configuration.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a value of the configuration.")
def main(
    name: str | None, data: str | None, raw: str | None, out: Path | None, resume: bool, overrides: tuple[str, ...]
) -> None:
    """Train a model on a corpus of `vpt-data build`."""
    try:
        check_packages()
        folder = out or Path("runs") / Path(name or "tiny").stem
        stopped = train(configuration(name, data, raw, overrides, folder if resume else None), folder, resume)
    except VptDataError as error:
        fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        fail("Interrupted before the step was done; add --resume to go on from the last checkpoint.", 130)
    if stopped:
        fail("Interrupted; a checkpoint is written, add --resume to go on.", 130)


def check_packages() -> None:
    """UsageError unless torch and its companions can be imported."""
    for package in ("torch", "transformers", "tokenizers", "safetensors"):
        if importlib.util.find_spec(package) is None:
            raise UsageError(f"The trainer needs {package}, which is not installed; pip install 'vpt-data[train]'.")
    if importlib.util.find_spec("torchvision") is not None:
        try:
            # transformers imports it by itself; a build for another torch breaks every model there.
            importlib.import_module("torchvision")
        except (RuntimeError, ImportError, OSError, AttributeError) as error:
            raise UsageError(
                f"torchvision is installed and does not fit torch ({error}); pip uninstall torchvision, for the "
                "trainer does not use it."
            ) from error


def configuration(
    name: str | None, data: str | None, raw: str | None, overrides: tuple[str, ...], resumed: Path | None
) -> Config:
    """The configuration asked for; that of the run in `resumed` if none is named."""
    from trainer import config as configs

    places = [f"data.{key}={json.dumps(value)}" for key, value in (("corpus", data), ("raw", raw)) if value]
    saved = _saved(resumed) if resumed else None
    if name is None and saved is not None:
        import msgspec

        return configs.decode(msgspec.to_builtins(saved), str(resumed), [*places, *overrides])
    return configs.load(name or "tiny", [*places, *overrides])


def train(config: Config, out: Path, resume: bool) -> bool:
    """Make or go on with the run in `out`; whether Ctrl-C ended it."""
    import torch

    from trainer import loop, setup

    ranks = loop.join(config.run.device)
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    resume = _ready(config, out, resume)
    torch.manual_seed(config.seed)
    corpus = _corpus(config, ranks)
    tokenizer = setup.load_tokenizer(out) if resume else setup.make_tokenizer(config, corpus)
    if resume:
        model, _ = setup.load_run(out, config)
    else:
        model = setup.make_model(config, tokenizer)
    if ranks.rank == 0:
        click.echo(setup.trained_table(model), err=True)
        if not resume:
            _begin(config, out, model, tokenizer)
    trainer = _trainer(config, out, ranks, corpus, tokenizer, model)
    if resume:
        trainer.restore()
    loss = trainer.run()
    if ranks.rank == 0 and not trainer.stopped:
        _finish(trainer, loss)
    if ranks.world > 1:
        torch.distributed.destroy_process_group()
    return trainer.stopped


def _trainer(config: Config, out: Path, ranks: Ranks, corpus: Corpus, tokenizer: Any, model: Any) -> Trainer:
    from trainer import data, loop, setup

    per_epoch = -(-corpus.rows // config.data.rows)
    total = config.optim.steps or config.optim.epochs * per_epoch
    names = ("rows", "tokens", "packed", "window", "workers")
    settings = data.Settings(**{name: getattr(config.data, name) for name in names})
    on_gpu = ranks.device.type == "cuda"
    settings = replace(settings, epochs=-(-total // per_epoch), seed=config.seed, pin=on_gpu)
    loader = data.Loader(
        corpus,
        setup.row_encoder(config, tokenizer),
        settings,
        raw=Path(config.data.raw) if config.data.raw else None,
        rank=ranks.rank,
        world=ranks.world,
    )
    return loop.Trainer(model, loader, config, out, ranks, total)


def _saved(out: Path) -> Config | None:
    from trainer import config as configs

    path = out / "config.json"
    if not path.is_file():
        return None
    return configs.decode(json.loads(path.read_text(encoding="utf-8")), str(path))


def _ready(config: Config, out: Path, resume: bool) -> bool:
    """Whether there is something to go on with; refuses a run of another configuration, and to overwrite one."""
    from trainer.config import differences
    from trainer.setup import latest

    saved, begun = _saved(out), latest(out) is not None
    if not resume:
        if begun:
            raise OutputError(f"{out}: holds a run; add --resume to go on with it, or give another folder with --out.")
        return False
    if saved is None:
        raise UsageError(f"{out}: no run to go on with; leave out --resume, or give the --out of the run.")
    if (change := next(differences(saved, config), None)) is not None:
        raise UsageError(f"{out}: {change}, so the run cannot go on as it was; start a new one with model.start={out}.")
    return begun


def _begin(config: Config, out: Path, model: Any, tokenizer: Any) -> None:
    import msgspec

    from trainer import setup
    from trainer.loop import METRICS

    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / METRICS).unlink(missing_ok=True)
        setup.save_shapes(model, tokenizer, out)
        (out / "config.json").write_text(json.dumps(msgspec.to_builtins(config), indent=2), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror}); give another folder with --out.") from error


def _corpus(config: Config, ranks: Ranks) -> Corpus:
    import torch

    from trainer.corpus import open_corpus

    raw = Path(config.data.raw) if config.data.raw else None
    if not config.data.corpus and ranks.rank == 0:
        sample_corpus()
    if ranks.world > 1:
        torch.distributed.barrier()
    place = config.data.corpus or str(sample_corpus())
    return open_corpus(place, config.data.split, config.data.takes, raw=raw)


def sample_corpus() -> Path:
    """The sample corpus with its images in the cache folder, made on first use."""
    import xxhash

    from vpt_data import build, engine, plan, recipe, store

    planned = plan.make(recipe.load("sample"), sample_root(), "embed", None)
    # Another version of the package makes another corpus beside it.
    key = xxhash.xxh3_64_hexdigest(planned.stamp())
    out = store.cache() / f"sample-corpus-{key}"
    if not (out / "manifest.json").is_file():
        build.build(planned, out, functools.partial(engine.start, "local", os.cpu_count() or 1))
    return out


def _finish(trainer: Trainer, loss: float) -> None:
    from trainer.loop import read_metrics
    from trainer.plot import draw

    entries = read_metrics(trainer.out)
    draw([entry["loss"] for entry in entries], trainer.out / "loss.png")
    skipped = sum(len(entry["skipped"]) for entry in entries)
    click.echo(f"Trained: {trainer.out}  {trainer.step} steps, loss {loss:.3f} (mean of the last ten)")
    if skipped:
        click.echo(f"{skipped:,} rows were skipped; metrics.jsonl names them.")


if __name__ == "__main__":
    main(prog_name="python -m trainer.run")
