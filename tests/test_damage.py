"""Damaged inputs: an answer in a sentence or a corpus that accounts for every row; never a traceback or a stray file.

Some 80 of them here, 2,000 with VPT_SOAK=1 (`make soak`). Each is made from its name: run one again with -k.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from helpers import end_to_end, mutations
from helpers.command import run
from helpers.soak import SOAK

from vpt_data import recipe as recipes
from vpt_data.synthetic import write_sample


def seeds(default: int, soak: int) -> range:
    return range(soak if SOAK else default)


class Victim(NamedTuple):
    """A raw file, and the takes of a recipe that read it."""

    file: str
    recipe: str
    takes: tuple[str, ...]
    set: str = ""


BENCHMARK = "visual_cot/viscot_benchmark"
CUB = "cub/CUB_200_2011"
VICTIMS = [
    Victim("visual_cot/metadata/gqa_cot_train.jsonl", "sample", ("gqa",)),
    Victim("visual_cot/metadata/docvqa_cot_train.jsonl", "sample", ("docvqa",)),
    Victim("visual_cot/metadata/cub_cot_train.jsonl", "sample", ("cub",)),
    Victim("visual_cot/metadata/sroie_cot_train.jsonl", "sample", ("sroie",)),
    Victim("llava/llava_v1_5_mix665k.json", "sample", ("llava_coco", "llava_gqa", "llava_rest")),
    Victim("llava_pretrain/blip_laion_cc_sbu_558k.json", "sample", ("captions",)),
    Victim("vsr/splits/random/train.jsonl", "sample", ("vsr_native",)),
    Victim("coco/annotations/instances_train2017.json", "sample", ("vsr_native",)),
    Victim("own/receipts.csv", "sample", ("own_receipts",)),
    Victim("own/signs.jsonl", "sample", ("own_signs",)),
    Victim("own/signs.parquet", "sample", ("own_signs",), 'take.own_signs.files=["own/signs.parquet"]'),
    Victim("own/questions.jsonl", "sample", ("own_shelves",)),
    Victim("own/instances.json", "sample", ("own_shelves",)),
    Victim("vg/image_data.json", "sample", ("gqa",)),
    Victim(f"{BENCHMARK}/benchmark_det/gqa.jsonl", "sample_eval", ("GQA_region_test",)),
    Victim(f"{BENCHMARK}/benchmark/gqa.json", "sample_eval", ("GQA_region_test",)),
    Victim("pope/coco/coco_pope_popular.json", "sample_eval", ("POPE_action_test",)),
    Victim(f"{CUB}/images.txt", "cub_native", ("cub_native",)),
    Victim(f"{CUB}/bounding_boxes.txt", "cub_native", ("cub_native",)),
    Victim(f"{CUB}/classes.txt", "cub_native", ("cub_native",)),
    Victim(f"{CUB}/image_class_labels.txt", "cub_native", ("cub_native",)),
    Victim(f"{CUB}/train_test_split.txt", "cub_native", ("cub_native",)),
]
#: Takes with a folder of few images each.
SHOWN = {"gqa": "gqa/images", "docvqa": "docvqa/documents", "own_signs": "own/images", "sroie": "sroie/images"}


class Workplace:
    """A folder with a raw root, a picture beside it that nobody may read, and a place for a corpus."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.raw, self.out = folder, folder / "raw", folder / "out"
        write_sample(self.raw, rows=40)
        signs = [json.loads(line) for line in (self.raw / "own/signs.jsonl").read_text(encoding="utf-8").splitlines()]
        pq.write_table(pa.Table.from_pylist(signs), self.raw / "own/signs.parquet")
        numbers = [int(path.stem) for path in (self.raw / "gqa/images").glob("*.jpg")]
        entries = [{"image_id": number, "coco_id": number + 1, "width": 500, "url": "u"} for number in numbers]
        (self.raw / "vg/image_data.json").write_text(json.dumps(entries))
        self.secret = folder / "secret.jpg"
        shutil.copyfile(self.raw / "own/images/schild_12346.jpg", self.secret)
        with self.secret.open("ab") as file:
            file.write(b"secret")  # behind the end of the picture: the size fits, the hash is its own

    def recipe(self, victim: Victim) -> Path:
        """A recipe with the takes of a victim alone."""
        path = self.folder / f"{'_'.join(victim.takes)}.toml"
        if not path.exists():
            whole = recipes.load(victim.recipe)
            takes = {name: msgspec.structs.replace(whole.take[name], count="all") for name in victim.takes}
            part = msgspec.structs.replace(whole, name=path.stem, take=takes, exclude=None, shards=2)
            path.write_text(recipes.as_toml(part), encoding="utf-8")
        return path

    def build(self, victim: Victim, mode: str) -> Result:
        more = ["--set", victim.set] if victim.set else []
        where: list[str | Path] = ["--raw", self.raw, "--out", self.out, "--workers", "1"]
        return run("build", "--recipe", self.recipe(victim), *where, "--images", mode, *more)

    @contextmanager
    def instead(self, *gone: str, new: Mapping[str, bytes | Path]) -> Iterator[None]:
        """Without some files or folders of the raw root and with others; a Path is a link to there."""
        aside = self.folder / "aside"
        for number, name in enumerate(gone):
            aside.mkdir(exist_ok=True)
            (self.raw / name).rename(aside / str(number))
        try:
            for name, content in new.items():
                (self.raw / name).symlink_to(content) if isinstance(content, Path) else (self.raw / name).write_bytes(
                    content
                )
            yield
        finally:
            for name in new:
                (self.raw / name).unlink()
            for number, name in enumerate(gone):
                (aside / str(number)).rename(self.raw / name)
            shutil.rmtree(aside, ignore_errors=True)
            shutil.rmtree(self.out, ignore_errors=True)

    def others(self) -> dict[str, tuple[int, int, int]]:
        """All files and folders beside the corpus."""
        found = {}
        for folder, names, files in os.walk(self.folder):
            if folder == str(self.folder) and "out" in names:
                names.remove("out")
            for name in (*names, *files):
                path = Path(folder, name)
                status = path.lstat()
                found[str(path)] = (status.st_mode, status.st_size, status.st_mtime_ns) if name in files else (0, 0, 0)
        return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    made = Workplace(tmp_path_factory.mktemp("damage"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.folder)
        yield made


@pytest.fixture(scope="module")
def intact(place: Workplace) -> dict[str, int]:
    """Records read for each take of SHOWN when nothing is damaged."""
    found = {}
    for take in SHOWN:
        assert place.build(Victim("", "sample", (take,)), "embed").exit_code == 0
        found[take] = records_read(place.out)
        shutil.rmtree(place.out)
    return found


def civil(result: Result, *codes: int) -> None:
    """One of the promised exit codes, and sentences where something is wrong."""
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise AssertionError("a traceback") from result.exception
    assert result.exit_code in codes, result.output
    said = result.stderr.splitlines()
    assert all(line.startswith(("Error: ", "Warning: ", "Note: ")) for line in said), result.stderr
    assert (result.exit_code in {0, 3}) == (not any(line.startswith("Error: ") for line in said)), result.stderr


def shows_secret(place: Workplace) -> bool:
    """Whether the corpus holds the picture that lies beside the raw root."""
    shown = {info["sha256"] for infos in end_to_end.table(place.out)["image_info"].to_pylist() for info in infos}
    return hashlib.sha256(place.secret.read_bytes()).hexdigest() in shown


def records_read(corpus: Path) -> int:
    return sum(part.read for part in end_to_end.account(corpus).values())


def built(place: Workplace, victim: Victim, mode: str) -> int | None:
    """Build; how many records a corpus that came of it accounts for, None where none did."""
    place.recipe(victim)
    before = place.others()
    result = place.build(victim, mode)
    assert place.others() == before
    civil(result, 0, 1, 2)
    assert (place.out / "manifest.json").exists() == (result.exit_code == 0)
    if result.exit_code:
        return None
    read = records_read(place.out)
    checked = run("check", place.out)
    assert (checked.exit_code, checked.stderr) == (0, ""), checked.output
    assert {path.name for path in place.out.iterdir()} == {
        "README.md", "data", "dropped.parquet", "manifest.json", "origins.parquet",
    }  # fmt: skip
    assert not shows_secret(place)
    return read


def test_a_secret_would_show(place: Workplace) -> None:
    """The tests below look for a picture that a corpus can hold: here it lies where it may be read."""
    name = "own/images/schild_12346.jpg"
    with place.instead(name, new={name: place.secret.read_bytes()}):
        assert place.build(Victim("", "sample", ("own_signs",)), "embed").exit_code == 0
        assert shows_secret(place)


@pytest.mark.parametrize("seed", seeds(36, 900))
def test_damaged_annotations(place: Workplace, seed: int) -> None:
    plan = Random(f"annotations {seed}")
    victim = VICTIMS[seed % len(VICTIMS)]
    whole = (place.raw / victim.file).read_bytes()
    if victim.file.endswith(".parquet"):
        data = mutations.binary(plan, whole)
    else:
        data = mutations.text(plan, whole, str(place.folder / "escape.jpg"))
    with place.instead(victim.file, new={victim.file: data}):
        read = built(place, victim, plan.choice(("embed", "reference")))
    if read is not None and victim.file.endswith(".jsonl") and data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{":
        assert read == sum(bool(line.strip(b" \t\r")) for line in data.split(b"\n"))


@pytest.mark.parametrize("seed", seeds(20, 500))
def test_damaged_images(place: Workplace, intact: dict[str, int], seed: int) -> None:
    plan = Random(f"images {seed}")
    take = plan.choice(list(SHOWN))
    folder = SHOWN[take]
    names = sorted(path.name for path in (place.raw / folder).iterdir() if "shelf" not in path.name)
    names = [f"{folder}/{name}" for name in names]
    new: dict[str, bytes | Path] = {}
    for name in plan.sample(names, plan.randrange(1, 4)):
        if plan.random() < 0.15:
            targets = (place.secret, place.folder / "gone", place.raw / name, place.raw / folder, place.raw / names[0])
            new[name] = plan.choice(targets)
        else:
            new[name] = mutations.image(
                plan, (place.raw / name).read_bytes(), (place.raw / plan.choice(names)).read_bytes()
            )
    with place.instead(*new, new=new):
        read = built(place, Victim("", "sample", (take,)), plan.choice(("embed", "embed", "embed", "reference")))
    assert read in {None, intact[take]}


@pytest.mark.parametrize("seed", seeds(12, 300))
def test_damaged_archives(place: Workplace, intact: dict[str, int], seed: int) -> None:
    plan = Random(f"archives {seed}")
    take = plan.choice(list(SHOWN))
    folder = SHOWN[take]
    last = f"{folder.rpartition('/')[2]}/" if plan.random() < 0.5 else ""
    files = {f"{last}{path.name}": path.read_bytes() for path in sorted((place.raw / folder).iterdir())}
    parts = mutations.archive(plan, files)
    with place.instead(folder, new={folder + ending: data for ending, data in parts.items()}):
        read = built(place, Victim("", "sample", (take,)), plan.choice(("embed", "embed", "embed", "reference")))
    assert read in {None, intact[take]}


@pytest.fixture(scope="module")
def corpora(place: Workplace) -> dict[str, Path]:
    """A corpus with pictures and one without, beside the raw root."""
    found = {}
    victim = Victim("", "sample", ("gqa", "docvqa", "cub", "llava_coco", "own_signs", "captions"))
    for mode in ("embed", "reference"):
        result = place.build(victim, mode)
        assert result.exit_code == 0, result.output
        found[mode] = place.out.rename(place.folder / mode)
    return found


@contextmanager
def damaged(corpus: Path, new: Mapping[str, bytes]) -> Iterator[None]:
    whole = {name: (corpus / name).read_bytes() for name in new}
    try:
        for name, data in new.items():
            (corpus / name).write_bytes(data)
        yield
    finally:
        for name, data in whole.items():
            (corpus / name).write_bytes(data)


def sealed(corpus: Path, name: str, data: bytes) -> bytes:
    """A manifest that takes a damaged shard for whole: readers get beyond the hashes."""
    made = json.loads((corpus / "manifest.json").read_bytes())
    for split in made["splits"].values():
        for shard in split["shards"]:
            if shard["file"] == name:
                shard |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return json.dumps(made).encode()


def damage(plan: Random, corpus: Path, place: Workplace) -> dict[str, bytes]:
    """One file of a corpus damaged, or a shard and the manifest with it."""
    files = sorted(path.relative_to(corpus).as_posix() for path in corpus.rglob("*") if path.is_file())
    name = plan.choice(["manifest.json"] * 4 + [file for file in files if file != "README.md"])
    whole = (corpus / name).read_bytes()
    if name == "manifest.json":
        escape = str(place.folder / "escape.parquet").encode()
        if plan.random() < 0.6:
            return {name: mutations.like_value(plan, whole).replace(b"%OUT%", escape)}
        return {name: mutations.text(plan, whole, escape.decode())}
    other = (corpus / plan.choice(files)).read_bytes()
    data = other if plan.random() < 0.1 else mutations.binary(plan, whole)
    if name.startswith("data/") and plan.random() < 0.6:
        return {name: data, "manifest.json": sealed(corpus, name, data)}
    return {name: data}


@pytest.mark.parametrize("seed", seeds(16, 300))
def test_damaged_corpora(place: Workplace, corpora: dict[str, Path], seed: int) -> None:
    plan = Random(f"corpora {seed}")
    corpus = corpora[plan.choice(list(corpora))]
    new = damage(plan, corpus, place)
    changed = any(data != (corpus / name).read_bytes() for name, data in new.items())
    with damaged(corpus, new):
        before = place.others()
        checked = run("check", corpus)
        civil(checked, 0, 1, 3)
        civil(run("stats", corpus), 0, 1)
        rendered = run("render", corpus, "--encoder", "sam", "--out", place.out)
        civil(rendered, 0, 1)
        assert place.others() == before
        assert (place.out / "manifest.json").exists() == (rendered.exit_code == 0)
    shutil.rmtree(place.out, ignore_errors=True)
    if changed and "manifest.json" not in new and next(iter(new)).startswith("data/"):
        assert (checked.exit_code, rendered.exit_code) == (3, 1)
