"""The dataset card of a corpus: what it is, what is in it, whose it is, how it differs from published data.

`render_card` is a pure function of the manifest, the resolved recipe and manifests/sources.toml: no dates, no
paths of a machine, the same text for the same corpus. What must not be missed (a limited or partial build,
unchecked evaluation files) comes first and in bold.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from vpt_data.corpus.accounts import account
from vpt_data.corpus.card_head import head_of
from vpt_data.corpus.card_licenses import citation_section, licence_ids, licences_section
from vpt_data.corpus.manifest import Manifest, imported
from vpt_data.dialogue.rule import render_rule
from vpt_data.dialogue.templates import TEMPLATES
from vpt_data.dialogue.tokens.reencode import ENCODERS
from vpt_data.recipe import Recipe, as_toml, load, names
from vpt_data.recipe.record import resolved
from vpt_data.report import markdown_code, markdown_line, markdown_table
from vpt_data.upstream.catalog import Upstreams, upstreams

_ROW = """\
The n-th image placeholder in the messages shows `views[n]`: in which turn, which of `images`, through which
encoder (`vlm` is the model's own), which pixels (`box`: left, top, right, bottom, the last two exclusive)
and which cells of the grid (`cells`: first column, first row, last column, last row, ends included).
`image_info` has size, hash, licence and attribution of each image. `question`, `answers` and `regions` keep
what the source said, boxes in pixels of the stored image. Rows with `expected` are for evaluation: they
hold question and answer only, and the harness plays the look."""

_FROM_FOLDER = """\
## Loading

```python
from datasets import load_dataset

files = {{"{split}": "data/{split}-*.parquet"}}
rows = load_dataset("parquet", data_files=files, split="{split}")
```

On the Hub, `load_dataset("ORG/NAME")` finds the splits by itself; `streaming=True` works. DuckDB, polars
and pandas read the shards too."""

_FROM_HUB = """\
## Loading

```python
from datasets import load_dataset

rows = load_dataset("{repo}"{config}, split="{split}")
```

`streaming=True` works, and `revision="v1"` (a tag of this repository) keeps to one version. Tools that know
`{place}` (vpt-data and its trainer) read it without a copy; DuckDB, polars and pandas read the shards too."""

_IMPORTING = """\
## How it was made

```bash
vpt-data import {file} --out OUT{options}
```

Made by vpt-data {version} with pyarrow {pyarrow} of the file that `manifest.json` names by hash. Rows are in the order
of that file, and `origins.parquet` says which record each of them was. Fingerprint of all rows
`{fingerprint}`."""

_MAKING = """\
## How it was made

```bash
{command}
```

Made by vpt-data {version} with pyarrow {pyarrow}; these versions, the recipe and the raw files that
`manifest.json` names by hash give the same shards, byte for byte. Recipe sha256 `{recipe}`.
Fingerprint of all rows `{fingerprint}`:
the same inputs, recipe and version give the same. `manifest.json` also has the recipe in full and a hash of
every shard; `origins.parquet` traces each row to its raw record. To test the claim on a copy of this corpus, make
random shards again: `vpt-data check OUT --raw RAW --rebuild 3`."""

_REFERENCE = """\
Images are not in the shards: `images[i]["path"]` is relative to the folder of the raw data. Read that column
undecoded:

```python
from datasets import Image, List

rows = rows.cast_column("images", List(Image(decode=False)))
```"""

USE = """\
## Use

Made for research on models that decide to look again: for training and evaluating them, not for decisions
about people. Photos show people in public, documents hold names, addresses and signatures, and part of the
text was written by other models; answers and boxes carry the errors of their sources. To have a row or an
image removed, open a discussion on this dataset's page and give its `id`."""


@dataclass(frozen=True, slots=True)
class OnTheHub:
    """What the card of a corpus has more in a repository on the Hub.

    repo      ORG/NAME
    config    the config of this corpus; None where it is the only one
    pictures  Markdown: sample rows and thumbnails
    plots     Markdown: plots and their numbers
    """

    repo: str
    config: str | None = None
    pictures: str = ""
    plots: str = ""

    @property
    def place(self) -> str:
        """The corpus as `open_corpus` and the trainer name it."""
        return f"hf://datasets/{self.repo}" + (f"/{self.config}" if self.config else "")


def render_card(manifest: Manifest, recipe: Recipe, known: Upstreams | None = None, hub: OnTheHub | None = None) -> str:
    """The README.md of a corpus.

    manifest   what was built; its `missing` and `not_checked` become warnings on top
    recipe     the resolved recipe it was built from
    known      what the upstreams are; manifests/sources.toml where None
    hub        what it has more on the Hub
    """
    known = known or upstreams()
    sections = [
        head_of(manifest, recipe, known).text(),
        f"# {recipe.name}",
        *warnings(manifest, licence_ids(manifest, recipe, known)),
        _what(manifest, recipe),
        hub.pictures if hub else "",
        f"## One row\n\n{_looks(recipe)}\n\n{_ROW}",
        _counts(manifest, recipe),
        hub.plots if hub else "",
        licences_section(manifest, recipe, known),
        *_differences(recipe, known),
        _overlap(manifest, recipe),
        _loading(manifest, hub),
        _making(manifest, recipe),
        USE,
        citation_section([manifest], known),
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


# What is in it ----------------------------------------------------------------------------------------------


def warnings(manifest: Manifest, ids: set[str | None]) -> Iterator[str]:
    """What must not be missed, most important first; `ids` are the licences of all that is in the corpus."""
    if manifest.limited:
        yield (
            "> **LIMITED BUILD, NOT THE WHOLE CORPUS.** Only the beginning of each input file was read. It "
            "is a trial: do not train on it and do not publish it."
        )
    if manifest.missing:
        yield (
            "> **PARTIAL CORPUS.** Raw files of these takes were not there, so their rows are missing or "
            f"incomplete: {markdown_code(manifest.missing)}."
        )
    if manifest.not_checked:
        yield (
            "> **OVERLAP WITH EVALUATION DATA ONLY PARTLY CHECKED.** These files were not "
            f"there, so training rows may show their images: {markdown_code(manifest.not_checked)}."
        )

    if None in ids:
        yield (
            "> **NO LICENCE GIVEN.** The recipe does not say under which licence some of the rows or images are, so "
            "nobody may take them to be free: see the section Licences."
        )


def _what(manifest: Manifest, recipe: Recipe) -> str:
    # Markdown is meant, HTML is not: of `<image>` nothing would be seen.
    about = escape(recipe.description, quote=False) or f"A corpus made by the recipe `{recipe.name}`."
    takes = sum(part.kept > 0 for part in manifest.components)
    pixels = "with the images inside" if manifest.mode == "embed" else "without pixels (images are named)"
    return (
        f"{about} It holds {_rows(manifest):,} rows of {takes} takes as Parquet shards, {pixels}. "
        "Visual Perception Tokens (arXiv 2502.17425) let a multimodal language model ask for a second look "
        "before it answers: at a region in full resolution, or at the whole image through another encoder."
    )


def _looks(recipe: Recipe) -> str:
    kinds = ", ".join(f"`{kind}`" for kind in ("region", *ENCODERS))
    intro = (
        "`messages` is the dialogue, user and assistant in turn. `looks` lists its second looks in order "
        f"({kinds}; empty = none)."
    )
    rules = [render_rule(name, take, False) for name, take in resolved(recipe).take.items() if not take.expected]
    rules.sort(key=lambda rule: (list(TEMPLATES).index(rule.template), rule.k, rule.encoder or "", rule.control_tokens))
    explained = [rule.form.explain(rule) for rule in rules if rule.form.explain]
    return "\n".join([intro, "", *(f"- {line}" for line in dict.fromkeys(explained) if line)]).rstrip()


def _counts(manifest: Manifest, recipe: Recipe) -> str:
    parts, images = manifest.components, manifest.images
    splits = [[f"`{name}`", f"{at.rows:,}", str(len(at.shards))] for name, at in manifest.splits.items()]
    lines = account(manifest, {name: take.count for name, take in recipe.take.items()})
    takes = [[f"`{line.take}`", *line[1:]] for line in lines]
    read, kept = sum(part.read for part in parts), sum(part.kept for part in parts)
    takes.append(["all", "", "", "", f"{read:,}", "", f"{read - kept:,}", f"{kept:,}"])
    head = ["take", "source, data sets", "template", "expected", "read", "repaired", "dropped", "kept"]
    rule = (
        "Every record read is in a shard, or in `dropped.parquet` with file, line and reason: read = kept + "
        "dropped. `expected` is what the recipe asks for. A record that fits several takes counts in each."
    )
    return "\n\n".join(
        [
            "## Counts",
            markdown_table(["split", "rows", "shards"], splits),
            f"Images: {images.distinct:,} distinct, {images.embedded:,} embedded, {images.missing:,} missing.",
            rule,
            markdown_table(head, takes),
        ]
    )


# How far to trust it ----------------------------------------------------------------------------------------


def _differences(recipe: Recipe, known: Upstreams) -> Iterator[str]:
    """The section on published data, where anything of theirs is in the corpus."""
    if not any(take.source in known.source for take in recipe.take.values()):
        return
    takes = [take for take in recipe.take.values() if not take.expected]
    edges = {take.edge or recipe.edge for take in takes if TEMPLATES[take.template].on_grid}
    said = [escape(note, quote=False) for note in recipe.notes]
    if edges - {"legacy"}:
        said.append(
            "No region token names a cell outside the grid. By estimate 6 % of the published region rows "
            "do, those whose box touches the right or bottom border; here they name the last cell and show "
            "a crop that ends at the border."
        )
    if "legacy" in edges:
        said.append(
            "Takes with `edge = legacy` repeat a defect of the published data on purpose: cells beyond the "
            "last one, which have no token. They are for comparison only."
        )
    if any(TEMPLATES[take.template].look for take in takes):
        said.append(
            "`views` says which pixels a placeholder shows, and through which encoder; the published files "
            "have one list of images per encoder and write crops into file names."
        )
    if any(take.prompted is False for take in takes):
        said.append("Free choice: the sentence that asks for a look is left out of the question.")
    said.append("Placeholders and special tokens in source text are defused (`neutralised` under repaired).")
    intro = "Made from the owners' files, not from the published VPT data; rows cannot be matched one to one."
    points = "\n".join(f"- {markdown_line(text)}" for text in said)
    yield f"## Differences to the published data\n\n{intro}\n\n{points}"


def _overlap(manifest: Manifest, recipe: Recipe) -> str:
    title = "## Overlap with evaluation data\n\n"
    if all(take.expected for take in recipe.take.values()):
        return f'{title}This is evaluation data: keep it out of training with `exclude = "{recipe.name}"`.'
    if not recipe.exclude:
        return f"{title}Nothing was excluded: rows may show images of any evaluation set."
    dropped = sum(part.dropped.get("eval_image", 0) for part in manifest.components)
    unchecked = markdown_code(manifest.not_checked)
    rest = f"Not checked, because not there: {unchecked}." if unchecked else "All of its files were there."
    return (
        f"{title}Rows whose image also occurs in {markdown_code(recipe.excludes)} were dropped before any quota was "
        f"filled: {dropped:,} rows (`eval_image`). {rest} Images are compared by the identity their owners "
        "give them (COCO number, Visual Genome number, Open Images id, file name), not by their pixels."
    )


def _loading(manifest: Manifest, hub: OnTheHub | None) -> str:
    name = next((name for name, split in manifest.splits.items() if split.shards), "train")
    text = _FROM_FOLDER.format(split=name)
    if hub:
        config = f', "{hub.config}"' if hub.config else ""
        text = _FROM_HUB.format(repo=hub.repo, config=config, place=hub.place, split=name)
    if manifest.mode == "embed":
        return text
    return "\n\n".join([text, _REFERENCE])


def _making(manifest: Manifest, recipe: Recipe) -> str:
    if imported(recipe):
        repaired = any("off_grid" in part.repaired for part in manifest.components)
        return _IMPORTING.format(
            file=manifest.inputs[0].file,
            options=" --repair" if repaired else "",
            version=manifest.tool.version,
            pyarrow=manifest.tool.pyarrow,
            fingerprint=manifest.fingerprint,
        )
    shipped = recipe.name in names() and load(recipe.name).digest() == manifest.recipe.sha256
    options = [
        f"--recipe {recipe.name if shipped else f'{recipe.name}.toml'}",
        f"--raw RAW --out OUT --images {manifest.mode}",
        "--limit N" if manifest.limited else "",
        f"--license-policy {manifest.license_policy}" if manifest.license_policy != "any" else "",
        f"--verify-images {manifest.verify_images}" if manifest.verify_images != "markers" else "",
    ]
    text = _MAKING.format(
        command=" ".join(["vpt-data build", *filter(None, options)]),
        version=manifest.tool.version,
        pyarrow=manifest.tool.pyarrow,
        recipe=manifest.recipe.sha256,
        fingerprint=manifest.fingerprint,
    )
    return text if shipped else f"{text}\n\n{_own_recipe(recipe)}"


def _own_recipe(recipe: Recipe) -> str:
    """The recipe in full: nobody else has its file."""
    text = as_toml(recipe).strip()
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return (
        f"<details>\n<summary>The recipe, {recipe.name}.toml, with everything resolved</summary>\n\n"
        f"{fence}toml\n{text}\n{fence}\n\n</details>"
    )


def _rows(manifest: Manifest) -> int:
    return sum(split.rows for split in manifest.splits.values())
