"""Whether chunks tile a tensor: by corners, against counting every element."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptaudit.formats.dcp import tiles as dcp_tiles
from ckptaudit.formats.dcp.tiles import Tiling, TooManyCornersError


def fault(shape, *chunks):
    return Tiling().fault(shape, chunks)


def is_tiled(shape, chunks):
    """Count how often each element is in a chunk."""
    counts = Counter(
        point
        for offsets, sizes in chunks
        for point in itertools.product(*(range(o, o + s) for o, s in zip(offsets, sizes, strict=True)))
    )
    return set(counts) == set(itertools.product(*map(range, shape))) and set(counts.values()) <= {1}


@st.composite
def cut_tensors(draw):
    """A tensor cut into pieces again and again, and then perhaps a piece that was moved or grew."""
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    boxes = [((0,) * len(shape), shape)]
    for _ in range(draw(st.integers(0, 5)) if shape else 0):
        offsets, sizes = boxes.pop(draw(st.integers(0, len(boxes) - 1)))
        d = draw(st.integers(0, len(shape) - 1))
        cut = draw(st.integers(0, sizes[d]))
        boxes.append((offsets, (*sizes[:d], cut, *sizes[d + 1 :])))
        boxes.append(
            ((*offsets[:d], offsets[d] + cut, *offsets[d + 1 :]), (*sizes[:d], sizes[d] - cut, *sizes[d + 1 :]))
        )
    if shape and draw(st.booleans()):
        number, d = draw(st.integers(0, len(boxes) - 1)), draw(st.integers(0, len(shape) - 1))
        first = draw(st.integers(0, shape[d]))
        size = draw(st.integers(0, shape[d] - first))
        offsets, sizes = boxes[number]
        boxes[number] = ((*offsets[:d], first, *offsets[d + 1 :]), (*sizes[:d], size, *sizes[d + 1 :]))
    return shape, draw(st.permutations(boxes))


@given(cut_tensors())
def test_it_agrees_with_counting(case):
    shape, boxes = case
    assert (fault(shape, *boxes) == "") == is_tiled(shape, boxes)


def test_pieces_that_no_straight_cut_separates():
    wheel = [((0, 0), (1, 2)), ((0, 2), (2, 1)), ((2, 1), (1, 2)), ((1, 0), (2, 1)), ((1, 1), (1, 1))]
    assert fault((3, 3), *wheel) == ""
    wheel[-1] = ((0, 0), (1, 1))
    assert fault((3, 3), *wheel) == "has chunks that overlap, and a gap between them"


@pytest.mark.parametrize(
    ("shape", "chunks", "expected"),
    [
        ((4,), [], "has chunks with a gap between them: they hold 0 of its 4 elements"),
        ((), [], "has chunks with a gap between them: they hold 0 of its 1 elements"),
        ((), [((), ()), ((), ())], "has chunks that overlap: they hold 2 elements, it has 1"),
        ((4, 2), [((0, 0), (2, 2))], "has chunks with a gap between them: they hold 4 of its 8 elements"),
        ((4,), [((0,), (3,)), ((2,), (2,))], "has chunks that overlap: they hold 5 elements, it has 4"),
        ((4,), [((0,), (2,)), ((1,), (2,))], "has chunks that overlap, and a gap between them"),
        ((4,), [((3,), (2,))], "has the shape (4,) and a chunk of (2,) at (3,), outside of it"),
        ((0,), [((1,), (0,))], "has the shape (0,) and a chunk of (0,) at (1,), outside of it"),
        ((4,), [((0, 0), (4, 1))], "has 1 dimensions and a chunk of 2"),
        ((4,), [((0,), (4, 1))], "has 1 dimensions and a chunk of 2"),
        ((1 << 62,), [((0,), (1 << 62,)), ((0,), (0,))], ""),
        ((3, 0), [], ""),
        ((), [((), ())], ""),
    ],
)
def test_the_words(shape, chunks, expected):
    assert fault(shape, *chunks) == expected


def test_thousands_of_chunks():
    rows = [((first,), (1,)) for first in reversed(range(50_000))]
    assert fault((50_000,), *rows) == ""
    grid = [((first * 3, second * 5), (3, 5)) for first in range(150) for second in range(150)]
    assert fault((450, 750), *grid) == ""


def test_the_work_is_bounded_for_all_tensors_together(monkeypatch):
    halves = [((0, 0), (1, 1)), ((0, 1), (1, 1)), ((1, 0), (1, 2))]
    monkeypatch.setattr(dcp_tiles, "MAX_CORNERS", 30)
    tiling = Tiling()
    assert [tiling.fault((2, 2), halves) for _ in range(2)] == ["", ""]
    with pytest.raises(TooManyCornersError):
        tiling.fault((2, 2), halves)


def test_sixty_dimensions_do_not_take_forever():
    shape = (2,) * 60
    halves = [((0,) * 60, (1, *shape[1:])), ((1,) + (0,) * 59, (1, *shape[1:]))]
    assert fault(shape, *halves) == ""
    chunks = [((0,) * 60, (1,) * 60)] * (1 << 11)
    with pytest.raises(TooManyCornersError):
        Tiling().fault((2,) * 11 + (1,) * 49, chunks)
