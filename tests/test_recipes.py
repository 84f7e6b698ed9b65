"""The shipped recipes and the list of upstreams: their numbers, and that they fit each other."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path, PurePosixPath

import msgspec
import pytest

from vpt_data import recipe, store
from vpt_data.dialogue.templates import TEMPLATES
from vpt_data.errors import UsageError
from vpt_data.recipe import Recipe
from vpt_data.sources import locate
from vpt_data.take import Columns, Take
from vpt_data.upstream import catalog

BASES = ("alignment", "mixvrt")  # without an encoder: others extend them
LOADABLE = [name for name in recipe.names() if name not in BASES]
MIXES = [f"mixvrt_{encoder}{free}" for encoder in ("dino", "sam", "clip") for free in ("", "_free")]
REGION = {
    "docvqa": 33_453,
    "textvqa": 18_524,
    "textcap": 32_152,
    "vsr": 3_376,
    "gqa": 98_149,
    "openimages": 43_053,
}
REENCODE = {"cub": 10_056, "llava_coco": 212_000, "llava_gqa": 71_000}
SPLITS = {
    "CUB_Birds_action_test": 492,
    "DocVQA_region_test": 888,
    "DUDE_region_test": 603,
    "Flickr30k_action_test": 1_546,
    "GQA_region_test": 978,
    "OI_region_test": 945,
    "TextCap_region_test": 853,
    "TextVQA_region_test": 526,
    "VSR_region_test": 404,
    "POPE_action_test": 3_000,
    "LLaVA_COCO_free_action_test": 1_000,
    "LLaVA_COCO_single_action_test": 1_000,
    "LLaVA_GQA_action_test": 1_000,
}
SPDX = {"Apache-2.0", "MIT", "CC-BY-4.0", "CC-BY-2.0"}
OWNERS = {
    "homes.cs.washington.edu/~ranjay/visualgenome/index.html",
    "huggingface.co/datasets/deepcs233/Visual-CoT",
    "github.com/deepcs233/Visual-CoT",
    "huggingface.co/datasets/liuhaotian/LLaVA-Instruct-150K",
    "huggingface.co/datasets/liuhaotian/LLaVA-Pretrain",
    "github.com/AoiDragon/POPE",
    "data.caltech.edu/records/65de6-vp158",
    "github.com/cambridgeltl/visual-spatial-reasoning",
}


def counts(loaded: Recipe) -> dict[str, int | str]:
    return {name: take.count for name, take in loaded.take.items()}


def without(loaded: Recipe, *keys: str) -> dict[str, object]:
    """The recipe as plain data, without what names it and without `keys` of it and its takes."""
    plain = msgspec.to_builtins(loaded)
    gone = {"name", "description", *keys}
    for name, take in plain["take"].items():
        plain["take"][name] = {key: value for key, value in take.items() if key not in gone}
    return {key: value for key, value in plain.items() if key not in gone}


def datasets(take: Take) -> list[str]:
    return [take.dataset] if isinstance(take.dataset, str) else take.dataset or []


# The mix


def test_the_mix_has_the_papers_828_763_rows() -> None:
    mix = recipe.load("mixvrt_dino")
    assert counts(mix) == REGION | REENCODE | {"llava_rest": 307_000}
    assert [sum(REGION.values()), sum(REENCODE.values())] == [228_707, 293_056]
    assert sum(take.count for take in mix.take.values() if isinstance(take.count, int)) == 828_763


def test_takes_of_the_mix_claim_in_order_so_that_the_rest_comes_last() -> None:
    names = list(recipe.load("mixvrt_dino").take)
    assert names == [*REGION, *REENCODE, "llava_rest"]


@pytest.mark.parametrize("name", MIXES)
def test_each_take_of_the_mix_has_its_look(name: str) -> None:
    takes = recipe.load(name).take
    looks = {take: takes[take].template for take in takes}
    look = dict.fromkeys(REGION, "region") | dict.fromkeys(REENCODE, "reencode")
    assert looks == look | {"llava_rest": "plain"}
    assert takes["llava_rest"].turns == "all"
    assert "region" not in (takes["llava_coco"].forms or [])


def test_the_six_mixes_differ_in_encoder_and_prompt_only() -> None:
    loaded = [recipe.load(name) for name in MIXES]
    first, *others = (without(mix, "encoder", "prompted") for mix in loaded)
    assert all(other == first for other in others)
    assert [(mix.encoder, mix.prompted) for mix in loaded] == [
        (encoder, prompted) for encoder in ("dino", "sam", "clip") for prompted in (True, False)
    ]
    assert {take.prompted for take in loaded[1].take.values()} == {False}


@pytest.mark.parametrize("name", BASES)
def test_a_base_without_an_encoder_says_what_is_missing(name: str) -> None:
    with pytest.raises(UsageError, match="needs an encoder; set encoder to one of dino, sam, clip"):
        recipe.load(name)
    assert recipe.load(name, ["encoder=sam"]).encoder == "sam"


# Evaluation


def test_evaluation_splits_are_those_of_the_paper() -> None:
    takes = recipe.load("vpt_eval").take
    assert counts(recipe.load("vpt_eval")) == SPLITS
    assert sum(SPLITS.values()) == 13_235
    for name, take in takes.items():
        assert take.split == name
        assert take.template == "plain"
        assert take.expected == ("region" if name.endswith("_region_test") else "reencode")


def test_llava_splits_are_first_questions_on_distinct_images() -> None:
    takes = recipe.load("vpt_eval").take
    drawn = [take for take in takes.values() if take.source == "llava"]
    assert [take.dataset for take in drawn] == ["coco", "coco", "gqa"]
    assert {(take.distinct_images, take.turns) for take in drawn} == {(True, "first")}
    forms = [set(take.forms or []) for take in drawn[:2]]
    assert forms[0] | forms[1] == set(recipe.load("mixvrt_dino").take["llava_coco"].forms or [])
    assert not forms[0] & forms[1]


def test_pope_full_has_all_three_files() -> None:
    full = recipe.load("pope_full")
    files = {f"coco_{kind}" for kind in ("random", "popular", "adversarial")}
    assert {take.dataset for take in full.take.values()} == files
    assert [take.split for take in full.take.values()] == list(full.take)
    assert set(counts(full).values()) == {3_000}


@pytest.mark.parametrize("name", LOADABLE)
def test_training_recipes_exclude_evaluation_and_evaluation_excludes_nothing(name: str) -> None:
    loaded = recipe.load(name)
    if all(take.expected for take in loaded.take.values()) or name.startswith("alignment"):
        assert loaded.exclude is None
    else:
        assert loaded.exclude == ("sample_eval" if name == "sample" else "vpt_eval")
        assert all(take.expected for take in recipe.load(loaded.exclude).take.values())


def test_an_excluded_recipe_lies_beside_the_one_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with `extends`, also through another recipe; `--set` is written where the command is."""
    take = '[take.a]\nsource = "pope"\ntemplate = "plain"\ntask = "general"\n'
    for folder in ("mine", "base"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "held.toml").write_text(take)
    (tmp_path / "base/base.toml").write_text(f'exclude = "held.toml"\n{take}')
    (tmp_path / "mine/a.toml").write_text('exclude = "held"\nextends = "../base/base.toml"')
    (tmp_path / "mine/b.toml").write_text('extends = "../base/base.toml"')
    (tmp_path / "mine/none.toml").write_text('exclude = ""\nextends = "../base/base.toml"')
    monkeypatch.chdir(tmp_path)
    found = {name: recipe.load(f"mine/{name}.toml") for name in ("a", "b", "none")}
    assert found["a"].exclude == "mine/held.toml"
    assert found["b"].exclude == "mine/../base/held.toml"
    assert not found["none"].exclude
    assert recipe.load(str(found["b"].exclude)).take
    assert recipe.load("mine/a.toml", ["exclude=base/held.toml"]).exclude == "base/held.toml"


def test_where_an_excluded_recipe_lies_is_not_in_the_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take = '[take.a]\nsource = "pope"\ntemplate = "plain"\ntask = "general"\n'
    for name, text in {"held": take, "other": take, "a": f'exclude = "held.toml"\n{take}'}.items():
        (tmp_path / f"{name}.toml").write_text(text)
    far = recipe.load(str(tmp_path / "a.toml"))
    monkeypatch.chdir(tmp_path)
    near = recipe.load("a.toml")
    assert (far.exclude, near.exclude) == (f"{tmp_path}/held.toml", "held.toml")
    assert far.digest() == near.digest() != recipe.load("a.toml", ["exclude=other.toml"]).digest()
    assert far.recorded() == near.recorded() == near


def test_an_excluded_recipe_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('exclude = "gone.toml"\n')
    with pytest.raises(UsageError) as caught:
        recipe.load(str(tmp_path / "a.toml"))
    said = "there is no such recipe file; give a path, or a name that `vpt-data recipes` lists."
    assert str(caught.value) == f"{tmp_path}/gone.toml: {said}"


# Ablations, alignment, sample


@pytest.mark.parametrize("k", [4, 8, 16, 32])
def test_grid_ablations_hold_the_same_rows_on_another_grid(k: int) -> None:
    loaded, first = recipe.load(f"ablation_text_k{k}"), recipe.load("ablation_text_k8")
    assert {take.k for take in loaded.take.values()} == {k}
    assert without(loaded, "k") == without(first, "k")
    assert counts(loaded) == {name: REGION[name] for name in ("docvqa", "textvqa", "textcap")}


def test_text_boxes_replace_the_tokens_and_nothing_else() -> None:
    boxes = recipe.load("ablation_textbox")
    assert without(boxes, "template") == without(recipe.load("ablation_text_k8"), "template")
    assert {take.template for take in boxes.take.values()} == {"textbox"}


@pytest.mark.parametrize("tokens", [0, 1, 2, 4])
def test_look_ablations_hold_the_same_rows_with_other_control_tokens(tokens: int) -> None:
    loaded, mix = recipe.load(f"ablation_looks_{tokens}"), recipe.load("mixvrt_dino")
    assert {take.control_tokens for take in loaded.take.values()} == {tokens}
    assert counts(loaded) == REENCODE
    same = [msgspec.structs.replace(take, control_tokens=1) for take in loaded.take.values()]
    assert same == [mix.take[name] for name in REENCODE]


def test_alignment_holds_out_5_000_pairs_before_it_trains_on_the_rest() -> None:
    for encoder in ("dino", "sam"):
        loaded = recipe.load(f"alignment_{encoder}")
        pairs = catalog.upstreams().source["llava_pretrain"].dataset["blip_laion_cc_sbu_558k"].rows
        assert list(loaded.take) == ["alignment_eval", "alignment_train"]
        assert {take.split: take.count for take in loaded.take.values()} == {"eval": 5_000, "train": 553_128}
        assert pairs == 558_128 and 0.01 * pairs > 5_000
        assert [take.share for take in loaded.take.values()] == [0.01, None]
        assert {take.encoder for take in loaded.take.values()} == {encoder}


def test_the_sample_touches_every_template() -> None:
    sample, *aurora = (recipe.load(name) for name in ("sample", "aurora_depth", "aurora_count"))
    assert {take.template for each in (sample, *aurora) for take in each.take.values()} == set(TEMPLATES)
    assert {take.count for take in sample.take.values()} == {"all"}
    assert {take.source for take in sample.take.values()} >= {"table", "coco_boxes"}
    assert all(take.license for take in sample.take.values() if take.files)


def test_llava_splits_use_up_no_part_of_the_file_and_fill_from_the_whole() -> None:
    takes = recipe.load("vpt_eval").take
    gqa = takes["LLaVA_GQA_action_test"]
    assert {take.share for take in takes.values() if take.source == "llava"} == {0.02}
    # GQA is the smallest but for COCO conversations, whose number (about 57,000) its owners do not state.
    assert gqa.share is not None and gqa.share * 72_140 > 1_000


def test_the_sample_evaluation_leaves_images_to_train_on() -> None:
    full, small = recipe.load("vpt_eval"), recipe.load("sample_eval")
    assert without(small, "count", "share", "notes") == without(full, "count", "share", "notes")
    assert {take.share for take in small.take.values() if take.source == "llava"} == {0.1}


# Recipes and upstreams fit


@pytest.mark.parametrize("name", LOADABLE)
def test_every_take_names_an_upstream_that_is_known(name: str) -> None:
    known = catalog.upstreams().source
    for take in recipe.load(name).take.values():
        if take.files:
            continue
        listed = known[take.source].dataset
        assert set(datasets(take)) <= set(listed) or set(listed) == {""}


@pytest.mark.parametrize("name", ["mixvrt_dino", "vpt_eval", "pope_full"])
def test_counts_of_whole_files_are_the_files_rows(name: str) -> None:
    whole = {"viscot", "viscot_benchmark", "pope"}
    takes = [take for take in recipe.load(name).take.values() if take.source in whole]
    for take in takes:
        assert take.count == catalog.upstreams().source[take.source].dataset[str(take.dataset)].rows
    assert takes


@pytest.mark.parametrize("name", recipe.names())
def test_a_recipe_says_on_top_what_it_is(name: str) -> None:
    text = (store.shipped("recipes") / f"{name}.toml").read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert re.search(r'^description = "[A-Z].+\."$', text, re.MULTILINE)


def test_counts_of_upstreams_sum_as_their_owners_files_do() -> None:
    known = catalog.upstreams().source
    files = {name: list(upstream.dataset.values()) for name, upstream in known.items()}
    stated = {name: sum(each.rows or 0 for each in given) for name, given in files.items()}
    assert (
        stated.items()
        >= {
            "viscot": 434_265,
            "viscot_benchmark": 9_937,
            "llava": 665_298,
            "llava_pretrain": 558_128 + 595_375,
            "pope": 9 * 3_000,
            "cub": 11_788,
            "vsr": 7_680 + 1_097 + 2_195 + 3_489 + 340 + 1_222,
            "visual_genome": 108_077,
        }.items()
    )


def test_main_files_have_places_of_their_own() -> None:
    main = [
        place
        for upstream in catalog.upstreams().source.values()
        for files in upstream.dataset.values()
        for place in files.places.get("rows", [])
    ]
    assert len(main) == len(set(main))


def test_places_stay_inside_the_raw_root() -> None:
    known = catalog.upstreams()
    files = [files for upstream in known.source.values() for files in upstream.dataset.values()]
    places = list(chain.from_iterable(chain.from_iterable(each.places.values()) for each in files))
    folders = [*known.images, *chain.from_iterable(images.places for images in known.images.values())]
    for place in [*places, *folders]:
        path = PurePosixPath(place)
        assert not path.is_absolute() and ".." not in path.parts and "\\" not in place
    assert all(folder.endswith("/") for folder in folders)
    assert not any(place.endswith(("/", ".gz")) for place in places)


def test_terms_are_spdx_or_named_and_come_from_the_owner() -> None:
    known = catalog.upstreams()
    licenses = [terms.license for terms in known.source.values()]
    licenses += [terms.license for terms in known.images.values()]
    assert all(name in SPDX or re.fullmatch(r"LicenseRef-[A-Za-z0-9.-]+", name) for name in licenses)
    assert {upstream.homepage.removeprefix("https://") for upstream in known.source.values()} >= OWNERS
    assert all(upstream.get.endswith(".") and upstream.title for upstream in known.source.values())
    assert all(images.attribution for images in known.images.values())


def test_visual_cots_contradiction_is_stated() -> None:
    for name in ("viscot", "viscot_benchmark"):
        note = catalog.upstreams().source[name].license_note
        assert "Apache-2.0" in note and "NonCommercial" in note


def test_schemes_of_image_identity() -> None:
    schemes = {folder: (images.scheme, images.number) for folder, images in catalog.upstreams().images.items()}
    named = {folder: scheme for folder, scheme in schemes.items() if scheme[0]}
    coco = {f"coco/{part}/": ("coco", True) for part in ("train2017", "val2017", "train2014", "val2014")}
    vg = dict.fromkeys(("gqa/images/", "vg/VG_100K/", "vg/VG_100K_2/"), ("vg", True))
    assert named == coco | vg | {
        "ade20k/": ("ade20k", False),
        "textvqa/train_images/": ("oi", False),
        "visual7w/images/": ("vg", True),
        "emotic/images/mscoco/images/": ("coco", True),
        "openimages/images/": ("oi", False),
        "flickr30k/flickr30k-images/": ("flickr", False),
        "docvqa/documents/": ("docvqa", False),
        "cub/CUB_200_2011/images/": ("cub", False),
    }


def test_real_files_are_found_where_the_list_says(shared: Path) -> None:
    root = shared / "data" / "raw"
    found = {source: locate.find(root, source, None) for source in catalog.upstreams().source}
    assert {source: sorted(job.dataset for job in part.jobs) for source, part in found.items()} == {
        "viscot": ["cub", "vsr"],
        "viscot_benchmark": ["cub", "docvqa", "gqa"],
        "llava": [""],
        "llava_pretrain": [],
        "pope": ["coco_popular"],
        "cub": ["cub"],
        "vsr": ["random_dev", "zeroshot_dev"],
        "visual_genome": [],
        "aurora_count": ["coco_train2017"],
        "aurora_depth": [],
    }
    assert not any(part.second_copies for part in found.values())
    assert set(found["cub"].jobs[0].files) == {"rows", "boxes", "labels", "classes", "split", "attributes"}


# Documentation


def test_docs_name_every_recipe_and_every_key() -> None:
    page = Path(__file__).resolve().parents[1] / "docs" / "recipes.md"
    text = page.read_text(encoding="utf-8")
    keys = {key for struct in (Recipe, Take, Columns) for key in struct.__struct_fields__}
    assert [name for name in [*recipe.names(), *sorted(keys)] if f"`{name}`" not in text] == []


def test_the_joint_recipe_is_the_sum_of_both() -> None:
    depth, count, joint = (recipe.load(f"aurora_{name}") for name in ("depth", "count", "joint"))
    assert joint.take == {**depth.take, **count.take} and joint.exclude == depth.exclude == count.exclude
