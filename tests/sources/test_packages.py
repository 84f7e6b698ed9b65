"""Sources of other packages: found by their entry points, with the same rights as those of this one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vpt_data.upstream import packages

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/add-a-source.md").read_text(encoding="utf-8")
RECIPE = '[take.gallery]\nsource = "gallery"\ntemplate = "region"\ntask = "text_ocr"\n'


def block(file: str) -> str:
    [text] = re.findall(rf"```\w+ file={re.escape(file)}\n(.*?)```", PAGE, re.DOTALL)
    return str(text).replace("museum", "gallery").replace("Museum", "Gallery")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """An installed package with the reader and the manifest of the page on adding a source."""
    site = tmp_path / "site"
    (site / "gallery_labels").mkdir(parents=True)
    (site / "gallery_labels/__init__.py").write_text(block("vpt_data/sources/museum.py"))
    (site / "gallery_labels/sources.toml").write_text(block("manifests/sources.toml"))
    offer(site, "gallery", "gallery_labels:SOURCE")
    labels = tmp_path / "raw/gallery/labels/train.jsonl"
    labels.parent.mkdir(parents=True)
    row = '{"id": 7, "file": "a.jpg", "size": [500, 375], "question": "When?", "answer": "1890", "box": [10, 0, 9, 3]}'
    labels.write_text(f"{row}\n{row[:60]}\n")
    (tmp_path / "gallery.toml").write_text(RECIPE)
    return site


def offer(site: Path, name: str, value: str, package: str = "gallery-labels") -> None:
    folder = site / f"{package.replace('-', '_')}-1.0.dist-info"
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[vpt_data.sources]\n{name} = {value}\n")


def run(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vpt_data", *arguments],
        cwd=site.parent,
        env={**os.environ, "PYTHONPATH": f"{site}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_recipe_names_a_source_of_another_package(site: Path) -> None:
    built = run(site, "build", "--recipe", "gallery.toml", "--raw", "raw", "--out", "corpus", "--workers", "2")
    assert built.returncode == 0, built.stderr
    assert re.search(r"gallery +all +2 +- +malformed 1 +1", built.stdout)
    listed = run(site, "sources", "--raw", "raw").stdout
    assert "gallery" in listed and "gallery/labels/train.jsonl" in listed
    card = (site.parent / "corpus/README.md").read_text()
    assert "Gallery Labels" in card and "CC-BY-4.0" in card


def test_a_package_is_not_imported_for_a_build_that_does_not_use_it(site: Path) -> None:
    offer(site, "gallery", "gallery_labels:SAUCE")
    (site.parent / "raw/own").mkdir()
    (site.parent / "raw/own/rows.csv").write_text("image,question,answer\na.png,q,a\n")
    own = RECIPE.replace("gallery", "mine").replace('source = "mine"', 'source = "table"\nfiles = ["own/rows.csv"]')
    (site.parent / "mine.toml").write_text(own.replace('"region"', '"plain"'))
    built = run(site, "build", "--recipe", "mine.toml", "--raw", "raw", "--out", "corpus")
    assert built.returncode == 0, built.stderr


def test_without_the_package_the_source_is_not_known(site: Path) -> None:
    empty = site.parent / "empty"
    empty.mkdir()
    failed = run(empty, "build", "--recipe", str(site.parent / "gallery.toml"), "--raw", "raw", "--out", "corpus")
    assert failed.returncode == 2 and "'gallery'" in failed.stderr


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("gallery", "gallery_labels:SAUCE", "package gallery-labels: source gallery cannot be loaded (module"),
        (
            "gallery",
            "gallery_labels:read",
            "package gallery-labels: gallery_labels:read is function, expected",
        ),
        (
            "gallery",
            "no_labels:SOURCE",
            "package gallery-labels: source gallery cannot be loaded (No module named",
        ),
    ],
)
def test_what_a_package_offers_and_does_not_have(site: Path, name: str, value: str, message: str) -> None:
    offer(site, name, value)
    failed = run(site, "build", "--recipe", "gallery.toml", "--raw", "raw", "--out", "corpus")
    assert failed.returncode == 2, failed.stderr
    assert message in failed.stderr
    assert failed.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[source.gallery]\ntitle = 1", "package gallery-labels: sources.toml: Expected `str`, got `int`"),
        ("[source", "sources.toml: not valid TOML ("),
        (
            None,
            "cannot be read (No such file or directory); it says where the files of source gallery belong.",
        ),
        (
            block("manifests/sources.toml").replace("gallery/images/", "coco/train2017/"),
            "package gallery-labels: sources.toml: images 'coco/train2017/' is known already; choose another name.",
        ),
    ],
)
def test_a_manifest_that_cannot_be(site: Path, text: str | None, message: str) -> None:
    manifest = site / "gallery_labels/sources.toml"
    manifest.unlink()
    if text is not None:
        manifest.write_text(text)
    failed = run(site, "build", "--recipe", "gallery.toml", "--raw", "raw", "--out", "corpus")
    assert failed.returncode == 2, failed.stderr
    assert message in failed.stderr
    assert failed.stderr.count("\n") == 1


def test_two_packages_with_one_source(site: Path) -> None:
    offer(site, "gallery", "other:SOURCE", "other-labels")
    failed = run(site, "sources", "--raw", "raw")
    assert failed.returncode == 2
    assert "both offer a source 'gallery'; uninstall one." in failed.stderr


def test_this_environment_offers_none() -> None:
    """Else the tests that compare docs with the code would see sources that are not of this repository."""
    assert not packages.installed()
