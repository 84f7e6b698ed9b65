"""The card's sections on whose the rows and images are: licences, attribution, citation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vpt_data.corpus.manifest import ImageLicense, Manifest
from vpt_data.recipe import Recipe
from vpt_data.report import markdown_code, markdown_table, markdown_text
from vpt_data.schema import Reason
from vpt_data.upstream import licenses
from vpt_data.upstream.catalog import Citation, Upstream, Upstreams

METHOD = Citation(
    key="yu2025visualperceptiontoken",
    title="Introducing Visual Perception Token into Multimodal Large Language Model",
    authors=["Runpeng Yu", "Xinyin Ma", "Xinchao Wang"],
    year=2025,
    arxiv="2502.17425",
)

_UNSTATED = "not stated in the recipe"
_STRICTEST = {
    "commercial": "The licences of all of it allow commercial use.",
    "research": "So all of it together is for non-commercial use only.",
    "unknown": "The terms of some of it are not known (class `unknown`), so neither is what all of it together allows.",
}


def licences_section(manifest: Manifest, recipe: Recipe, known: Upstreams) -> str:
    """What each source and each image set may be used for, and who has to be named."""
    rows = [*_sources(manifest, recipe, known), *_own(manifest, recipe, known)]
    ids = licence_ids(manifest, recipe, known)
    if len(ids) == 1 and None not in ids:
        name, kind = _terms(next(iter(ids)))
        intro = f"All of it, annotations and images, is under {name} (class `{kind}`)."
    else:
        intro = (
            "There is no one licence: each row says its own in `license` (annotation) and `image_info.license` "
            "(image). The strictest of them holds for all; some forbid commercial use, or handing images on."
        )
    head = ["annotations", "licence", "class", "rows", "attribution", "note"]
    table_rows = [[title, *_terms(terms), f"{kept:,}", _demand(terms), note] for title, terms, kept, note in rows]
    lines = [
        "## Licences",
        f"{intro} {_STRICTEST[licenses.strictest(ids)]}",
        _policy(manifest),
        markdown_table(head, table_rows),
    ]
    if manifest.images.licenses:
        head = ["images", "number", "licence", "class", "attribution", "note"]
        lines += ["Images, by folder of the raw data:", markdown_table(head, list(_image_rows(manifest, known)))]
    return "\n\n".join(lines)


def licence_ids(manifest: Manifest, recipe: Recipe, known: Upstreams) -> set[str | None]:
    """The licences of all annotations and images that are in the corpus."""
    rows = [*_sources(manifest, recipe, known), *_own(manifest, recipe, known)]
    return {license_id for _, license_id, kept, _ in rows if kept} | {
        entry.license for entry in manifest.images.licenses
    }


def citations(manifests: Sequence[Manifest], known: Upstreams) -> list[Citation]:
    """The method, then each upstream that gave rows and says how it is cited, each work once."""
    found = {used.citation.key: used.citation for used in _used(manifests, known) if used.citation}
    return [METHOD, *found.values()]


def citation_section(manifests: Sequence[Manifest], known: Upstreams) -> str:
    """How the method and the owners of the sources of some corpora are cited."""
    said = ["Please cite the method and the owners of the sources."]
    others = [f"[{used.title}]({used.homepage})" for used in _used(manifests, known) if not used.citation]
    if others:
        said.append(f"How to cite these, say their pages: {', '.join(others)}.")
    if any(made.images.licenses for made in manifests):
        said.append("The owners of the images are named in the section Licences.")
    entries = "\n\n".join(citation.bibtex() for citation in citations(manifests, known))
    return f"## Citation\n\n{' '.join(said)}\n\n```bibtex\n{entries}\n```"


def _used(manifests: Sequence[Manifest], known: Upstreams) -> list[Upstream]:
    """The upstreams that gave rows."""
    names = {part.source for made in manifests for part in made.components if part.kept}
    return [upstream for name, upstream in known.source.items() if name in names]


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


def _image_rows(manifest: Manifest, known: Upstreams) -> Iterator[list[str]]:
    """One line for each licence and attribution, with the folders of the images that the rows show under it."""
    folders: dict[tuple[str | None, str], list[ImageLicense]] = {}
    for entry in manifest.images.licenses:
        of_set = known.images.get(entry.folder)
        folders.setdefault((entry.license, of_set.attribution if of_set else ""), []).append(entry)
    for (license_id, attribution), entries in folders.items():
        found = licenses.find(license_id)
        names = ", ".join(markdown_code([entry.folder]) if entry.folder else "own images" for entry in entries)
        number = f"{sum(entry.images for entry in entries):,}"
        yield [names, number, *_terms(license_id), attribution, found.note if found else ""]


def _terms(license_id: str | None) -> tuple[str, str]:
    """A licence as it stands in a row, linked to its text, and its class."""
    found = licenses.find(license_id)
    shown = license_id if found and license_id else markdown_text(license_id or _UNSTATED)
    return f"[{shown}]({found.url})" if found and found.url else shown, licenses.class_of(license_id)


def _demand(license_id: str | None) -> str:
    found = licenses.find(license_id)
    if found is None or found.kind == "unknown":
        return "not known"
    return "demanded" if found.attribution else "not demanded"
