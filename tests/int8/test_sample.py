"""The sample that a network is calibrated with: the same one every time, of readable images only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.backbones import find_preset
from pipeline.images import Limits, decode
from pipeline.int8.sample import Sample, draw_sample
from pipeline.refs import REF_SCHEMA, SOURCE_NAMES
from pipeline.sources import Fetched
from pipeline.sources.detect import open_source
from pipeline.sources.options import SourceOptions
from tests import samples
from tests.forms import FORMS

PRESET = find_preset("pixels", None)
IMAGES = {f"/i/{name}.png": samples.encode(samples.crop(name, 40, 40), "PNG") for name in range(20)}


class Images:
    """A source in memory: single images, or containers of some each."""

    identity = "images"

    def __init__(self, uris: Sequence[str], of_each: int | None = None) -> None:
        self._uris, self._of_each, self.containers = uris, of_each, of_each is not None
        self.read_so_far: list[str] = []
        self.skipped: Counter[str] = Counter()

    def columns(self) -> pa.Schema:
        return pa.schema([])

    def refs(self, unit_size: int) -> Iterator[pa.Table]:
        step = self._of_each or 1
        names = self._uris if step == 1 else [f"/box{start}" for start in range(0, len(self._uris), step)]
        for start in range(0, len(names), 3):
            self.listed = start
            rows = [
                {"uri": uri, "version": "1", "num_images": 1, "label": None if self.containers else uri[-5:]}
                for uri in names[start : start + 3]
            ]
            yield pa.Table.from_pylist(rows, REF_SCHEMA)

    def read(self, refs: pa.Table, max_bytes: int) -> Images:
        uris = refs["uri"].to_pylist()
        if self._of_each is not None:
            start = int(uris[0].removeprefix("/box"))
            uris = list(self._uris[start : start + self._of_each])
        self._now = uris
        return self

    def images(self) -> Iterator[Fetched]:
        for uri in self._now:
            self.read_so_far.append(uri)
            yield Fetched(uri, IMAGES.get(uri, b"no image"))

    def rows(self) -> pa.Table:
        values = [{"uri": uri, "label": uri[-5:], "split": None} for uri in self._now]
        return pa.Table.from_pylist(values, REF_SCHEMA).select(list(SOURCE_NAMES))


def draw(uris: Sequence[str], count: int) -> Sample:
    return draw_sample(Images(uris), count, PRESET, Limits(), 1024, None)


def test_draw_sample__is_the_same_whatever_the_order_of_the_listing() -> None:
    one, other = draw(list(IMAGES), 6), draw(list(IMAGES)[::-1], 6)
    assert len(one) == 6
    assert one.digest == other.digest
    np.testing.assert_array_equal(one.pixels, other.pixels)
    assert len({uri for uri in IMAGES if uri[-5:] in one.labels} & set(list(IMAGES)[:6])) < 6, "it isn't the first ones"


def test_draw_sample__holds_pixels_and_labels_of_the_images() -> None:
    (uri,) = list(IMAGES)[3:4]
    sample = draw([uri], 5)
    np.testing.assert_array_equal(sample.pixels[0], PRESET.pixels(decode(IMAGES[uri])))
    assert sample.labels == (uri[-5:],)


def test_draw_sample__leaves_out_rejects_and_counts_the_same_bytes_once() -> None:
    twice = {**IMAGES, "/i/again.png": IMAGES["/i/0.png"], "/i/bad.png": b"no image"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(IMAGES, "/i/again.png", twice["/i/again.png"])
        assert len(draw(list(twice), 100)) == 20


def test_draw_sample__keeps_to_the_limit() -> None:
    source = Images(list(IMAGES))
    sample = draw_sample(source, 10, PRESET, Limits(), 1024, 4)
    assert set(sample.labels) == {uri[-5:] for uri in list(IMAGES)[:4]}
    assert source.listed == 3, "the rest isn't listed"


def test_draw_sample__takes_the_first_images_of_each_container() -> None:
    source = Images(list(IMAGES), of_each=5)
    sample = draw_sample(source, 8, PRESET, Limits(), 1024, None)
    assert len(sample) == 8
    uris = list(IMAGES)
    assert source.read_so_far == [uri for start in (0, 5, 10, 15) for uri in uris[start : start + 2]]
    assert set(sample.labels) == {uri[-5:] for uri in source.read_so_far}


def test_draw_sample__goes_by_labels_too() -> None:
    sample = draw(list(IMAGES), 6)
    assert sample.digest != Sample(sample.pixels, sample.sha256, ("x", *sample.labels[1:])).digest


def test_halves__have_no_image_in_common() -> None:
    one, other = draw(list(IMAGES), 7).halves()
    assert (len(one), len(other)) == (3, 4)
    assert not set(one.sha256) & set(other.sha256)


@pytest.mark.parametrize("form", sorted(FORMS))
def test_draw_sample__of_every_form_of_source(form: str, image_folder: Path, tmp_path: Path) -> None:
    source = open_source(SourceOptions(source=str(FORMS[form](image_folder, tmp_path))))
    sample = draw_sample(source, 7, PRESET, Limits(), 5, None)
    assert len(sample) in (6, 7), "the last container may have fewer than its share"
    assert set(sample.labels) - {None} <= {"flower", "palace"}
    assert sample.labels.count(None) <= 1, "what follows an image in a tar isn't read"
