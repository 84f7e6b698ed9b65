"""The raw root changes while a build runs: refused, or counted with a reason; never mixed in silence."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from helpers import end_to_end, small_corpora
from helpers.command import run
from PIL import Image

from vpt_data.corpus.manifest import read
from vpt_data.images.policy import Failure
from vpt_data.images.root import ImageRoot
from vpt_data.pipeline import quotas, reading


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A raw root and its recipe."""
    end_to_end.recipe_file(tmp_path, small_corpora.RECIPE.replace("k = 4\n", ""), "tiny.toml")
    small_corpora.write_raw(tmp_path / "raw")
    return tmp_path


def build(place: Path, *more: str) -> Result:
    where: list[str | Path] = ["--raw", place / "raw", "--out", place / "out"]
    return run("build", "--recipe", place / "tiny.toml", *where, "--images", "embed", "--workers", "1", *more)


def meanwhile(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, change: Callable[[], None]) -> None:
    """After the first call of a stage, a change."""
    stage, left = getattr(module, name), [change]

    def staged(*arguments: Any, **options: Any) -> None:
        stage(*arguments, **options)
        if left:
            left.pop()()

    monkeypatch.setattr(module, name, staged)


ROWS = "visual_cot/metadata/gqa_cot_train.jsonl"


def test_an_annotation_file_that_grows_is_refused_and_read_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = place / "raw" / ROWS
    before = file.read_bytes()
    more = before + before.splitlines()[0].replace(b"thing 0", b"thing 9") + b"\n"
    with monkeypatch.context() as patch:
        meanwhile(patch, reading, "prepare", lambda: end(file, more))
        found = build(place)
    assert found.exit_code == 1
    assert found.stderr == (
        f"Error: {file}: was changed while the build read it ({len(before):,} bytes, now {len(more):,}); nothing that "
        "was read is used, run the same command again once the file stays as it is.\n"
    )
    assert not (place / "out/manifest.json").exists()
    assert build(place).exit_code == 0
    assert {part.take: part.read for part in read(place / "out").components}["gqa"] == 7
    fresh = end_to_end.build(place / "tiny.toml", place / "raw", place / "fresh", mode="embed")
    assert end_to_end.contents(place / "out") == end_to_end.contents(fresh)


def end(file: Path, data: bytes) -> None:
    """Replace a file as an editor or a download does, at a time of its own."""
    file.write_bytes(data)
    os.utime(file, ns=(1, 1))


def test_an_annotation_file_with_the_same_size_and_another_time_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = place / "raw" / ROWS
    data = file.read_bytes()
    meanwhile(monkeypatch, reading, "prepare", lambda: end(file, data.replace(b"thing 0", b"thing 8")))
    assert f"{file}: was changed while the build read it" in build(place).stderr


def test_an_annotation_file_that_goes_is_one_sentence(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = place / "raw/llava/llava_v1_5_mix665k.json"
    with monkeypatch.context() as patch:
        meanwhile(patch, reading, "prepare", file.unlink)
        found = build(place)
    assert found.exit_code == 1
    assert found.stderr.startswith(f"Error: {file}: ") and found.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda image: image.unlink(), "missing_image"),
        (lambda image: Image.new("RGB", (91, 17)).save(image), "size_mismatch"),
        (lambda image: image.write_bytes(image.read_bytes()[:-40]), "bad_image"),
    ],
)
def test_an_image_that_changes_between_the_passes_is_counted(
    place: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], reason: str
) -> None:
    image = place / "raw/gqa/images/000000000001.jpg"
    meanwhile(monkeypatch, quotas, "settle", lambda: change(image))
    assert build(place).exit_code == 0
    gqa = {part.take: part for part in read(place / "out").components}["gqa"]
    assert gqa.dropped == {reason: 2} and gqa.read == gqa.kept + 2


def test_an_archive_that_is_replaced_in_place_gives_no_wrong_image(tmp_path: Path) -> None:
    """Two images of as many bytes change places: a tar file has no checksums that would tell."""
    for name, color in (("a", (255, 0, 0)), ("b", (0, 0, 255))):
        (tmp_path / "raw/gqa/images").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), color).save(tmp_path / f"raw/gqa/images/{name}.bmp")
    folder, archive = tmp_path / "raw/gqa/images", tmp_path / "raw/gqa/images.tar"
    pack(archive, folder, ("a", "b"), ("a", "b"))
    pack(tmp_path / "other.tar", folder, ("a", "b"), ("b", "a"))
    shutil.rmtree(folder)
    root = ImageRoot(tmp_path / "raw")
    first = root.read("gqa/images/a.bmp")
    archive.write_bytes((tmp_path / "other.tar").read_bytes())
    os.utime(archive, ns=(1, 1))
    second = root.read("gqa/images/b.bmp")
    assert isinstance(first, bytes) and isinstance(second, Failure)
    why = "images.tar: the archive was changed while it was in use"
    assert second.detail.endswith(f"{why}; run the same command with --retry-dropped once it stays as it is")


def pack(archive: Path, folder: Path, names: tuple[str, ...], contents: tuple[str, ...]) -> None:
    with tarfile.open(archive, "w") as packed:
        for name, content in zip(names, contents, strict=True):
            packed.add(folder / f"{content}.bmp", f"images/{name}.bmp")
