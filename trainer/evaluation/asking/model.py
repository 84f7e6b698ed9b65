"""A model of the trainer answers the items; what needs torch is imported where it is used."""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import msgspec

from trainer import config as configs
from trainer.config import Config
from trainer.evaluation import folder, predictions
from trainer.evaluation.asking import questions
from trainer.evaluation.asking.questions import Protocol
from trainer.evaluation.items import Items
from trainer.evaluation.predictions import Prediction
from trainer.generation.dialog import Decoding
from trainer.packages import check_device, check_packages
from vpt_data import store
from vpt_data.cli.output import Bar
from vpt_data.corpus.reader import Corpus
from vpt_data.errors import UsageError

if TYPE_CHECKING:
    from trainer.data.encode import RowEncoder
    from trainer.model.vpt import VPTModel

#: What an evaluation that asks a model states of it by itself.
STATED = {"model", "corpus", "protocol", "intervention", "generation", "pixels"}


class Source(NamedTuple):
    """The model, and how it is asked.

    place    a run, one of its checkpoints, or with `config` the weights of a whole model
    config   a name in trainer/configs, or a file; None for a run
    longest  longer side of a picture in pixels at most; None: as the model was trained
    """

    place: Path
    config: str | None
    raw: Path | None
    protocol: Protocol
    intervene: str | None
    max_new_tokens: int
    expand: int
    longest: int | None
    batch: int
    device: str
    dtype: str

    @property
    def name(self) -> str:
        """What the folder of its results is called."""
        return self.place.resolve().name


def grid(source: Source) -> int:
    """Cells a side of the model's grid, which its tokens are read on whatever the corpus has."""
    found = _configuration(source)
    return found.model.k if found else 8


def trained_on(source: Source) -> str:
    """The corpus that the model was trained on, as its configuration names it; empty where that is not known."""
    found = _configuration(source)
    return found.data.corpus if found else ""


def ask(corpus: Corpus, asked: Items, source: Source, out: Path) -> tuple[list[Prediction], dict[str, Any]]:
    """What the model says to the items, and the facts that decide it; goes on with the answers in `out`."""
    check_packages()
    check_device(source.device)
    how = questions.decoding(source.protocol, max_new_tokens=source.max_new_tokens, expand=source.expand)
    about = {
        "model": identity(source),
        "corpus": corpus.manifest.fingerprint,
        "protocol": source.protocol,
        "intervention": source.intervene,
        "generation": {**asdict(how), "dtype": source.dtype},
        "pixels": source.longest or _longest(source),
    }
    answers = folder.Answers(out, about)
    ids = asked.texts("id")
    wanted = set(ids) - {one.id for one in answers.read()}
    if wanted:
        _answer(corpus, asked, source, how, wanted, answers)
    by_id = {one.id: one for one in answers.read()}
    return [by_id[name] for name in ids], about


def _answer(
    corpus: Corpus, asked: Items, source: Source, how: Decoding, wanted: set[str], answers: folder.Answers
) -> None:
    from trainer.generation.answers import answer
    from trainer.generation.interventions import intervention

    model, encoder = _opened(source)
    policy = None
    if source.intervene is not None:
        policy = intervention(source.intervene, asked.gold(encoder.k), encoder.k, source.expand)
    rows = questions.questions(corpus, asked.by_split(wanted), source.protocol)
    begin = time.perf_counter()
    with answers.adding() as file, Bar("asked") as bar:
        said = answer(model, encoder, rows, how, policy, batch=source.batch, raw=source.raw)
        for number, record in enumerate(said, 1):
            answers.add(file, predictions.of_record(record))
            bar(number, len(wanted))
    seconds = time.perf_counter() - begin
    click.echo(f"asked: {len(wanted):,} rows in {seconds:.1f} s ({len(wanted) / seconds:.1f} rows a second)", err=True)


def _opened(source: Source) -> tuple[VPTModel, RowEncoder]:
    from trainer.generation.opening import loaded, published

    if source.config is not None:
        return published(source.place, source.config, (), source.device, source.dtype, source.longest)
    return loaded(source.place, source.device, source.dtype, source.longest)


def _configuration(source: Source) -> Config | None:
    from trainer.training import run_folder

    if source.config is not None:
        return configs.load(source.config)
    return run_folder.configuration(_folder(source))


def _folder(source: Source) -> Path:
    """The folder of the run, also where one of its checkpoints is named."""
    return source.place if (source.place / "config.json").is_file() else source.place.parent


def _longest(source: Source) -> int:
    """The longer side that pictures have at most as the model was trained."""
    from trainer.training.base import vision_of

    return vision_of(_configuration(source) or Config(), None if source.config else _folder(source)).longest


def identity(source: Source) -> dict[str, str]:
    """Which weights are asked, and with which shapes: hashes of their files and of what `config` holds."""
    from trainer.training import run_folder

    shapes, place = "", source.place
    if source.config is not None:
        shapes = hashlib.sha256(msgspec.json.encode(configs.load(source.config))).hexdigest()
    else:
        place = run_folder.latest(place) or place
    files = [place] if place.is_file() else sorted(place.glob("*.safetensors"))
    if not files:
        raise UsageError(f"{source.place}: holds no checkpoint; give the --out of a run, or weights.")
    hashed = hashlib.sha256("".join(store.sha256(file) for file in files).encode()).hexdigest()
    return {"weights": hashed, "config": shapes}
