"""Folders of images and depth maps -> the files that the source `aurora_depth` reads.

    OUT/depth_maps.jsonl      every image with a usable map: its codes
    OUT/depth_points.jsonl    the images that a question about points is asked of: marked picture, points, codes
    OUT/depth_dropped.jsonl   images and maps without codes, or without the points that were asked for, with the reason
    IMAGES_marked/NAME.png    the marked pictures, beside the folder of the images, whose terms are theirs as well

Images and maps are joined by name: `ADE_train_00000639.jpg` and `ADE_train_00000639_depth.png`, or `.npy`, in any
subfolder. The same files give the same output, whatever their order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import msgspec
import pyarrow as pa

from vpt_data import hashing, store
from vpt_data.depth import maps
from vpt_data.depth.maps import SIDE, Convention, Map
from vpt_data.depth.points import LETTERS, Point, choose, marked
from vpt_data.depth.tokenizer import Pool, tokenizer
from vpt_data.errors import RawError, UsageError
from vpt_data.images import policy
from vpt_data.images.policy import Failure
from vpt_data.schema import Reason

_PICTURES: Final = (".jpg", ".jpeg", ".png", ".webp")
#: Sides of a map and its image may differ in proportion by this share: maps are rounded to multiples of 14 pixels.
_SKEW: Final = 0.05
_MAX_BYTES: Final = 8 * maps.MAX_PIXELS + (1 << 16)

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `prepare` does; folders are relative to the raw root.

    depth_model  what made the maps, for the `tokenizer_id` of every row
    points       so many images (those with the smallest hashes) get points; fewer where there are fewer
    selection    the JSON of a published selection (image name: letter: coordinate, depth) to use instead
    """

    root: Path
    images: str = "ade20k/images"
    maps: str = "ade20k/depth"
    out: str = "aurora"
    convention: Convention = "inverse"
    tokenizer: str = Pool.NAME
    depth_model: str = "unstated"
    points: int = 500
    selection: Path | None = None
    seed: int = 0


class Summary(msgspec.Struct, frozen=True):
    """How many images have codes, how many have points, why others have not, and the files that say so."""

    maps: int
    points: int
    dropped: dict[str, int]
    files: list[str]


class _Pair(NamedTuple):
    """An image and its depth map, both relative to the raw root."""

    image: str
    depth: str


class _Record(msgspec.Struct, kw_only=True, omit_defaults=True):
    image: str
    marked: str | None = None
    points: list[dict[str, str | int]] = []
    codes: list[int]
    tokenizer_id: str


class _Dropped(msgspec.Struct):
    file: str
    reason: str
    detail: str


Coordinate = Annotated[int, msgspec.Meta(ge=0, lt=SIDE)]


class _Selected(msgspec.Struct):
    coordinate: tuple[Coordinate, Coordinate]
    depth: Annotated[float, msgspec.Meta(ge=0, le=255)]


Selection = dict[str, list[Point]]


@dataclass(slots=True)
class _Run:
    settings: Settings
    dropped: list[_Dropped] = field(default_factory=list)

    def drop(self, file: str, failure: Failure) -> None:
        self.dropped.append(_Dropped(file, str(failure.reason), failure.detail))

    def read_map(self, pair: _Pair) -> Map | Failure:
        """The depth map of a pair, if it fits its image."""
        path = self.settings.root / pair.depth
        if path.stat().st_size > _MAX_BYTES:
            return Failure(Reason.BAD_IMAGE, f"{pair.depth}: the file has more than {_MAX_BYTES:,} bytes")
        depth = maps.read(path.read_bytes(), pair.depth, self.settings.convention)
        if isinstance(depth, Failure):
            return depth
        with (self.settings.root / pair.image).open("rb") as file:
            size = policy.header(pair.image, file)
        return size if isinstance(size, Failure) else _fitting(depth, size, pair)


def _fitting(depth: Map, size: tuple[int, int], pair: _Pair) -> Map | Failure:
    wide, high = depth.shape[1] * size[1], depth.shape[0] * size[0]
    if abs(wide - high) <= _SKEW * max(wide, high):
        return depth
    what = f"{pair.depth}: the map is {depth.shape[1]}x{depth.shape[0]}, its image {size[0]}x{size[1]}"
    return Failure(Reason.SIZE_MISMATCH, f"{what}, which is another shape")


def prepare(settings: Settings, progress: Progress = lambda done, total: None) -> Summary:
    """Make the files for one folder of images and one of depth maps; `progress(done, total)` after each map.

    Raises UsageError for a tokenizer that is not known and folders outside the raw root, RawError where a folder is
    missing, no image has a map, or the selection is not one.
    """
    made = tokenizer(settings.tokenizer)
    identity = str(made.identity(settings.depth_model))
    run = _Run(settings)
    chosen = None if settings.selection is None else _selection(settings.selection)
    pairs = _pairs(run)
    records: dict[str, _Record] = {}
    for number, pair in enumerate(pairs, 1):
        depth = run.read_map(pair)
        if isinstance(depth, Failure):
            run.drop(pair.image, depth)
        else:
            records[pair.image] = _Record(
                image=pair.image, codes=made.encode([depth])[0].tolist(), tokenizer_id=identity
            )
        progress(number, len(pairs))
    usable = [pair for pair in pairs if pair.image in records]
    pointed = list(_selected(run, usable, chosen) if chosen is not None else _by_hash(run, usable))
    with_points = [
        msgspec.structs.replace(records[image], marked=file, points=[point._asdict() for point in points])
        for image, file, points in sorted(pointed)
    ]
    return _write(run, list(records.values()), with_points)


def _pairs(run: _Run) -> list[_Pair]:
    """Images with exactly one map, by the path of the image; the others are dropped."""
    settings = run.settings
    depths = dict(_by_stem(settings, settings.maps, maps.SUFFIXES))
    images = dict(_by_stem(settings, settings.images, _PICTURES))
    if not images.keys() & depths.keys():
        raise RawError(
            f"{settings.images}: none of {len(images)} images has a depth map of its name among {len(depths)} files in "
            f"{settings.maps}; expected NAME_depth.png, NAME.png or NAME.npy for NAME.jpg."
        )
    found = []
    for stem in sorted({*images, *depths}):
        pictures, files = images.get(stem, []), depths.get(stem, [])
        if len(pictures) == 1 and len(files) == 1:
            found.append(_Pair(pictures[0], files[0]))
            continue
        what = f"{len(pictures)} images and {len(files)} depth maps have this name; expected one of each"
        for file in pictures or files:
            run.drop(file, Failure(Reason.MISSING_IMAGE if not pictures else Reason.MALFORMED, f"{file}: {what}"))
    return sorted(found)


def _by_stem(settings: Settings, folder: str, suffixes: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """The files of a folder by their name without suffix, as paths relative to the raw root."""
    if store.is_unsafe(folder):
        raise UsageError(f"{folder}: this leads out of the raw root; give a folder relative to it.")
    if not store.is_plain(folder):  # the marked pictures of `images/` would be among the images
        raise UsageError(f"{folder}: write the folder without `.` and without `/` at its end.")
    top = settings.root / folder
    if not top.is_dir():
        raise RawError(f"{folder}: there is no such folder under {settings.root}; name it relative to the raw root.")
    found: dict[str, list[str]] = {}
    for path in sorted(top.rglob("*")):
        inside = folder == settings.maps or not path.is_relative_to(settings.root / settings.maps)
        if path.suffix.lower() in suffixes and path.is_file() and inside:
            found.setdefault(path.stem.removesuffix("_depth"), []).append(store.below(path, settings.root))
    yield from found.items()


def _by_hash(run: _Run, pairs: list[_Pair]) -> Iterator[tuple[str, str, list[Point]]]:
    """Points by the published rule for as many images as were asked for, those with the smallest hashes first."""
    settings, left = run.settings, run.settings.points
    order = hashing.seeded(pa.array([pair.image for pair in pairs], pa.string()), settings.seed)
    for at in order.argsort(kind="stable").tolist():
        if not left:
            return
        depth = run.read_map(pairs[at])
        assert not isinstance(depth, Failure), f"{pairs[at].depth} has changed while it was read"
        points = choose(maps.squashed(depth), settings.seed, pairs[at].image)
        if points:
            drawn = _drawn(run, pairs[at], points)
            left -= drawn is not None
            yield from [drawn] if drawn else []
        else:
            what = "no points were found that differ enough in place and depth"
            run.drop(pairs[at].image, Failure(Reason.NOT_SELECTED, f"{pairs[at].image}: {what}"))


def _selected(run: _Run, pairs: list[_Pair], chosen: Selection) -> Iterator[tuple[str, str, list[Point]]]:
    """The points of a published selection, for its images that are there."""
    by_stem = {Path(pair.image).stem: pair for pair in pairs}
    seen: set[str] = set()
    for name, points in sorted(chosen.items()):
        stem = Path(name).stem
        if (pair := by_stem.get(stem)) is None:
            run.drop(
                name, Failure(Reason.MISSING_IMAGE, f"{name}: the selection names it, and no image has a usable map")
            )
        elif stem in seen:
            run.drop(
                name, Failure(Reason.DUPLICATE, f"{name}: the selection names this image twice; the first is taken")
            )
        elif drawn := _drawn(run, pair, points):
            seen.add(stem)
            yield drawn


def _drawn(run: _Run, pair: _Pair, points: list[Point]) -> tuple[str, str, list[Point]] | None:
    """The image with its points drawn and written: image, path of the marked picture, points."""
    settings = run.settings
    try:
        image = policy.plain(policy.decoded((settings.root / pair.image).read_bytes()))
    except policy.UNDECODABLE as error:
        run.drop(pair.image, Failure(Reason.BAD_IMAGE, f"{pair.image}: {error or type(error).__name__}"))
        return None
    file = f"{settings.images}_marked/{Path(pair.image).stem}.png"
    (settings.root / file).parent.mkdir(parents=True, exist_ok=True)
    with store.creating(settings.root / file) as out:
        marked(image, points).save(out, "PNG")
    return pair.image, file, points


def _selection(path: Path) -> Selection:
    """A published selection: `{"ADE_train_00000639.jpg": {"B": {"coordinate": [73, 188], "depth": 15.0}, ...}}`."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=dict[str, dict[str, _Selected]])
    except (OSError, *store.DECODE_ERRORS) as error:
        raise RawError(
            f"{path}: not a selection of points ({error}); expected image: letter: coordinate, depth."
        ) from error
    chosen = {}
    for name, letters in found.items():
        if len(letters) < 2 or not set(letters) <= set(LETTERS):
            raise RawError(f"{path}: {name} has the letters {', '.join(letters)}; expected two to five of {LETTERS}.")
        points = [Point(letter, *given.coordinate, int(given.depth)) for letter, given in letters.items()]
        chosen[name] = sorted(points, key=lambda point: point.depth)
    return chosen


def _write(run: _Run, records: list[_Record], pointed: list[_Record]) -> Summary:
    settings, files = run.settings, []
    if store.is_unsafe(settings.out):
        raise UsageError(f"{settings.out}: this leads out of the raw root; give a folder relative to it.")
    (settings.root / settings.out).mkdir(parents=True, exist_ok=True)
    lines: dict[str, Iterable[msgspec.Struct]] = {
        "depth_maps": records,
        "depth_points": pointed,
        "depth_dropped": run.dropped,
    }
    for name, rows in lines.items():
        files.append(f"{settings.out}/{name}.jsonl")
        store.write(settings.root / files[-1], b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    reasons = Counter(drop.reason for drop in run.dropped)
    return Summary(len(records), len(pointed), dict(sorted(reasons.items())), files)
