"""The map of digests: finds what was added, and nothing else."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline.digests import DigestMap, digests_of, digests_of_hex, first_of_each

# Few different halves, so that different digests share one.
DIGEST = st.tuples(st.integers(0, 3), st.integers(0, 3))


def array(digests: list[tuple[int, int]]) -> np.ndarray:
    return np.asarray(digests, np.uint64).reshape(-1, 2)


@given(batches=st.lists(st.lists(DIGEST, max_size=6), max_size=6), asked=st.lists(DIGEST, max_size=8))
def test_digest_map__is_a_dictionary(batches: list[list[tuple[int, int]]], asked: list[tuple[int, int]]) -> None:
    expected: dict[tuple[int, int], int] = {}
    found = DigestMap()
    for batch in batches:
        new = [digest for digest in dict.fromkeys(batch) if digest not in expected]
        numbers = range(len(expected), len(expected) + len(new))
        expected.update(zip(new, numbers, strict=True))
        found.add(array(new), np.asarray(numbers, np.int64))
    assert found.find(array(asked)).tolist() == [expected.get(digest, -1) for digest in asked]
    assert len(found) == len(expected)


@given(st.lists(DIGEST, max_size=20))
def test_first_of_each__keeps_the_first_in_order(digests: list[tuple[int, int]]) -> None:
    firsts = [i for i, digest in enumerate(digests) if digest not in digests[:i]]
    assert first_of_each(array(digests)).tolist() == firsts


def test_digests_of__one_a_value() -> None:
    digests = digests_of(pa.array(["a", "b", "a", "ü", ""]))
    assert digests.shape == (5, 2)
    assert (digests[0] == digests[2]).all()
    assert len(first_of_each(digests)) == 4
    assert digests_of(pa.array([], pa.string())).shape == (0, 2)
    assert digests_of_hex(["00" * 32, "ff" * 32]).tolist() == [[0, 0], [2**64 - 1] * 2]
