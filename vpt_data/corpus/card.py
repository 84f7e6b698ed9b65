"""The dataset card of a corpus: what it is, what is in it, whose it is, how it differs from published data.

`render_card` is a pure function of the manifest, the resolved recipe and manifests/sources.toml: no dates, no
paths of a machine, the same text for the same corpus. What must not be missed (a limited or partial build,
unchecked evaluation files) comes first and in bold.
"""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from vpt_data.corpus.accounts import account
from vpt_data.corpus.card_licenses import CITATION, licence_ids, licences_section
from vpt_data.corpus.manifest import Manifest
from vpt_data.dialogue.rule import render_rule
from vpt_data.dialogue.templates import TEMPLATES
from vpt_data.dialogue.tokens.reencode import ENCODERS
from vpt_data.recipe import Recipe, names
from vpt_data.recipe.record import resolved
from vpt_data.report import markdown_code, markdown_line, markdown_table
from vpt_data.upstream import licenses
from vpt_data.upstream.catalog import Upstreams, upstreams

_SIZES = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")

_ROW = """\
The n-th image placeholder in the messages shows `views[n]`: in which turn, which of `images`, through which
encoder (`vlm` is the model's own), which pixels (`box`: left, top, right, bottom, the last two exclusive)
and which cells of the grid (`cells`: first column, first row, last column, last row, ends included).
`image_info` has size, hash, licence and attribution of each image. `question`, `answers` and `regions` keep
what the source said, boxes in pixels of the stored image. Rows with `expected` are for evaluation: they
hold question and answer only, and the harness plays the look."""

_REFERENCE = """\
Images are not in the shards: `images[i]["path"]` is relative to the folder of the raw data. Read that column
undecoded:

```python
from datasets import Image, List

rows = rows.cast_column("images", List(Image(decode=False)))
```"""

_USE = """\
## Use

Made for research on models that decide to look again: for training and evaluating them, not for decisions
about people. Photos show people in public, documents hold names, addresses and signatures, and part of the
text was written by other models; answers and boxes carry the errors of their sources. To have a row or an
image removed, open a discussion on this dataset's page and give its `id`."""


def render_card(manifest: Manifest, recipe: Recipe, known: Upstreams | None = None) -> str:
    """The README.md of a corpus.

    manifest   what was built; its `missing` and `not_checked` become warnings on top
    recipe     the resolved recipe it was built from
    known      what the upstreams are; manifests/sources.toml where None
    """
    known = known or upstreams()
    sections = [
        _front_matter(manifest, recipe, known),
        f"# {recipe.name}",
        *_warnings(manifest, licence_ids(manifest, recipe, known)),
        _what(manifest, recipe),
        f"## One row\n\n{_looks(recipe)}\n\n{_ROW}",
        _counts(manifest, recipe),
        licences_section(manifest, recipe, known),
        *_differences(recipe, known),
        _overlap(manifest, recipe),
        _loading(manifest),
        _making(manifest, recipe),
        _USE,
        CITATION,
    ]
    return "\n\n".join(sections) + "\n"


# The head ---------------------------------------------------------------------------------------------------


def size_category(rows: int) -> str:
    """The Hub's name for a number of rows: 828,763 -> `100K<n<1M`."""
    place = max(3, len(str(rows))) - 3
    if place == 0:
        return f"n<{_SIZES[0]}"
    return f"{_SIZES[place - 1]}<n<{_SIZES[place]}" if place < len(_SIZES) else f"n>{_SIZES[-1]}"


def _front_matter(manifest: Manifest, recipe: Recipe, known: Upstreams) -> str:
    takes = recipe.take.values()
    captions = all(TEMPLATES[take.template].captions for take in takes)
    answers = ["visual-question-answering", "image-text-to-text"]
    files = [{"split": name, "path": f"data/{name}-*.parquet"} for name in _filled(manifest)]
    head = {
        # The shipped upstreams are English; own files say what they are or stay silent.
        "language": sorted({take.language or "en" for take in takes if take.language or not take.files}),
        **_license(licence_ids(manifest, recipe, known)),
        "pretty_name": recipe.name,
        "size_categories": [size_category(_rows(manifest))],
        "task_categories": ["image-to-text"] if captions else answers,
        "tags": ["visual-perception-tokens", "vision-language", "bounding-boxes", "vpt-data"],
        "configs": [{"config_name": "default", "default": True, "data_files": files}] if files else [],
    }
    filled = {key: value for key, value in head.items() if value}
    return f"---\n{yaml.safe_dump(filled, sort_keys=False, allow_unicode=True, width=1000)}---"


def _license(ids: set[str | None]) -> dict[str, str]:
    """The licence keys of the head: the Hub knows SPDX names in lower case, and calls all else `other`."""
    [one, *more] = ids or {None}
    if more or one is None:
        details = "Per source and per image set, see the section Licences." if more else "Not stated."
        return {"license": "other", "license_name": "mixed" if more else "unstated", "license_details": details}
    if not one.startswith("LicenseRef-") and licenses.find(one) is not None:
        return {"license": one.lower()}
    found = licenses.find(one)
    link = {"license_link": found.url} if found and found.url else {}
    return {"license": "other", "license_name": one.removeprefix("LicenseRef-").lower(), **link}


def _filled(manifest: Manifest) -> list[str]:
    return [name for name, split in manifest.splits.items() if split.shards]


# What is in it ----------------------------------------------------------------------------------------------


def _warnings(manifest: Manifest, ids: set[str | None]) -> Iterator[str]:
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
    about = recipe.description or f"A corpus made by the recipe `{recipe.name}`."
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
    said = list(recipe.notes)
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


def _loading(manifest: Manifest) -> str:
    name = next(iter(_filled(manifest)), "train")
    text = f"""\
## Loading

```python
from datasets import load_dataset

files = {{"{name}": "data/{name}-*.parquet"}}
rows = load_dataset("parquet", data_files=files, split="{name}")
```

From the Hub, `load_dataset("ORG/NAME")` finds the splits by itself; `streaming=True` works. DuckDB, polars
and pandas read the shards too."""
    return text if manifest.mode == "embed" else f"{text}\n\n{_REFERENCE}"


def _making(manifest: Manifest, recipe: Recipe) -> str:
    limit = " --limit N" if manifest.limited else ""
    command = recipe.name if recipe.name in names() else f"{recipe.name}.toml"
    return f"""\
## How it was made

```bash
vpt-data build --recipe {command} --raw RAW --out OUT --images {manifest.mode}{limit}
```

Made by vpt-data {manifest.tool.version} with pyarrow {manifest.tool.pyarrow}.
Recipe sha256 `{manifest.recipe.sha256}`.
Fingerprint of all rows `{manifest.fingerprint}`:
the same inputs, recipe and version give the same. `manifest.json` has the recipe in full and a hash of every
input and shard; `origins.parquet` traces each row to its raw record."""


def _rows(manifest: Manifest) -> int:
    return sum(split.rows for split in manifest.splits.values())
