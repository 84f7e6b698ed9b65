"""Depth maps of every kind become bytes in which higher is closer; what is none is refused with a sentence."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vpt_data.depth import maps
from vpt_data.images.policy import Failure

SLOPE = np.linspace(0, 255, 40 * 30).reshape(30, 40)


def png(values: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(values).save(out, "PNG")
    return out.getvalue()


def npy(values: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, values)
    return out.getvalue()


def read(data: bytes, convention: maps.Convention = "inverse") -> np.ndarray:
    found = maps.read(data, "a.png", convention)
    assert not isinstance(found, Failure), found
    assert found.dtype == np.uint8 and found.ndim == 2
    return found


def why(data: bytes, convention: maps.Convention = "inverse") -> str:
    found = maps.read(data, "a.png", convention)
    assert isinstance(found, Failure)
    return found.detail


def test_what_depth_anything_writes_is_taken_as_it_is() -> None:
    grey = (SLOPE / 2).astype(np.uint8)
    assert (read(png(grey)) == grey).all()
    assert (read(png(np.stack([grey] * 3, -1))) == grey).all()


@pytest.mark.parametrize("data", [
    png((SLOPE * 200).astype(np.uint16)), npy(SLOPE), npy(SLOPE.astype("f4")), npy(SLOPE.astype(">f4")),
    npy(np.asfortranarray(SLOPE)), npy(SLOPE[None]), npy((SLOPE * 200).astype("u2")), npy(SLOPE - 1000),
])  # fmt: skip
def test_other_scales_are_stretched(data: bytes) -> None:
    found = read(data)
    assert found.shape == SLOPE.shape and (found.min(), found.max()) == (0, 255)
    assert np.abs(found.astype(float) - SLOPE).max() <= 1.5


@pytest.mark.parametrize("data", [npy(1 / (SLOPE + 1)), png((60_000 / (SLOPE + 1)).astype(np.uint16))])
def test_a_distance_is_turned_round(data: bytes) -> None:
    found = read(data, "metric").astype(float)
    assert (found.min(), found.max()) == (0, 255) and (np.diff(found.ravel()) >= 0).all()
    assert np.abs(found - SLOPE).max() <= 3


@pytest.mark.parametrize("convention", ["metric", "disparity"])
@pytest.mark.parametrize("nothing", [0.0, -1.0, np.nan, np.inf])
def test_pixels_without_depth_are_never_the_closest(convention: maps.Convention, nothing: float) -> None:
    values = SLOPE + 10
    values[:3] = nothing
    found = read(npy(values), convention)
    assert (found[:3] == 0).all() and found[3:].max() == 255


@pytest.mark.parametrize(("data", "words"), [
    (png(np.full((9, 9), 7, np.uint8)), "all pixels have the same depth"),
    (npy(np.full((9, 9), np.nan)), "no pixel has a depth"),
    (npy(np.array([[-1e308, 1e308]])), "reach from -1e+308 to 1e+308, which is no depth"),
    (png(np.stack([SLOPE, SLOPE / 2, SLOPE], -1).astype(np.uint8)), "the picture is not grey (mode RGB)"),
    (png(np.stack([SLOPE, SLOPE], -1).astype(np.uint8)), "the picture is not grey (mode LA)"),
    (npy(np.zeros((2, 3, 4))), "the array has shape [2, 3, 4]; expected [height, width]"),
    (npy(np.zeros((2, 3), "c16")), "c16', 'fortran_order': False, 'shape': (2, 3), }\"; expected an array of numbers"),
    (npy(np.zeros((0, 3))), "the map is 3x0"),
    (b"", "not an image"),
    (b"hello", "not an image"),
    (npy(SLOPE)[:-8], "buffer is smaller than requested size"),
    (npy(SLOPE).replace(b"(30, 40)", b"(30 ** 9)"), "expected an array of numbers"),
])  # fmt: skip
def test_what_is_no_depth_map(data: bytes, words: str) -> None:
    detail = why(data)
    assert detail.startswith("a.png: ")
    assert words in detail or words == "not an image"


def test_a_huge_map_is_refused_before_it_is_read() -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)})
    assert "the map is 1000000x1000000; expected 1 to 64,000,000 pixels" in why(header.getvalue())


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "run",))

    values = np.empty((2, 2), object)
    values[:] = Trap()
    assert "'|O', " in why(npy(values))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("whole", [png(SLOPE.astype(np.uint8)), png((SLOPE * 99).astype(np.uint16)), npy(SLOPE)])
def test_damage_never_raises(whole: bytes) -> None:
    chance = random.Random(0)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        found = maps.read(bytes(data[: chance.choice([len(data), chance.randrange(len(data))])]), "a", "metric")
        assert isinstance(found, Failure) or found.dtype == np.uint8
