"""croissant.json: a data set for machines, in the vocabulary of MLCommons Croissant 1.1 with its RAI extension.

All of it follows from manifests and recipes; what nobody knows (dates, annotators) is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

import pyarrow as pa

from vpt_data.corpus.card_head import languages
from vpt_data.corpus.card_licenses import citations, licence_ids
from vpt_data.exchange.hub.layout import Part
from vpt_data.exchange.hub.responsible import responsible
from vpt_data.recipe import Recipe
from vpt_data.schema import SAMPLE
from vpt_data.upstream import licenses
from vpt_data.upstream.catalog import upstreams

Json = dict[str, Any]
_VERSION: Final = "http://mlcommons.org/croissant/1.1"
_RAI: Final = "http://mlcommons.org/croissant/RAI/1.0"
_NAMES: Final = (
    "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field", "fileProperty",
    "fileObject", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5",
    "parentField", "path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate", "separator",
    "source", "subField", "transform",
)  # fmt: skip
#: The vocabulary, as the specification prints it.
_CONTEXT: Final[Json] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{name: f"cr:{name}" for name in _NAMES},
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
}
_TYPES: Final = {
    pa.string(): "sc:Text",
    pa.int32(): "cr:Int32",
    pa.float64(): "cr:Float64",
    pa.float32(): "cr:Float32",
    pa.bool_(): "sc:Boolean",
    pa.binary(): "sc:ImageObject",
}
#: What each column is, in short; docs/format.md has the whole.
_COLUMNS: Final = {
    "id": "Name of the row, unique in its corpus.",
    "take": "Entry of the recipe that took the record.",
    "source": "Reader of the raw file.",
    "dataset": "Data set of the source.",
    "source_id": "Name of the record at its owner, where it has one.",
    "split": "Split of the row.",
    "task": "Kind of task.",
    "template": "How the dialogue was made.",
    "looks": "Second looks in order: a region, or another encoder.",
    "expected": "For evaluation rows, the look that the evaluation plays.",
    "messages": "The dialogue: role and content of each message.",
    "views": "What each image placeholder shows: message, image, encoder, pixels (x0, y0, x1, y1, half open), cells.",
    "bytes": "The images.",
    "path": "The path of each image in the raw data.",
    "image_info": "Of each image its size in pixels, hash, licence and attribution.",
    "question": "The question as the source gave it.",
    "answers": "Answers as the source gave them; the first is the training target.",
    "regions": "Boxes as the source gave them, in pixels of the stored image, with their labels.",
    "region_status": "Whether boxes were given, are not needed, or are not known.",
    "meta": "JSON text with values that only one source has.",
    "prompted": "Whether the question ends with the sentence that asks for the look.",
    "k": "Cells on each side of the grid.",
    "crop_margin_cells": "Cells that a crop shows beyond its rectangle.",
    "license": "Licence of the annotation.",
    "language": "Language of the text.",
    "weight": "How much the row counts in training.",
}


def text(corpora: Sequence[tuple[Part, Recipe]], repo: str) -> str:
    """croissant.json of a repository with these corpora; `repo` is ORG/NAME."""
    known = upstreams()
    manifests = [part.manifest for part, _ in corpora]
    ids = set[str | None]().union(*(licence_ids(part.manifest, recipe, known) for part, recipe in corpora))
    content = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [_VERSION, _RAI],
        "name": repo.rpartition("/")[2],
        "description": _description(corpora),
        "url": f"https://huggingface.co/datasets/{repo}",
        "license": [_license(each) for each in sorted(ids, key=str)],
        "citeAs": "\n\n".join(entry.bibtex() for entry in citations(manifests, known)),
        "inLanguage": sorted({language for _, recipe in corpora for language in languages(recipe)}),
        "keywords": ["visual perception tokens", "vision-language", "visual question answering", "bounding boxes"],
        "isLiveDataset": False,
        **responsible(corpora, known),
        "distribution": [_repository(repo), *(_files(part) for part, _ in corpora)],
        "recordSet": [_records(part) for part, _ in corpora],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _description(corpora: Sequence[tuple[Part, Recipe]]) -> str:
    said = []
    for part, recipe in corpora:
        rows = sum(split.rows for split in part.manifest.splits.values())
        about = recipe.description or f"A corpus made by the recipe {recipe.name}."
        said.append(f"{about} {rows:,} rows; fingerprint {part.manifest.fingerprint}.")
    return " ".join(said)


def _license(license_id: str | None) -> str:
    """The address of a licence's text, else its name."""
    found = licenses.find(license_id)
    return found.url if found and found.url else license_id or "not stated"


# Files and columns ------------------------------------------------------------------------------------------


def _repository(repo: str) -> Json:
    return {
        "@type": "cr:FileObject",
        "@id": "repo",
        "name": "repo",
        "description": "The git repository of the data set; manifest.json has the sha256 of every shard.",
        "contentUrl": f"https://huggingface.co/datasets/{repo}",
        "encodingFormat": "git+https",
        # A repository has no hash of its own; the specification wants one of every file that is located by a URL.
        "sha256": "https://github.com/mlcommons/croissant/issues/80",
    }


def _files(part: Part) -> Json:
    return {
        "@type": "cr:FileSet",
        "@id": f"files-{part.config}",
        "name": f"files-{part.config}",
        "description": f"The shards of {part.manifest.recipe.name}.",
        "containedIn": {"@id": "repo"},
        "encodingFormat": "application/x-parquet",
        "includes": list(part.data_files.values()),
    }


def _records(part: Part) -> Json:
    splits = ", ".join(f"{name} {split.rows:,}" for name, split in part.manifest.splits.items())
    return {
        "@type": "cr:RecordSet",
        "@id": part.config,
        "name": part.config,
        "description": f"One record is one dialogue about an image. Rows: {splits}.",
        "key": {"@id": f"{part.config}/id"},
        "field": [field for column in SAMPLE for field in _fields(part, column)],
    }


def _fields(part: Part, column: pa.Field) -> Iterator[Json]:
    """A column; images are two fields, their bytes and their paths, which readers of the vocabulary know."""
    source = {"fileSet": {"@id": f"files-{part.config}"}, "extract": {"column": column.name}}
    whole = _typed(f"{part.config}/{column.name}", column.name, column.type, source)
    parts = whole.pop("subField") if column.name == "images" else []
    if not parts:
        yield whole | {"description": _COLUMNS[column.name]}
    for each in parts if part.corpus.embed else parts[1:]:
        about = {"description": _COLUMNS[each["name"]], "name": f"images_{each['name']}"}
        # `repeated` is the older word for `isArray`; the library reads lists of images by it only.
        yield whole | each | about | {"repeated": True}


def _typed(path: str, name: str, kind: pa.DataType, source: Json) -> Json:
    field: Json = {"@type": "cr:Field", "@id": path, "name": name}
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        length = kind.list_size if pa.types.is_fixed_size_list(kind) else -1
        field |= {"isArray": True, "arrayShape": str(length)}
        kind = kind.value_type
    if pa.types.is_struct(kind):
        parts = [_typed(f"{path}/{part.name}", part.name, part.type, _inside(source, part.name)) for part in kind]
        return field | {"source": source, "subField": parts}
    return field | {"dataType": _TYPES[kind], "source": source}


def _inside(source: Json, name: str) -> Json:
    """Where a part of the structs of a column is."""
    return {**source, "transform": {"jsonPath": name}}
