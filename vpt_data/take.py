"""What a recipe may say of one take, and of the columns of own data; each key with its meaning and an example.

These records are read by every room from the sources on; `vpt_data.recipe` finds, checks and resolves them.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

Task: TypeAlias = Literal["text_ocr", "spatial", "general", "fine_grained", "instruction", "alignment"]
Turns: TypeAlias = Literal["all", "first", "each"]
Expected: TypeAlias = Literal["region", "reencode", "none"]
#: Which cell a far corner belongs to that is located exactly on a grid line or border.
Edge: TypeAlias = Literal["floor", "inside", "legacy"]
#: Several boxes of a record: one look at their union, or one look at each.
Boxes: TypeAlias = Literal["union", "each"]
BoxFormat: TypeAlias = Literal["xyxy", "xywh", "cxcywh", "yxyx"]
BoxUnits: TypeAlias = Literal["pixel", "fraction", "permille"]


def key(example: Any, meaning: str) -> Meta:
    """What a key of a recipe means, in one sentence, and one value that it may have; both end up in the docs."""
    return Meta(description=meaning, examples=[example])


class Columns(msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """Which column of an own file holds what; only `image`, `question` and `answer` are needed."""

    image: Annotated[str, key("file_name", "The column with the path of the image, relative to `images`.")] = "image"
    question: Annotated[str, key("prompt", "The column with the question; not needed where the take has an `ask`.")] = (
        "question"
    )
    answer: Annotated[
        str | list[str],
        key(
            ["answer", "other_answers"],
            "The column with the answer (text, number or a list), or several columns; the first is the target.",
        ),
    ] = "answer"
    box: Annotated[
        str | list[str] | None,
        key(
            ["x0", "y0", "x1", "y1"],
            "The column that holds a box or a list of boxes, or the four columns with the numbers of one box.",
        ),
    ] = None
    label: Annotated[str | None, key("class_name", "The column with what the box shows; a list names each box.")] = None
    category: Annotated[str | None, key("category", "Source `coco_boxes`: the category, or a list of them.")] = None
    width: Annotated[
        str | None, key("width", "The image's width in pixels; read from the image where it is left out.")
    ] = None
    height: Annotated[
        str | None, key("height", "The image's height in pixels; read from the image where it is left out.")
    ] = None
    id: Annotated[
        str | None,
        key("question_id", "The column with your id, kept as `source_id` and at the end of `id`; it may repeat."),
    ] = None


class Take(msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """What to take from one source and how to render it. None means: as the recipe says."""

    source: Annotated[str, key("viscot", "The reader: an upstream of `vpt-data sources`, or a kind of own files.")]
    template: Annotated[str, key("region", "The form of the dialogue that each record becomes.")]
    task: Annotated[Task, key("spatial", "A label on every row, by which rows can be counted and chosen.")]
    dataset: Annotated[
        str | list[str] | None,
        key("gqa", "A data set of the source, or a list of them; all of the source where it is left out."),
    ] = None
    count: Annotated[
        int | Literal["all"],
        key(98_149, 'The expected number of rows, which is also the quota where more records are there; or "all".'),
    ] = "all"
    forms: Annotated[
        list[str] | None, key(["short", "choice"], "The kinds of record to take, where the source distinguishes them.")
    ] = None
    again: Annotated[
        str | None,
        key("direct", "An earlier take of the same source: this one has the records that it keeps, once more."),
    ] = None
    distinct_images: Annotated[bool, key(True, "Whether each image gives at most one row.")] = False
    share: Annotated[
        float | None,
        key(0.02, "Take at most this share of the records offered (above 0, at most 1), so that others get some."),
    ] = None
    turns: Annotated[
        Turns | None,
        key("each", "Of a conversation, take all questions in one row, the first one only, or each as its own row."),
    ] = None
    expected: Annotated[
        Expected | None,
        key("region", "Evaluation rows: the look that the harness plays; their messages hold no look."),
    ] = None
    ask: Annotated[
        str | None,
        key(
            "Where is the {label}?",
            "The question to ask; `{question}` stands for the source's own, `{label}` or `{category}` for the label of "
            "the boxes. With `{image}` at its end the image comes after the question.",
        ),
    ] = None
    split: Annotated[str | None, key("validation", "The split that the rows go to.")] = None
    encoder: Annotated[str | None, key("sam", "The encoder that re-encoding looks call.")] = None
    prompted: Annotated[bool | None, key(False, "Whether questions end with the sentence that asks for a look.")] = None
    k: Annotated[int | None, key(16, "Cells on each side of the grid, 1 to 1000.")] = None
    edge: Annotated[
        Edge | None,
        key(
            "inside",
            "The cell of a box's far corner: `floor` (the last cell at most), `inside` (the cell before a grid line) "
            "or `legacy` (the defect of the published data, for comparison).",
        ),
    ] = None
    boxes: Annotated[
        Boxes | None, key("each", "Several boxes of a record: one look at their union, or one look at each.")
    ] = None
    crop_margin_cells: Annotated[
        int | None, key(1, "How many cells a crop shows beyond its rectangle on every side, 0 to 1000.")
    ] = None
    control_tokens: Annotated[
        int | None,
        key(2, "How often the middle token of a re-encoding look is repeated, 0 to 1000; 0 renders no look."),
    ] = None
    license: Annotated[
        str | None,
        key("CC-BY-4.0", "The licence of the annotations where it is not the source's; own data should always say."),
    ] = None
    language: Annotated[str | None, key("de", "The language of the text, a label on every row.")] = None
    weight: Annotated[float, key(0.5, "How much each row counts in training; 0 or more.")] = 1.0
    system: Annotated[str | None, key("Answer briefly.", "A system turn that every dialogue begins with.")] = None
    rescale: Annotated[
        bool,
        key(True, "Embed mode: accept resized copies of images, and resize the boxes with them."),
    ] = False
    # Own data only.
    files: Annotated[
        list[str] | None, key(["own/*.csv"], "Own data: the files, relative to the raw root; globs are allowed.")
    ] = None
    instances: Annotated[
        str | None,
        key("own/instances.json", "Source `coco_boxes`: the COCO-format JSON that the questions are joined to."),
    ] = None
    images: Annotated[str, key("own/images", "Own data: the folder that image paths are relative to.")] = ""
    columns: Annotated[
        Columns, key({"image": "file_name", "box": "bbox"}, "Own data: which column of the files holds what.")
    ] = Columns()
    box_format: Annotated[
        BoxFormat,
        key("xywh", "Own data: corners, corner and size, centre and size, or corners with y before x."),
    ] = "xyxy"
    box_units: Annotated[
        BoxUnits, key("fraction", "Own data: pixels, or parts (or thousandths) of the image's width and height.")
    ] = "pixel"
    box_frame: Annotated[
        list[str | int] | None,
        key(
            ["resized_width", "resized_height"],
            "Own data: the size of the resized image that the boxes count in, as two columns or two numbers.",
        ),
    ] = None
    check_boxes: Annotated[
        bool, key(False, "Own data: whether boxes that look like another format or unit end the build.")
    ] = True


def own_dataset(take: Take) -> str:
    """The data set of a take that names its own files: its `dataset`, else what the files are called.

    Parts of one file are one data set: `receipts-1.csv`, `receipts-2.csv` and `receipts-*.csv` are all `receipts`.
    """
    if isinstance(take.dataset, str):
        return take.dataset
    stem = PurePosixPath((take.files or [""])[0].removesuffix(".gz")).stem
    return re.sub(r"([-_.](part)?[-_.]?(\d+(-of-\d+)?|[*?\[].*))$", "", stem).rstrip("*?-_.") or "own"


def datasets_of(take: Take) -> list[str] | None:
    """The data sets a take names, or None for all of its source."""
    return [take.dataset] if isinstance(take.dataset, str) else take.dataset
