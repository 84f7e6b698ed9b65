"""What the sample's pictures show: every thing in its box, small print that only the crop can be read in."""

import numpy as np
import pytest
from PIL import Image

from vpt_data.synthetic.pages import PAGE_KINDS, page, signs
from vpt_data.synthetic.scenes import PALETTE, scene, stream


def cells_box(box, size, k=8):
    """The pixels of the grid cells that a box touches."""
    spans = []
    for low, high, side in ((box[0], box[2], size[0]), (box[1], box[3], size[1])):
        first, last = (min(k - 1, max(0, int(k * v / side))) for v in (low, high))
        spans.append((first * side / k, (last + 1) * side / k))
    return spans[0][0], spans[1][0], spans[0][1], spans[1][1]


def ink_height(image, box):
    """The height of what differs from the most frequent grey in the box, in pixels."""
    grey = np.asarray(image.convert("L").crop(box), int)
    ground = np.bincount(grey.ravel()).argmax()
    written = np.flatnonzero((abs(grey - ground) > 60).any(axis=1))
    assert len(written), "no ink in the box"
    return written[-1] - written[0] + 1


@pytest.mark.parametrize("draw", [*PAGE_KINDS, "signs", "infographic"])
def test_answers_are_too_small_at_first_and_big_enough_in_the_crop(draw):
    for n in range(6):
        rng = stream(5, draw, n)
        if draw == "signs":
            image, facts = signs(rng)
        else:
            kinds = PAGE_KINDS[:4] if draw == "infographic" else (draw,)
            image, facts = page(rng, kinds, colored=draw == "infographic")
        wide, high = image.size
        assert len({field.question for field in facts.fields}) == len(facts.fields) >= 5
        for field in facts.fields:
            x0, y0, x1, y1 = field.box
            assert 0 <= x0 < x1 <= wide and 0 <= y0 < y1 <= high
            drawn = ink_height(image, field.box)
            assert drawn * 224 / max(wide, high) < 5
            left, top, right, bottom = cells_box(field.box, (wide, high))
            assert drawn * 224 / max(right - left, bottom - top) > 8


def test_the_answer_is_gone_at_224_pixels_and_still_there_in_the_crop():
    """Seen at 224, thin strokes of ink blur into the paper; in the crop they stay dark."""
    image, facts = page(stream(1, "blur"), ("invoice",))
    image, (wide, high) = image.convert("L"), image.size
    small = image.resize((round(wide * 224 / high), 224), Image.Resampling.BOX)
    for field in facts.fields:
        x0, y0, x1, y1 = (round(v * 224 / high) for v in field.box)
        at_first = np.asarray(small)[y0 : y1 + 1, x0 : x1 + 1]
        cells = tuple(round(v) for v in cells_box(field.box, (wide, high)))
        crop = image.crop(cells)
        crop = crop.resize([round(v * 224 / max(crop.size)) for v in crop.size], Image.Resampling.BOX)
        assert at_first.min() > 70 > np.asarray(crop).min() + 20


@pytest.mark.parametrize("by_kind", [False, True])
def test_every_thing_is_drawn_in_its_box_and_is_small(by_kind):
    for n in range(12):
        size = (640, 480) if n % 2 else (375, 500)
        image, facts = scene(stream(2, n), size, by_kind)
        pixels = np.asarray(image, int)
        assert {motif.form for motif in facts.motifs} == {"left", "above", "front", "inside", "group"}
        for thing in facts.things:
            x0, y0, x1, y1 = thing.box
            assert 0 <= x0 < x1 <= size[0] and 0 <= y0 < y1 <= size[1]
            inside = (abs(pixels[y0:y1, x0:x1] - PALETTE[thing.color]).sum(axis=2) < 60).mean()
            assert inside > 0.1, thing
            assert x1 - x0 < 0.2 * max(size)
        names = [facts.name(motif.things[0]) for motif in facts.motifs]
        names += [facts.name(motif.things[1]) for motif in facts.motifs if motif.form != "group"]
        assert len(set(names)) == len(names)


def test_motifs_stand_as_their_form_says():
    for n in range(20):
        for motif in scene(stream(3, n), (500, 375))[1].motifs:
            if motif.form == "group":
                continue
            a, b = (thing.box for thing in motif.things)
            centre = [(box[0] + box[2], box[1] + box[3]) for box in (a, b)]
            overlap = a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
            assert overlap == (motif.form in ("front", "inside"))
            if motif.form == "left":
                assert a[2] <= b[0] and abs(centre[0][1] - centre[1][1]) < 4
            elif motif.form == "above":
                assert a[3] <= b[1] and abs(centre[0][0] - centre[1][0]) < 4
            elif motif.form == "inside":
                assert a[0] > b[0] and a[1] > b[1] and a[2] < b[2] and a[3] < b[3]
