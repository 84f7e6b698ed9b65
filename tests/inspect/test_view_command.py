"""`vpt-data view`: the page it writes, what it prints, what it says where something is wrong."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import msgspec
import pytest
from helpers import end_to_end, small_corpora
from helpers.command import error, run

from vpt_data.inspect.view.item import Document


def document_in(page: Path) -> Document:
    """The document that a page holds."""
    text = page.read_text(encoding="utf-8")
    found = re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return msgspec.json.decode(found[1], type=Document)


def test_the_page_is_beside_the_corpus(embedded_corpus: Path, tmp_path: Path) -> None:
    corpus = Path(shutil.copytree(embedded_corpus, tmp_path / "corpora/sample"))
    lines = run("view", corpus, "--rows", "30").stdout.splitlines()
    page = tmp_path / "corpora/sample.html"
    assert lines[0] == f"Page: {page}  {page.stat().st_size / 1e6:.1f} MB, 30 rows"
    total = len(end_to_end.ids(corpus))
    due = f"30 of {total} rows of sample: 27 by the hash of their id and the 3 with the worst problems."
    assert lines[1] == due
    assert re.fullmatch(
        r"Look at: \d+ of these rows have problems \(.*\); sort the page by `problems first`.", lines[2]
    )
    made = document_in(page)
    assert (len(made.items), made.chosen, made.api) == (30, due, None)
    assert {plot.title for plot in made.plots} and all(plot.svg.startswith("<svg") for plot in made.plots)
    assert {path.name for path in corpus.iterdir()} == {path.name for path in embedded_corpus.iterdir()}


def test_the_same_page_twice(reference_corpus: Path, sample_root: Path, tmp_path: Path) -> None:
    for name in ("one.html", "two.html"):
        run("view", reference_corpus, "--raw", sample_root, "--rows", "20", "--out", tmp_path / name)
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_bare_it_takes_the_only_corpus(reference_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(reference_corpus, tmp_path / "corpora/mine")
    monkeypatch.chdir(tmp_path)
    made = json.loads(run("view", "--rows", "5", "--json").stdout)
    assert made == {
        "page": "corpora/mine.html", "bytes": (tmp_path / "corpora/mine.html").stat().st_size, "rows": 5,
        "chosen": document_in(tmp_path / "corpora/mine.html").chosen,
    }  # fmt: skip


def test_rows_by_id_condition_and_problems(reference_corpus: Path, tmp_path: Path) -> None:
    page, ids = tmp_path / "page.html", sorted(end_to_end.ids(reference_corpus))[:3]
    (tmp_path / "ids.txt").write_text("\n".join(ids[:2]) + "\n\n")
    run("view", reference_corpus, "--ids", f"{ids[0]}, {ids[2]}", "--out", page)
    assert {item.id for item in document_in(page).items} == {ids[0], ids[2]}
    run("view", reference_corpus, "--ids", f"@{tmp_path / 'ids.txt'}", "--out", page)
    assert {item.id for item in document_in(page).items} == set(ids[:2])
    run("view", reference_corpus, "--where", "take = 'gqa'", "--out", page)
    made = document_in(page)
    assert {item.take for item in made.items} == {"gqa"}
    assert made.chosen == f"All {len(made.items)} rows of corpus with take = 'gqa'."
    run("view", reference_corpus, "--problems", "--rows", "7", "--out", page)
    assert all(item.problems for item in document_in(page).items)


def test_two_corpora(tmp_path: Path) -> None:
    corpus = small_corpora.build(tmp_path)
    run("render", corpus, "--encoder", "sam", "--out", tmp_path / "sam")
    run("view", corpus, "--against", tmp_path / "sam", "--raw", tmp_path / "raw", "--out", tmp_path / "page.html")
    made = document_in(tmp_path / "page.html")
    assert [entry.name for entry in made.corpora] == ["corpus", "sam"]
    assert all(item.other for item in made.items)


def test_errors_are_one_sentence(reference_corpus: Path, tmp_path: Path) -> None:
    page = ("--out", tmp_path / "page.html")
    assert error("view", reference_corpus, "--ids", "@none", *page, code=2) == (
        "--ids @none: there is no such file; give ids between commas, or a file with one on each line."
    )
    assert error("view", reference_corpus, "--ids", "gqa/x", *page, code=2).startswith("No row has the id 'gqa/x'; ")
    assert error("view", reference_corpus, "--where", "tak = 1", *page, code=2).startswith("--where 'tak = 1': ")
    assert error("view", tmp_path, *page).startswith(f"{tmp_path}: no manifest.json, so this is no corpus")
    assert error("view", reference_corpus, "--serve", "--where", "take = 'gqa'", code=2) == (
        "--serve shows all rows and writes no page; give only --port and --raw with it, and choose rows in the page."
    )
    for option in ("--ids", "--where"):
        sentence = error("view", reference_corpus, option, "\udcff", *page, code=2)
        assert sentence == f"{option} '\\udcff': expected text in UTF-8; correct it."
    assert error("show", "\udcff", "--corpus", reference_corpus, code=2).startswith("ID '\\udcff': expected text")
    assert not (tmp_path / "page.html").exists()


def test_a_corpus_without_rows_has_a_page(tmp_path: Path) -> None:
    corpus = small_corpora.build(tmp_path)
    run("view", corpus, "--where", "take = 'none'", "--out", tmp_path / "page.html")
    assert document_in(tmp_path / "page.html").items == []


def test_hostile_text_stays_data(tmp_path: Path) -> None:
    corpus = small_corpora.build(tmp_path)
    hostile = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\u202e\u2028\x00\x1b[31m" + "x" * 100_000

    def change(row: dict[str, object]) -> bool:
        row["question"], row["answers"] = hostile, [hostile]
        row["images"] = [{"bytes": None, "path": "</script>\u202e.jpg"} for _ in row["images"]]  # type: ignore[attr-defined]
        return True

    small_corpora.change_rows(corpus, change)
    found = run("view", corpus, "--raw", tmp_path / "raw", "--out", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("</script>") == text.count("<script")
    assert "<img" not in text and "\u2028" not in text
    assert "\x1b" not in found.stdout and "\x00" not in text
    assert {item.question for item in document_in(tmp_path / "page.html").items} == {hostile}
