"""The loader alone: rows of a corpus as pixels for a model, against webdataset and `datasets` streaming.

    python -m bench.loader --corpus CORPUS [--encoder dino] [--rows 1500] [--rounds 3] [--longest 512]
    python -m bench.loader --corpus CORPUS --ranks 1 2 8

Rows for each second of CPU time, in one process with one thread; all arms in turn, in one run. The peers get the same
rows with the bytes of their images and their views as JSON, shuffled in a buffer; they decode each image of a row once,
make every view of it and resize it to the same size by the same filter, as an array of bytes. `ours` also makes token
ids, labels, micro-batches and plans; a peer makes none of these, or with `and text` token ids and labels (by our code).
`same_work` is the share of our time in Pillow's decoders and filters, which every arm needs for each picture. With
--ranks it prints instead how many bytes of row groups each rank reads in an epoch, text and images. Prints JSON.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image, ImageFile

from trainer.data.corpus import Corpus, open_corpus
from trainer.data.encode import RowEncoder
from trainer.data.loader import Loader, Settings
from trainer.data.vision import Vision
from trainer.encoders import KINDS
from trainer.model.phases import Planner
from trainer.model.shapes import shape_named
from trainer.model.tiny import tiny_tokenizer
from trainer.model.vpt import VPTModel
from vpt_data.corpus.reader import Shard

WARM = 50
COLUMNS = ("id", "messages", "views", "image_info", "k")
BUFFER = 1000  # rows that a peer shuffles together
TEXTS = ["what is the colour of the left sign? it is red\n"] * 4


def ours(corpus: Corpus, encoder: RowEncoder, planner: Planner) -> Iterator[int]:
    """The views of each row; how many these are."""
    loader = Loader(corpus, encoder, Settings(rows=256, tokens=16_384))
    loader.planner = planner
    for micro in loader:
        yield from (len(sample.slots) for sample in micro.samples)


def planner_2b() -> Planner:
    """That of the 2B model, without its weights."""
    shape = shape_named("qwen2_vl_2b")
    with torch.device("meta"):
        return VPTModel(shape.build(), []).planner


class Peer:
    """What is done with a row that a peer has read."""

    def __init__(self, encoder: RowEncoder, text: bool) -> None:
        self.encoder, self.text = encoder, text

    def __call__(self, row: dict[str, Any], images: list[bytes]) -> int:
        """Its views, counted, and its token ids and labels if they are wanted."""
        if self.text:
            self.encoder.encode(row)
        return pictures(self.encoder.vision, row["views"], images)


def pictures(vision: Vision, views: list[dict[str, Any]], images: list[bytes]) -> int:
    """The views of a row as a peer would make them, each image decoded once."""
    decoded: dict[int, Image.Image] = {}
    for view in views:
        if view["image"] not in decoded:
            decoded[view["image"]] = Image.open(io.BytesIO(images[view["image"]])).convert("RGB")
        image = decoded[view["image"]]
        if view["box"] is not None:
            image = image.crop(tuple(view["box"]))
        np.asarray(resized(vision, view["encoder"], image))
    return len(views)


def resized(vision: Vision, kind: str, image: Image.Image) -> Image.Image:
    """A picture in the size that an encoder sees."""
    own = KINDS[kind].input if kind in KINDS else None
    if own is not None:
        return own.picture(vision, image)
    _, grid = vision.tokens(kind, image.size)
    assert grid is not None
    return image.resize((grid[2] * vision.patch, grid[1] * vision.patch), Image.Resampling.BICUBIC)


def write_tars(corpus: Corpus, folder: Path, count: int) -> None:
    """The rows as webdataset has them: `views` and text as JSON, each image as a member."""
    from webdataset import ShardWriter

    folder.mkdir()
    with ShardWriter(str(folder / "%05d.tar"), maxsize=500e6, verbose=0) as writer:
        for number, row in enumerate(islice(corpus.stream(0, 0), count)):
            images = {f"{n}.image": image["bytes"] for n, image in enumerate(row.images)}
            text = {name: row.fields[name] for name in COLUMNS}
            writer.write({"__key__": f"{number:08d}", "row.json": text, **images})


def with_webdataset(folder: Path, peer: Peer) -> Iterator[int]:
    """From tar files."""
    from webdataset import WebDataset

    files = sorted(str(path) for path in folder.glob("*.tar"))
    for sample in WebDataset(files, shardshuffle=False, empty_check=False).shuffle(BUFFER):
        images = [sample[f"{n}.image"] for n in range(sum(key.endswith(".image") for key in sample))]
        yield peer(json.loads(sample["row.json"]), images)


def with_datasets(corpus: Corpus, peer: Peer) -> Iterator[int]:
    """From the shards of the corpus."""
    import datasets

    files = sorted({str(group.shard.path) for group in corpus.groups})
    rows = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
    for row in rows.shuffle(seed=0, buffer_size=BUFFER).select_columns([*COLUMNS, "images"]).decode(False):
        yield peer(row, [image["bytes"] for image in row["images"]])


class Spent:
    """CPU seconds in some functions of Pillow."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def run(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.process_time() - start

        return run


def speed(rows: Iterator[int], count: int) -> tuple[float, int]:
    """Rows for a second of CPU time, and their pictures."""
    start = time.process_time()
    found = list(islice(rows, count))
    return len(found) / (time.process_time() - start), sum(found)


def compare(corpus: Corpus, encoder: RowEncoder, count: int, rounds: int, work: Path) -> dict[str, Any]:
    """All arms in turn; medians, and ours over the best peer in each round."""
    write_tars(corpus, work / "tar", count)
    planner = planner_2b()
    arms: dict[str, Callable[[], Iterator[int]]] = {
        "ours": lambda: ours(corpus, encoder, planner),
        "webdataset": lambda: with_webdataset(work / "tar", Peer(encoder, text=False)),
        "datasets": lambda: with_datasets(corpus, Peer(encoder, text=False)),
        "webdataset and text": lambda: with_webdataset(work / "tar", Peer(encoder, text=True)),
        "datasets and text": lambda: with_datasets(corpus, Peer(encoder, text=True)),
    }
    for arm in arms.values():
        speed(arm(), WARM)  # imports
    found: dict[str, list[float]] = {name: [] for name in arms}
    counted = {}
    for _ in range(rounds):
        for name, arm in arms.items():
            fast, counted[name] = speed(arm(), count)
            found[name].append(fast)
    ratios = {
        name: [
            round(mine / max(one, other), 2)
            for mine, one, other in zip(
                found["ours"], found[f"webdataset{name}"], found[f"datasets{name}"], strict=True
            )
        ]
        for name in ("", " and text")
    }
    spent = Spent()
    resize, load = spent.timed(Image.Image.resize), spent.timed(ImageFile.ImageFile.load)
    with mock.patch.object(Image.Image, "resize", resize), mock.patch.object(ImageFile.ImageFile, "load", load):
        start = time.process_time()
        speed(ours(corpus, encoder, planner), count)
        share = spent.seconds / (time.process_time() - start)
    return {
        "rows": count,
        "pictures": counted,
        "rows_per_cpu_second": {name: round(statistics.median(values), 1) for name, values in found.items()},
        "ours_over_best_peer": ratios[""],
        "ours_over_best_peer_and_text": ratios[" and text"],
        "same_work": round(share, 2),
    }


def read_by_ranks(corpus: Corpus, encoder: RowEncoder, world: int) -> dict[str, Any]:
    """Compressed bytes of the columns that each rank reads in an epoch; no picture is decoded."""
    read = {False: 0, True: 0}
    known = Shard.row_group

    def row_group(shard: Shard, number: int, columns: Any = None, images: bool = False) -> Any:
        with shard.opened() as file:
            group = file.metadata.row_group(number)
        chunks = (group.column(n) for n in range(group.num_columns))
        read[images] += sum(c.total_compressed_size for c in chunks if c.path_in_schema.split(".")[0] in columns)
        return known(shard, number, columns, images)

    ranks = []
    for rank in range(world):
        read.update({False: 0, True: 0})
        loader = Loader(corpus, encoder, Settings(rows=256, tokens=16_384), rank=rank, world=world)
        with mock.patch.object(Shard, "row_group", row_group), mock.patch("trainer.data.loader._Cut._pictures", _none):
            list(loader)
        ranks.append(dict(read))
    sizes = {"text_mb": False, "images_mb": True}
    return {name: [round(rank[images] / 1e6, 1) for rank in ranks] for name, images in sizes.items()}


def _none(*_: Any) -> list[Any]:
    return []


def main(arguments: list[str] | None = None) -> int:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True, help="with its images")
    parser.add_argument("--encoder", default="dino", help="that the corpus calls")
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--longest", type=int, default=512)
    parser.add_argument("--ranks", type=int, nargs="+", help="count what so many ranks read")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    corpus = open_corpus(options.corpus)
    tokenizer = tiny_tokenizer(TEXTS, options.encoder, words=300).backend_tokenizer
    encoder = RowEncoder(tokenizer, Vision(longest=options.longest), cutoff=8192)
    if options.ranks:
        print(json.dumps({world: read_by_ranks(corpus, encoder, world) for world in options.ranks}, indent=1))
        return 0
    missing = [name for name in ("webdataset", "datasets") if find_spec(name) is None]
    if missing:
        print(f"{missing[0]} is not installed; run `pip install {missing[0]}` to compare with it.", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as work:
        found = compare(corpus, encoder, min(options.rows, corpus.rows), options.rounds, Path(work))
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
