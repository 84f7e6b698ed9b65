"""What people see of a repository: its cards with their pictures, and croissant.json.

Everything follows from the corpora (and, where images are not in the shards, from the raw root): no dates, so that an
unchanged corpus is an unchanged repository.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from vpt_data.corpus import card_head
from vpt_data.corpus.card import USE, OnTheHub, render_card, warnings
from vpt_data.corpus.card_head import Head
from vpt_data.corpus.card_licenses import citation_section, licence_ids
from vpt_data.corpus.manifest import recipe_of
from vpt_data.errors import CorpusError
from vpt_data.exchange.hub import croissant, pictures
from vpt_data.exchange.hub.layout import CARD, CROISSANT, Part
from vpt_data.exchange.hub.redistribution import sets_named
from vpt_data.exchange.hub.samples import samples
from vpt_data.images.root import ImageRoot
from vpt_data.inspect.plots import plots
from vpt_data.inspect.stats import stats
from vpt_data.recipe import Recipe
from vpt_data.report import markdown_code, markdown_table, markdown_text
from vpt_data.store import AnyPath
from vpt_data.upstream import licenses
from vpt_data.upstream.catalog import upstreams

_OVERVIEW = """\
Corpora with Visual Perception Tokens (arXiv 2502.17425), one config each: {names}. These tokens let a multimodal
language model ask for a second look before it answers: at a region in full resolution, or at the whole image through
another encoder."""

_CONFIGS = """\
## Configs

{table}

Each name leads to the card of its config: counts, licences, differences to the published data, how it was made."""

_LOADING = """\
## Loading

```python
from datasets import load_dataset

rows = load_dataset("{repo}", "{config}")
```

Without a name, `load_dataset` takes the first config. `streaming=True` works, and `revision="v1"` (a tag of this
repository) keeps to one version. vpt-data and its trainer read `hf://datasets/{repo}/{config}` without a copy."""

_LICENCES = """\
## Licences

Each row says its own licence, in `license` (annotation) and `image_info.license` (image); the card of each config
lists them with their terms."""


@dataclass(frozen=True, slots=True)
class _Described:
    """A corpus of the repository with its recipe, and what its licences are."""

    part: Part
    recipe: Recipe
    ids: set[str | None]
    head: Head

    @property
    def rows(self) -> int:
        return sum(split.rows for split in self.part.manifest.splits.values())


def pages(
    parts: Sequence[Part], repo: str, raw: AnyPath | None = None, allowed: Collection[str] = ()
) -> list[tuple[str, bytes]]:
    """Paths in the repository and bytes of its cards, their pictures and croissant.json.

    repo      ORG/NAME
    raw       the raw root, for pictures of images that are not in the shards
    allowed   image sets whose images may be shown, whatever their licence says (`--allow-redistribution`)

    Raises CorpusError where the Hub would refuse the head of the card.
    """
    described = [_described(part) for part in parts]
    head = _head(described, repo)
    shards = [f"{part.folder}{shard.name}" for part in parts for shard in part.corpus.shards()]
    if wrong := card_head.problems(head, shards):
        raise CorpusError(f"{repo}: the Hub would refuse the head of the card: {'; '.join(wrong)}.")
    root = ImageRoot(raw) if raw is not None else None
    files = [file for each in described for file in _of_corpus(each, repo, root, sets_named(allowed), len(parts) > 1)]
    if len(parts) > 1:
        files.append((CARD, _overview(described, repo, head, dict(files)).encode()))
    files.append((CROISSANT, croissant.text([(each.part, each.recipe) for each in described], repo).encode()))
    return files


def _described(part: Part) -> _Described:
    made = part.manifest
    recipe = recipe_of(made)
    known = upstreams()
    return _Described(part, recipe, licence_ids(made, recipe, known), card_head.head_of(made, recipe, known))


def _head(described: Sequence[_Described], repo: str) -> Head:
    """The head of the README.md at the root."""
    if len(described) == 1:
        return described[0].head
    return card_head.joined(
        repo.rpartition("/")[2],
        [each.head for each in described],
        sum(each.rows for each in described),
        set().union(*(each.ids for each in described)),
        [(each.part.config, each.part.folder) for each in described],
    )


def _of_corpus(
    each: _Described, repo: str, root: ImageRoot | None, allowed: Collection[str], several: bool
) -> list[tuple[str, bytes]]:
    """The card of one corpus and its pictures."""
    part = each.part
    rows = pictures.rows(samples(part.corpus, root, allowed), root)
    drawn = pictures.plots(plots(stats(part.corpus.place)))
    hub = OnTheHub(repo, part.config if several else None, rows.text, drawn.text)
    card = render_card(part.manifest, each.recipe, hub=hub)
    files = {CARD: card.encode(), **rows.files, **drawn.files}
    return [(part.folder + path, data) for path, data in files.items()]


# Several corpora --------------------------------------------------------------------------------------------


def _overview(described: Sequence[_Described], repo: str, head: Head, files: dict[str, bytes]) -> str:
    """The card of a repository with several corpora: what they are, and how each is loaded."""
    known = upstreams()
    said = [
        f"{line} This is about the config `{each.part.config}`."
        for each in described
        for line in warnings(each.part.manifest, each.ids)
    ]
    first = described[0].part
    picture = next(path for path in files if path.startswith(f"{first.folder}assets/row-"))
    sections = [
        head.text(),
        f"# {repo.rpartition('/')[2]}",
        *said,
        _OVERVIEW.format(names=markdown_code(each.part.config for each in described)),
        f"![A row of the config {first.config}: the image with its boxes, and the dialogue]({picture})",
        _CONFIGS.format(table=_table(described)),
        _LOADING.format(repo=repo, config=first.config),
        _LICENCES,
        USE,
        citation_section([each.part.manifest for each in described], known),
    ]
    return "\n\n".join(sections) + "\n"


def _table(described: Sequence[_Described]) -> str:
    head = ["config", "what it is", "rows", "images", "encoder", "class of its licences", "fingerprint"]
    rows = []
    for each in described:
        made = each.part.manifest
        rows.append([
            f"[`{each.part.config}`]({each.part.folder}{CARD})",
            markdown_text(each.recipe.description),
            f"{each.rows:,}",
            "inside" if made.mode == "embed" else "named",
            each.recipe.encoder or "",
            licenses.strictest(each.ids),
            f"`{made.fingerprint[:12]}`",
        ])  # fmt: skip
    return markdown_table(head, rows)
