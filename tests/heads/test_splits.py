"""Parts held out: by content, stratified, never straddled."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline.digests import digests_of
from pipeline.heads.splits import held_out

#: Rows of (content, class), with few enough of each that contents repeat, also with other classes.
ROWS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 4)), min_size=1, max_size=60)
FRACTIONS = st.floats(0.01, 0.99)


def taken(
    contents: list[int],
    classes: list[int],
    fraction: float,
    seed: int = 0,
    salt: int = 0,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    digests = digests_of(pa.array([str(content) for content in contents]))
    everything = np.ones(len(contents), bool)
    label = np.asarray(classes, np.int32)
    return held_out(digests, label, everything if mask is None else mask, fraction, seed, salt)


def by_class(rows: list[tuple[int, int]], keep: np.ndarray) -> dict[int, set[int]]:
    found = defaultdict(set)
    for (content, name), kept in zip(rows, keep, strict=True):
        if kept:
            found[name].add(content)
    return found


def test_held_out__is_stratified_and_exact() -> None:
    part = taken(list(range(210)), [0] * 100 + [1] * 10 + [2] * 100, 0.2)
    assert [int(part[of].sum()) for of in (slice(0, 100), slice(100, 110), slice(110, 210))] == [20, 2, 20]
    assert taken(list(range(100)), [0] * 100, 0.07).sum() == 7  # though 0.07 * 100 is above 7


def test_held_out__rounds_up() -> None:
    assert taken(list(range(11)), [0] * 11, 0.2).sum() == 3
    assert taken(list(range(100)), [0] * 100, 0.001).sum() == 1


@given(ROWS, FRACTIONS, st.integers(0, 2**32 - 1))
def test_held_out__identical_images_stay_on_one_side(rows: list[tuple[int, int]], fraction: float, seed: int) -> None:
    contents, classes = map(list, zip(*rows, strict=True))
    part = taken(contents, classes, fraction, seed)
    sides = defaultdict(set)
    for content, side in zip(contents, part, strict=True):
        sides[content].add(bool(side))
    assert all(len(side) == 1 for side in sides.values())


@given(ROWS, FRACTIONS, st.integers(0, 2**32 - 1))
def test_held_out__something_of_each_class_stays(rows: list[tuple[int, int]], fraction: float, seed: int) -> None:
    contents, classes = map(list, zip(*rows, strict=True))
    part = taken(contents, classes, fraction, seed)
    assert set(by_class(rows, ~part)) == set(classes)


@given(ROWS, FRACTIONS, st.randoms(use_true_random=False))
def test_held_out__does_not_depend_on_the_order(rows: list[tuple[int, int]], fraction: float, random: object) -> None:
    contents, classes = map(list, zip(*rows, strict=True))
    order = list(range(len(rows)))
    random.shuffle(order)  # type: ignore[attr-defined]
    again = taken([contents[i] for i in order], [classes[i] for i in order], fraction)
    np.testing.assert_array_equal(again, taken(contents, classes, fraction)[order])


@given(st.lists(st.integers(0, 30), min_size=1), st.lists(st.integers(40, 70)), FRACTIONS)
def test_held_out__does_not_depend_on_other_classes(one: list[int], other: list[int], fraction: float) -> None:
    alone = taken(one, [5] * len(one), fraction)
    for name in (4, 6):
        among = taken([*one, *other], [5] * len(one) + [name] * len(other), fraction)
        np.testing.assert_array_equal(among[: len(one)], alone)


def test_held_out__takes_of_the_mask_only() -> None:
    contents, classes = list(range(100)), [0] * 50 + [1] * 50
    mask = np.arange(100) % 2 == 0
    part = taken(contents, classes, 0.4, mask=mask)
    assert part.sum() == 20
    assert not part[~mask].any()
    half = [i for i in contents if i % 2 == 0]
    np.testing.assert_array_equal(part[mask], taken(half, [classes[i] for i in half], 0.4))
    assert not taken(contents, classes, 0.4, mask=np.zeros(100, bool)).any()


def test_held_out__other_seeds_and_salts_take_others_independently() -> None:
    contents, classes = list(range(4000)), [0] * 4000
    parts = [taken(contents, classes, 0.5, seed, salt) for seed, salt in ((0, 0), (1, 0), (0, 1), (2**32 - 1, 1))]
    for i in range(len(parts)):
        for j in range(i):
            # Of independent halves a quarter is common: 1000, give or take 16.
            assert abs((parts[i] & parts[j]).sum() - 1000) < 80
