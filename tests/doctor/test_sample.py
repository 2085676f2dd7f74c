"""List for a bounded time, spread a sample, and say how many images there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline import storage
from pipeline.doctor.sample import Count, Listed, Seen, count_images, deal, list_for, share_of_folders, spread
from pipeline.refs import REF_SCHEMA
from pipeline.sources import FolderSource, Reading
from tests import samples


def refs(*num_images: int | None) -> pa.Table:
    rows = [{"uri": f"f{i}", "version": "1", "num_images": each} for i, each in enumerate(num_images)]
    return pa.Table.from_pylist(rows, schema=REF_SCHEMA)


class Endless:
    """A source without an end."""

    identity, containers = "endless", False
    ended = False

    def __init__(self) -> None:
        self.skipped: Counter[str] = Counter()

    def columns(self) -> pa.Schema:
        return pa.schema([])

    def refs(self, unit_size: int) -> Iterator[pa.Table]:
        try:
            for _ in count():
                yield refs(1, 1)
        finally:
            self.ended = True

    def read(self, refs: pa.Table, max_bytes: int) -> Reading:
        raise NotImplementedError


def test_list_for__stops_when_the_time_is_up_and_ends_the_listing() -> None:
    source = Endless()
    listed = list_for(source, 1024, 0.05)
    assert not listed.complete
    assert source.ended
    assert len(listed.refs) >= 4
    assert 0.05 < listed.seconds < 5
    assert listed.refs_per_s == pytest.approx(len(listed.refs) / listed.seconds)


def test_list_for__to_the_end_is_complete_even_if_late(image_folder: Path) -> None:
    listed = list_for(FolderSource(str(image_folder)), 1024, 1e-9)
    assert (listed.complete, len(listed.refs)) == (True, 12)


def test_spread__from_the_first_to_the_last_in_an_order_of_chance() -> None:
    found = spread(refs(*[1] * 1001), 11)["uri"].to_pylist()
    assert sorted(found) == sorted(f"f{100 * i}" for i in range(11))
    assert found != sorted(found, key=lambda uri: int(uri[1:]))
    assert found == spread(refs(*[1] * 1001), 11)["uri"].to_pylist()
    assert sorted(spread(refs(1, 1), 11)["uri"].to_pylist()) == ["f0", "f1"]


def test_deal__each_ref_to_one_worker() -> None:
    shares = [share["uri"].to_pylist() for share in deal(refs(*[1] * 5), 3)]
    assert shares == [["f0", "f3"], ["f1", "f4"], ["f2"]]
    assert len(deal(refs(1), 3)) == 1


def no_size(uri: str) -> int | None:
    raise AssertionError("nobody needs that")


@pytest.mark.parametrize(
    ("complete", "share", "expected"),
    [
        (True, None, Count(30, 30, "listed")),
        (False, 0.1, Count(300, 30, "extrapolated")),
        (False, None, Count(30, 30, "least")),
    ],
)
def test_count_images__of_refs_that_say_it(complete: bool, share: float | None, expected: Count) -> None:
    listed = Listed(refs(10, 20), 1.0, complete)
    assert count_images(listed, [], no_size, lambda: share) == expected


def test_count_images__of_containers_that_were_read_to_their_ends() -> None:
    seen = [Seen("f0", 3, 300, whole=True), Seen("f1", 5, 500, whole=True)]
    assert count_images(Listed(refs(None, None), 1.0, True), seen, no_size, lambda: None) == Count(8, 8, "listed")
    some = count_images(Listed(refs(None, None, None), 1.0, True), seen, no_size, lambda: None)
    assert some == Count(12, 12, "extrapolated")


def test_count_images__of_a_container_by_its_length() -> None:
    seen = [Seen("f0", 10, 10 * 100_000, whole=False)]
    found = count_images(Listed(refs(None), 1.0, True), seen, lambda _: 102_048 * 1000, lambda: None)
    assert found == Count(1000, 1000, "extrapolated")


def test_share_of_folders__by_the_places_of_the_folders_among_their_siblings(tmp_path: Path) -> None:
    for split in ("a", "b"):
        for label in range(4):
            samples.write(tmp_path / split / str(label) / "x.jpg", b"")
    share = storage.LocalStore(), str(tmp_path)
    assert share_of_folders(*share, f"{tmp_path}/b/1/x.jpg") == pytest.approx(0.5 + 1.5 / 8)
    assert share_of_folders(*share, f"{tmp_path}/a/0/x.jpg") == pytest.approx(0.5 / 8)
    assert share_of_folders(*share, f"{tmp_path}/x.jpg") is None
