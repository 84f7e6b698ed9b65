"""Which pictures a sample has, and how many: pools of images that several files ask questions about."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from PIL import Image

from vpt_data.synthetic.formats import Writer, hexname, number, page_name
from vpt_data.synthetic.pages import Page, cover, page, signs
from vpt_data.synthetic.scenes import Scene, Size, scene, stream

F = TypeVar("F")

#: The smallest number of rows in any file of annotations.
FLOOR = 12
# : Rows of each part in the real mix of 828,763, which the sample scales down. LLaVA has text-only
# records on top.
SHARES: Mapping[str, int] = {
    "docvqa": 33_453,
    "textvqa": 18_524,
    "textcap": 32_152,
    "vsr": 3_376,
    "gqa": 98_149,
    "openimages": 43_053,
    "cub": 10_056,
    "llava_dialogue": 260_000,
    "llava_detail": 23_000,
    "llava_region": 48_000,
    "llava_gqa": 71_000,
    "llava_vg": 86_000,
    "llava_ocr": 80_000,
    "llava_textvqa": 22_000,
}
_MIX = 828_763
_TEXT_ONLY, _PRETRAIN = 40_000, 50_000


@dataclass(frozen=True, slots=True)
class Shot(Generic[F]):
    """An image of the raw root: its name inside its folder, its path, and what it shows."""

    name: str
    path: str
    facts: F


@dataclass(frozen=True, slots=True)
class Pool(Generic[F]):
    """How the images of one pool are drawn and named; numbers start at `first`, apart from other pools."""

    folder: str
    name: Callable[[int, int], str]
    draw: Callable[[random.Random], tuple[Image.Image, F]]
    first: int = 0


def quota(part: str, rows: int) -> int:
    """How many rows a part has in a sample of `rows`: its share, at least `FLOOR`; others have that."""
    shares = {**SHARES, "llava_text": _TEXT_ONLY, "llava_pretrain": _PRETRAIN}
    return max(FLOOR, round(rows * shares.get(part, 0) / _MIX))


def held_quota(part: str, rows: int) -> int:
    """How many rows the part's benchmark has."""
    return max(FLOOR, quota(part, rows) // 8)


def _scenes(sizes: tuple[Size, ...], by_kind: bool = False) -> Callable[[random.Random], tuple[Image.Image, Scene]]:
    return lambda rng: scene(rng, rng.choice(sizes), by_kind)


def _pages(kinds: tuple[str, ...], colored: bool = False) -> Callable[[random.Random], tuple[Image.Image, Page]]:
    return lambda rng: page(rng, kinds, colored)


def _hex(what: str) -> Callable[[int, int], str]:
    return lambda seed, n: f"{hexname(seed, what, n)}.jpg"


def _numbered(form: str) -> Callable[[int, int], str]:
    return lambda seed, n: form.format(number(seed, n))


def _pretrain_name(seed: int, n: int) -> str:
    digits = f"{number(seed, n):09d}"
    return f"{digits[:5]}/{digits}.jpg"


_SMALL: tuple[Size, ...] = ((500, 375), (500, 333), (375, 500))
_LARGE: tuple[Size, ...] = ((640, 480), (640, 427), (480, 640))
_DOCUMENTS = ("invoice", "memo", "report", "application", "waybill")
SCENES: Mapping[str, Pool[Scene]] = {
    "gqa": Pool("gqa/images", _numbered("{}.jpg"), _scenes(_SMALL)),
    "llava_vg": Pool("vg/VG_100K", _numbered("{}.jpg"), _scenes(_SMALL), 300_000),
    "visual7w": Pool("visual7w/images", _numbered("v7w_{}.jpg"), _scenes(_SMALL), 400_000),
    "openimages": Pool("openimages/images", _hex("oi"), _scenes(((640, 427), (640, 480)))),
    "flickr30k": Pool("flickr30k/flickr30k-images", _numbered("10{}.jpg"), _scenes(_SMALL)),
    "coco": Pool("coco/train2017", _numbered("{:012d}.jpg"), _scenes(_LARGE, True)),
    "vsr": Pool("coco/train2017", _numbered("{:012d}.jpg"), _scenes(_LARGE, True), 300_000),
    "pope": Pool("coco/val2014", _numbered("COCO_val2014_{:012d}.jpg"), _scenes(_LARGE, True), 600_000),
    "llava_pretrain": Pool("llava_pretrain/images", _pretrain_name, _scenes(((336, 252),))),
    "own": Pool("own/images", _numbered("shelf_{}.jpg"), _scenes(_LARGE, True)),
}
PAGES: Mapping[str, Pool[Page]] = {
    "docvqa": Pool("docvqa/documents", page_name, _pages(_DOCUMENTS)),
    "signs": Pool("textvqa/train_images", _hex("tv"), signs),
    "infographicsvqa": Pool("infographicsvqa/images", _numbered("{}.jpeg"), _pages(_DOCUMENTS, True)),
    "dude": Pool("dude/images", lambda seed, n: f"{hexname(seed, 'dude', n, 32)}_{n % 5}.jpg", _pages(_DOCUMENTS)),
    "sroie": Pool("sroie/images", _numbered("X51{:09d}.jpg"), _pages(("receipt",))),
    "llava_ocr": Pool("ocr_vqa/images", _numbered("1{:09d}.jpg"), cover),
    "own_receipts": Pool("own/images", _numbered("receipt_{}.png"), _pages(("receipt",))),
    "own_signs": Pool("own/images", _numbered("schild_{}.jpg"), signs),
}
_HELD = 500_000  # numbers of held-out images of a pool start here above its first


def pool_sizes(rows: int) -> dict[str, int]:
    """How many images each pool has in a sample of `rows`; `NAME/held` is for benchmark rows alone."""

    def need(part: str, each: int, held: bool = False) -> int:
        return -(-(held_quota(part, rows) if held else quota(part, rows)) // each)

    dialogues = sum(quota(part, rows) for part in ("llava_dialogue", "llava_detail", "llava_region"))
    return {
        "gqa": max(need("gqa", 2), quota("llava_gqa", rows)),
        "gqa/held": need("gqa", 2, held=True),
        "openimages": need("openimages", 2),
        "openimages/held": need("openimages", 2, held=True),
        "flickr30k": need("flickr30k", 2),
        "flickr30k/held": need("flickr30k", 2, held=True),
        "vsr": need("vsr", 2),
        "vsr/held": need("vsr", 2, held=True),
        "visual7w": need("visual7w", 2),
        "coco": -(-dialogues // 2),
        "llava_vg": quota("llava_vg", rows),
        "llava_pretrain": quota("llava_pretrain", rows),
        "pope": max(6, rows // 100),
        "own": 6,
        "docvqa": need("docvqa", 3),
        "docvqa/held": need("docvqa", 3, held=True),
        "signs": max(need("textvqa", 2), need("textcap", 2), quota("llava_textvqa", rows)),
        "signs/held": need("textvqa", 2, held=True) + need("textcap", 2, held=True),
        "infographicsvqa": need("infographicsvqa", 3),
        "dude": need("dude", 3),
        "dude/held": need("dude", 3, held=True),
        "sroie": need("sroie", 3),
        "llava_ocr": quota("llava_ocr", rows),
        "own_receipts": 3,
        "own_signs": 3,
    }


def draw_pools(pools: Mapping[str, Pool[F]], writer: Writer, rows: int, seed: int) -> dict[str, list[Shot[F]]]:
    """Draw and write all images of the pools, each from a random stream of its own."""
    shots: dict[str, list[Shot[F]]] = {}
    for key, count in pool_sizes(rows).items():
        name, _, held = key.partition("/")
        if name not in pools:
            continue
        pool = pools[name]
        first = pool.first + (_HELD if held else 0)
        shots[key] = []
        for n in range(first, first + count):
            image, facts = pool.draw(stream(seed, name, n))
            file = pool.name(seed, n)
            writer.image(f"{pool.folder}/{file}", image)
            shots[key].append(Shot(file, f"{pool.folder}/{file}", facts))
    return shots
