"""Reading and decoding a share of a sample, from every kind of source."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pipeline import failpoints
from pipeline.backbones.pixels import PIXELS_PRESET
from pipeline.doctor.reading import Kept, Readers, decode_share, merged, read_share
from pipeline.doctor.sample import count_images, deal, list_for
from pipeline.errors import ConfigError
from pipeline.images import Limits
from pipeline.sources import Fetched
from pipeline.sources.detect import open_source
from pipeline.sources.options import SourceOptions
from tests import samples
from tests.forms import FORMS
from tests.integration.processes import Surroundings, processes_of, wait_until

LIMITS = Limits()


@pytest.mark.parametrize("form", ["folder", *FORMS])
def test_read_share__every_kind_of_source(form: str, tmp_path: Path) -> None:
    folder = samples.write_folder(tmp_path / "images", per_class=10)
    (tmp_path / "form").mkdir()
    place = str(folder) if form == "folder" else FORMS[form](folder, tmp_path / "form")
    source = open_source(SourceOptions(source=place))
    source.columns()
    listed = list_for(source, 16, 10)
    read = read_share(source, listed.refs, LIMITS, 10)
    lengths = sum(path.stat().st_size for path in folder.rglob("*.jpg"))
    assert (read.pace.images, read.pace.num_bytes) == (40, lengths)
    assert count_images(listed, read.seen, lambda _: None, lambda: None).images == 40
    decoded = decode_share(PIXELS_PRESET, LIMITS, 0.05)
    assert decoded.formats == Counter({"JPEG": 40})
    assert decoded.sizes == ((128, 96),) * 40
    assert (decoded.num_looked_at, decoded.reject_share, decoded.example) == (40, 0, None)
    assert decoded.pace.images >= 1
    assert 0 < decoded.pace.core_s < 1


def test_read_share__of_a_large_container_only_its_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = samples.write_folder(tmp_path / "images", per_class=10)
    (tmp_path / "form").mkdir()
    source = open_source(SourceOptions(source=FORMS["webdataset"](folder, tmp_path / "form")))
    monkeypatch.setattr("pipeline.doctor.reading._OF_A_CONTAINER", 4)
    monkeypatch.setattr("pipeline.doctor.reading._OF_CONTAINERS", 1)
    listed = list_for(source, 16, 10)
    read = read_share(source, listed.refs, LIMITS, 10)
    assert [(seen.images, seen.whole) for seen in read.seen] == [(4, False)] * 4
    found = count_images(listed, read.seen, lambda uri: Path(uri).stat().st_size, lambda: None)
    assert found.how == "extrapolated"
    assert 30 <= found.images <= 50


def test_kept__each_image_is_as_likely_as_any_other() -> None:
    kept = Kept()
    for number in range(2560):
        kept.add(Fetched(str(number), b"x"))
    numbers = [int(image.uri) for image in kept.images]
    assert len(set(numbers)) == 256
    assert 1100 < sum(numbers) / 256 < 1460


def test_kept__no_more_than_memory_allows_but_one() -> None:
    kept, large = Kept(), Fetched("large", bytes(80 * 2**20))
    kept.add(large)
    kept.add(Fetched("small", b"x"))
    assert [image.uri for image in kept.images] == ["large"]
    kept = Kept()
    for number in range(300):
        kept.add(Fetched(str(number), bytes(2**20)))
    assert len(kept.images) == 64


def test_decode_share__counts_rejects_and_names_the_first(tmp_path: Path) -> None:
    for name, (data, _) in samples.bad_images().items():
        samples.write(tmp_path / name, data)
    for i in range(3):
        samples.write(tmp_path / f"good-{i}.jpg", samples.jpeg(i))
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nothing")
    source = open_source(SourceOptions(source=str(tmp_path)))
    read_share(source, list_for(source, 1024, 10).refs, LIMITS, 10)
    decoded = decode_share(PIXELS_PRESET, LIMITS, 0.01)
    expected = Counter(code for _, code in samples.bad_images().values()) + Counter(missing=1)
    assert decoded.rejects == expected
    assert len(decoded.sizes) == 3
    assert decoded.reject_share == pytest.approx(expected.total() / (expected.total() + 3))
    assert decoded.example is not None
    assert decoded.example[0] == str(tmp_path / "bomb.png")
    assert "more than 178956970" in decoded.example[1]
    both = merged([decoded, decoded])
    assert (both.num_looked_at, both.example) == (2 * decoded.num_looked_at, decoded.example)
    assert both.reject_share == decoded.reject_share


def test_decode_share__rejects_only(tmp_path: Path) -> None:
    samples.write(tmp_path / "bad.jpg", b"no image")
    source = open_source(SourceOptions(source=str(tmp_path)))
    read_share(source, list_for(source, 1024, 10).refs, LIMITS, 10)
    decoded = decode_share(PIXELS_PRESET, LIMITS, 10)
    assert (decoded.sizes, decoded.pace.images, decoded.reject_share) == ((), 0, 1)


def test_readers__a_process_that_an_image_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(failpoints.VARIABLE, json.dumps([{"point": "decode", "action": "kill", "match": "killer"}]))
    samples.write(tmp_path / "a.jpg", samples.jpeg(1))
    samples.write(tmp_path / "b.jpg", samples.jpeg(2) + b"killer")
    source = open_source(SourceOptions(source=str(tmp_path)))
    shares = deal(list_for(source, 1024, 10).refs, 2)
    with Readers(2) as readers:
        read = readers.read(source, shares, LIMITS, 0.1)
        assert [one.pace.images for one in read] == [1, 1]
        with pytest.raises(ConfigError, match="A process that read or decoded the sample has died"):
            readers.decode(PIXELS_PRESET, LIMITS, 0.1)


READS_AND_WAITS = """
import sys, time
from pipeline.doctor.reading import Readers
from pipeline.doctor.sample import list_for
from pipeline.images import Limits
from pipeline.sources import FolderSource

source = FolderSource(sys.argv[1])
with Readers(1) as readers:
    readers.read(source, [list_for(source, 1024, 1).refs], Limits(), 1)
    print("ready", flush=True)
    time.sleep(100)
"""


def test_readers__end_even_with_a_process_that_is_killed(surroundings: Surroundings, image_folder: Path) -> None:
    command = [sys.executable, "-c", READS_AND_WAITS, str(image_folder)]
    environment = surroundings.environment()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        readers = [each for each in processes_of(surroundings) if each.pid != process.pid]
        assert readers
        process.kill()
    wait_until(lambda: not processes_of(surroundings), timeout_s=20)
