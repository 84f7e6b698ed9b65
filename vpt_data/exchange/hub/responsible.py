"""The properties of the RAI vocabulary (responsible AI) of a data set: what manifests and recipes can answer.

Nothing is said that they do not know: who annotated the sources, when, and on which platform, is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vpt_data.dialogue.templates import TEMPLATES
from vpt_data.exchange.hub.layout import Part
from vpt_data.recipe import Recipe
from vpt_data.take import Take
from vpt_data.upstream.catalog import Upstream, Upstreams

Corpora = Sequence[tuple[Part, Recipe]]

_RAW = "Raw records of sources that others have published, or that the builder has: {names}."
_PREPROCESSING = (
    "Boxes are sorted and clipped to their image; where a dialogue looks at a region, they are put on a grid.",
    "Special tokens in the text of sources are made harmless.",
    "Every repair is counted in manifest.json and named for its row in origins.parquet.",
    "Every record that was read is in a shard, or in dropped.parquet with its file, line and reason.",
)
_ANNOTATION = "Questions, answers and boxes are those of the sources; nothing was annotated for this data set."
_PERSONAL = "Photos may show people in public; documents may hold names, addresses and signatures."
_BIASES = "Answers and boxes carry the errors of their sources, and their choice of subjects."
_MAINTENANCE = (
    "To have a row or an image removed, open a discussion on the page of the data set and give its id. Earlier "
    "versions are tags of the repository."
)


def responsible(corpora: Corpora, known: Upstreams) -> dict[str, str | list[str]]:
    """RAI properties of a repository with these corpora, by their names in croissant.json."""
    return {f"rai:{name}": value for name, value in _statements(corpora, known) if value}


def _statements(corpora: Corpora, known: Upstreams) -> Iterator[tuple[str, str | list[str]]]:
    used, takes = _used(corpora, known), [take for _, recipe in corpora for take in recipe.take.values()]
    names = [*(upstream.title for upstream in used), *(f"own data of the take {name}" for name in _own(corpora, known))]
    yield "dataCollection", _RAW.format(names="; ".join(names))
    yield "dataCollectionType", ["Secondary Data Analysis"]
    yield "dataCollectionRawData", "; ".join(f"{upstream.title}: {upstream.homepage}" for upstream in used)
    yield "dataCollectionMissingData", " ".join(_missing(corpora))
    yield "dataPreprocessingProtocol", list(_PREPROCESSING)
    yield "dataManipulationProtocol", " ".join(_manipulation(corpora))
    yield "dataAnnotationProtocol", _ANNOTATION
    yield "dataUseCases", [f"Research on models that decide to look again: {_purpose(takes)}."]
    yield "dataLimitations", list(_limits(corpora))
    yield "dataBiases", [_BIASES, *(f"{each.title}: {each.license_note}" for each in used if _generated(each))]
    yield "dataSocialImpact", "Made for research, and not for decisions about people."
    yield "personalSensitiveInformation", [_PERSONAL]
    yield "dataReleaseMaintenancePlan", _MAINTENANCE


def _used(corpora: Corpora, known: Upstreams) -> list[Upstream]:
    sources = {made.source for part, _ in corpora for made in part.manifest.components if made.kept}
    return [upstream for name, upstream in known.source.items() if name in sources]


def _own(corpora: Corpora, known: Upstreams) -> list[str]:
    parts = [made for part, _ in corpora for made in part.manifest.components if made.kept]
    return sorted({made.take for made in parts if made.source not in known.source})


def _generated(upstream: Upstream) -> bool:
    """Whether part of its text was written by a model, as far as its entry says so."""
    return any(name in upstream.license_note for name in ("OpenAI", "BLIP"))


def _purpose(takes: Sequence[Take]) -> str:
    evaluates = [bool(take.expected) for take in takes]
    return "evaluation" if all(evaluates) else "training and evaluation" if any(evaluates) else "training"


def _missing(corpora: Corpora) -> Iterator[str]:
    for part, recipe in corpora:
        made = part.manifest
        kept, read = (sum(getattr(each, name) for each in made.components) for name in ("kept", "read"))
        images = f"{made.images.missing:,} of {made.images.distinct:,} images were not found"
        yield f"{recipe.name}: of {read:,} records that were read {read - kept:,} were not kept; {images}."
        if made.missing:
            yield f"{recipe.name}: raw files of the takes {', '.join(made.missing)} were not there."


def _manipulation(corpora: Corpora) -> Iterator[str]:
    for _, recipe in corpora:
        templates = sorted({take.template for take in recipe.take.values()})
        yield f"{recipe.name}: records became dialogues by the templates {', '.join(templates)}."


def _limits(corpora: Corpora) -> Iterator[str]:
    for part, recipe in corpora:
        name, made = recipe.name, part.manifest
        if made.limited:
            yield f"{name} is a trial: only the beginning of each input file was read."
        if made.not_checked:
            files = ", ".join(made.not_checked)
            yield f"{name} may show images of these evaluation files, which were not there: {files}."
        if made.mode == "reference":
            yield f"{name} names its images and does not hold them."
        if any(TEMPLATES[take.template].on_grid for take in recipe.take.values()):
            yield f"{name}: a crop shows whole cells of the grid, and mostly more than its box."
        yield from recipe.notes
