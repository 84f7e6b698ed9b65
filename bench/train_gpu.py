"""The trainer at full size: throughput, MFU, memory and waiting for data, and one pass against two in the same run.

    python -m bench.train_gpu [--corpus CORPUS] [--config vpt_2b_dino] [--base shape:qwen2_vl_2b] [--profile]

The shapes of Qwen2-VL-2B and DINOv2-large with random weights, pictures of 512 pixels decoded from the shards of a
corpus with its images (the sample, if none is given). Prints JSON: medians over the steps after the first `--warm` as
`metrics.jsonl` has them, and how much longer the language model takes by full passes over the same rows. `--profile`
compares settings and looks into a step (see bench/profile_gpu.py) in about ten minutes: a table on stderr, JSON on
stdout. It is meant for one GPU; `--config tiny --base tiny` runs it in seconds on a CPU, to see that it works.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from bench.train_step import seconds, steps, with_pixels
from trainer import config as configs
from trainer.config import Config
from trainer.data.corpus import Corpus, open_corpus
from trainer.data.loader import Loader
from trainer.data.sample import Sample
from trainer.entry import sample_corpus
from trainer.training import base, loop, parallel, run_folder, setup

FIGURES = ("samples_per_s", "tokens_per_s", "mfu", "data_wait", "memory_gb", "seconds")


class Unsaved(loop.Trainer):
    """A run without checkpoints: they are not what is measured, and 40 GB of them may not fit on the disk."""

    def save(self) -> None:
        """Nothing."""

    def steps(self) -> Iterator[dict[str, Any]]:
        """What is known about each step, as it is made."""
        return self._steps(lambda: False)


def trainer_of(config: Config, corpus: Corpus, out: Path) -> Unsaved:
    """A run of a model with the weights that the configuration names."""
    ranks = parallel.join(config.run.device, config.run.parallel)
    torch.manual_seed(config.seed)
    tokenizer = setup.make_tokenizer(config, corpus)
    model = setup.make_model(config, tokenizer)
    encoder = setup.row_encoder(config, tokenizer, base.vision_of(config))
    loader, total = setup.make_loader(config, corpus, encoder, ranks)
    return Unsaved(model, loader, config, out, ranks, total)


def measured(config: Config, corpus: Corpus, warm: int, rounds: int) -> dict[str, Any]:
    """Train for `config.optim.steps` steps, then both ways in turn on the first rows with control tokens."""
    with tempfile.TemporaryDirectory() as place:
        trainer = trainer_of(config, corpus, Path(place))
        trainer.run()
        entries = run_folder.read_metrics(Path(place))[warm:]
    found = {key: statistics.median(entry[key] for entry in entries) for key in FIGURES if key in entries[0]}
    ratio = two_passes(trainer, corpus, rounds)
    return {"steps": len(entries), "samples_a_step": entries[0]["samples"], **found, "two_passes_over_one": ratio}


def two_passes(trainer: Unsaved, corpus: Corpus, rounds: int, count: int = 8) -> dict[str, float]:
    """How much longer full passes take than one, over the first rows with control tokens: both in turn."""
    model, ranks = trainer.model, trainer.ranks
    loader, _ = setup.make_loader(trainer.config, corpus, trainer.loader.encoder, ranks)
    samples = controlled(loader, ranks.device, count)
    model.zero_grad(set_to_none=True)
    with torch.autocast(ranks.device.type, torch.bfloat16, enabled=ranks.device.type == "cuda"):
        both = steps(model, samples)
        taken: dict[str, list[float]] = {name: [] for name in both}
        for number in range(rounds + 1):
            for name, step in both.items():
                spent = seconds(step, ranks.device)
                taken[name] += [spent] if number else []  # the first round warms up
                model.zero_grad(set_to_none=True)
    ratios = [twice / single for single, twice in zip(taken["single"], taken["twice"], strict=True)]
    return {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}


def controlled(loader: Loader, device: torch.device, count: int) -> list[Sample]:
    """The first rows that have a control token."""
    batches = (with_pixels(micro, loader.encoder.vision, device) for micro in loader)
    return list(islice((sample for batch in batches for sample in batch if sample.controls), count))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", help="with its images; default: the sample")
    parser.add_argument("--config", default="vpt_2b_dino")
    parser.add_argument("--base", default="shape:qwen2_vl_2b")
    parser.add_argument("--steps", type=int, help="30, with --profile 12 for each setting")
    parser.add_argument("--warm", type=int, default=5, help="steps at the beginning that do not count")
    parser.add_argument("--rows", type=int, default=64, help="rows of a step")
    parser.add_argument("--rounds", type=int, default=5, help="of one pass against two")
    parser.add_argument("--profile", action="store_true", help="compare settings, and look into a step")
    parser.add_argument("--minutes", type=float, default=8, help="with --profile, after which no setting is begun")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the configuration")
    options = parser.parse_args(arguments)
    count = options.steps or (12 if options.profile else 30)
    values = [f'model.base="{options.base}"', f"optim.steps={count}", f"data.rows={options.rows}"]
    config = configs.load(options.config, [*values, *options.set])
    corpus = open_corpus(options.corpus or str(sample_corpus()), config.data.split, config.data.takes)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    if options.profile:
        from bench import profile_gpu  # which imports this module

        arms = profile_gpu.profiled(config, corpus, warm=options.warm, rounds=options.rounds, minutes=options.minutes)
        print(profile_gpu.table(arms), file=sys.stderr)
        result: dict[str, Any] = {"arms": [asdict(arm) for arm in arms]}
    else:
        result = measured(config, corpus, options.warm, options.rounds)
    print(json.dumps({"device": device, "torch": torch.__version__, **result}, indent=1))


if __name__ == "__main__":
    main()
