"""The card's sections on whose the rows and images are: licences, attribution, citation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vpt_data.corpus.accounts import datasets
from vpt_data.corpus.manifest import Manifest
from vpt_data.recipe import Recipe
from vpt_data.report import markdown_code, markdown_table
from vpt_data.schema import Reason
from vpt_data.upstream import licenses
from vpt_data.upstream.catalog import ImageSet, Upstreams
from vpt_data.upstream.licenses import Policy

#: Folder of the images of data sets whose name begins with a word, where it is not called like that word.
_FOLDERS = {
    **dict.fromkeys(("vsr", "random", "zeroshot", "aokvqa"), "coco"),
    "textcap": "textvqa",
    "ocr": "ocr_vqa",
    "blip": "llava_pretrain",
    "cc3m": "cc3m_595k",
}

CITATION = """\
## Citation

Please cite the method, and the owners of the sources listed above.

```bibtex
@misc{yu2025visualperceptiontoken,
  title         = {Introducing Visual Perception Token into Multimodal Large Language Model},
  author        = {Runpeng Yu and Xinyin Ma and Xinchao Wang},
  year          = {2025},
  eprint        = {2502.17425},
  archivePrefix = {arXiv}
}
```"""

_UNSTATED = "not stated in the recipe"
_STRICTEST = {
    "commercial": "The licences of all of it allow commercial use.",
    "research": "So all of it together is for non-commercial use only.",
    "unknown": "The terms of some of it are not known (class `unknown`), so neither is what all of it together allows.",
}


def licences_section(manifest: Manifest, recipe: Recipe, known: Upstreams) -> str:
    """What each source and each image set may be used for, and who has to be named."""
    rows = [*_sources(manifest, recipe, known), *_own(manifest, recipe, known)]
    sets = _image_sets(manifest, known)
    ids = [license_id for _, license_id, kept, _ in rows if kept] + [images.license for images in sets.values()]
    intro = (
        "There is no one licence: each row says its own in `license` (annotation) and `image_info.license` "
        "(image). The strictest of them holds for all; some forbid commercial use, or handing images on. "
        f"{_STRICTEST[licenses.strictest(ids)]}"
    )
    head = ["annotations", "licence", "class", "rows", "attribution", "note"]
    table_rows = [[title, *_terms(terms), f"{kept:,}", _demand(terms), note] for title, terms, kept, note in rows]
    said = ["## Licences", intro, _policy(manifest), markdown_table(head, table_rows)]
    if sets:
        head = ["images", "licence", "class", "attribution", "note"]
        said += ["Images, by folder of the raw data:", markdown_table(head, list(_image_rows(sets)))]
    return "\n\n".join(said)


def _policy(manifest: Manifest) -> str:
    policy = manifest.license_policy
    if policy == "any":
        return "Licence policy of the build: `any`; nothing was left out for its licence."
    dropped = sum(part.dropped.get(Reason.LICENSE, 0) for part in manifest.components)
    return (
        f"Licence policy of the build: `{policy}`; rows whose annotation or image it does not allow were dropped: "
        f"{dropped:,} rows (`license`)."
    )


def _sources(manifest: Manifest, recipe: Recipe, known: Upstreams) -> Iterator[tuple[str, str | None, int, str]]:
    """Title, licence, rows kept and note of each upstream that gave rows, once for each licence its takes state."""
    rows: dict[tuple[str, str], int] = {}
    for part in manifest.components:
        if part.kept and part.source in known.source:
            take = recipe.take.get(part.take)
            stated = (take.license if take else None) or known.source[part.source].license
            rows[part.source, stated] = rows.get((part.source, stated), 0) + part.kept
    for name, upstream in known.source.items():
        for (source, license_id), kept in rows.items():
            if source == name:
                yield f"[{upstream.title}]({upstream.homepage})", license_id, kept, upstream.license_note


def _own(manifest: Manifest, recipe: Recipe, known: Upstreams) -> Iterator[tuple[str, str | None, int, str]]:
    for name, take in recipe.take.items():
        if take.source not in known.source:
            kept = sum(part.kept for part in manifest.components if part.take == name)
            yield f"own data of take `{name}`", take.license, kept, ""


def _image_sets(manifest: Manifest, known: Upstreams) -> dict[str, ImageSet]:
    """The image sets that rows of these data sets may show, by folder."""
    words = {name.partition("_")[0] for part in manifest.components if part.kept for name in datasets(part)}
    wanted = {_FOLDERS.get(word, word) for word in words}
    policy: Policy = manifest.license_policy
    return {
        folder: images
        for folder, images in known.images.items()
        if folder.partition("/")[0] in wanted and licenses.allows(policy, images.license)
    }


def _image_rows(sets: Mapping[str, ImageSet]) -> Iterator[list[str]]:
    folders: dict[tuple[str, str], list[str]] = {}
    for folder, images in sets.items():
        folders.setdefault((images.license, images.attribution), []).append(folder)
    for (license_id, attribution), names in folders.items():
        found = licenses.find(license_id)
        yield [markdown_code(names), *_terms(license_id), attribution, found.note if found else ""]


def _terms(license_id: str | None) -> tuple[str, str]:
    """A licence as it stands in a row, linked to its text, and its class."""
    found = licenses.find(license_id)
    shown = license_id or _UNSTATED
    return f"[{shown}]({found.url})" if found and found.url else shown, licenses.class_of(license_id)


def _demand(license_id: str | None) -> str:
    found = licenses.find(license_id)
    if found is None or found.kind == "unknown":
        return "not known"
    return "demanded" if found.attribution else "not demanded"
