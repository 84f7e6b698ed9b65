"""The card on the Hub: what it shows, that it shows no pixels it may not, that no row can harm its readers."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers import end_to_end, golden_text, small_corpora, undrawn
from helpers.cards import head
from huggingface_hub import DatasetCard, DatasetCardData
from PIL import Image, ImageColor

from vpt_data import recipe as recipes
from vpt_data.corpus import manifest
from vpt_data.corpus.reader import open_corpus
from vpt_data.errors import CorpusError
from vpt_data.exchange.hub import card, layout
from vpt_data.inspect.overlay import BOX, CELLS, ENCODER

LINK = re.compile(r"!?\[[^\]]*\]\(((?!https?://)[^)]*)\)")
RED, BLUE = (255, 0, 0), (0, 0, 255)


def files(*corpora: Path, raw: Path | None = None, allowed: tuple[str, ...] = ()) -> dict[str, bytes]:
    """What `card.pages` makes of some corpora, by path."""
    return dict(card.pages(layout.parts([open_corpus(str(each)) for each in corpora]), "org/name", raw, allowed))


def own(folder: Path, color: tuple[int, int, int] = RED, terms: str = "CC0-1.0", **more: Any) -> Path:
    """A corpus of six rows about two images of one colour."""
    rows = [row | more.get("row", {}) for row in end_to_end.own_rows(6)]
    root = end_to_end.own_root(folder / "raw", rows)
    (root / "own/images").mkdir(parents=True)
    for number in range(2):
        Image.new("RGB", (640, 480), color).save(root / f"own/images/{number:03d}.jpg", "PNG")
    text = end_to_end.OWN.replace("CC0-1.0", terms) + more.get("recipe", "")
    made = end_to_end.recipe_file(folder, text, "own.toml")
    return end_to_end.build(made, root, folder / "own", mode=more.get("mode", "embed"))


def colors(png: bytes) -> set[tuple[int, ...]]:
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).reshape(-1, 3)
    return {tuple(color) for color in np.unique(pixels, axis=0).tolist()}


def near(png: bytes, color: tuple[int, int, int]) -> int:
    """How many pixels are almost of a colour; a picture has 256 of them."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    return int((np.abs(pixels - color).max(axis=2) < 24).sum())


@pytest.fixture(autouse=True)
def plain_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cards that a test makes have empty plots; `pages` has drawn ones."""
    undrawn.undraw_plots(monkeypatch.setattr)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus with every template."""
    return small_corpora.build(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def pages(small: Path) -> dict[str, bytes]:
    return files(small, raw=small.parent / "raw")


# What it shows ----------------------------------------------------------------------------------------------


def test_the_card_word_for_word(pages: dict[str, bytes], small: Path, update_golden: bool) -> None:
    made = manifest.read(small)
    text = pages["README.md"].decode()
    for part in (made.fingerprint, made.recipe.sha256):
        text = text.replace(part, "HASH")
    for name, version in (("pyarrow", pa.__version__), ("vpt-data", made.tool.version)):
        text = text.replace(f"{name} {version}", f"{name} VERSION")
    golden_text.check_text("card.md", text, update_golden)


def test_every_picture_is_shown_and_every_link_leads_somewhere(pages: dict[str, bytes]) -> None:
    links = set(LINK.findall(pages["README.md"].decode()))
    assert links == {path for path in pages if path.startswith("assets/")}
    assert {
        f"assets/row-{kind}.png" for kind in ("region", "several-regions", "reencode", "plain", "evaluation")
    } <= links
    assert {"assets/plot-rows.png", "assets/plot-heat.png", "assets/take-gqa.png"} <= links


def test_pictures_show_boxes_cells_and_encoders(pages: dict[str, bytes]) -> None:
    def there(kind: str, color: str) -> int:
        return near(pages[f"assets/row-{kind}.png"], ImageColor.getrgb(color)[:3])  # type: ignore[arg-type]

    for kind, expected in {
        "region": (BOX, CELLS), "several-regions": (BOX, CELLS), "textbox": (BOX, CELLS), "reencode": (BOX, ENCODER),
        "alignment": (ENCODER,), "evaluation": (BOX,), "plain": (),
    }.items():  # fmt: skip
        for color in (BOX, CELLS, ENCODER):
            assert (there(kind, color) > 200) == (color in expected), (kind, color)


def test_the_hub_takes_the_card(pages: dict[str, bytes]) -> None:
    text = pages["README.md"].decode()
    assert DatasetCard(text).data.to_dict() == DatasetCardData(**head(text)).to_dict() == head(text)


def test_it_is_loaded_by_its_name(pages: dict[str, bytes]) -> None:
    text = pages["README.md"].decode()
    assert 'load_dataset("org/name", split="train")' in text and "hf://datasets/org/name`" in text
    assert "ORG/NAME" not in text


def test_warnings_stay_first(tmp_path: Path) -> None:
    place = own(tmp_path)
    small_corpora.change_manifest(place, lambda made: setattr(made, "limited", True))
    text = files(place)["README.md"].decode()
    assert text.index("> **LIMITED BUILD") < text.index("It holds") < text.index("## What rows look like")


def test_a_head_that_the_hub_would_refuse_stops_everything(tmp_path: Path) -> None:
    place = own(tmp_path, recipe='language = "german"\n')
    with pytest.raises(CorpusError) as caught:
        files(place)
    assert str(caught.value) == (
        "org/name: the Hub would refuse the head of the card: language 'german' is no ISO 639 code of two or three "
        "letters; give the takes one, such as `de`."
    )


# The same bytes ---------------------------------------------------------------------------------------------


def test_the_same_corpus_gives_the_same_files_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # with its plots
    place = own(tmp_path)
    code = (
        "import hashlib, json, sys; from vpt_data.corpus.reader import open_corpus;"
        "from vpt_data.exchange.hub import card, layout;"
        "found = card.pages(layout.parts([open_corpus(sys.argv[1])]), 'org/name');"
        "print(json.dumps({path: hashlib.sha256(data).hexdigest() for path, data in found}))"
    )  # fmt: skip
    there = subprocess.run([sys.executable, "-c", code, str(place)], capture_output=True, text=True, check=True).stdout
    here = {path: hashlib.sha256(data).hexdigest() for path, data in files(place).items()}
    assert json.loads(there) == here and {"assets/row-region.png", "assets/plot-rows.png"} <= here.keys()


def test_no_path_of_this_machine_is_in_it(pages: dict[str, bytes], small: Path) -> None:
    for path, data in pages.items():
        assert str(small.parent).encode() not in data, path


# Licences ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["embed", "reference"])
def test_images_that_may_be_handed_on_are_shown(tmp_path: Path, mode: str) -> None:
    made = files(own(tmp_path, mode=mode), raw=tmp_path / "raw")
    for asset in ("assets/row-region.png", "assets/take-mine.png"):
        assert near(made[asset], RED) > 5_000
    assert "A pattern stands" not in made["README.md"].decode()


@pytest.mark.parametrize("terms", ["LicenseRef-mine", "LicenseRef-Flickr30k"])
@pytest.mark.parametrize("mode", ["embed", "reference"])
def test_pixels_that_may_not_be_handed_on_are_in_no_picture(tmp_path: Path, mode: str, terms: str) -> None:
    one = files(own(tmp_path / "one", RED, terms, mode=mode), raw=tmp_path / "one/raw")
    other = files(own(tmp_path / "other", BLUE, terms, mode=mode), raw=tmp_path / "other/raw")
    pictures = [path for path in one if path.startswith(("assets/row", "assets/take"))]
    assert len(pictures) == 2 and all(one[path] == other[path] for path in pictures)
    assert near(one["assets/row-region.png"], ImageColor.getrgb(BOX)[:3]) > 200  # type: ignore[arg-type]
    said = "forbid to hand it on" if terms.endswith("Flickr30k") else "do not say that it may be handed on"
    assert f"because its terms ({terms}) {said}; boxes and cells are at their true places." in one["README.md"].decode()


def test_who_may_hand_images_on_may_show_them(tmp_path: Path) -> None:
    place = own(tmp_path, RED, "LicenseRef-mine")
    assert near(files(place, allowed=("own",))["assets/row-region.png"], RED) > 5_000
    assert near(files(place, allowed=("coco/train2017",))["assets/row-region.png"], RED) < 500


def test_images_that_are_not_there_are_patterns(tmp_path: Path) -> None:
    place = own(tmp_path, mode="reference")
    text = files(place)["README.md"].decode()
    assert "The images are not in this data set, so a pattern stands for this one" in text


def test_rows_with_images_that_may_be_shown_are_preferred(tmp_path: Path) -> None:
    more = (
        end_to_end.OWN.partition("[take.mine]")[2]
        .replace("CC0-1.0", "LicenseRef-mine")
        .replace("rows.jsonl", "b.jsonl")
    )
    (tmp_path / "raw/own").mkdir(parents=True)
    (tmp_path / "raw/own/b.jsonl").write_text(end_to_end.lines(end_to_end.own_rows(40, 6)), encoding="utf-8")
    place = own(tmp_path, RED, recipe=f"[take.closed]{more}", mode="reference")
    made = files(place, raw=tmp_path / "raw")
    assert "take `mine` looks at a region" in made["README.md"].decode()
    assert near(made["assets/row-region.png"], RED) > 5_000


# Hostile rows -----------------------------------------------------------------------------------------------


def test_hostile_text_is_text(tmp_path: Path) -> None:
    hostile = (
        "</details><img src=x onerror=alert(1)> | ![x](http://y) `code` **b** <script>\u202egnp.\x1b[31m\n# Title\n---"
    )
    place = own(tmp_path, row={"question": hostile, "answer": hostile})
    text = files(place)["README.md"].decode()
    for danger in ("<img", "<script", "![x]", "\u202e", "\x1b", "\n# Title"):
        assert danger not in text
    assert (
        "&lt;/details&gt;&lt;img src=x onerror=alert(1)&gt; &#124; \\!\\[x\\](http://y) \\`code\\` \\*\\*b\\*\\*"
        in text
    )
    assert text.count("<details>") == text.count("</details>")


def test_hostile_recipes_are_text(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    place = own(tmp_path, RED, hostile)
    small_corpora.change_manifest(place, lambda made: made.recipe.resolved.update(description=hostile, notes=[hostile]))
    made = files(place)
    text = made["README.md"].decode().replace(_fenced(made["README.md"].decode()), "")
    assert "<script" not in text and "&lt;script&gt;" in text
    assert head(text)["license_name"] == "script-alert-1-script"


def _fenced(text: str) -> str:
    """The block with the recipe, in which everything is as it is."""
    return text.partition("```toml\n")[2].partition("\n```")[0]


def test_a_long_answer_is_cut(tmp_path: Path) -> None:
    place = own(tmp_path, row={"answer": "word " * 20_000})
    made = files(place)
    assert len(made["README.md"]) < 30_000 and len(made["assets/row-region.png"]) < 100_000


# Several corpora --------------------------------------------------------------------------------------------


def test_several_corpora_have_a_card_each_and_one_above_them(tmp_path: Path) -> None:
    first, second = own(tmp_path / "one"), own(tmp_path / "two", BLUE, "LicenseRef-mine", recipe="")
    small_corpora.change_manifest(second, lambda made: setattr(made, "recipe", _renamed(made.recipe)))
    small_corpora.change_manifest(second, lambda made: setattr(made, "limited", True))
    made = files(first, second)
    root = made["README.md"].decode()
    assert root.index("> **LIMITED BUILD") < root.index("This is about the config `other`.") < root.index("![")
    assert [each["config_name"] for each in head(root)["configs"]] == ["own", "other"]
    assert head(root)["configs"][1]["data_files"] == [{"split": "train", "path": "other/data/train-*.parquet"}]
    assert head(root)["license_name"] == "mixed" and head(root)["size_categories"] == ["n<1K"]
    assert set(LINK.findall(root)) == {"own/README.md", "other/README.md", "own/assets/row-region.png"}
    assert 'load_dataset("org/name", "own")' in root and root.count("@misc") == 1
    for config in ("own", "other"):
        text = made[f"{config}/README.md"].decode()
        assert f'load_dataset("org/name", "{config}", split="train")' in text
        links = {f"{config}/{path}" for path in LINK.findall(text)}
        assert links == {path for path in made if path.startswith(f"{config}/assets/")}
        assert head(text)["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]


def _renamed(record: manifest.RecipeRecord) -> manifest.RecipeRecord:
    recipe = recipes.decode(record.resolved | {"name": "other"}, "other")
    return manifest.RecipeRecord("other", recipe.digest(), record.resolved | {"name": "other"})
