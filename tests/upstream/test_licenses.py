"""Licences: the list is complete, and each policy lets in what its sentence says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from helpers import end_to_end
from hypothesis import given
from hypothesis import strategies as st

from vpt_data import recipe
from vpt_data.corpus.manifest import Manifest
from vpt_data.pipeline import build as pipeline
from vpt_data.pipeline import plan
from vpt_data.sources.viscot import IMAGE_FOLDER
from vpt_data.upstream import licenses
from vpt_data.upstream.catalog import image_set, upstreams
from vpt_data.upstream.licenses import (
    POLICIES,
    Policy,
    allows,
    class_of,
    redistribution_of,
    refusal,
    refused,
    strictest,
)

ROOT = Path(__file__).resolve().parents[2]


def _stated(value: Any) -> set[str]:
    """Every value of a key `license` in a decoded TOML file."""
    if not isinstance(value, dict):
        return set()
    found = {text for key, text in value.items() if key == "license" and isinstance(text, str) and text}
    return found.union(*map(_stated, value.values()))


def test_every_licence_of_the_upstreams_is_listed() -> None:
    stated = _stated(tomllib.loads((ROOT / "manifests/sources.toml").read_text(encoding="utf-8")))
    assert len(stated) > 10
    assert stated <= set(licenses.licenses())


def test_own_licences_of_the_shipped_recipes_are_listed() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "recipes").glob("*.toml")]
    stated = set().union(*(_stated(tomllib.loads(text)) for text in texts))
    assert stated and stated <= set(licenses.licenses())


def test_entries_are_whole() -> None:
    for name, entry in licenses.licenses().items():
        assert entry.note.endswith(".") and "\n" not in entry.note, name
        assert not entry.url or entry.url.startswith("https://"), name
        # A standard licence can be read; who is not known has to be assumed to want a name.
        assert entry.url or name.startswith("LicenseRef-"), name
        assert entry.attribution or entry.kind != "unknown", name


def test_what_is_unsure_is_unknown() -> None:
    unsure = ("UCSF-IDL", "LLaVA-Pretrain", "VisualGenome-Flickr", "CC3M", "OCR-VQA", "SROIE")
    assert {class_of(f"LicenseRef-{name}") for name in unsure} == {"unknown"}
    assert class_of(None) == class_of("") == class_of("LicenseRef-receipts") == "unknown"
    assert class_of("LicenseRef-CUB-200-2011") == class_of("CC-BY-NC-4.0") == "research"
    assert class_of("CC0-1.0") == class_of("cc-by-4.0") == "commercial"


def test_only_a_known_licence_allows_redistribution() -> None:
    standard = [name for name in licenses.licenses() if not name.startswith("LicenseRef-")]
    assert {redistribution_of(name) for name in standard} == {"allowed"}
    assert redistribution_of("cc-by-nc-4.0") == "allowed"
    assert redistribution_of("LicenseRef-Flickr30k") == "forbidden"
    assert redistribution_of(None) == redistribution_of("LicenseRef-mine") == "unstated"
    # Of what nothing is known, this is not known either.
    of_unknown = {entry.redistribution for entry in licenses.licenses().values() if entry.kind == "unknown"}
    assert of_unknown == {"unstated"}


@pytest.mark.parametrize(
    ("policy", "let_in"),
    [
        ("any", {"commercial", "research", "unknown"}),
        ("research", {"commercial", "research"}),
        ("commercial", {"commercial"}),
    ],
)
def test_a_policy_lets_in_classes(policy: Policy, let_in: set[str]) -> None:
    for name in [*licenses.licenses(), "LicenseRef-mine", None]:
        assert allows(policy, name) == (class_of(name) in let_in)


def test_the_page_states_the_classes_of_the_upstreams() -> None:
    page = (ROOT / "docs/licenses.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\S+)` \| (\w+) \| (\w+) \|", page, re.MULTILINE)
    stated = _stated(tomllib.loads((ROOT / "manifests/sources.toml").read_text(encoding="utf-8")))
    assert {row[0]: row[1:] for row in rows} == {name: (class_of(name), redistribution_of(name)) for name in stated}
    assert len(rows) == len(stated)


ids = st.none() | st.sampled_from(["CC0-1.0", "CC-BY-NC-4.0", "LicenseRef-OCR-VQA", "no such"])


@given(st.lists(ids, max_size=4))
def test_the_strictest_is_what_every_policy_sees(names: list[str | None]) -> None:
    for policy in POLICIES:
        all_in = all(allows(policy, name) for name in names)
        assert all_in == (strictest(names) in licenses._ALLOWED[policy])


def test_a_refusal_names_licence_class_and_policy() -> None:
    said = "CC-BY-NC-4.0 is of class research, and the licence policy is commercial"
    assert refusal("commercial", "CC-BY-NC-4.0") == said
    assert refusal("research", None) == "no licence is of class unknown, and the licence policy is research"


PATHS = [
    "coco/train2017/000000000154.jpg",
    "docvqa/documents/ffhx0227_1.png",
    "textvqa/train_images/0054c91397f2fe05.jpg",
    "cub/CUB_200_2011/images/001.Black_footed_Albatross/a.jpg",
    "own/receipts/1.png",
    "a.png",
    None,
]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("any", {}),
        ("research", {1: "LicenseRef-UCSF-IDL"}),
        ("commercial", {0: "LicenseRef-COCO-Flickr", 1: "LicenseRef-UCSF-IDL", 3: "LicenseRef-CUB-200-2011"}),
    ],
)
def test_refused_images(policy: Policy, expected: dict[int, str]) -> None:
    found = refused(pa.array(PATHS), policy)
    assert found.type == pa.string()
    assert found.to_pylist() == [expected.get(number) for number in range(len(PATHS))]


paths = st.sampled_from([*upstreams().images, "own/", ""]).flatmap(
    lambda folder: st.text(st.characters(exclude_categories=["Cs"]), max_size=5).map(lambda name: folder + name)
)


@given(st.lists(paths | st.none(), max_size=8), st.sampled_from(POLICIES))
def test_refused_says_for_columns_what_allows_says_for_one(some: list[str | None], policy: Policy) -> None:
    found = refused(pa.array(some, pa.string()), policy).to_pylist()
    for path, license_id in zip(some, found, strict=True):
        known = image_set(path.rpartition("/")[0]) if path is not None else None
        inside = known is not None and not allows(policy, known[1].license)
        assert license_id == (known[1].license if inside and known else None)


def test_slices_and_nothing() -> None:
    assert refused(pa.array([], pa.string()), "research").to_pylist() == []
    assert refused(pa.array(PATHS).slice(1, 1), "research").to_pylist() == ["LicenseRef-UCSF-IDL"]


def test_every_folder_that_a_reader_writes_has_terms() -> None:
    assert all(image_set(folder.rstrip("/")) for folder in IMAGE_FOLDER.values())


@pytest.mark.parametrize(
    ("policy", "whole", "of_the_rest"),
    [
        ("research", {"textvqa", "textcap", "vsr", "openimages", "cub", "llava_coco"}, {"coco", "textvqa"}),
        ("commercial", set(), {"textvqa"}),
    ],
)
def test_what_each_policy_leaves_of_the_main_mix(
    policy: Policy, whole: set[str], of_the_rest: set[str], sample_root: Path, tmp_path: Path
) -> None:
    """As docs/licenses.md says it."""
    # The sample has too few rows to leave any to the last take.
    mix = recipe.load("mixvrt_dino", ["take.llava_coco.share=0.5"])
    assert pipeline.build(plan.make(mix, sample_root, "reference", None, policy=policy), tmp_path / "corpus")
    rows = end_to_end.table(tmp_path / "corpus").select(["take", "dataset"]).to_pylist()
    assert {row["take"] for row in rows} == whole | {"llava_rest"}
    assert {row["dataset"] for row in rows if row["take"] == "llava_rest"} == of_the_rest


def test_a_manifest_of_another_policy_is_none() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"Invalid enum value 'none' - at `\$\.license_policy`"):
        msgspec.convert({"license_policy": "none"} | _LEAST, Manifest)
    assert msgspec.convert(_LEAST, Manifest).license_policy == "any"


_LEAST: dict[str, Any] = {
    "schema_version": 1,
    "tool": {"name": "vpt-data", "version": "0", "pyarrow": "0"},
    "recipe": {"name": "mine", "sha256": "", "resolved": {}},
    "inputs": [],
    "mode": "reference",
    "limited": False,
    "components": [],
    "splits": {},
    "images": {"distinct": 0, "embedded": 0, "missing": 0},
    "fingerprint": "",
}
