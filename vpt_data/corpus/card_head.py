"""The head of a card: YAML that the Hub reads. Made for one corpus, joined for several, checked without the Hub."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from fnmatch import fnmatchcase

import msgspec
import yaml

from vpt_data.corpus.card_licenses import licence_ids
from vpt_data.corpus.manifest import Manifest
from vpt_data.dialogue.templates import TEMPLATES
from vpt_data.recipe import Recipe
from vpt_data.upstream import licenses
from vpt_data.upstream.catalog import Upstreams

SIZES = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
TASKS = ("visual-question-answering", "image-text-to-text", "image-to-text")
#: The licences that the Hub knows; everything else is `other` with a name.
LICENSES = frozenset({
    "afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bigcode-openrail-m", "bigscience-bloom-rail-1.0",
    "bigscience-openrail-m", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "bsl-1.0", "c-uda", "cc",
    "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0",
    "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0",
    "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "cdla-sharing-1.0",
    "creativeml-openrail-m", "deepfloyd-if-license", "ecl-2.0", "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1",
    "gemma", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "isc", "lgpl", "lgpl-2.1", "lgpl-3.0", "lgpl-lr", "llama2",
    "lppl-1.3c", "mit", "mpl-2.0", "ms-pl", "ncsa", "odbl", "odc-by", "ofl-1.1", "openrail", "openrail++", "osl-3.0",
    "pddl", "postgresql", "unknown", "unlicense", "wtfpl", "zlib", "other",
})  # fmt: skip
#: Where the Hub's name is not the SPDX name in lower case.
_HUB_NAMES = {"odc-by-1.0": "odc-by", "odbl-1.0": "odbl"}
_LANGUAGE = re.compile("[a-z]{2,3}")
_NAME = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_SPLIT = re.compile(r"\w+(\.\w+)*")
#: Characters that `datasets` refuses in the name of a config.
_NOT_IN_CONFIG = set('<>:/\\|?*"')


class DataFiles(msgspec.Struct, frozen=True):
    """The shards of a split."""

    split: str
    path: str


class Config(msgspec.Struct, frozen=True, omit_defaults=True):
    """What `load_dataset(REPO, config_name)` loads."""

    config_name: str
    data_files: list[DataFiles]
    default: bool = False


class Head(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The keys of the head; what is empty is left out."""

    language: list[str] = []
    license: str = ""
    license_name: str = ""
    license_link: str = ""
    license_details: str = ""
    pretty_name: str = ""
    size_categories: list[str] = []
    task_categories: list[str] = []
    tags: list[str] = []
    configs: list[Config] = []

    def text(self) -> str:
        """The head as it stands at the top of a card."""
        return f"---\n{yaml.safe_dump(_plain(self), sort_keys=False, allow_unicode=True, width=1000)}---"


def _plain(head: Head) -> object:
    """Plain values for YAML, `default` of a config in second place as people write it."""
    content = msgspec.to_builtins(head)
    for config in content.get("configs", []):
        config["data_files"] = config.pop("data_files")
    return content


def head_of(manifest: Manifest, recipe: Recipe, known: Upstreams) -> Head:
    """The head of the card of one corpus."""
    takes = recipe.take.values()
    captions = all(TEMPLATES[take.template].captions for take in takes)
    files = [DataFiles(name, f"data/{name}-*.parquet") for name, split in manifest.splits.items() if split.shards]
    return _licensed(
        licence_ids(manifest, recipe, known),
        language=sorted(set(map(_language, languages(recipe)))),
        pretty_name=recipe.name,
        size_categories=[size_category(sum(split.rows for split in manifest.splits.values()))],
        task_categories=["image-to-text"] if captions else ["visual-question-answering", "image-text-to-text"],
        tags=["visual-perception-tokens", "vision-language", "bounding-boxes", "vpt-data"],
        configs=[Config("default", files, True)] if files else [],
    )


def joined(
    name: str, heads: Sequence[Head], rows: int, ids: set[str | None], folders: Sequence[tuple[str, str]]
) -> Head:
    """The head of a repository with several corpora.

    ids       the licences of all of them
    folders   for each corpus its config and its folder in the repository ("NAME/"); the first is the default
    """
    configs = [
        Config(
            config, [DataFiles(files.split, folder + files.path) for files in head.configs[0].data_files], number == 0
        )
        for number, (head, (config, folder)) in enumerate(zip(heads, folders, strict=True))
        if head.configs
    ]
    return _licensed(
        ids,
        language=sorted({language for head in heads for language in head.language}),
        pretty_name=name,
        size_categories=[size_category(rows)],
        task_categories=list(dict.fromkeys(task for head in heads for task in head.task_categories)),
        tags=list(dict.fromkeys(tag for head in heads for tag in head.tags)),
        configs=configs,
    )


def size_category(rows: int) -> str:
    """The Hub's name for a number of rows: 828,763 -> `100K<n<1M`."""
    place = max(3, len(str(rows))) - 3
    if place == 0:
        return f"n<{SIZES[0]}"
    return f"{SIZES[place - 1]}<n<{SIZES[place]}" if place < len(SIZES) else f"n>{SIZES[-1]}"


def languages(recipe: Recipe) -> list[str]:
    """The languages of its takes, as the recipe writes them.

    The shipped upstreams are English; own files have the language that their take states, or none.
    """
    takes = recipe.take.values()
    return sorted({take.language or "en" for take in takes if take.language or not take.files})


def _language(text: str) -> str:
    """The language of a tag like `de-AT`: the Hub has a key for languages without regions.

    >>> _language("pt_BR")
    'pt'
    """
    return re.split("[-_]", text.strip().lower())[0]


def _licensed(ids: set[str | None], **keys: object) -> Head:
    """A head with its licence: one that the Hub knows by name, or `other`."""
    [one, *more] = ids or {None}
    if more or one is None:
        details = "Per source and per image set, see the section Licences." if more else "Not stated."
        terms = {"license": "other", "license_name": "mixed" if more else "unstated", "license_details": details}
    else:
        named = _HUB_NAMES.get(one.lower(), one.lower())
        found = licenses.find(one)
        if named in LICENSES - {"other"}:
            terms = {"license": named}
        else:
            slug = re.sub("[^a-z0-9.+-]+", "-", one.removeprefix("LicenseRef-").lower()).strip("-.+") or "own"
            terms = {"license": "other", "license_name": slug, "license_link": found.url if found else ""}
    return msgspec.convert(terms | keys, Head)


# What the Hub would refuse ----------------------------------------------------------------------------------


def problems(head: Head, files: Collection[str]) -> list[str]:
    """What the Hub, or `load_dataset`, would not accept in a head, a sentence each without its full stop.

    files   paths of all Parquet files in the repository that hold rows
    """
    return [*_wrong_values(head), *_wrong_configs(head.configs), *_wrong_files(head.configs, files)]


def _wrong_values(head: Head) -> Iterator[str]:
    for language in head.language:
        if not _LANGUAGE.fullmatch(language):
            yield f"language {language!r} is no ISO 639 code of two or three letters; give the takes one, such as `de`"
    if head.license not in LICENSES:
        yield f"license {head.license!r} is none that the Hub knows; use one of its list, or `other` with a name"
    if head.license == "other" and not _NAME.fullmatch(head.license_name):
        yield f"license_name {head.license_name!r} is no name of small letters, digits, points and hyphens; correct it"
    if head.license_link and not re.match("https?://", head.license_link):
        yield f"license_link {head.license_link!r} is no address; give one that begins with https://"
    sizes = {size_category(10**place) for place in range(14)}
    for size in set(head.size_categories) - sizes:
        yield f"size_categories holds {size!r}; the Hub knows {', '.join(sorted(sizes))}"
    for task in set(head.task_categories) - set(TASKS):
        yield f"task_categories holds {task!r}, which is no task of this package"


def _wrong_configs(configs: Sequence[Config]) -> Iterator[str]:
    if not configs:
        yield "configs is empty, so that nobody can load a row; build a corpus with rows"
        return
    for name, count in Counter(config.config_name for config in configs).items():
        if count > 1:
            yield f"two configs have the name {name!r}; give one of the recipes another `name`"
        if not name or _NOT_IN_CONFIG & set(name):
            yield f"config_name {name!r} is no name that `load_dataset` takes; use letters, digits, _, . and -"
    if [config.default for config in configs] != [True, *[False] * (len(configs) - 1)]:
        yield "exactly the first config has to be the default"
    for config in configs:
        splits = [files.split for files in config.data_files]
        for split in splits:
            if not _SPLIT.fullmatch(split) or splits.count(split) > 1:
                yield f"config {config.config_name}: split {split!r} is there twice, or is no word that names a split"


def _wrong_files(configs: Sequence[Config], files: Collection[str]) -> Iterator[str]:
    patterns = [(config.config_name, given.path) for config in configs for given in config.data_files]
    for name, pattern in patterns:
        if not any(fits(file, pattern) for file in files):
            yield f"config {name}: no file of the repository fits {pattern!r}"
    for file in files:
        count = sum(fits(file, pattern) for _, pattern in patterns)
        if count != 1:
            yield f"{file} fits {count} of the patterns of data_files; each shard has to fit exactly one"


def fits(path: str, pattern: str) -> bool:
    """Whether a pattern of data files takes in a path; `*` does not reach over a slash."""
    return path.count("/") == pattern.count("/") and fnmatchcase(path, pattern)
