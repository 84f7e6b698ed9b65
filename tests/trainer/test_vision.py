"""Pictures are what the image processors of transformers make of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize
from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

from trainer.data.vision import Vision
from vpt_data.dialogue.tokens.reencode import ENCODERS
from vpt_data.errors import UsageError
from vpt_data.images.tokens import tokens

torch.set_num_threads(1)

SIZES = [(500, 375), (33, 80), (300, 301), (28, 28), (640, 30), (3, 400)]
IMAGENET: dict[str, Any] = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def picture(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("patch", [14, 16])
def test_patches_of_the_own_tower(size: tuple[int, int], patch: int) -> None:
    vision, image = Vision(longest=2000, patch=patch), picture(*size)
    shown = image.resize((max(size[0], 2 * patch), max(size[1], 2 * patch)))  # as published: a token each way
    least = {"shortest_edge": (4 * patch) ** 2, "longest_edge": 10**9}
    expected = Qwen2VLImageProcessorPil(size=least, patch_size=patch)([shown], return_tensors="pt")
    length, grid = vision.tokens("vlm", size)
    assert [list(grid or ())] == expected["image_grid_thw"].tolist()
    assert length * 4 == len(expected["pixel_values"])
    if shown.size == image.size:
        assert torch.equal(vision.pixels("vlm", vision.picture("vlm", image)), expected["pixel_values"])
    assert torch.equal(
        vision.pixels("clip", vision.picture("clip", image)), vision.pixels("vlm", vision.picture("vlm", image))
    )


def test_every_small_square_has_the_size_of_the_processor() -> None:
    """It becomes two tokens on a side, or three where rounding makes the root a trifle too large."""
    found = {side: Vision().tokens("vlm", (side, side))[1] for side in range(28, 57)}
    expected = {side: (1, *(length // 14 for length in smart_resize(side, side))) for side in found}
    assert found == expected


@pytest.mark.parametrize("size", SIZES[:-1])
def test_dino_sees_the_centre(size: tuple[int, int]) -> None:
    vision, image = Vision(), picture(*size)
    expected = BitImageProcessorPil(size={"shortest_edge": 256}, **IMAGENET)([image], return_tensors="pt")
    assert torch.equal(vision.pixels("dino", vision.picture("dino", image)), expected["pixel_values"][0])
    assert vision.tokens("dino", size) == (256, None)


def test_a_very_long_picture_takes_little_memory() -> None:
    assert Vision().picture("dino", Image.new("RGB", (100_000, 3))).shape == (224, 224, 3)
    assert Vision().picture("sam", Image.new("RGB", (100_000, 3))).shape == (1, 1024, 3)
    assert Vision().picture("vlm", Image.new("RGB", (100_000, 3))).shape == (28, 504, 3)


@pytest.mark.parametrize("size", SIZES)
def test_sam_pads(size: tuple[int, int]) -> None:
    vision, image = Vision(), picture(*size)
    expected = SamImageProcessorPil()([image], return_tensors="pt")["pixel_values"][0]
    assert torch.equal(vision.pixels("sam", vision.picture("sam", image)), expected)
    assert vision.tokens("sam", size) == (256, None)


@pytest.mark.parametrize("size", [(1500, 1100), (500, 375), (900, 70), (225, 1300)])
def test_pixels_of_the_published_pipeline(size: tuple[int, int]) -> None:
    """Nearest neighbour to the limit with sides rounded down, and then the image processor."""
    vision, image = Vision(longest=512, nearest=True), picture(*size)

    def shrunk(limit: int) -> Image.Image:
        scale = min(1.0, limit / max(size))
        return image.resize((int(size[0] * scale), int(size[1] * scale)), Image.Resampling.NEAREST)

    least = {"shortest_edge": 56 * 56, "longest_edge": 10**9}
    for encoder, expected in (
        ("vlm", Qwen2VLImageProcessorPil(size=least)([shrunk(512)], return_tensors="pt")["pixel_values"]),
        ("clip", Qwen2VLImageProcessorPil(size=least)([shrunk(512)], return_tensors="pt")["pixel_values"]),
        (
            "dino",
            BitImageProcessorPil(size={"shortest_edge": 256}, **IMAGENET)([shrunk(512)], return_tensors="pt")[
                "pixel_values"
            ][0],
        ),
        ("sam", SamImageProcessorPil()([shrunk(1024)], return_tensors="pt")["pixel_values"][0]),
    ):
        assert torch.equal(vision.pixels(encoder, vision.picture(encoder, image)), expected)
        assert vision.tokens(encoder, size) == Vision(longest=512).tokens(encoder, size)
        once = Vision(longest=512).picture(encoder, image)
        assert torch.equal(once, vision.picture(encoder, image)) == (
            max(size) <= 512 or (encoder == "sam" and max(size) <= 1024)
        )


@pytest.mark.parametrize(("longest", "most"), [(224, 64), (512, 324)])
def test_presets_bound_the_tokens(longest: int, most: int) -> None:
    vision = Vision(longest=longest)
    sizes = [(1, 1), (7, 5), (4000, 3), (3, 4000), (512, 512), (5000, 5000), (1024, 683), (225, 224)]
    found = [vision.tokens("vlm", size)[0] for size in sizes]
    assert max(found) == most and min(found) == 4
    for size in sizes[:4]:
        assert vision.picture("vlm", picture(*size)).shape[:2] == tuple(
            14 * side for side in (vision.tokens("vlm", size)[1] or ())[1:]
        )


def test_statistics_count_what_the_model_sees() -> None:
    for size in SIZES:
        assert Vision().tokens("vlm", size)[0] == Vision().tokens("clip", size)[0] == tokens([size], 512)[0]
        for name in ("dino", "sam"):
            assert Vision().tokens(name, size)[0] == ENCODERS[name].image_tokens
    assert ENCODERS["clip"].image_tokens is None


def test_a_limit_without_sense() -> None:
    with pytest.raises(UsageError, match=r"^vision\.longest is 20 pixels, expected 28 to 5600$"):
        Vision(longest=20)


@pytest.mark.parametrize("nearest", [False, True])
@pytest.mark.parametrize("encoder", ["vlm", "dino", "sam"])
def test_a_grey_picture_is_resized_as_one_channel_to_the_same_bytes(encoder: str, nearest: bool) -> None:
    vision, grey = Vision(longest=224, nearest=nearest), picture(300, 170).convert("L")
    assert torch.equal(vision.picture(encoder, grey), vision.picture(encoder, grey.convert("RGB")))
