"""A corpus for another encoder: the same as built so, and the way back gives the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from helpers import small_corpora

from vpt_data import recipe as recipes
from vpt_data.cli.main import main
from vpt_data.corpus import manifest
from vpt_data.corpus.manifest import ShardRecord
from vpt_data.errors import CorpusError, OutputError
from vpt_data.exchange.rerender import rerender, retargeted
from vpt_data.inspect.check import check
from vpt_data.store import sha256

TEXTS = ("README.md", "manifest.json")


@pytest.fixture(scope="module", params=["reference", "embed"])
def corpus(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_corpora.build(tmp_path_factory.mktemp(request.param), request.param)


def test_the_way_back_gives_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    before = small_corpora.files_of(corpus)
    last = corpus
    for encoder in ("clip", "sam", "dino"):
        last = _rendered(last, tmp_path / encoder, encoder, None)
        made = manifest.read(last)
        assert check(last).findings == []
        assert made.recipe.resolved["encoder"] == encoder
        assert (made.fingerprint == manifest.read(corpus).fingerprint) == (encoder == "dino")
    after = small_corpora.files_of(last)
    assert {name: data for name, data in after.items() if name not in TEXTS} == {
        name: data for name, data in before.items() if name not in TEXTS
    }
    assert manifest.read(last).splits == manifest.read(corpus).splits
    assert small_corpora.files_of(corpus) == before


def _rendered(corpus: Path, out: Path, encoder: str | None, prompted: bool | None) -> Path:
    made = rerender(corpus, out, encoder, prompted)
    assert made == manifest.read(out)
    return out


def test_free_choice_and_back(corpus: Path, tmp_path: Path) -> None:
    free = _rendered(corpus, tmp_path / "free", None, False)
    assert check(free).findings == []
    assert manifest.read(free).recipe.resolved["prompted"] is False
    assert manifest.read(free).recipe.resolved["take"]["gqa"]["prompted"] is False
    back = _rendered(free, tmp_path / "back", None, True)
    assert manifest.read(back).fingerprint == manifest.read(corpus).fingerprint
    assert small_corpora.files_of(back / "data") == small_corpora.files_of(corpus / "data")


@pytest.mark.parametrize(("encoder", "prompted"), [("sam", None), ("clip", False)])
def test_rendered_is_as_built(tmp_path: Path, encoder: str, prompted: bool | None) -> None:
    corpus = small_corpora.build(tmp_path / "dino", "embed")
    text = small_corpora.RECIPE.replace('"dino"', f'"{encoder}"')
    text = f"prompted = false\n{text}" if prompted is False else text
    built = small_corpora.build(tmp_path / "built", "embed", text)
    rendered = _rendered(corpus, tmp_path / "rendered", encoder, prompted)
    assert small_corpora.files_of(rendered / "data") == small_corpora.files_of(built / "data")
    assert manifest.read(rendered).fingerprint == manifest.read(built).fingerprint
    origins = [(folder / "origins.parquet").read_bytes() for folder in (rendered, built)]
    assert origins[0] == origins[1]


def test_pixels_and_tables_are_copied(corpus: Path, tmp_path: Path) -> None:
    out = _rendered(corpus, tmp_path / "out", "sam", False)
    for name in ("dropped.parquet", "origins.parquet"):
        assert (out / name).read_bytes() == (corpus / name).read_bytes()
    assert manifest.read(out).images == manifest.read(corpus).images
    assert manifest.read(out).components == manifest.read(corpus).components
    assert manifest.read(out).inputs == manifest.read(corpus).inputs
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "data", "dropped.parquet", "manifest.json", "origins.parquet",
    ]  # fmt: skip
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "Rows of recipe tiny, rendered for the encoder sam, free choice." in card
    assert "`<seg_image>`" in card


def _recorded(name: str) -> manifest.Manifest:
    recipe = recipes.load(name)
    record = manifest.RecipeRecord(recipe.name, recipe.digest(), msgspec.to_builtins(recipe))
    images = manifest.ImagesRecord(0, 0, 0)
    tool = manifest.Tool("vpt-data", "0", "0")
    return manifest.Manifest(1, tool, record, [], "embed", False, [], {}, images, "")


@pytest.mark.parametrize(
    ("name", "encoder", "prompted", "same_as"),
    [
        ("mixvrt_dino", "clip", None, "mixvrt_clip"),
        ("mixvrt_dino", "sam", False, "mixvrt_sam_free"),
        ("mixvrt_clip_free", None, True, "mixvrt_clip"),
        ("mixvrt_sam", "sam", True, "mixvrt_sam"),
        ("alignment_sam", "dino", None, "alignment_dino"),
        ("vpt_eval", "sam", None, "vpt_eval"),
    ],
)
def test_shipped_recipes_are_known(name: str, encoder: str | None, prompted: bool | None, same_as: str) -> None:
    assert retargeted(_recorded(name), encoder, prompted) == recipes.load(same_as)


def test_takes_without_an_encoder_get_none(tmp_path: Path) -> None:
    made = _recorded("vpt_eval")
    assert retargeted(made, "clip", None).encoder is None
    assert all(take.encoder is None for take in retargeted(made, "clip", None).take.values())


# ---- errors


def test_an_output_that_holds_something(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"out: the folder is not empty; give an empty or new folder"):
        rerender(corpus, tmp_path / "out", "sam", None)
    assert small_corpora.files_of(tmp_path / "out") == {"notes.txt": b"mine"}
    with pytest.raises(OutputError, match="the folder is not empty"):
        rerender(corpus, corpus, "sam", None)
    with pytest.raises(OutputError, match=r"notes\.txt: this is a file; give a folder for the corpus\."):
        rerender(corpus, tmp_path / "out" / "notes.txt", "sam", None)


def test_an_interrupted_run_is_begun_anew(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vpt_data.exchange.rerender._copy", stop)
        with pytest.raises(KeyboardInterrupt):
            rerender(corpus, tmp_path / "out", "sam", None)
    assert not (tmp_path / "out" / "manifest.json").exists()
    with pytest.raises(CorpusError, match=r"no manifest\.json"):
        manifest.read(tmp_path / "out")
    again = _rendered(corpus, tmp_path / "out", "sam", None)
    assert check(again).findings == []
    assert small_corpora.files_of(again) == small_corpora.files_of(_rendered(corpus, tmp_path / "other", "sam", None))


def test_damage_is_not_carried_on(tmp_path: Path) -> None:
    corpus = small_corpora.build(tmp_path / "damaged")
    shard = next((corpus / "data").glob("train-00001*"))
    good = shard.read_bytes()
    shard.write_bytes(good[:-20] + b"?" + good[-19:])
    with pytest.raises(CorpusError, match=rf"data/{shard.name}: not the bytes that the manifest of .* names"):
        rerender(corpus, tmp_path / "a", "sam", None)
    assert not (tmp_path / "a" / "manifest.json").exists()
    shard.unlink()
    with pytest.raises(CorpusError, match=rf"data/{shard.name}: this shard of .* is not there; build the corpus again"):
        rerender(corpus, tmp_path / "b", "sam", None)
    shard.write_bytes(good)
    (corpus / "dropped.parquet").unlink()
    with pytest.raises(CorpusError, match=r"dropped\.parquet: this table of the corpus is not there"):
        rerender(corpus, tmp_path / "c", "sam", None)


def test_a_manifest_of_another_version(tmp_path: Path) -> None:
    corpus = small_corpora.build(tmp_path / "old")
    small_corpora.change_manifest(corpus, lambda made: made.recipe.resolved.update(colour="red"))
    with pytest.raises(CorpusError, match=r"its recipe is not one of this version .*colour"):
        rerender(corpus, tmp_path / "a", "sam", None)
    small_corpora.change_manifest(corpus, lambda made: setattr(made, "schema_version", 2))
    with pytest.raises(CorpusError, match="schema version 2, expected 1; build it again"):
        rerender(corpus, tmp_path / "a", "sam", None)
    assert not (tmp_path / "a").exists()


def test_a_shard_that_holds_something_else(tmp_path: Path) -> None:
    """The manifest was made to fit, so hashes do not tell."""
    corpus = small_corpora.build(tmp_path / "odd")
    shard = manifest.read(corpus).splits["train"].shards[0]
    data = (corpus / "dropped.parquet").read_bytes()
    (corpus / shard.file).write_bytes(data)
    fits = ShardRecord(shard.file, 0, len(data), sha256(corpus / shard.file))
    small_corpora.change_manifest(corpus, lambda made: made.splits["train"].shards.__setitem__(0, fits))
    expected = r"train-.*\.parquet: not the columns of a sample; run `vpt-data check` on the corpus\."
    with pytest.raises(CorpusError, match=expected):
        rerender(corpus, tmp_path / "a", "sam", None)
    assert not list((tmp_path / "a/data").iterdir())


def test_unknown_encoder(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="encoder 'vit' is not known, expected one of: dino, sam, clip"):
        rerender(corpus, tmp_path / "a", "vit", None)
    assert not (tmp_path / "a").exists()


def test_command(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["render", str(corpus), "--encoder", "sam", "--out", str(out)]
    done = CliRunner().invoke(main, [*command, "--free-choice", "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == json.loads((out / "manifest.json").read_text())
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 1
    assert again.stderr.startswith(f"Error: {out}: the folder is not empty")
