"""Images whose owners do not let them be handed on do not become public by accident."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import small_corpora
from helpers.hub.server import HubServer
from helpers.pushing import corpus, planned, pushed, refused

from vpt_data.corpus import manifest
from vpt_data.exchange.hub.redistribution import handed_on


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("built")


@pytest.fixture(scope="module")
def mixed(folder: Path) -> Path:
    """Images of six sets inside the shards."""
    return small_corpora.build(folder / "mixed", "embed")


@pytest.fixture(scope="module")
def free(folder: Path) -> Path:
    """Own images under CC0-1.0."""
    return corpus(folder, name="free", mode="embed")


@pytest.fixture(scope="module")
def mine(folder: Path) -> Path:
    """Own images under terms that nobody knows."""
    return corpus(folder, name="mine", mode="embed", terms="LicenseRef-mine")


def test_own_images_under_a_free_licence_become_public(hub: HubServer, free: Path) -> None:
    assert not pushed(free)["private"]


def test_own_images_under_unknown_terms_do_not(hub: HubServer, mine: Path) -> None:
    assert refused(mine) == (
        "Images in the shards whose terms forbid, or do not state, redistribution cannot become public: 4 of own "
        "(LicenseRef-mine: unstated); push with --private, or build with --images reference, or, if you have the right "
        "to hand them on, give --allow-redistribution own."
    )
    assert ("dataset", "me/mine") not in hub.hub.repositories
    assert not pushed(mine, "--allow-redistribution", "own")["private"]


def test_each_set_has_to_be_allowed_by_its_name(hub: HubServer, mixed: Path) -> None:
    sets = {terms.set for terms in handed_on([manifest.read(mixed)]) if terms.redistribution != "allowed"}
    assert "textvqa/train_images/" not in sets
    assert {"coco/train2017/", "docvqa/documents/"} < sets
    options = [text for name in sorted(sets - {"coco/train2017/"}) for text in ("--allow-redistribution", name)]
    sentence = refused(mixed, *options)
    assert "public: 3 of coco/train2017/ (LicenseRef-COCO-Flickr: unstated); push" in sentence
    assert not pushed(mixed, *options, "--allow-redistribution", "coco/train2017")["private"]


def test_a_set_that_is_not_in_the_corpus_is_a_slip(hub: HubServer, mixed: Path) -> None:
    assert refused(mixed, "--allow-redistribution", "coco/train2071/", code=2) == (
        "Unknown --allow-redistribution, a set with images in the shards, 'coco/train2071/'; did you mean "
        "coco/train2017/?"
    )


def test_a_private_repository_may_hold_them(hub: HubServer, mixed: Path) -> None:
    assert pushed(mixed, "--private")["private"]
    # Its owner made it public meanwhile.
    hub.repository("me/tiny").private = False
    assert "cannot become public" in refused(mixed)


def test_without_images_in_the_shards_nothing_is_handed_on(hub: HubServer, folder: Path) -> None:
    named = corpus(folder, name="named", terms="LicenseRef-mine")
    assert not planned(named, "--allow-redistribution", "own")["private"]
    assert handed_on([manifest.read(named)]) == []
