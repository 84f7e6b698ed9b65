"""Killed at every call that changes a file: the same command again makes the same bytes and leaves nothing else.

A few moments of each way to work here, all of them with VPT_SOAK=1 (`make soak`). A failure names step and moment.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from helpers import end_to_end, small_corpora
from helpers.fetching import zip_of
from helpers.hostile_server import HostileServer
from helpers.mortal import VANISHED, Mortal
from helpers.object_store import objects, served
from helpers.soak import SOAK

from vpt_data import store

#: How many moments of each way to work the default suite tries.
SOME = 2

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


class Step(NamedTuple):
    """A command, and what is run when it was killed, before the next step: the same, or what takes over."""

    arguments: list[str | Path]
    env: dict[str, str]
    again: list[tuple[list[str | Path], dict[str, str]]]


class Way(NamedTuple):
    """A way to work in a folder: what is there before, the steps, and what they leave, without dates."""

    prepare: Callable[[Path], None]
    steps: Callable[[Path], list[Step]]
    left: Callable[[Path], dict[str, bytes]]


def step(*arguments: str | Path, **env: str) -> Step:
    return Step(list(arguments), env, [(list(arguments), env)])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe, the same raw root with images in folders, a zip and a split tar, and a corpus; not to be changed."""
    folder = tmp_path_factory.mktemp("moments")
    end_to_end.recipe_file(folder, small_corpora.RECIPE.replace("k = 4\n", ""), "tiny.toml")
    small_corpora.write_raw(folder / "raw")
    for kind in ("zip", "tar"):
        shutil.copytree(folder / "raw", folder / kind)
    with zipfile.ZipFile(folder / "zip/coco/train2017.zip", "w") as packed:
        for path in sorted((folder / "zip/coco/train2017").iterdir()):
            packed.write(path, f"train2017/{path.name}")
    shutil.rmtree(folder / "zip/coco/train2017")
    _split_tar(folder / "tar")
    end_to_end.build(folder / "tiny.toml", folder / "raw", folder / "corpus", mode="embed")
    return folder


def _split_tar(root: Path) -> None:
    """The images of GQA as Visual-CoT ships them: one tar file cut into parts."""
    import tarfile

    parts = root / "visual_cot/cot_images_tar_split"
    parts.mkdir()
    with tarfile.open(root / "whole.tar", "w") as packed:
        packed.add(root / "gqa/images", "cot/gqa")
    data = (root / "whole.tar").read_bytes()
    (root / "whole.tar").unlink()
    shutil.rmtree(root / "gqa")
    for number in range(3):
        (parts / f"cot_images_{number:02d}").write_bytes(data[number * len(data) // 3 : (number + 1) * len(data) // 3])


def nothing(_: Path) -> None:
    """Nothing is there before."""


def build_of(base: Path, raw: Path, out: str | Path, *more: str) -> list[str | Path]:
    return ["build", "--recipe", base / "tiny.toml", "--raw", raw, "--out", out, "--workers", "1", *more]


def built(base: Path, raw: str, mode: str) -> Way:
    def steps(place: Path) -> list[Step]:
        return [step(*build_of(base, base / raw, place / "out", "--images", mode))]

    return Way(nothing, steps, end_to_end.contents)


def retried(base: Path) -> Way:
    """An image that was missing is there now."""

    def prepare(place: Path) -> None:
        shutil.copytree(base / "raw", place / "raw")
        image = place / "raw/gqa/images/000000000001.jpg"
        kept = image.read_bytes()
        image.unlink()
        end_to_end.build(base / "tiny.toml", place / "raw", place / "out", mode="embed")
        image.write_bytes(kept)

    def steps(place: Path) -> list[Step]:
        return [step(*build_of(base, place / "raw", place / "out", "--images", "embed", "--retry-dropped"))]

    return Way(prepare, steps, end_to_end.contents)


def rendered(base: Path) -> Way:
    def steps(place: Path) -> list[Step]:
        return [step("render", base / "corpus", "--encoder", "clip", "--out", place / "out")]

    return Way(nothing, steps, end_to_end.contents)


def ranked(base: Path) -> Way:
    """Two ranks and the seal; where one is killed the other goes on first, and takes over what it was at."""

    def steps(place: Path) -> list[Step]:
        line = build_of(base, base / "raw", place / "out", "--images", "embed")
        ranks = [([*line, "--engine", "ranks"], {"RANK": str(rank), "WORLD_SIZE": "2"}) for rank in (0, 1)]
        seal = [*line, "--seal"]
        return [Step(*ranks[0], ranks[::-1]), Step(*ranks[1], ranks), step(*seal)]

    return Way(nothing, steps, end_to_end.contents)


def downloaded(server: HostileServer) -> Way:
    """An archive that is unpacked, and a plain file."""

    def prepare(place: Path) -> None:
        packed = zip_of(place / "a.zip", *((zipfile.ZipInfo(f"labels/{name}.json"), b"[1]") for name in "ab"))
        base = f"{server.url}/{place.name}/"
        server.serve(f"/{place.name}/a.zip", packed.read_bytes())
        server.serve(f"/{place.name}/rows.jsonl", b'{"a": 1}\n' * 3000)
        (place / "own.toml").write_text(
            f'[download.mine]\nlicense = "CC0-1.0"\npage = "https://mine.example"\nbase = "{base}"\nfiles = [\n'
            '  { path = "mine/a.zip", name = "a.zip", unpack = "mine" },\n'
            '  { path = "mine/rows.jsonl", name = "rows.jsonl" },\n]\n'
        )

    def steps(place: Path) -> list[Step]:
        where: list[str | Path] = ["--raw", place / "out", "--manifest", place / "own.toml"]
        return [step("download", "mine", *where, "--private-host", "127.0.0.1", "--accept-license", "mine")]

    def left(out: Path) -> dict[str, bytes]:
        found = end_to_end.contents(out)
        book = json.loads(found[".vpt-data/downloads.json"])
        for name, recorded in book["files"].items():
            # A file that was complete when the process vanished is recorded by the next without its server's ETag.
            recorded.update(mtime_ns=0, url=name, etag=None)
        return {**found, ".vpt-data/downloads.json": json.dumps(book).encode()}

    return Way(prepare, steps, left)


def stored(base: Path, address: str) -> Way:
    """A corpus in an object store."""

    def out(place: Path) -> str:
        return f"s3://bucket/{place.name}{address}"

    def left(folder: Path) -> dict[str, bytes]:
        there = store.at(out(folder.parent))
        assert isinstance(there, store.RemotePath)
        return objects(there)

    def steps(place: Path) -> list[Step]:
        account = {name: text for name, text in os.environ.items() if name.startswith("AWS_")}
        return [step(*build_of(base, base / "raw", out(place), "--images", "embed"), **account)]

    return Way(nothing, steps, left)


WAYS = ("reference", "embed", "zip", "tar", "retry", "render", "ranks", "download", "store")


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, base: Path) -> Iterator[Way]:
    name = request.param
    if name == "store":
        with served() as address:
            yield stored(base, address)
    elif name == "download":
        with HostileServer() as server:
            yield downloaded(server)
    elif name in {"retry", "render", "ranks"}:
        yield {"retry": retried, "render": rendered, "ranks": ranked}[name](base)
    else:
        yield built(base, "raw" if name in {"reference", "embed"} else name, "embed" if name != "reference" else name)


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortal]:
    found = Mortal(tmp_path_factory.mktemp("log"), ["vpt_data.pipeline.build"])
    yield found
    found.end()


def lived(mortal: Mortal, way: Way, place: Path, struck: tuple[int, int] | None = None) -> list[int]:
    """The steps in a new folder, one of them killed at a moment and run again; how many moments each had."""
    place.mkdir()
    way.prepare(place)
    moments = []
    for number, each in enumerate(way.steps(place)):
        if struck is not None and struck[0] == number:
            killed = mortal.run(each.arguments, place, struck[1], each.env)
            assert killed.code == VANISHED, killed.output
            again = each.again
        else:
            again = [(each.arguments, each.env)]
        for arguments, env in again:
            life = mortal.run(arguments, place, env=env)
            assert life.code == 0, life.output
        moments.append(life.moments)
    return moments


def names(place: Path) -> set[str]:
    """All files and folders, with a name for temporary ones that is not by chance."""
    return {path.relative_to(place).as_posix() for path in place.rglob("*")}


def test_a_kill_at_every_moment(way: Way, mortal: Mortal, tmp_path: Path) -> None:
    moments = lived(mortal, way, tmp_path / "whole")
    expected, there = way.left(tmp_path / "whole/out"), names(tmp_path / "whole")
    every = [(number, moment) for number, count in enumerate(moments) for moment in range(count)]
    chosen = every if SOAK else sorted(Random(len(every)).sample(every, SOME))
    logging.getLogger(__name__).warning("%d of %d moments", len(chosen), len(every))
    wrong = []
    for struck in chosen:
        place = tmp_path / f"{struck[0]}-{struck[1]}"
        try:
            lived(mortal, way, place, struck)
            found = way.left(place / "out")
            differ = {name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)}
            assert not differ and names(place) == there, (differ, names(place) ^ there)
        except AssertionError as error:
            wrong.append(f"step {struck[0]}, moment {struck[1]} of {moments}: {error}")
        shutil.rmtree(place)
    assert not wrong, "\n".join(wrong[:10])
