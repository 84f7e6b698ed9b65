"""Where each corpus is located in a repository: one at its root, several in a folder each, as configs.

    one corpus       README.md  manifest.json  dropped.parquet  origins.parquet  data/  assets/  croissant.json
    several          README.md  croissant.json  NAME/README.md  NAME/manifest.json  NAME/data/  ...

NAME is the name of the corpus' recipe; where several have the same, the name of its folder. The first corpus is the
default config.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vpt_data import store
from vpt_data.corpus import manifest
from vpt_data.corpus.manifest import Manifest
from vpt_data.corpus.reader import DROPPED, ORIGINS, Corpus
from vpt_data.errors import UsageError

CARD = "README.md"
ASSETS = "assets"
CROISSANT = "croissant.json"
ATTRIBUTES = ".gitattributes"
#: Names at the root that no folder of a corpus may have.
_TAKEN = {"data", ASSETS, CARD.lower(), CROISSANT, ATTRIBUTES, manifest.NAME, DROPPED, ORIGINS}


@dataclass(frozen=True, slots=True)
class Part:
    """One corpus of a repository.

    config   its config, as `load_dataset(REPO, CONFIG)` names it
    folder   "" for the root of the repository, else "NAME/"
    """

    corpus: Corpus
    config: str
    folder: str

    @property
    def manifest(self) -> Manifest:
        """The account of the corpus."""
        return self.corpus.manifest

    @property
    def name(self) -> str:
        """What an earlier push would have called it."""
        return name_of(self.folder, self.manifest)

    @property
    def data_files(self) -> dict[str, str]:
        """For each split that has rows the pattern of its shards in the repository."""
        return {
            name: f"{self.folder}data/{name}-*.parquet" for name, split in self.manifest.splits.items() if split.shards
        }


def name_of(folder: str, made: Manifest) -> str:
    """The name of a corpus in a repository: that of its folder, or at the root that of its recipe."""
    return folder.rstrip("/") or made.recipe.name


def parts(corpora: Sequence[Corpus]) -> list[Part]:
    """Where these corpora go; UsageError where two of them would have one name."""
    if len(corpora) == 1:
        return [Part(corpora[0], "default", "")]
    names = [corpus.manifest.recipe.name for corpus in corpora]
    if len(set(names)) < len(names):  # one recipe for several encoders, for instance
        names = [corpus.place.name for corpus in corpora]
    named: dict[str, Corpus] = {}
    for name, corpus in zip(names, corpora, strict=True):
        if name in named:
            raise UsageError(
                f"{named[name].place} and {corpus.place}: a repository has one config of a name, and both the recipes "
                "and the folders of these corpora have the same; rename a folder."
            )
        if name.lower() in _TAKEN or "/" in name or not store.is_plain(name):
            raise UsageError(
                f"{corpus.place}: its config would be called {name!r}, which cannot be the name of a folder in the "
                "repository; give the recipe another `name`."
            )
        named[name] = corpus
    return [Part(corpus, name, f"{name}/") for name, corpus in named.items()]
