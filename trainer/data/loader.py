"""Shards -> micro-batches: one process plans, others cut pictures, and a position in the epoch is all there is to save.

An optimiser step is the next `rows` rows of the epoch's order, whatever the number of ranks; every rank reads the text
of all of them, agrees with the others on who takes what without a word, and reads and decodes the images of its own
share. Rows of a row group go to the same rank where that is possible: the images of a row group are read together.
"""

from __future__ import annotations

import io
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import xxhash
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from trainer.data.corpus import Corpus, Row
from trainer.data.encode import RowEncoder, Unfit
from trainer.data.packing import pack, pack_alike
from trainer.data.parcel import Parcel
from trainer.data.sample import Batch, Sample
from trainer.data.vision import Vision
from vpt_data.errors import CorpusError, UsageError, VptDataError
from vpt_data.images import policy, views
from vpt_data.images.policy import Failure
from vpt_data.images.root import ImageRoot
from vpt_data.schema import Reason

if TYPE_CHECKING:
    from trainer.model.phases import Planner

_GIVE_UP = 1000  # rows skipped before the first good one


@dataclass(frozen=True)
class Settings:
    """How rows become batches.

    rows      of an optimiser step, over all ranks; the last step of an epoch has what is left
    tokens    of a micro-batch at most
    window    rows that are shuffled together at least (16 row groups at most)
    mask      share of the samples with mask modelling, others in every epoch
    workers   processes that decode; 0: all in this process
    pin       pictures in page-locked memory, for a GPU
    alike     the same micro-batches for any number of ranks, so that sums over them are equal to the bit
    first     the first step only
    """

    rows: int = 256
    tokens: int = 16_384
    epochs: int = 1
    seed: int = 0
    mask: float = 0.0
    window: int = 16_384
    workers: int = 0
    pin: bool = False
    alike: bool = False
    first: bool = False


class Skipped(NamedTuple):
    """A row that was not trained on: a reason of vpt_data's `Reason` or `too_long`, and one sentence."""

    id: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Micro:
    """A micro-batch; it can be empty.

    `position` is the number of rows of the epoch that are done when its step is; `last` says that it ends the step, on
    this rank and all others. `phases` is how many phases any rank has in this micro-batch. The slots of `samples` have
    no pixels: `parcel` holds all pictures, and the plan if the loader makes one.
    """

    epoch: int
    position: int
    last: bool
    phases: int
    samples: list[Sample]
    skipped: list[Skipped]
    parcel: Parcel

    def pin_memory(self) -> Micro:
        """The same in page-locked memory (called by torch)."""
        return replace(self, parcel=self.parcel.pin_memory())

    def batch(self, vision: Vision, device: torch.device | str = "cpu") -> Batch:
        """What the model takes: indices and pictures travel to its device in one copy; there pixels are scaled."""
        plan, pictures = self.parcel.opened(device)
        pixels = {kind: [vision.pixels(kind, one) for one in some] for kind, some in pictures.items()}
        return Batch(plan, pixels)


_Task = tuple[Micro, list[dict[str, Any]]]  # a micro-batch before its pictures are cut, and its rows


class _Plan(IterableDataset[_Task | VptDataError]):
    """The micro-batches of one rank from where it stands; an error of ours as the last, for torch would wrap it."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[_Task | VptDataError]:
        try:
            yield from self._epochs()
        except VptDataError as error:
            yield error

    def _epochs(self) -> Iterator[_Task]:
        loader, how = self._loader, self._loader.settings
        position = loader.position
        for epoch in range(loader.epoch, how.epochs):
            rows = loader.corpus.stream(how.seed, epoch, position, how.window)
            while some := list(islice(rows, how.rows)):
                position += len(some)
                yield from self._step(epoch, position, some)
                if how.first:
                    return
            position = 0

    def _step(self, epoch: int, position: int, rows: Sequence[Row]) -> Iterator[_Task]:
        loader, how = self._loader, self._loader.settings
        kept: list[tuple[Row, dict[str, Any], Sample]] = []
        skipped: list[Skipped] = []
        for row in rows:
            try:
                fields = _sized(row, loader.raw)
                sample = loader.encoder.encode(fields)
                kept.append((row, fields, replace(sample, masked=masked(sample.id, how.mask, how.seed, epoch))))
            except Unfit as unfit:
                skipped.append(Skipped(row.fields["id"], unfit.reason, unfit.detail))
        kept.sort(key=lambda one: one[0].group.place)
        packed = pack_alike if how.alike else pack
        micros = packed([len(sample.input_ids) for *_, sample in kept], loader.world, how.tokens)
        for number, ranks in enumerate(micros):
            mine = [kept[place] for place in ranks[loader.rank]]
            # All ranks find the same unfit rows; one reports them.
            reported = skipped if loader.rank == 0 and number == 0 else []
            phases = max((1 + len(kept[place][2].controls) for some in ranks for place in some), default=1)
            samples, last = [sample for *_, sample in mine], number == len(micros) - 1
            micro = Micro(epoch, position, last, phases, samples, reported, Parcel.of(None))
            yield micro, [{**fields, "images": row.images} for row, fields, _ in mine]


def masked(id: str, share: float, seed: int, epoch: int) -> bool:
    """The coin of mask modelling for a sample: the same on every rank and after a resume, another in each epoch."""
    return xxhash.xxh3_64_intdigest(f"{seed}\0{epoch}\0{id}".encode()) < share * 2.0**64


def _sized(row: Row, raw: ImageRoot | None) -> dict[str, Any]:
    """The row with the sizes that it does not say, read from the headers of its images."""
    info = row.fields["image_info"]
    if all(one["width"] and one["height"] for one in info):
        return row.fields
    sized = []
    for one, image in zip(info, row.images, strict=False):
        if image["bytes"] is not None:
            found = policy.header(image["path"], io.BytesIO(image["bytes"]))
        else:
            found = raw.size(image["path"]) if raw else Failure(Reason.NO_SIZE, f"{image['path']}: no size in the row")
        if isinstance(found, Failure):
            raise Unfit(found.reason, found.detail)
        sized.append({**one, "width": found[0], "height": found[1]})
    return {**row.fields, "image_info": sized}


class _Cut(Dataset[Micro | VptDataError]):
    """Decodes, cuts and resizes what a task shows, and plans it; hands on errors of ours."""

    def __init__(self, vision: Vision, raw: ImageRoot | None, planner: Planner | None) -> None:
        self._vision, self._raw, self._planner = vision, raw, planner

    def __getitem__(self, task: _Task | VptDataError) -> Micro | VptDataError:
        try:
            return task if isinstance(task, VptDataError) else self._cut(*task)
        except VptDataError as error:
            return error

    def _cut(self, micro: Micro, rows: list[dict[str, Any]]) -> Micro:
        samples: list[Sample] = []
        pictures: dict[str, list[Tensor]] = {}
        skipped = list(micro.skipped)
        for sample, row in zip(micro.samples, rows, strict=True):
            try:
                found = self._pictures(sample, row)
            except Unfit as unfit:
                skipped.append(Skipped(sample.id, unfit.reason, unfit.detail))
                continue
            samples.append(sample)
            for kind, picture in found:
                pictures.setdefault(kind, []).append(picture)
        plan = self._planner(samples) if self._planner else None
        return replace(micro, samples=samples, skipped=skipped, parcel=Parcel.of([plan, pictures]))

    def _pictures(self, sample: Sample, row: dict[str, Any]) -> list[tuple[str, Tensor]]:
        """Each picture of a sample once, and the tower that takes it."""
        images = [fetched(*each, self._raw) for each in zip(row["images"], row["image_info"], strict=False)]
        try:
            shown = views.shown({**row, "images": images}, read_only=True)
            return [
                (slot.tower, self._vision.picture(slot.kind, image))
                for slot, image in zip(sample.slots, shown, strict=True)
                if slot.shares is None
            ]
        except CorpusError as error:
            raise Unfit(Reason.BAD_IMAGE, str(error)) from error


def fetched(image: dict[str, Any], info: Mapping[str, Any], raw: ImageRoot | None) -> dict[str, Any]:
    """The image of a row with its bytes, from the raw root where the shard has none; raises Unfit."""
    if image["bytes"] is not None or raw is None:
        return image
    found = raw.load(image["path"], info["width"], info["height"])
    if isinstance(found, Failure):
        raise Unfit(found.reason, found.detail)
    return {**image, "bytes": found.data}


class Loader:
    """Iterates the micro-batches of one rank, from where `restore` put it to the end of the last epoch.

    With the `planner` of a model its workers also plan the micro-batches. `waited` is how many seconds the caller has
    waited for data, `skipped` how many rows were left out for which reason (on this rank, in this process;
    `Micro.skipped` names them). Leaving the loop, by whatever way, ends the processes.
    """

    def __init__(
        self,
        corpus: Corpus,
        encoder: RowEncoder,
        settings: Settings,
        *,
        raw: Path | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if settings.tokens < encoder.cutoff:
            raise UsageError(
                f"data.tokens is {settings.tokens}, expected at least the cutoff of a sample, {encoder.cutoff}"
            )
        self.corpus, self.encoder, self.settings = corpus, encoder, settings
        self.rank, self.world = rank, world
        self.raw = ImageRoot(raw) if raw else None
        self.planner: Planner | None = None
        self.epoch, self.position = 0, 0
        self.waited = 0.0
        self.skipped: Counter[str] = Counter()
        self._any = False

    def state(self) -> dict[str, Any]:
        """Where the run is when the step of the last micro-batch is done: the same on every rank, for any number."""
        return {**self._order(), "epoch": self.epoch, "position": self.position}

    def _order(self) -> dict[str, Any]:
        return {"corpus": self.corpus.identity, "seed": self.settings.seed, "window": self.settings.window}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where a `state` was taken; UsageError if the order of rows is another one now."""
        for name, now in self._order().items():
            if state[name] != now:
                raise UsageError(
                    f"This run was in the middle of an epoch with {name} {state[name]}, and now {name} is {now}; "
                    "continue with the same corpus and settings, or start a new run from its weights"
                )
        self.epoch, self.position = state["epoch"], state["position"]

    def __iter__(self) -> Iterator[Micro]:
        batches = self._start()
        try:
            while True:
                begin = time.perf_counter()
                micro = next(batches, None)
                self.waited += time.perf_counter() - begin
                if micro is None:
                    return
                if isinstance(micro, VptDataError):
                    raise micro
                self._note(micro)
                yield micro
        finally:
            # The last reference: torch ends the processes now and not at some garbage collection.
            del batches

    def _start(self) -> Iterator[Micro | VptDataError]:
        """Two loaders in a row: what one process plans is what the others are asked for."""
        count = self.settings.workers
        # Draws nothing from the generator of the run.
        common: dict[str, Any] = {"batch_size": None, "collate_fn": _same, "generator": torch.Generator()}
        common["worker_init_fn"] = _outlast_sigterm
        if count and sys.platform == "linux":
            # A fork starts at once and needs no copy of the program; elsewhere it is not safe.
            common["multiprocessing_context"] = "fork"
        planned = DataLoader(_Plan(self), num_workers=min(count, 1), prefetch_factor=2 * count or None, **common)
        cut = _Cut(self.encoder.vision, self.raw, self.planner)
        return iter(DataLoader(cut, sampler=planned, num_workers=count, pin_memory=self.settings.pin, **common))

    def _note(self, micro: Micro) -> None:
        self.skipped.update(found.reason for found in micro.skipped)
        self._any = self._any or bool(micro.samples)
        if not self._any and self.skipped.total() >= min(_GIVE_UP, self.corpus.rows):
            why = ", ".join(f"{reason}: {count}" for reason, count in self.skipped.most_common())
            raise CorpusError(
                f"{self.corpus.name}: none of the first {self.skipped.total()} rows can be trained on ({why}); "
                f"the first is {micro.skipped[0].id}: {micro.skipped[0].detail}"
            )
        if micro.last:
            done = micro.position == self.corpus.rows
            self.epoch, self.position = (micro.epoch + 1, 0) if done else (micro.epoch, micro.position)


def _outlast_sigterm(_: int) -> None:
    """In a worker: schedulers send SIGTERM to all processes, and the trainer ends its step first, which needs rows.

    Not for longer than they wait by default: at exit, Python ends workers by the same signal and waits for them.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(30))


def _same(item: Any) -> Any:
    return item
