"""Shards become micro-batches: everything once, in a seeded order, the broken named."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers import end_to_end
from helpers.hub.client import point_at
from helpers.hub.server import HubServer
from hypothesis import given
from hypothesis import strategies as st
from loaders import TEXTS, row, row_encoder, talks, write_shards
from PIL import Image

from bench.train_step import with_pixels
from trainer.data.corpus import Corpus, open_corpus
from trainer.data.loader import Loader, Micro, Settings
from trainer.data.packing import pack
from trainer.data.sample import IGNORE
from trainer.model.tiny import tiny_model, tiny_tokenizer, tiny_vision
from vpt_data.corpus.reader import Shard
from vpt_data.errors import CorpusError, UsageError
from vpt_data.images import views
from vpt_data.schema import SAMPLE

torch.set_num_threads(1)
# Python 3.12 and later warn that a process with threads forks; torch's loaders do so everywhere.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

SMALL = Settings(rows=24, tokens=512, window=40)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return open_corpus(str(write_shards(tmp_path_factory.mktemp("shards"), talks(200))))


def loader(corpus: Corpus, rank: int = 0, world: int = 1, **options: Any) -> Loader:
    raw = options.pop("raw", None)
    settings = Settings(**{**vars_of(SMALL), **options})
    return Loader(corpus, row_encoder(), settings, raw=raw, rank=rank, world=world)


def vars_of(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in Settings.__dataclass_fields__}


def ids(micros: list[Micro]) -> list[str]:
    return [sample.id for micro in micros for sample in micro.samples]


def bytes_of(image: Image.Image) -> bytes:
    sink = io.BytesIO()
    image.save(sink, "PNG")
    return sink.getvalue()


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_every_row_once_and_every_rank_as_often(shards: Corpus, world: int) -> None:
    ranks = [list(loader(shards, rank, world)) for rank in range(world)]
    assert sorted(ids([micro for rank in ranks for micro in rank])) == sorted(row["id"] for row in talks(200))
    shapes = [[(micro.position, micro.last) for micro in rank] for rank in ranks]
    assert all(shape == shapes[0] for shape in shapes)
    assert sum(last for _, last in shapes[0]) == 9
    assert [position for position, last in shapes[0] if last] == [*range(24, 200, 24), 200]
    for micro in (micro for rank in ranks for micro in rank):
        assert sum(len(sample.input_ids) for sample in micro.samples) <= 512


def test_the_first_step_alone(shards: Corpus) -> None:
    """As a validation takes it: nothing after it is planned or read."""
    assert [micro.position for micro in loader(shards, first=True, epochs=3) if micro.last] == [24]


def test_a_step_has_the_same_rows_on_any_number_of_ranks(shards: Corpus) -> None:
    def steps(world: int) -> list[set[str]]:
        found: list[set[str]] = [set() for _ in range(9)]
        for rank in range(world):
            for micro in loader(shards, rank, world):
                found[-(-micro.position // 24) - 1] |= set(ids([micro]))
        return found

    assert steps(1) == steps(3)


def test_the_seed_and_the_epoch_make_the_order(shards: Corpus) -> None:
    def order(seed: int, epoch: int) -> list[str]:
        return [row.fields["id"] for row in shards.stream(seed, epoch, window=40)]

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(2, 0)
    assert order(1, 0) != order(1, 1)
    assert sorted(order(1, 0)) == sorted(order(2, 1))


@given(st.integers(0, 200), st.integers(1, 300))
def test_a_position_is_found_again(shards: Corpus, start: int, window: int) -> None:
    whole = [row.fields["id"] for row in shards.stream(3, 1, window=window)]
    assert [row.fields["id"] for row in shards.stream(3, 1, start, window)] == whole[start:]


def test_takes_are_mixed(shards: Corpus) -> None:
    """The rows of a take lie together in the files; a step of 24 rows has about eight of each of the three."""
    order = [row.fields["id"].split("/")[0] for row in shards.stream(0, 0)]
    steps = [Counter(order[start : start + 24]) for start in range(0, 192, 24)]
    assert all(len(step) == 3 and max(step.values()) <= 16 for step in steps)


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 5))
def test_packing(lengths: list[int], world: int) -> None:
    micros = pack(lengths, world, 64)
    assert micros and all(len(ranks) == world for ranks in micros)
    assert sorted(number for ranks in micros for found in ranks for number in found) == list(range(len(lengths)))
    parts = [[lengths[number] for number in found] for ranks in micros for found in ranks]
    assert all(sum(part) <= 64 for part in parts)
    for rank in zip(*micros, strict=True):
        assert all(rank) or sum(map(len, rank)) < len(micros), "empty only where there are too few samples"


def test_packing_wastes_little() -> None:
    lengths = [100 + n * 37 % 400 for n in range(256)]
    micros = pack(lengths, 4, 4096)
    assert len(micros) <= -(-sum(lengths) // (4 * 4096)) + 1
    loads = [sum(lengths[number] for number in found) for ranks in micros for found in ranks]
    assert max(loads) < 1.05 * min(loads)


def test_neighbours_are_packed_for_the_same_rank() -> None:
    """256 rows of 16 row groups: each of 8 ranks needs few of these, and none has much more to do than the others."""
    lengths = [100 + n * 37 % 400 for n in range(256)]
    ranks = [[number for found in rank for number in found] for rank in zip(*pack(lengths, 8, 4096), strict=True)]
    assert max(len({number // 16 for number in rank}) for rank in ranks) <= 4
    loads = [sum(lengths[number] for number in rank) for rank in ranks]
    assert max(loads) < 1.03 * min(loads)


def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, int, bool]]:
    """How often each row group is read, without its images and with them."""
    read: Counter[tuple[str, int, bool]] = Counter()
    known = Shard.row_group

    def row_group(shard: Shard, number: int, columns: Any = None, images: bool = False) -> pa.Table:
        read[shard.name, number, images] += 1
        assert ("images" in columns) == images
        return known(shard, number, columns, images)

    monkeypatch.setattr(Shard, "row_group", row_group)
    return read


@pytest.mark.parametrize("world", [1, 2, 8])
def test_a_rank_reads_the_images_that_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: int) -> None:
    """Text of all row groups, images of those that it takes a row of, and of none twice."""
    rows = [row(f"a/{n}", "<image>\nWhat?", "A dog.", views=[{"turn": 0}]) for n in range(160)]
    for found in rows:
        found["images"][0]["bytes"] = bytes_of(Image.new("RGB", (80, 60)))
    corpus = open_corpus(str(write_shards(tmp_path, rows, files=2, group=10)))
    read, taken = counted(monkeypatch), []
    for rank in range(world):
        read.clear()
        mine = ids(list(loader(corpus, rank, world, rows=80, tokens=4096, window=160)))
        numbers = [int(id[2:]) for id in mine]
        groups = {(f"train-{number // 80:05d}-of-00002.parquet", number % 80 // 10, True) for number in numbers}
        assert {key for key in read if key[2]} == groups
        assert len(read) - len(groups) == 16 and set(read.values()) == {1}
        taken += [len(groups)]
    assert sum(taken) <= {1: 16, 2: 22, 8: 56}[world], "not every rank the images of every row group"


def test_workers_change_nothing(embedded_corpus: Path) -> None:
    corpus = open_corpus(str(embedded_corpus))
    alone, helped = (list(loader(corpus, workers=workers)) for workers in (0, 2))
    for one, other in zip(alone, helped, strict=True):
        assert (one.epoch, one.position, one.last, one.phases) == (
            other.epoch,
            other.position,
            other.last,
            other.phases,
        )
        assert ids([one]) == ids([other])
        assert torch.equal(one.parcel.data, other.parcel.data)


def test_pixels_are_those_of_the_views(embedded_corpus: Path) -> None:
    rows = {row["id"]: row for row in end_to_end.rows(embedded_corpus)}
    vision, seen = tiny_vision(), Counter[str]()
    for micro in loader(open_corpus(str(embedded_corpus))):
        for sample in with_pixels(micro, vision):
            shown = list(views.shown(rows[sample.id]))
            assert len(shown) == len(sample.slots)
            for slot, image in zip(sample.slots, shown, strict=True):
                seen[slot.kind] += 1
                assert torch.equal(slot.pixels, vision.pixels(slot.kind, vision.picture(slot.kind, image)))
                assert slot.grid is None or len(slot.pixels) == slot.grid[1] * slot.grid[2]
    assert seen["vlm"] > 300 and seen["dino"] > 50


def test_a_corpus_without_pixels(reference_corpus: Path, embedded_corpus: Path, sample_root: Path) -> None:
    with pytest.raises(UsageError, match=r"there are no pixels in this corpus; give its raw root with --raw$"):
        open_corpus(str(reference_corpus))
    corpus = open_corpus(str(reference_corpus), raw=sample_root)
    reader = loader(corpus, raw=sample_root)
    there = ids(list(reader))
    embedded = set(end_to_end.ids(embedded_corpus))
    assert set(there) >= embedded
    assert len(there) + reader.skipped.total() == corpus.rows
    assert set(reader.skipped) <= {"missing_image", "bad_image", "size_mismatch"}


def test_the_model_trains_on_them(embedded_corpus: Path) -> None:
    model = tiny_model(tiny_tokenizer(TEXTS, "dino"), ("dino",))
    reader = loader(open_corpus(str(embedded_corpus)))
    reader.planner = model.planner
    micro = next(iter(reader))
    out = model(micro.batch(tiny_vision()))
    assert out.loss.item() == pytest.approx(model(with_pixels(micro, tiny_vision())).loss.item(), rel=1e-5)
    assert int(out.labels) == sum(int((sample.labels != IGNORE).sum()) for sample in micro.samples)
    assert out.total.sum() == out.labels
    out.loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert any(bool(gradient.any()) for gradient in gradients)


def broken_corpus(folder: Path) -> Corpus:
    """Good rows, and one of each kind that cannot be trained on."""
    whole, good = [{"turn": 0}], bytes_of(Image.new("RGB", (80, 60)))
    rows = [row(f"a/good{n}", "<image>\nWhat?", "A dog.", views=whole) for n in range(20)]
    rows += [row(f"b/{name}", "<image>\nWhat?", "A dog.", views=whole) for name in ("cut", "size", "unsized", "lost")]
    rows += [row("b/long", "a b " * 400, "A dog."), row("b/more", "<image><image>", "A dog.", views=whole)]
    rows += [row("b/box", "<image>", "A dog.", views=[{"turn": 0, "box": [0, 0, 81, 60]}])]
    for found in rows:
        for image in found["images"]:
            image["bytes"] = good
    named = {found["id"]: found for found in rows}
    named["b/cut"]["images"][0]["bytes"] = good[:60]
    named["b/size"]["images"][0]["bytes"] = bytes_of(Image.new("RGB", (81, 60)))
    named["b/unsized"]["image_info"] = [{**named["b/unsized"]["image_info"][0], "width": None, "height": None}]
    named["b/lost"]["images"][0]["bytes"] = None
    return open_corpus(str(write_shards(folder, rows, files=1)))


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_rows_are_named(tmp_path: Path, workers: int) -> None:
    corpus = broken_corpus(tmp_path / "shards")
    (tmp_path / "raw").mkdir()
    ranks = [loader(corpus, rank, 2, workers=workers, raw=tmp_path / "raw") for rank in range(2)]
    micros = [micro for reader in ranks for micro in reader]
    assert sorted(ids(micros)) == sorted([*(f"a/good{n}" for n in range(20)), "b/unsized"])
    skipped = {found.id: found for micro in micros for found in micro.skipped}
    assert {id: found.reason for id, found in skipped.items()} == {
        "b/cut": "bad_image",
        "b/size": "bad_image",
        "b/box": "bad_image",
        "b/lost": "missing_image",
        "b/long": "too_long",
        "b/more": "malformed",
    }
    assert skipped["b/lost"].detail == "b/lost-0.png: not under the raw root"
    assert skipped["b/size"].detail.startswith("b/size: image 0 is 81x60, the row says 80x60")
    assert ranks[0].skipped + ranks[1].skipped == Counter(found.reason for found in skipped.values())
    assert sum(len(micro.skipped) for micro in micros) == 6


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_the_run_is_one_sentence(tmp_path: Path, workers: int) -> None:
    shown = row("a/1", "<seg_image>", "A dog.", views=[{"turn": 0, "encoder": "sam"}])
    reader = loader(open_corpus(str(write_shards(tmp_path, [shown], files=1))), workers=workers)
    with pytest.raises(UsageError, match=r"^Sample a/1: shows an image through sam, and the model has vlm, dino; "):
        list(reader)
    missing = row("a/2", "<image>", "A dog.", views=[{"turn": 0}])
    reader = loader(open_corpus(str(write_shards(tmp_path, [missing], files=1))), workers=workers)
    with pytest.raises(UsageError, match=r"^a/2: a/2-0\.png is not in the shard; give the raw root that holds it\.$"):
        list(reader)


def test_a_corpus_of_broken_rows_ends_the_run(tmp_path: Path) -> None:
    corpus = open_corpus(str(write_shards(tmp_path, [row(f"a/{n}", "x " * 1000, "y") for n in range(3)], files=1)))
    with pytest.raises(CorpusError) as caught:
        list(loader(corpus))
    first = next(corpus.stream(0, 0)).fields["id"]
    assert str(caught.value).startswith(
        f"{tmp_path}: none of the first 3 rows can be trained on (too_long: 3); the first is {first}: "
    )
    assert str(caught.value).endswith(" tokens, at most 512 are trained on")


def test_weights_and_waiting(tmp_path: Path) -> None:
    given = {"a/1": 0.5, "a/2": 1.0, "a/3": None, "a/4": 0.0, "a/5": -1.0, "a/6": float("inf")}
    rows = [{**row(id, "x", "y"), "weight": weight} for id, weight in given.items()]
    reader = loader(open_corpus(str(write_shards(tmp_path, rows, files=1))))
    micros = list(reader)
    found = {sample.id: sample.weight for micro in micros for sample in micro.samples}
    assert found == {"a/1": 0.5, "a/2": 1.0, "a/3": 1.0, "a/4": 0.0}
    assert {skipped.id: skipped.detail for micro in micros for skipped in micro.skipped} == {
        "a/5": "its weight is -1.0, expected 0 or more",
        "a/6": "its weight is inf, expected 0 or more",
    }
    assert reader.waited > 0


def test_a_budget_below_the_cutoff(shards: Corpus) -> None:
    with pytest.raises(UsageError) as caught:
        loader(shards, tokens=511)
    assert str(caught.value) == "data.tokens is 511, expected at least the cutoff of a sample, 512"


def test_choosing_takes_and_splits(tmp_path: Path) -> None:
    folder = write_shards(tmp_path, talks(90))
    some = open_corpus(str(folder), takes=["a", "c"])
    assert some.rows == 60
    assert {row.fields["id"].split("/")[0] for row in some.stream(0, 0, 7)} == {"a", "c"}
    assert some.identity != open_corpus(str(folder)).identity
    with pytest.raises(CorpusError, match=r": no row of the takes d in the split train; choose others, see "):
        open_corpus(str(folder), takes=["d"])
    with pytest.raises(CorpusError, match=r": no split test; choose one of train\.$"):
        open_corpus(str(folder), "test")


def test_folders_that_are_no_corpus(tmp_path: Path, embedded_corpus: Path) -> None:
    with pytest.raises(CorpusError, match=r": no Parquet file here or in its folder data; give a corpus of "):
        open_corpus(str(tmp_path))
    with pytest.raises(CorpusError, match=r": no split nowhere; choose one of train\.$"):
        open_corpus(str(embedded_corpus), "nowhere")
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(CorpusError, match=r"^other\.parquet: no column messages, so this is no shard of samples; see "):
        open_corpus(str(tmp_path))
    (tmp_path / "other.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(CorpusError, match=r"^other\.parquet: not a readable shard .*; build or download it again\.$"):
        open_corpus(str(tmp_path))


def test_files_that_name_no_split(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(talks(5), schema=SAMPLE), tmp_path / "data" / "rows.parquet")
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "dropped.parquet")
    assert open_corpus(str(tmp_path)).rows == 5


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corpus_on_the_hub_is_not_downloaded_first(
    embedded_corpus: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """Row groups come over HTTP when it is their turn, in this process or a forked one, and give the same batches."""
    with HubServer() as server:
        commit = server.filled("org/name", embedded_corpus)
        point_at(server.url, monkeypatch)
        corpus = open_corpus("hf://datasets/org/name@main")
        assert corpus.identity == open_corpus(str(embedded_corpus)).identity
        shards = {f"/datasets/org/name/resolve/{commit.oid}/{path}" for path in commit.files if "data/" in path}
        asked = [seen for path in shards for seen in server.asked(path)]
        assert max(seen.sent for seen in asked) <= 64 << 10, "opening a corpus reads footers only"
        next(corpus.stream(0, 0, window=1))
        assert max(seen.sent for path in shards for seen in server.asked(path)) <= 64 << 10, "text without images"
        assert next(corpus.stream(0, 0, window=1)).images
        read = {path for path in shards for seen in server.asked(path) if seen.sent > 64 << 10}
        assert len(read) == 1, "the first window of rows needs one shard"
        near = list(loader(open_corpus(str(embedded_corpus))))
        far = list(loader(corpus, workers=workers))
    assert [ids([micro]) for micro in near] == [ids([micro]) for micro in far]
    assert all(torch.equal(one.parcel.data, other.parcel.data) for one, other in zip(near, far, strict=True))
