"""Where each corpus is located in a repository: one at its root, several in a folder each, as configs.

    one corpus       README.md  manifest.json  dropped.parquet  origins.parquet  data/  assets/  croissant.json
    several          README.md  croissant.json  NAME/README.md  NAME/manifest.json  NAME/data/  ...

NAME is the name of the corpus' recipe. The first corpus is the default config.
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
    def data_files(self) -> dict[str, str]:
        """For each split that has rows the pattern of its shards in the repository."""
        return {
            name: f"{self.folder}data/{name}-*.parquet" for name, split in self.manifest.splits.items() if split.shards
        }


def parts(corpora: Sequence[Corpus]) -> list[Part]:
    """Where these corpora go; UsageError where two of them would have one name."""
    if len(corpora) == 1:
        return [Part(corpora[0], "default", "")]
    named: dict[str, Corpus] = {}
    for corpus in corpora:
        name = corpus.manifest.recipe.name
        if name in named:
            raise UsageError(
                f"{named[name].place} and {corpus.place} were both built from the recipe {name}, and a repository has "
                "one config of a name; push one of them, or give one of the recipes another `name`."
            )
        if name.lower() in _TAKEN or "/" in name or not store.is_plain(name):
            raise UsageError(
                f"{corpus.place}: the name of its recipe, {name!r}, cannot be that of a folder in the repository; give "
                "the recipe another `name`."
            )
        named[name] = corpus
    return [Part(corpus, name, f"{name}/") for name, corpus in named.items()]
