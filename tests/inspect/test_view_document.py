"""The document of a page: rows with their pictures, problems and origins, and two corpora side by side."""

from __future__ import annotations

import base64
import io
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from helpers import end_to_end, small_corpora
from PIL import Image

from vpt_data.corpus.reader import open_corpus
from vpt_data.errors import UsageError
from vpt_data.exchange.rerender import rerender
from vpt_data.inspect.view import document as documents
from vpt_data.inspect.view.choose import Choice
from vpt_data.inspect.view.document import Shown, document
from vpt_data.inspect.view.item import Document, Item


def shown(corpus: Path, raw: Path | None = None) -> Shown:
    return Shown(open_corpus(corpus), raw)


def pixels(made: Document, src: str | None) -> Image.Image:
    assert src is not None
    head, _, data = made.pictures[src].partition(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def by_id(made: Document) -> dict[str, Item]:
    return {item.id: item for item in made.items}


@pytest.fixture(scope="module")
def page(reference_corpus: Path, sample_root: Path) -> Document:
    return document(shown(reference_corpus, sample_root), Choice(500))


def test_every_row_is_there_with_its_facts(page: Document, reference_corpus: Path) -> None:
    items = by_id(page)
    origins = {origin["id"]: origin for origin in end_to_end.origins(reference_corpus)}
    stored = end_to_end.ids_by_shard(reference_corpus)
    for row in end_to_end.rows(reference_corpus):
        item, origin = items.pop(row["id"]), origins[row["id"]]
        assert item.origin is not None and item.place is not None
        assert (item.origin.file, item.origin.row) == (origin["file"], origin["row"])
        assert stored[Path(item.place.file).name][item.place.row] == row["id"]
        assert item.repaired == origin["repaired"]
        assert (item.question, item.answers, item.take) == (row["question"], row["answers"], row["take"])
        text = "".join(part.text for turn in item.turns for part in turn.parts)
        assert text == "".join(message["content"] for message in row["messages"])
        assert [view.cells and list(view.cells) for view in item.views] == [view["cells"] for view in row["views"]]
    assert not items
    assert page.chosen == f"All {len(page.items)} rows of corpus."
    entry = page.corpora[0]
    assert (entry.rows, entry.kind, entry.mode) == (len(page.items), "corpus", "reference")


def test_crops_are_those_that_the_model_gets(page: Document, sample_root: Path) -> None:
    item = next(item for item in page.items if item.take == "textvqa")
    image, view = item.images[0], item.views[1]
    assert view.box is not None
    whole = Image.open(sample_root / str(image.path)).convert("RGB")
    assert whole.size == (image.width, image.height)
    small = pixels(page, image.src)
    assert max(small.size) == 512 and small.height == pytest.approx(512 * whole.height / whole.width, abs=1)
    crop = pixels(page, view.src)
    cut = whole.crop(view.box)
    assert crop.width / crop.height == pytest.approx(cut.width / cut.height, rel=0.02)
    near = [abs(a - b) for a, b in zip(_mean(crop), _mean(cut), strict=True)]
    assert max(near) < 6


def _mean(picture: Image.Image) -> tuple[int, ...]:
    small: Any = picture.convert("RGB").resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    return tuple(small)


def test_an_image_is_in_the_page_once(page: Document) -> None:
    paths: dict[str | None, set[str | None]] = {}
    for item in page.items:
        for image in item.images:
            paths.setdefault(image.path, set()).add(image.src)
    assert all(len(sources) == 1 for sources in paths.values())
    assert len(paths) < sum(len(item.images) for item in page.items)
    assert len(msgspec.json.encode(page)) < 10_000_000


def test_embedded_and_referenced_images_give_the_same_page(
    page: Document, embedded_corpus: Path, reference_corpus: Path
) -> None:
    embedded = document(shown(embedded_corpus), Choice(500))
    ours, theirs = by_id(page), by_id(embedded)
    for id_ in ours.keys() & theirs.keys():
        one, other = ours[id_], theirs[id_]
        assert [image.missing for image in other.images] == [None] * len(other.images)
        assert [(image.width, image.height) for image in other.images] == [(i.width, i.height) for i in one.images]
        assert one.problems == other.problems
    assert all("bytes" in entry for item in embedded.items for entry in item.raw["images"])


def test_without_a_raw_root_pictures_are_missing_with_a_reason(reference_corpus: Path) -> None:
    made = document(shown(reference_corpus), Choice(10))
    image = next(image for item in made.items for image in item.images)
    assert (image.src, made.pictures) == (None, {})
    assert image.missing is not None and image.missing.endswith("is not in the shard; give the raw root that holds it.")
    assert not any(problem.kind == "missing" for item in made.items for problem in item.problems)


def test_an_image_that_is_not_there_is_a_problem_of_its_row(tmp_path: Path) -> None:
    corpus = small_corpora.build(tmp_path)
    (tmp_path / "raw/gqa/images/000000000001.jpg").unlink()
    (tmp_path / "raw/gqa/images/000000000002.jpg").write_bytes(b"<!DOCTYPE html>")
    made = document(shown(corpus, tmp_path / "raw"), Choice(500))
    wrong = {item.id: item for item in made.items if any(problem.kind == "missing" for problem in item.problems)}
    assert {item.take for item in wrong.values()} == {"gqa"} and len(wrong) == 4
    texts = {problem.text for item in wrong.values() for problem in item.problems if problem.kind == "missing"}
    assert any("not under the raw root" in text for text in texts)
    assert any("an HTML page in place of the image" in text for text in texts)
    assert all(item.numbers.severity >= 2 for item in wrong.values())


def test_ten_shifted_boxes_among_many_are_in_the_page(sample_root: Path, tmp_path: Path) -> None:
    """Shifted in the raw files, so that boxes and cells agree: what is left to see is that they mark nothing."""
    raw = Path(shutil.copytree(sample_root, tmp_path / "raw"))
    file = raw / "visual_cot/metadata/docvqa_cot_train.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines()
    moved = [number for number, line in enumerate(lines) if line.endswith("}")][:10]
    for number in moved:
        row = msgspec.json.decode(lines[number])
        row["bboxs"] = [[4, 4, 60, 24]]  # the margin of the page
        lines[number] = msgspec.json.encode(row).decode()
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    corpus = end_to_end.build("sample", raw, tmp_path / "corpus")
    made = document(shown(corpus, raw), Choice(100))
    flat = [item for item in made.items if any(problem.kind == "flat" for problem in item.problems)]
    assert {item.take for item in flat} == {"docvqa"} and len(flat) >= 5
    worst = sorted(made.items, key=lambda item: -item.numbers.severity)
    assert worst[0] in flat
    whole = document(shown(corpus, raw), Choice(500))
    kinds = [problem.kind for item in whole.items for problem in item.problems]
    kept = [row for row in end_to_end.rows(corpus) if [region["box"] for region in row["regions"]] == [[4, 4, 60, 24]]]
    assert kinds.count("flat") == len(kept) >= 8
    assert "flat" not in {problem.kind for item in by_id(document(shown(corpus), Choice(500))).values()
                          for problem in item.problems}  # fmt: skip


def test_a_large_corpus_has_only_its_chosen_boxes_looked_at(
    reference_corpus: Path, sample_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    flat_rows = documents.flat.flat_rows

    def counted(corpus: Any, lines: Any, raw: Any, progress: Any) -> Any:
        looked.append(len(lines))
        return flat_rows(corpus, lines, raw, progress)

    monkeypatch.setattr(documents.flat, "flat_rows", counted)
    monkeypatch.setattr(documents, "FLAT_ROWS", 3)
    made = document(shown(reference_corpus, sample_root), Choice(20))
    assert looked == [sum(item.numbers.iou is not None for item in made.items)]


def test_two_corpora_side_by_side(tmp_path: Path) -> None:
    corpus = small_corpora.build(tmp_path / "one")
    raw = tmp_path / "one/raw"
    rerender(corpus, tmp_path / "sam", "sam", None)
    made = document(shown(corpus, raw), Choice(500), against=shown(tmp_path / "sam", raw))
    assert [entry.name for entry in made.corpora] == ["corpus", "sam"]
    assert made.title == "corpus beside sam"
    total = len(made.items)
    assert made.chosen.endswith(f" {total} ids are in both corpora, 0 only in the first, 0 only in the second.")
    for item in made.items:
        assert item.other is not None and item.other.id == item.id and item.only_in is None
        assert (item.looks == item.other.looks) == ("dino" not in item.looks)
        assert {image.src in made.pictures for image in (*item.images, *item.other.images)} <= {True}


def test_rows_of_one_corpus_only_are_marked(tmp_path: Path) -> None:
    one = small_corpora.build(tmp_path / "one")
    less = "\n".join(part for part in small_corpora.RECIPE.split("\n\n") if "take.gqa" not in part)
    other = small_corpora.build(tmp_path / "other", recipe=less)
    made = document(shown(one), Choice(500), against=shown(other))
    assert {item.take for item in made.items if item.only_in == 0} == {"gqa"}
    assert not any(item.only_in == 1 for item in made.items)
    turned = document(shown(other), Choice(20), against=shown(one))
    only = [item for item in turned.items if item.only_in == 1]
    assert {item.take for item in only} == {"gqa"} and len(only) == 2
    assert turned.chosen.endswith("0 only in the first, 6 only in the second.")


def test_rows_that_differ_come_before_the_others(tmp_path: Path, reference_corpus: Path) -> None:
    corpus = Path(shutil.copytree(reference_corpus, tmp_path / "corpus"))

    def change(row: dict[str, Any]) -> bool:
        if changed or row["take"] != "gqa":
            return False
        row["weight"] = 2.0
        changed.append(row["id"])
        return True

    changed: list[str] = []
    small_corpora.change_rows(corpus, change)
    made = document(shown(reference_corpus), Choice(20), against=shown(corpus))
    assert changed[0] in by_id(made)
    assert ", 1 that differ and the 2 with the worst problems." in made.chosen


def test_errors_name_what_is_wrong(reference_corpus: Path) -> None:
    with pytest.raises(UsageError, match=r"^No row has the id 'x'; "):
        document(shown(reference_corpus), Choice(ids=["x"]))
    with pytest.raises(UsageError, match=r"^--where 'x = 1': "):
        document(shown(reference_corpus), Choice(), where="x = 1")
    assert document(shown(reference_corpus), Choice(), where="take = 'none'").items == []
