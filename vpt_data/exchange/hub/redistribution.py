"""Whether the images in corpora may be handed on to everybody, which a public repository with them does.

Only images inside the shards count: a corpus in reference mode hands on none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from vpt_data.corpus.manifest import Manifest
from vpt_data.errors import CorpusError, unknown_name
from vpt_data.upstream.licenses import Redistribution, redistribution_of

OWN = "own"


@dataclass(frozen=True, slots=True)
class ImageTerms:
    """The images of a set under one licence: `set` is its folder as the card names it, or "own" for own images."""

    set: str
    license: str | None
    redistribution: Redistribution
    images: int

    def text(self) -> str:
        """The set in a sentence."""
        return f"{self.images:,} of {self.set} ({self.license or 'no licence given'}: {self.redistribution})"


def handed_on(manifests: Iterable[Manifest]) -> list[ImageTerms]:
    """The images inside the shards of these corpora."""
    return [
        ImageTerms(entry.folder or OWN, entry.license, redistribution_of(entry.license), entry.images)
        for made in manifests
        if made.mode == "embed"
        for entry in made.images.licenses
    ]


def sets_named(names: Iterable[str]) -> frozenset[str]:
    """Image sets as the manifest names them, from what somebody typed: `coco/train2017` is `coco/train2017/`."""
    return frozenset(name if name == OWN else f"{name.rstrip('/')}/" for name in names)


def check_public(manifests: Sequence[Manifest], allowed: Collection[str]) -> None:
    """CorpusError where images may not become public; UsageError for an allowed set of which there is no image.

    allowed   sets (`coco/train2017/`, or "own") whose images the user has the right to hand on
    """
    images = handed_on(manifests)
    sets = {terms.set for terms in images}
    named = sets_named(allowed)
    for name in sorted(named - sets) if sets else ():
        raise unknown_name("--allow-redistribution, a set with images in the shards,", name, sets)
    refused = [terms for terms in images if terms.redistribution != "allowed" and terms.set not in named]
    if refused:
        options = " ".join(f"--allow-redistribution {name}" for name in dict.fromkeys(terms.set for terms in refused))
        raise CorpusError(
            "Images in the shards whose terms forbid, or do not state, redistribution cannot become public: "
            f"{', '.join(terms.text() for terms in refused)}; push with --private, or build with --images reference, "
            f"or, if you have the right to hand them on, give {options}."
        )
