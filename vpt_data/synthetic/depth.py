"""Rooms with depth: pictures named and laid out as ADE20K's, depth maps as Depth Anything writes them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from vpt_data.depth.prepare import Settings, prepare
from vpt_data.synthetic.formats import Writer, number
from vpt_data.synthetic.scenes import PALETTE, Size, stream

_SIZES: tuple[Size, ...] = ((512, 384), (384, 512), (683, 512))
_COLOURS = tuple(PALETTE.values())


def room_count(rows: int) -> int:
    """How many rooms a sample of `rows` has."""
    return max(16, rows // 50)


def write_rooms(writer: Writer, rows: int, seed: int) -> None:
    """Images, maps, and the files that `vpt-data depth` makes of them, with points for half of the images.

    Dirt: the map of the first image is flat, the second has none, and one map has no image.
    """
    count = room_count(rows)
    for i in range(count):
        image, depth = _room(seed, i)
        stem = f"ADE_train_{number(seed, i):08d}"
        writer.image(f"ade20k/images/training/{stem}.jpg", image)
        if i == 0:
            depth = np.full_like(depth, 128)
        if i != 1:
            _write_map(writer, stem, depth)
    _write_map(writer, "ADE_val_00000001", _room(seed, count)[1])
    made = prepare(Settings(root=writer.root, points=count // 2, depth_model="drawn", seed=seed))
    writer.counts |= dict(zip(made.files, (made.maps, made.points, sum(made.dropped.values())), strict=True))


def _write_map(writer: Writer, stem: str, depth: npt.NDArray[np.uint8]) -> None:
    """Three equal channels."""
    writer.image(f"ade20k/depth/{stem}_depth.png", Image.fromarray(np.stack([depth] * 3, -1)))


def _room(seed: int, n: int) -> tuple[Image.Image, npt.NDArray[np.uint8]]:
    """A floor that comes closer towards the lower border, and things on it, the far ones first.

    What is closer is larger, lower and brighter, so that depth can be seen; the map is stretched from 0 to 255.
    """
    rng = stream(seed, "rooms", n)
    wide, high = rng.choice(_SIZES)
    horizon = high * rng.randint(25, 45) // 100
    depth = np.zeros((high, wide))
    depth[horizon:] = np.linspace(0, 200, high - horizon)[:, None]
    image = Image.new("RGB", (wide, high), rng.choice(_COLOURS))
    shade = Image.fromarray((60 + depth * 0.5).astype(np.uint8))
    image.paste(Image.merge("RGB", [shade] * 3), (0, 0))
    for near in sorted(rng.uniform(0.1, 1.0) for _ in range(rng.randint(4, 7))):
        tall, broad = (int(side * (0.15 + 0.4 * near)) for side in (high, wide * rng.uniform(0.4, 0.9)))
        foot, left = int(horizon + (high - horizon) * near), rng.randint(-broad // 3, wide - broad // 2)
        box = (left, foot - tall, left + broad, foot)
        mask = Image.new("1", (wide, high))
        draw = ImageDraw.Draw(mask)
        (draw.ellipse if rng.random() < 0.4 else draw.rectangle)(box, fill=1)
        image.paste(tuple(int(tone * (0.4 + 0.6 * near)) for tone in rng.choice(_COLOURS)), mask=mask)
        depth[np.asarray(mask)] = 40 + 215 * near
    low, top = depth.min(), depth.max()
    return image, ((depth - low) / (top - low) * 255).astype(np.uint8)
