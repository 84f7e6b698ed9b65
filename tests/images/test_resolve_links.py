"""No image path and no link makes anything outside the raw root be read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers import end_to_end
from helpers import image_files as make
from helpers.command import run
from helpers.end_to_end import OWN
from helpers.packed import put, why, zipped
from hypothesis import given
from hypothesis import strategies as st

from vpt_data.images.policy import Failure
from vpt_data.images.root import ImageRoot
from vpt_data.schema import Reason

LEADS_OUT = "the image path leads out of the raw root"
LINK = (
    "the link leads out of the raw root; name the folder that it leads into with --follow-links, "
    "or put or mount it there"
)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../a.jpg",
        "own/../../a.jpg",
        "own/..",
        "..",
        "C:/a.jpg",
        "own\\a.jpg",
        "own/\0.jpg",
        "",
        "\ud800",
    ],
)
def test_paths_that_lead_out_are_refused(path: str, tmp_path: Path) -> None:
    put(tmp_path / "a.jpg")
    (tmp_path / "raw").mkdir()
    assert ImageRoot(tmp_path / "raw").read(path) == Failure(Reason.UNSAFE_PATH, f"{path}: {LEADS_OUT}")


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    return _linked(tmp_path)


def _linked(tmp_path: Path) -> Path:
    """A raw root that is reached by a link, with links that stay inside and links that do not."""
    out, real = tmp_path / "out", tmp_path / "real"
    put(out / "secret.jpg", b"SECRET")
    put(out / "images.zip", zipped({"a.jpg": b"SECRET"}))
    put(out / "deep/coco/val2017/000000000009.jpg", b"SECRET")
    put(real / "own/images/a.jpg", b"inside")
    (tmp_path / "raw").symlink_to(real)
    (real / "own/in.jpg").symlink_to("images/a.jpg")
    (real / "own/more").symlink_to(real / "own/images")
    (real / "own/out.jpg").symlink_to(out / "secret.jpg")
    (real / "own/out").symlink_to("../../out")
    (real / "own/loop.jpg").symlink_to("loop.jpg")
    (real / "own/gone.jpg").symlink_to("nothing.jpg")
    (real / "own/folder.jpg").symlink_to("images")
    (real / "own/twice.jpg").symlink_to("out.jpg")
    (real / "own/zip.zip").symlink_to(out / "images.zip")
    (real / "own/back").symlink_to("out/../real/own")
    (real / "coco").symlink_to(out / "deep/coco")
    (tmp_path / "real-too").mkdir()
    put(tmp_path / "real-too/a.jpg", b"SECRET")
    (real / "own/sibling.jpg").symlink_to(tmp_path / "real-too/a.jpg")
    return tmp_path / "raw"


def test_links_inside_are_followed_and_links_out_are_not(linked: Path) -> None:
    root = ImageRoot(linked)
    for path in ("own/images/a.jpg", "own/in.jpg", "own/more/a.jpg"):
        assert root.read(path) == b"inside"
    for path in (
        "own/out.jpg", "own/twice.jpg", "own/sibling.jpg", "own/out/secret.jpg", "own/out/x.jpg", "own/zip/a.jpg",
        "own/out/deep/coco/val2017/000000000009.jpg", "coco/val2017/000000000009.jpg",
        "coco/train2014/COCO_train2014_000000000009.jpg",
    ):  # fmt: skip
        assert why(root, path) == f"unsafe_path: {path}: {LINK}"
    for name in ("loop", "gone", "folder"):
        assert why(root, f"own/{name}.jpg") == (
            f"missing_image: own/{name}.jpg: not under the raw root; the link own/{name}.jpg does not lead to a file"
        )


def test_an_image_elsewhere_makes_up_for_a_link_that_leads_out(linked: Path) -> None:
    put(linked / "visual_cot/cot/vsr/000000000009.jpg", b"inside")
    assert ImageRoot(linked).read("coco/train2017/000000000009.jpg") == b"inside"


PIECES = st.sampled_from(
    ["own", "images", "a.jpg", "out", "out.jpg", "secret.jpg", "..", ".", "", "coco", "val2017", "000000000009.jpg",
     "back", "more", "zip", "raw", "real", "real-too", "\0", "\\", "C:", "..\n", " ..", "..%2f", "/", "~", "deep"]
)  # fmt: skip


@pytest.fixture(scope="module")
def linked_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _linked(tmp_path_factory.mktemp("linked"))


@given(paths=st.lists(st.one_of(st.lists(PIECES, max_size=7).map("/".join), st.text(max_size=30)), max_size=40))
def test_no_path_reads_outside(linked_once: Path, paths: list[str]) -> None:
    root = ImageRoot(linked_once)
    assert root.read("own/more/a.jpg") == b"inside"
    out = linked_once.parent / "out"
    for path in ["own/out.jpg", *paths, *(f"{out}/{path}" for path in paths)]:
        found = root.read(path)
        assert found == b"inside" or (isinstance(found, Failure) and found.detail.startswith(path))


@pytest.mark.parametrize("mode", ["reference", "embed"])
@pytest.mark.parametrize("sizes", [True, False])
def test_a_linked_folder_of_images_is_named_at_once(tmp_path: Path, mode: str, sizes: bool) -> None:
    """However many images it holds, whether their sizes are known, and whether their bytes are wanted."""
    rows = end_to_end.own_rows(9)
    if not sizes:
        rows = [{key: value for key, value in row.items() if key not in {"w", "h"}} for row in rows]
    raw = end_to_end.own_root(tmp_path / "raw", rows)
    (tmp_path / "elsewhere/photos").mkdir(parents=True)
    (raw / "own/images").symlink_to(tmp_path / "elsewhere")
    text = OWN.replace('images = "own/images"', 'images = "own/images/photos"')
    text = text if sizes else text.replace(', width = "w", height = "h"', "")
    recipe = end_to_end.recipe_file(tmp_path, text)
    result = run(
        "build", "--recipe", recipe, "--raw", raw, "--out", tmp_path / "corpus", "--workers", "1", "--images", mode
    )
    notes = [line for line in result.stderr.splitlines() if line.startswith("Note: ")]
    assert notes == [f"Note: own/images: {LINK}."]
    shown = [line for line in result.stdout.splitlines() if line.startswith("dropped: unsafe_path 9, the first: ")]
    assert len(shown) == (0 if mode == "reference" and sizes else 1), "not no_size: the size is not the reason"


def test_named_folders_may_be_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    linked = _linked(tmp_path)
    (tmp_path / "other").mkdir()
    for folder, path in (("out", "own/out.jpg"), ("other", "own/out.jpg")):
        monkeypatch.setenv("VPT_DATA_FOLLOW_LINKS", f"{tmp_path / folder}:{tmp_path / 'gone'}")
        found = ImageRoot(linked).read(path)
        assert found == b"SECRET" if folder == "out" else isinstance(found, Failure)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_build_follows_links_into_the_folder_that_it_is_given(tmp_path: Path, workers: str) -> None:
    raw = end_to_end.own_root(tmp_path / "raw", end_to_end.own_rows(12))
    (tmp_path / "images").mkdir()
    for number in range(4):
        make.picture(size=(640, 480), seed=number).save(tmp_path / f"images/{number:03d}.jpg")
    (raw / "own/images").symlink_to(tmp_path / "images")
    command = ["build", "--recipe", end_to_end.recipe_file(tmp_path), "--raw", raw, "--images", "embed"]
    command += ["--workers", workers, "--out", tmp_path / "corpus"]
    assert run(*command).exit_code == 1
    other = run(*command, "--follow-links", tmp_path / "images")
    assert "holds an unfinished build with other --follow-links; give the same again" in other.stderr
    done = run(*command, "--follow-links", tmp_path / "images", "--json", "--fresh")
    assert done.exit_code == 0, done.stderr
    assert '"embedded": 4' in done.stdout
    assert "VPT_DATA_FOLLOW_LINKS" not in os.environ
    gone = run(*command, "--follow-links", tmp_path / "gone")
    assert gone.stderr == (
        f"Error: --follow-links {tmp_path / 'gone'}: there is no such folder; name one that links may lead into.\n"
    )
