"""Does a second look help, and does it help because it shows the right place? Five arms and free choice, on the CPU.

    python -m bench.looks --work bench/.looks --seeds 3

draws the world of `looks_world`, builds a corpus of it as `vpt-data build` does, and trains the tiny model from scratch
for the same steps on the same rows, once for each arm and seed:

    plain    question and answer; no look
    whole    the region tokens, then the whole picture once more
    random   the region tokens, then a crop of the region's size somewhere else
    own      the region tokens, then the crop that they name, as the corpus says
    free     the rows of `own`, and others that need no look or one through DINO

Held-out rows: the model generates its region tokens itself. The fifth arm, oracle, is the model of `own` that is
given the true region. A finished run is a file in WORK/results and is not made again. The markdown goes to stdout.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import looks_world
from bench.looks_arms import ARMS, write_arm
from vpt_data import recipe
from vpt_data.pipeline import build, plan
from vpt_data.pipeline.engines.start import start_engine

RUNS = (*ARMS, "free")
IMAGES = {"train": 5000, "test": 600}
STEPS = {**dict.fromkeys(ARMS, 800), "free": 1200}


def make_corpora(work: Path, images: dict[str, int]) -> None:
    """WORK/corpus from drawn pictures, and WORK/arms/ARM with the same rows as each arm is shown them."""
    if not (work / "raw" / "recipe.toml").is_file():
        looks_world.make(work / "raw", images)
    if not (work / "corpus" / "manifest.json").is_file():
        planned = plan.make(recipe.load(str(work / "raw" / "recipe.toml")), work / "raw", "embed", None)
        build.build(planned, work / "corpus", functools.partial(start_engine, "local", os.cpu_count() or 1))
    for arm in ARMS:
        if not (work / "arms" / arm).is_dir():
            write_arm(work / "corpus" / "data", work / "arms" / arm, arm)


def one(work: Path, name: str, seed: int, steps: int) -> None:
    """Train one run, score it, and write WORK/results/NAME-SEED.json."""
    from bench import looks_score, looks_train

    out, free = work / "runs" / f"{name}-{seed}", name == "free"
    shutil.rmtree(out, ignore_errors=True)
    place = work / "corpus" if free else work / "arms" / name
    tokenizer = looks_train.tokenizer_of(work / "corpus")
    model, encoder, entries = looks_train.trained(place, [], tokenizer, out, seed, steps)
    result = {"name": name, "seed": seed, "steps": steps, **looks_train.summary(entries)}
    result |= looks_score.scored(model, encoder, name, str(work / "corpus"))
    path = work / "results" / f"{name}-{seed}.json"
    path.parent.mkdir(exist_ok=True)
    path.with_suffix(".partial").write_text(json.dumps(result, indent=1), encoding="utf-8")
    path.with_suffix(".partial").rename(path)
    shutil.rmtree(out)


def run_all(work: Path, seeds: int, jobs: int, steps: int | None) -> None:
    """Make what results are missing, `jobs` at once, one thread each."""
    wanted = [(name, seed) for seed in range(seeds) for name in RUNS]
    missing = [(name, seed) for name, seed in wanted if not (work / "results" / f"{name}-{seed}.json").is_file()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def make(pair: tuple[str, int]) -> None:
        name, seed = pair
        program = [sys.executable, "-m", "bench.looks", "--work", str(work), "--one", name, "--seed", str(seed)]
        command = [*program, "--steps", str(steps or STEPS[name])]
        with (work / f"{name}-{seed}.log").open("w") as log:
            subprocess.run(command, env=environment, stdout=log, stderr=log, check=True)
        print(f"{name} {seed} done", file=sys.stderr, flush=True)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(make, missing))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--images", type=int, default=IMAGES["train"], help="pictures to train on")
    parser.add_argument("--steps", type=int, help=f"of each run; default: {STEPS}")
    parser.add_argument("--one", choices=RUNS, help="make this run only, with --seed")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.one:
        one(options.work, options.one, options.seed, options.steps or STEPS[options.one])
        return
    options.work.mkdir(parents=True, exist_ok=True)
    make_corpora(options.work, {**IMAGES, "train": options.images})
    run_all(options.work, options.seeds, options.jobs, options.steps)
    from bench import looks_report

    print(looks_report.report(options.work, options.seeds))


if __name__ == "__main__":
    main()
