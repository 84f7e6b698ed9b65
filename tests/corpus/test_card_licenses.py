"""The card's section on licences: whose annotations and images are in the corpus, and what that allows."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from helpers.cards import card, component, head, manifest, row, section, shown

from vpt_data import recipe
from vpt_data.corpus.card import render_card
from vpt_data.recipe import Recipe


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
