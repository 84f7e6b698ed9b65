"""The dataset card: its head is valid, its numbers are the manifest's, and what is wrong is said loudly."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import yaml
from huggingface_hub import DatasetCard, DatasetCardData

from vpt_data import recipe
from vpt_data.corpus.card import render_card, size_category
from vpt_data.corpus.manifest import Manifest
from vpt_data.recipe import Recipe
from vpt_data.upstream.catalog import upstreams


def component(take: str, dataset: str, kept: int, **more: Any) -> dict[str, Any]:
    part = {"take": take, "source": "viscot", "dataset": dataset, "template": "region", "expected": kept}
    return part | {"read": kept, "repaired": {}, "dropped": {}, "kept": kept} | more


#: Where the images of the corpus below are from.
FOLDERS = ("coco/train2017/", "gqa/images/", "ocr_vqa/images/", "vg/VG_100K/", "textvqa/train_images/")


def terms(*folders: str) -> list[dict[str, Any]]:
    """The account of images in some folders, under the licences of their owners."""
    known = upstreams().images
    return [{"folder": folder, "license": known[folder].license, "images": 7} for folder in folders]


def shown(*folders: str, **more: Any) -> dict[str, Any]:
    """The images record of a corpus that shows images of these folders only."""
    return {"distinct": 7 * len(folders), "embedded": 0, "missing": 0, "licenses": terms(*folders), **more}


def manifest(name: str = "mixvrt_dino", **more: Any) -> Manifest:
    """A corpus of three takes and an unmatched rest, or the same with `more` changed."""
    shard = {"file": "data/train-00000-of-00001.parquet", "rows": 812_345, "bytes": 9, "sha256": "s" * 64}
    text_only = {"read": 40_688, "dropped": {"not_selected": 40_688}}
    parts = [
        component("vsr", "vsr", 3_347, expected=3_376, read=3_376, dropped={"eval_image": 29}),
        component("gqa", "gqa", 90_000, read=90_012, repaired={"clipped": 7_654}, dropped={"no_size": 12}),
        component(
            "llava_rest",
            "coco+gqa+ocr_vqa+textvqa+vg",
            300_000,
            source="llava",
            template="plain",
            read=300_005,
            dropped={"duplicate": 4, "eval_image": 1},
        ),
        component("unmatched:llava", "", 0, source="llava", template="", **text_only),
    ]
    content: dict[str, Any] = {
        "schema_version": 1,
        "tool": {"name": "vpt-data", "version": "0.1.0", "pyarrow": "26.0.0"},
        "recipe": {"name": name, "sha256": "a" * 64, "resolved": {}},
        "inputs": [],
        "mode": "reference",
        "limited": False,
        "components": parts,
        "splits": {"train": {"rows": 812_345, "shards": [shard]}},
        "images": {"distinct": 123_456, "embedded": 0, "missing": 321, "licenses": terms(*FOLDERS)},
        "fingerprint": "f" * 64,
    }
    return msgspec.convert(content | more, Manifest)


def card(name: str = "mixvrt_dino", **more: Any) -> str:
    return render_card(manifest(name, **more), recipe.load(name))


def head(text: str) -> dict[str, Any]:
    start, yaml_head, _ = text.split("---\n", 2)
    assert start == ""
    loaded: dict[str, Any] = yaml.safe_load(yaml_head)
    return loaded


def section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def row(text: str, first: str) -> list[str]:
    """The cells of the table row whose first cell is `first`."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


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


# Whose it is


def test_licences_list_the_sources_and_image_sets_that_are_used() -> None:
    licences = section(card(), "Licences")
    for words in ("LicenseRef-Visual-CoT", "contradicts itself", "NonCommercial", "OpenAI"):
        assert words in licences
    for folder in ("coco/train2017", "gqa/images", "ocr_vqa/images", "vg/VG_100K", "textvqa/train_images"):
        assert f"`{folder}/`" in licences
    assert "docvqa/" not in licences and "POPE" not in licences


def test_licences_leave_out_what_gave_no_row() -> None:
    empty = component("POPE_action_test", "coco_popular", 0, source="pope")
    text = card(components=[empty, component("vsr", "vsr", 1)])
    assert "POPE_action_test" in section(text, "Counts")
    assert "POPE" not in section(text, "Licences")


def test_image_sets_are_those_that_rows_show_whatever_their_data_sets_are_called() -> None:
    part = component("some", "", 1, source="llava", template="plain")
    licences = section(card(components=[part], images=shown("coco/train2017/", "vg/VG_100K/")), "Licences")
    assert "`coco/train2017/`" in licences and "`vg/VG_100K/`" in licences and "gqa/" not in licences
    assert "allow commercial use" not in licences
    text_only = section(card(components=[part], images=shown()), "Licences")
    assert "by folder of the raw data" not in text_only


def own(licence: str | None) -> tuple[Recipe, dict[str, Any]]:
    """A recipe of own questions, and the manifest's part on them."""
    loaded = recipe.load("sample")
    take = msgspec.structs.replace(loaded.take["own_signs"], license=licence)
    parts = [component("signs", "signs", 9, source="table")]
    return msgspec.structs.replace(loaded, take={"signs": take}), {"components": parts}


def own_images(licence: str | None) -> dict[str, Any]:
    listed = [{"folder": "", "license": licence, "images": 3}]
    return {"distinct": 3, "embedded": 0, "missing": 0, "licenses": listed}


def test_a_corpus_under_one_licence_says_so() -> None:
    mine, parts = own("CC-BY-4.0")
    text = render_card(manifest("sample", **parts, images=own_images("CC-BY-4.0")), mine)
    licences = section(text, "Licences")
    by = "[CC-BY-4.0](https://creativecommons.org/licenses/by/4.0/)"
    assert f"All of it, annotations and images, is under {by} (class `commercial`)." in licences
    assert "There is no one licence" not in licences and "NO LICENCE" not in text
    assert cells_of(licences, "own images")[:3] == ["own images", "3", by]
    assert head(text)["license"] == "cc-by-4.0" and "license_name" not in head(text)
    assert "Differences to the published data" not in text, "nothing of theirs is in it"


def test_a_licence_that_the_hub_does_not_know_has_its_name_in_the_head() -> None:
    mine, parts = own("LicenseRef-receipts")
    found = head(render_card(manifest("sample", **parts, images=own_images("LicenseRef-receipts")), mine))
    assert (found["license"], found["license_name"]) == ("other", "receipts")


def test_own_questions_about_images_of_others_are_not_free() -> None:
    mine, parts = own("CC-BY-4.0")
    text = render_card(manifest("sample", **parts, images=shown("coco/train2017/")), mine)
    licences = section(text, "Licences")
    assert "There is no one licence" in licences and "non-commercial use only" in licences
    assert (head(text)["license"], head(text)["license_name"]) == ("other", "mixed")


def test_no_licence_is_a_warning_before_anything_else() -> None:
    mine, parts = own(None)
    text = render_card(manifest("sample", **parts, images=own_images(None)), mine)
    assert text.index("> **NO LICENCE GIVEN.**") < text.index("It holds")
    assert head(text)["license_name"] == "unstated"
    assert cells_of(section(text, "Licences"), "own images")[2:4] == ["not stated in the recipe", "unknown"]


def test_own_data_without_a_licence_says_so() -> None:
    loaded = recipe.load("sample", ["take.own_signs.license=CC-BY-4.0"])
    bare = msgspec.structs.replace(loaded.take["own_receipts"], license=None)
    mine = msgspec.structs.replace(loaded, take={"signs": loaded.take["own_signs"], "receipts": bare})
    licences = section(render_card(manifest("sample"), mine), "Licences")
    signs, receipts = (row(licences, f"own data of take `{name}`") for name in ("signs", "receipts"))
    by = "[CC-BY-4.0](https://creativecommons.org/licenses/by/4.0/)"
    assert signs[1:5] == [by, "commercial", "0", "demanded"]
    assert receipts[1:] == ["not stated in the recipe", "unknown", "0", "not known", ""]


def cells_of(licences: str, words: str) -> list[str]:
    """The table row that has these words in its first cell."""
    [line] = [line for line in licences.splitlines() if words in line.split(" | ")[0]]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_each_source_has_rows_class_and_demand() -> None:
    licences = section(card(), "Licences")
    viscot, llava = cells_of(licences, "Visual-CoT"), cells_of(licences, "LLaVA-1.5")
    assert viscot[0].startswith("[Visual-CoT training metadata") and "(https://huggingface.co/" in viscot[0]
    assert viscot[2:5] == ["research", "93,347", "demanded"]
    assert llava[2:5] == ["commercial", "300,000", "demanded"]
    coco = cells_of(licences, "coco/train2017")
    assert coco[1:4] == ["7", "[LicenseRef-COCO-Flickr](https://cocodataset.org)", "research"]
    assert "under the terms its owner chose" in coco[4]


def test_a_take_that_states_its_own_licence_has_a_line_of_its_own() -> None:
    stated = recipe.load("mixvrt_dino", ["take.vsr.license=CC-BY-NC-4.0"])
    licences = section(render_card(manifest(), stated), "Licences")
    lines = [line.split(" | ") for line in licences.splitlines() if "Visual-CoT training" in line]
    assert [(line[1].partition("]")[0], line[2], line[3]) for line in lines] == [
        ("[CC-BY-NC-4.0", "research", "3,347"),
        ("[LicenseRef-Visual-CoT", "research", "90,000"),
    ]


@pytest.mark.parametrize(
    ("source", "folders", "sentence"),
    [
        ("viscot", ["docvqa/documents/"], "so neither is what all of it together allows."),
        ("viscot", ["textvqa/train_images/"], "So all of it together is for non-commercial use only."),
        ("cub", ["cub/CUB_200_2011/images/"], "So all of it together is for non-commercial use only."),
        ("llava", [], "The licences of all of it allow commercial use."),
        ("llava", ["coco/train2017/"], "So all of it together is for non-commercial use only."),
    ],
)
def test_the_strictest_licence_holds_for_all(source: str, folders: list[str], sentence: str) -> None:
    text = card(components=[component("some", "", 1, source=source)], images=shown(*folders))
    assert sentence in section(text, "Licences")


def test_the_licence_policy_is_said() -> None:
    free = section(card(), "Licences")
    assert "Licence policy of the build: `any`; nothing was left out for its licence." in free
    parts = [component("rest", "coco+gqa", 5, source="llava", read=12, dropped={"license": 7})]
    images = shown("coco/train2017/")
    strict = section(card(license_policy="research", components=parts, images=images), "Licences")
    assert "`research`; rows whose annotation or image it does not allow were dropped: 7 rows (`license`)." in strict
    assert "`coco/train2017/`" in strict and "gqa/images/" not in strict
    assert "So all of it together is for non-commercial use only." in strict


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
    assert "`" + "a" * 64 + "`" in made and "`" + "f" * 64 + "`" in made


def test_loading_says_how_to_read_images_that_are_not_there() -> None:
    assert "Image(decode=False)" in section(card(), "Loading")
    embedded = card(mode="embed")
    assert "Image(decode=False)" not in embedded and "with the images inside" in embedded


def test_the_method_is_cited() -> None:
    assert "2502.17425" in section(card(), "Citation")


@pytest.mark.parametrize("name", [name for name in recipe.names() if name not in {"mixvrt", "alignment"}])
def test_every_shipped_recipe_has_a_card(name: str) -> None:
    text = card(name)
    assert text == card(name) and text.endswith("```\n") and "\n\n\n" not in text
    assert DatasetCard(text).data.pretty_name == name
