"""What the placeholders of a published row show: paths out of its lists, crops out of the paths."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from vpt_data.dialogue.tokens import placeholders

Quad = tuple[int, int, int, int]
_PLACEHOLDER: Final = re.compile("|".join(map(re.escape, placeholders().values())))
_CROP: Final = re.compile(r"(?s)(.*)_(\d{1,9}),(\d{1,9}),(\d{1,9}),(\d{1,9})")


class Shown(NamedTuple):
    """What one placeholder shows: in which turn, through which encoder, which image, which pixels (None: all)."""

    turn: int
    encoder: str
    path: str
    box: Quad | None


def shown(contents: Sequence[str], lists: Mapping[str, Sequence[object]]) -> Iterator[Shown]:
    """What each placeholder of some messages shows, in order; one for which no path is left is passed over.

    lists   the paths of each encoder, in the order in which its placeholders use them

    >>> list(shown(["<image>"], {"vlm": ["a.jpg_0,0,5,5"]}))
    [Shown(turn=0, encoder='vlm', path='a.jpg', box=(0, 0, 5, 5))]
    """
    words = {word: encoder for encoder, word in placeholders().items()}
    left = {encoder: iter(paths) for encoder, paths in lists.items()}
    for turn, content in enumerate(contents):
        for word in _PLACEHOLDER.findall(content):
            path = next(left[words[word]], None)
            if isinstance(path, str):
                yield Shown(turn, words[word], *parted(path))


def parted(path: str) -> tuple[str, Quad | None]:
    """The path of the image and the box of the crop that a published path names.

    >>> parted("a/b_c.jpg_74,398,404,1118"), parted("a/b_c.jpg")
    (('a/b_c.jpg', (74, 398, 404, 1118)), ('a/b_c.jpg', None))
    """
    cut = _CROP.fullmatch(path)
    if cut is None:
        return path, None
    x0, y0, x1, y1 = map(int, cut.groups()[1:])
    return cut[1], (x0, y0, x1, y1)
