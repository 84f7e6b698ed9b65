"""A model of the trainer answers the items; what needs torch is imported where it is used."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import msgspec

from trainer import config as configs
from trainer.config import Config
from trainer.evaluation import arms, folder, predictions
from trainer.evaluation.asking import questions
from trainer.evaluation.asking.questions import Protocol
from trainer.evaluation.items import Items
from trainer.evaluation.predictions import Prediction
from trainer.generation.dialog import Record
from trainer.packages import check_device, check_packages, versions
from vpt_data import store
from vpt_data.cli.output import Bar
from vpt_data.corpus.reader import Corpus
from vpt_data.errors import UsageError

if TYPE_CHECKING:
    from trainer.data.encode import RowEncoder
    from trainer.generation.policy import Policy
    from trainer.model.vpt import VPTModel

#: What an evaluation that asks a model states of it by itself.
STATED = {"model", "corpus", "questions", "protocol", "intervention", "generation", "pixels", "asked_with"}


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
    max_new_tokens: int
    expand: int
    longest: int | None
    batch: int
    workers: int
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


class Asking:
    """A model that is asked the items; it is opened when a row needs it. Answers that are there stay."""

    def __init__(self, corpus: Corpus, asked: Items, source: Source, out: Path) -> None:
        check_packages()
        check_device(source.device)
        self.corpus, self.asked, self.source, self.out = corpus, asked, source, out
        self.how = questions.decoding(source.protocol, max_new_tokens=source.max_new_tokens, expand=source.expand)
        self.k = grid(source)
        self._decisive: dict[str, Any] = {
            "model": identity(source),
            "corpus": corpus.manifest.fingerprint,
            "questions": questions.made_with(),
            "protocol": source.protocol,
            "generation": {**asdict(self.how), "dtype": source.dtype},
            "pixels": source.longest or _longest(source),
        }

    @cached_property
    def _model(self) -> tuple[VPTModel, RowEncoder]:
        return _opened(self.source)

    def _deciding(self, arm: str | None) -> dict[str, Any]:
        """What decides the answers: with anything else of it, those that are there are refused."""
        return {**self._decisive, "intervention": arm}

    def about(self, arm: str | None = None) -> dict[str, Any]:
        """The facts of an evaluation, with an intervention or without; `asked_with` should change rounding at most."""
        packages = versions("torch", "transformers", "tokenizers", "Pillow")
        return {**self._deciding(arm), "asked_with": {"device": self.source.device, **packages}}

    def own(self) -> list[Prediction]:
        """What the model says as it is, in the order of the items."""
        answers = folder.Answers(self.out, self._deciding(None))
        missing = self._missing(answers)
        with answers.adding() as file:
            for record in self._said(missing, "asked"):
                answers.add(file, predictions.of_record(record, self.k))
        return self._all(answers)

    def intervened(self, arm: str, own: Sequence[Prediction]) -> list[Prediction]:
        """What it says under an intervention; `own` is what it says as it is.

        A row that the intervention does not change keeps its own answer, so that rounding is no difference.
        """
        others, gold = arms.of_others(arm, self.asked, own), self.asked.gold(self.k)
        decisive = {**self._deciding(arm), "donors": arms.donors(others)}
        answers = folder.Answers(self.out / arm, decisive, renewing="donors")
        missing = self._missing(answers)
        by_id = {one.id: msgspec.structs.replace(one, control_vectors=None) for one in own}
        touched = {name for name in missing if arms.touches(arm, by_id[name], gold)}
        policy = None
        if touched:
            from trainer.generation.interventions import intervention

            first_turns = {one.id: one.turns[0] for one in own if one.turns}
            policy = intervention(arm, gold, self.k, self.source.expand, first_turns, others)
        with answers.adding() as file:
            for name in sorted(missing - touched):
                answers.add(file, by_id[name])
            for record in self._said(touched, f"asked with {arm}", policy):
                one = msgspec.structs.replace(predictions.of_record(record, self.k), control_vectors=None)
                answers.add(file, one if one.intervened or one.fault else by_id[one.id])
        return self._all(answers)

    def _missing(self, answers: folder.Answers) -> set[str]:
        return set(self.asked.texts("id")) - {one.id for one in answers.read()}

    def _all(self, answers: folder.Answers) -> list[Prediction]:
        by_id = {one.id: one for one in answers.read()}
        return [by_id[name] for name in self.asked.texts("id")]

    def _said(self, wanted: Collection[str], title: str, policy: Policy | None = None) -> Iterator[Record]:
        """The records of some rows, as they are made."""
        if not wanted:
            return
        from trainer.generation.answers import answer

        model, encoder = self._model
        source = self.source
        rows = questions.questions(self.corpus, self.asked.by_split(wanted), source.protocol)
        begin = time.perf_counter()
        with Bar(title) as bar:
            said = answer(
                model, encoder, rows, self.how, policy, batch=source.batch, workers=source.workers, raw=source.raw
            )
            for number, record in enumerate(said, 1):
                yield record
                bar(number, len(wanted))
        seconds = time.perf_counter() - begin
        rate = f"{len(wanted):,} rows in {seconds:.1f} s ({len(wanted) / seconds:.1f} rows a second)"
        click.echo(f"{title}: {rate}", err=True)


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
        found = "holds no checkpoint" if source.place.is_dir() else "nothing is there"
        raise UsageError(f"{source.place}: {found}; give the --out of a run, or weights.")
    hashed = hashlib.sha256("".join(store.sha256(file) for file in files).encode()).hexdigest()
    return {"weights": hashed, "config": shapes}
