"""The dataset card: its head is valid, its numbers are the manifest's, and what is wrong is said loudly."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from helpers.cards import card, component, head, manifest, row, section, shown
from huggingface_hub import DatasetCard, DatasetCardData

from vpt_data import recipe
from vpt_data.corpus.card import render_card
from vpt_data.corpus.card_head import size_category
from vpt_data.recipe import Recipe

# The head


def test_head_is_what_the_hub_reads() -> None:
    assert head(card()) == {
        "language": ["en"],
        "license": "other",
        "license_name": "mixed",
        "license_details": "Per source and per image set, see the section Licences.",
        "pretty_name": "mixvrt_dino",
        "size_categories": ["100K<n<1M"],
        "task_categories": ["visual-question-answering", "image-text-to-text"],
        "tags": ["visual-perception-tokens", "vision-language", "bounding-boxes", "vpt-data"],
        "configs": [
            {
                "config_name": "default",
                "default": True,
                "data_files": [{"split": "train", "path": "data/train-*.parquet"}],
            }
        ],
    }


def test_huggingface_hub_accepts_the_card() -> None:
    text = card()
    loaded = DatasetCard(text)
    assert loaded.data.to_dict() == DatasetCardData(**head(text)).to_dict() == head(text)
    assert loaded.text.lstrip().startswith("# mixvrt_dino")


def test_head_names_every_split_that_has_shards() -> None:
    shard = {"file": "data/eval-00000-of-00001.parquet", "rows": 5, "bytes": 9, "sha256": "s"}
    splits = {"eval": {"rows": 5, "shards": [shard]}, "train": {"rows": 0, "shards": []}}
    text = card("alignment_dino", splits=splits)
    assert head(text)["configs"][0]["data_files"] == [{"split": "eval", "path": "data/eval-*.parquet"}]
    assert head(text)["task_categories"] == ["image-to-text"]
    assert 'split="eval"' in section(text, "Loading")


def test_head_of_an_empty_corpus_names_no_files() -> None:
    assert "configs" not in head(card(splits={"train": {"rows": 0, "shards": []}}))


def test_own_languages_are_named_and_norwegian_is_not_false() -> None:
    own = msgspec.structs.replace(recipe.load("sample").take["own_signs"], language="no")
    text = render_card(manifest("mine"), Recipe(name="mine", take={"own": own}))
    assert head(text)["language"] == ["no"]


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1_000, "1K<n<10K"),
        (9_999, "1K<n<10K"),
        (10_000, "10K<n<100K"),
        (828_763, "100K<n<1M"),
        (1_000_000, "1M<n<10M"),
        (10**11, "100B<n<1T"),
        (10**12, "n>1T"),
    ],
)
def test_size_categories(rows: int, name: str) -> None:
    assert size_category(rows) == name


# What is in it


def test_counts_are_the_manifests() -> None:
    counts = section(card(), "Counts")
    assert row(counts, "`train`") == ["`train`", "812,345", "1"]
    vsr = ["viscot vsr", "region", "3,376", "3,376", "-", "eval_image 29", "3,347"]
    assert row(counts, "`vsr`")[1:] == vsr
    assert row(counts, "`gqa`")[5] == "clipped 7,654"
    rest = row(counts, "`llava_rest`")
    assert rest[1] == "llava coco, gqa, ocr_vqa, textvqa, vg" and rest[6] == "duplicate 4, eval_image 1"
    assert row(counts, "`unmatched:llava`")[3:5] == ["", "40,688"]
    assert row(counts, "all")[4:] == ["434,081", "", "40,734", "393,347"]
    assert "123,456 distinct, 0 embedded, 321 missing" in counts


def test_a_take_of_everything_expects_all() -> None:
    text = card("sample", components=[component("vsr", "vsr", 7, expected=0)])
    assert row(section(text, "Counts"), "`vsr`")[3] == "all"


def test_three_sentences_say_what_it_is() -> None:
    text = card()
    assert "It holds 812,345 rows of 3 takes as Parquet shards, without pixels" in text
    assert recipe.load("mixvrt_dino").description in text


def test_one_row_is_explained_with_the_tokens_of_the_corpus() -> None:
    row_text = section(card(), "One row")
    assert "`<|region_token_start|><|x_0|><|y_1|><|x_7|><|y_7|><|region_token_end|>`" in row_text
    assert "`<|detection_action_start|><|detection_action|><|detection_action_end|>`" in row_text
    assert "`<detection_image>`" in row_text and "seg_action" not in row_text


def test_one_row_follows_grid_and_control_tokens() -> None:
    assert "16 x 16 cells" in section(card("ablation_text_k16"), "One row")
    four = "<|detection_action|>" * 4 + "<|detection_action_end|>"
    assert four in section(card("ablation_looks_4"), "One row")
    assert "action" not in section(card("ablation_looks_0"), "One row")
    assert "text box" in section(card("ablation_textbox"), "One row")


def test_a_bar_in_a_name_does_not_break_the_table() -> None:
    text = card(components=[component("vsr", "a|b\nc", 1)])
    assert "viscot a\\|b c" in section(text, "Counts")


# How far to trust it


def test_a_whole_corpus_has_no_warning() -> None:
    assert "> **" not in card()


def test_a_limited_build_says_so_before_anything_else() -> None:
    text = card(limited=True)
    assert text.index("> **LIMITED BUILD, NOT THE WHOLE CORPUS.**") < text.index("It holds")
    assert "do not publish it" in text and "--limit N" in section(text, "How it was made")


def test_a_partial_corpus_names_the_takes_that_are_missing() -> None:
    text = card(missing=["docvqa", "textcap"])
    assert text.index("> **PARTIAL CORPUS.**") < text.index("It holds")
    assert "missing or incomplete: `docvqa`, `textcap`." in text


def test_unchecked_evaluation_files_are_named_on_top_and_in_their_section() -> None:
    text = card(not_checked=["DUDE_region_test (dude.jsonl)"])
    assert text.index("> **OVERLAP WITH EVALUATION DATA ONLY PARTLY CHECKED.**") < text.index("It holds")
    overlap = section(text, "Overlap with evaluation data")
    assert "Not checked, because not there: `DUDE_region_test (dude.jsonl)`." in overlap
    assert "All of its files were there" not in overlap


def test_overlap_says_what_was_excluded() -> None:
    overlap = section(card(), "Overlap with evaluation data")
    assert "`vpt_eval`" in overlap and "30 rows (`eval_image`). All of its files were there." in overlap
    assert "Nothing was excluded" in section(card("alignment_dino"), "Overlap with evaluation data")
    assert 'exclude = "vpt_eval"' in section(card("vpt_eval"), "Overlap with evaluation data")


def test_differences_follow_from_what_was_built() -> None:
    plain = section(card(), "Differences to the published data")
    assert "6 %" in plain and "legacy" not in plain and "Free choice" not in plain
    assert all(note in plain for note in recipe.load("mixvrt_dino").notes)
    assert "Free choice" in section(card("mixvrt_sam_free"), "Differences to the published data")
    old = recipe.load("mixvrt_dino", ["edge=legacy"])
    legacy = section(render_card(manifest(), old), "Differences to the published data")
    assert "repeat a defect" in legacy and "No region token names" not in legacy
    assert "6 %" not in section(card("ablation_looks_1"), "Differences to the published data")


def test_making_gives_command_versions_and_hashes() -> None:
    made = section(card(), "How it was made")
    assert "vpt-data build --recipe mixvrt_dino --raw RAW --out OUT --images reference\n" in made
    assert "vpt-data 0.1.0 with pyarrow 26.0.0" in made
    assert f"`{recipe.load('mixvrt_dino').digest()}`" in made and "`" + "f" * 64 + "`" in made
    strict = section(card(license_policy="research", verify_images="full"), "How it was made")
    assert "--images reference --license-policy research --verify-images full\n" in strict


def test_a_recipe_that_nobody_else_has_is_in_the_card(tmp_path: Path) -> None:
    changed = recipe.load("sample", ["take.own_signs.count=3", "notes=['Use ``` with care.']"])
    made_of = manifest("sample", recipe={"name": "sample", "sha256": changed.digest(), "resolved": {}})
    made = section(render_card(made_of, changed), "How it was made")
    assert "--recipe sample.toml " in made and "<details>" not in section(card(), "How it was made")
    text = made.split("````toml\n")[1].split("\n````\n")[0]
    (tmp_path / "sample.toml").write_text(text, encoding="utf-8")
    assert recipe.load(str(tmp_path / "sample.toml")).digest() == changed.digest()


def test_loading_says_how_to_read_images_that_are_not_there() -> None:
    assert "Image(decode=False)" in section(card(), "Loading")
    embedded = card(mode="embed")
    assert "Image(decode=False)" not in embedded and "with the images inside" in embedded


def test_the_method_and_the_sources_that_gave_rows_are_cited() -> None:
    cited = section(card(), "Citation")
    assert [line for line in cited.splitlines() if line.startswith("@")] == [
        "@misc{yu2025visualperceptiontoken,", "@misc{shao2024visualcot,", "@misc{liu2023improvedllava,"
    ]  # fmt: skip
    assert "eprint        = {2502.17425}" in cited and "pope" not in cited.lower()
    assert "named in the section Licences" in cited
    own = card("sample", components=[component("own_signs", "signs", 3, source="table")], images=shown())
    assert section(own, "Citation").count("@misc") == 1 and "named in" not in section(own, "Citation")


@pytest.mark.parametrize("name", [name for name in recipe.names() if name not in {"mixvrt", "alignment"}])
def test_every_shipped_recipe_has_a_card(name: str) -> None:
    text = card(name)
    assert text == card(name) and text.endswith("```\n") and "\n\n\n" not in text
    assert DatasetCard(text).data.pretty_name == name
