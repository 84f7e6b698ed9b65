"""What the programs of the trainer share: configuration, and the corpora that are made on first use."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

import click
import msgspec
import xxhash

from trainer import config as configs
from trainer.config import Config
from trainer.training import run_folder
from vpt_data import recipe, store
from vpt_data.cli.common import sample_root
from vpt_data.pipeline import build, plan
from vpt_data.pipeline.engines.start import start_engine
from vpt_data.synthetic.plates import PICTURES, PLATES_VERSION, write_plates

PLATES = "synthetic:plates"
RUNS = Path("runs")
#: What `python -m trainer.run` trains where nothing is named.
DEFAULT = "plates"
DEFAULT_RUN = RUNS / DEFAULT


def configuration(
    name: str | None, data: str | None, raw: str | None, overrides: tuple[str, ...], resumed: Path | None
) -> Config:
    """The configuration asked for; if none is named, that of the run in `resumed`, else the default one."""
    places = [f"data.{key}={json.dumps(value)}" for key, value in (("corpus", data), ("raw", raw)) if value]
    before = run_folder.configuration(resumed) if resumed else None
    if name is None and before is not None:
        return configs.decode(msgspec.to_builtins(before), str(resumed), [*places, *overrides])
    return configs.load(name or default_name(data), [*places, *overrides])


def default_name(data: str | None) -> str:
    """The configuration where none is named; on a corpus of one's own it is `tiny`."""
    return "tiny" if data else DEFAULT


def corpus_place(corpus: str) -> str:
    """Where a corpus is that a configuration names; those of drawn pictures are made on first use."""
    if corpus == PLATES:
        return str(plates_corpus("plates"))
    return corpus or str(sample_corpus())


def evaluation_corpus(trained_on: str = "") -> Path:
    """The corpus with the questions for a model: of plates if it was trained on them, else of the sample."""
    return plates_corpus("plates_eval") if trained_on == PLATES else sample_corpus("sample_eval")


def plates_root() -> Path:
    """The raw root of `vpt_data.synthetic.plates` in the cache folder, made on first use."""
    root = Path(store.cache()) / f"plates-raw-{PLATES_VERSION}"
    if not root.is_dir():
        root.parent.mkdir(parents=True, exist_ok=True)
        click.echo(f"Drawing {sum(PICTURES.values()):,} pictures of plates: {root / 'images'}", err=True)
        write_plates(root, PICTURES)
    return root


def plates_corpus(name: str) -> Path:
    """A corpus of that root, by one of its recipes, in the cache folder; made on first use."""
    root = plates_root()
    return _built(str(root / f"{name}.toml"), root)


def sample_corpus(name: str = "sample") -> Path:
    """A corpus of the sample root by a recipe, with its images, in the cache folder; made on first use."""
    return _built(name, sample_root())


def _built(name: str, root: Path) -> Path:
    """The corpus of a recipe and its root."""
    planned = plan.make(recipe.load(name), root, "embed", None)
    # Another version of the package makes another corpus beside it.
    out = store.cache() / f"{planned.recipe.name}-corpus-{xxhash.xxh3_64_hexdigest(planned.stamp())}"
    if not (out / "manifest.json").is_file():
        build.build(planned, out, functools.partial(start_engine, "local", os.cpu_count() or 1))
    return out
