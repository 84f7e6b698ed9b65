"""However own data are cut into files, and whatever the order of their rows: the same corpus."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from helpers import end_to_end
from helpers.end_to_end import own_take
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vpt_data.corpus.manifest import read

FILES = ["own/rows*.jsonl"]
RECIPE = 'name = "cut"\nshards = 2\n' + own_take("boxed", files=FILES) + own_take("rest", template="plain", files=FILES)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number in range(4):
        Image.new("RGB", (40 + number, 30)).save(folder / f"{number}.png")
    return folder


#: (image, with a box, with a size): four images are there, the fifth is not.
ROWS = st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.booleans()), min_size=2, max_size=12)


def fingerprint(images: Path, files: list[list[dict[str, object]]]) -> str:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "raw/own").mkdir(parents=True)
        (folder / "raw/own/images").symlink_to(images)
        for number, records in enumerate(files):
            (folder / f"raw/own/rows-{number}.jsonl").write_text(end_to_end.lines(records))
        linked = end_to_end.recipe_file(folder, RECIPE)
        return read(end_to_end.build(linked, folder / "raw", folder / "out")).fingerprint


@settings(max_examples=20, deadline=None)
@given(rows=ROWS, data=st.data())
def test_split_and_permuted_anywhere_the_fingerprint_is_the_same(
    images: Path, rows: list[tuple[int, bool, bool]], data: st.DataObject
) -> None:
    """A row without a box has no size, also beside rows that have one and therefore need the size of their image."""
    records: list[dict[str, object]] = [
        {
            "image": f"{image}.png",
            "question": f"What is {number}?",
            "answer": "this",
            "box": [1, 2, 20, 20] if boxed else None,
            "w": 40 + image if sized else None,
            "h": 30 if sized else None,
        }
        for number, (image, boxed, sized) in enumerate(rows)
    ]
    order = data.draw(st.permutations(records))
    cut = data.draw(st.integers(1, len(records) - 1))
    assert fingerprint(images, [order[:cut], order[cut:]]) == fingerprint(images, [records])
