"""The public names of the package: what a Python program types works, is typed, and costs nothing until it is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from helpers import end_to_end

import vpt_data
from vpt_data.errors import CorpusError, OutputError, RawError, UsageError


def test_the_package_alone_loads_nothing_heavy() -> None:
    code = (
        "import sys, vpt_data; dir(vpt_data); vpt_data.__version__;"
        "print([m for m in ('pyarrow', 'numpy', 'PIL', 'msgspec', 'click') if m in sys.modules]);"
        "print(callable(vpt_data.pixels), 'pyarrow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\nTrue True\n"


def test_the_public_names_are_all_there() -> None:
    assert set(vpt_data.__all__) == {
        "SCHEMA", "__version__", "build", "load_recipe", "open_corpus", "pixels", "plan",
    }  # fmt: skip
    assert set(vpt_data.__all__) <= set(dir(vpt_data))
    assert all(getattr(vpt_data, name) is not None for name in vpt_data.__all__)
    assert isinstance(vpt_data.SCHEMA, pa.Schema)
    with pytest.raises(AttributeError, match=r"module 'vpt_data' has no attribute 'bild'"):
        vpt_data.bild  # type: ignore[attr-defined] # noqa: B018


@pytest.mark.filterwarnings("ignore:.*records were dropped")  # the sample has bad records on purpose
def test_a_corpus_in_three_calls(sample_root: Path, tmp_path: Path, reference_corpus: Path) -> None:
    recipe = vpt_data.load_recipe("sample")
    out = tmp_path / "corpus"
    corpus = vpt_data.build(vpt_data.plan(recipe, sample_root), out)
    assert corpus.manifest.fingerprint == vpt_data.open_corpus(reference_corpus).manifest.fingerprint
    assert {row["id"] for row in corpus.rows(columns=["id"])} == set(end_to_end.ids(out))
    again = vpt_data.build(vpt_data.plan(recipe, str(sample_root)), str(out))
    assert again == corpus
    with pytest.raises(OutputError):
        vpt_data.build(vpt_data.plan(recipe, sample_root, images="embed"), out)
    embedded = vpt_data.build(vpt_data.plan(recipe, sample_root, images="embed"), out, workers=2, fresh=True)
    row = next(row for row in embedded.rows() if row["looks"] == ["region"])
    assert vpt_data.pixels(row["images"][0]["bytes"], row["views"][-1]["box"]).mode == "RGB"


def test_the_synthetic_raw_root_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []

    def write(out: Path, **_: object) -> None:
        made.append(out)
        out.mkdir(parents=True)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("vpt_data.api.write_sample", write)
    planned = vpt_data.plan(vpt_data.load_recipe("sample"), "sample")
    assert made == [tmp_path / "vpt-data/sample-raw"] == [planned.root]


def test_findings_are_warnings_or_errors(tmp_path: Path) -> None:
    raw = end_to_end.own_root(tmp_path / "raw", end_to_end.own_rows(4))
    end_to_end.own_images(raw, 2)
    file = end_to_end.recipe_file(tmp_path, end_to_end.OWN.replace("[take.", "tolerance = 0.01\n[take.", 1))
    (rows,) = raw.glob("own/*.jsonl")
    with rows.open("a") as lines:
        lines.write("no record\n")
    planned = vpt_data.plan(vpt_data.load_recipe(file), raw)
    with pytest.raises(CorpusError, match=r"malformed 1.*; the shards stay, and a build that is not strict ends it\.$"):
        vpt_data.build(planned, tmp_path / "strict", strict=True)
    with pytest.warns(UserWarning, match=r"corpus: take .* records were dropped \(malformed 1\)"):
        corpus = vpt_data.build(planned, tmp_path / "corpus")
    assert corpus.dropped()["reason"].to_pylist() == ["malformed"]


def test_errors_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^Unknown recipe 'samble'; did you mean sample"):
        vpt_data.load_recipe("samble")
    with pytest.raises(RawError):
        vpt_data.plan(vpt_data.load_recipe("sample"), tmp_path / "none")
    (tmp_path / "raw").mkdir()
    with pytest.raises(CorpusError, match=r"corpus: the corpus has no rows; "):
        vpt_data.build(vpt_data.plan(vpt_data.load_recipe("sample"), tmp_path / "raw"), tmp_path / "corpus")
