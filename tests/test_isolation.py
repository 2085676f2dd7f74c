"""Decoding in a child process: the same pixels and rejects, and only the guilty image pays."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.backbones.microsoftvision import FRUITS360_NOTEBOOK, MICROSOFTVISION
from pipeline.errors import ImageReject, RejectCode, TransientError
from pipeline.failpoints import VARIABLE
from pipeline.images import Limits, read_header
from pipeline.isolation import ATTEMPTS, IsolatedDecoder
from pipeline.preprocessing import decode_and_crop
from tests import bombs, samples, tiffs
from tests.integration.processes import ROOT, wait_until

pytestmark = pytest.mark.faults

LIMITS = Limits(allow_tiff=True)
MIB = 2**20


@pytest.fixture
def decoder() -> Iterator[IsolatedDecoder]:
    with IsolatedDecoder(MICROSOFTVISION, LIMITS) as decoder:
        yield decoder


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set failpoints for images that are `guilty`."""

    def set_failpoints(*failures: dict[str, object]) -> None:
        text = json.dumps([{"point": "decode", "match": "guilty", **failure} for failure in failures])
        monkeypatch.setenv(VARIABLE, text)

    return set_failpoints


def guilty() -> bytes:
    data = samples.jpeg(1)
    return data[:2] + b"\xff\xfe" + struct.pack(">H", 8) + b"guilty" + data[2:]


def is_gone(pid: int) -> bool:
    """Return whether a process has ended and left no zombie to its parent."""
    return not Path(f"/proc/{pid}").exists()


def assert_decodes(decoder: IsolatedDecoder, seed: int) -> None:
    pixels, size = decoder(samples.jpeg(seed))
    expected, expected_size = decode_and_crop(MICROSOFTVISION, LIMITS, samples.jpeg(seed))
    np.testing.assert_array_equal(pixels, expected)
    assert size == expected_size == (96, 128)


@pytest.mark.parametrize("preprocessing", [MICROSOFTVISION, FRUITS360_NOTEBOOK])
def test_isolated__gives_the_pixels_and_sizes_of_this_process(preprocessing: object) -> None:
    with IsolatedDecoder(preprocessing, LIMITS) as decoder:
        for data in (*samples.odd_images().values(), *tiffs.tiff_images().values()):
            pixels, size = decoder(data)
            expected, expected_size = decode_and_crop(preprocessing, LIMITS, data)
            np.testing.assert_array_equal(pixels, expected)
            assert (pixels.dtype, size) == (np.uint8, expected_size)


def test_isolated__gives_the_rejects_of_this_process(decoder: IsolatedDecoder) -> None:
    bad = {**samples.bad_images(), **tiffs.bad_tiffs()}
    del bad["scan.tiff"]  # bad only where TIFF isn't allowed
    for data, _ in bad.values():
        with pytest.raises(ImageReject) as here:
            decode_and_crop(MICROSOFTVISION, LIMITS, data)
        with pytest.raises(ImageReject) as there:
            decoder(data)
        expected, got = here.value, there.value
        assert (got.stage, got.code, got.message) == (expected.stage, expected.code, expected.message)


def test_isolated__one_child_serves_all_images(decoder: IsolatedDecoder) -> None:
    assert decoder.pid is None
    assert_decodes(decoder, 2)
    first = decoder.pid
    assert_decodes(decoder, 3)
    assert decoder.pid == first != os.getpid()


@pytest.mark.parametrize(("action", "reason"), [("segv", "SIGSEGV"), ("exit", "exit code 77")])
def test_isolated__an_image_that_ends_the_child_is_tried_twice_and_rejected_alone(
    action: str, reason: str, decoder: IsolatedDecoder, fail: Callable[..., None], tmp_path: Path
) -> None:
    fail({"action": "log", "folder": str(tmp_path)}, {"action": action})
    assert_decodes(decoder, 2)
    before = decoder.pid
    with pytest.raises(ImageReject, match=f"ended a process of its own 2 times: {reason}.* and {reason}") as caught:
        decoder(guilty())
    assert (caught.value.stage, caught.value.code) == ("decode", RejectCode.CRASHED)
    tries = [line.split()[-1] for line in (tmp_path / "log").read_text().splitlines()]
    assert len(set(tries)) == len(tries) == ATTEMPTS
    assert_decodes(decoder, 3)
    assert str(decoder.pid) not in tries
    assert is_gone(before)


def test_isolated__a_child_that_is_killed_from_outside_is_no_fault_of_the_image(
    decoder: IsolatedDecoder, fail: Callable[..., None], tmp_path: Path
) -> None:
    fail({"action": "kill", "times": ATTEMPTS, "folder": str(tmp_path)})
    with pytest.raises(TransientError, match="was ended 2 times: SIGKILL and SIGKILL.*where memory runs out"):
        decoder(guilty())
    assert_decodes(decoder, 3)
    assert decoder(guilty())[1] == (96, 128)


def test_isolated__an_image_that_ends_the_child_once_is_decoded(
    decoder: IsolatedDecoder, fail: Callable[..., None], tmp_path: Path
) -> None:
    fail({"action": "segv", "times": 1, "folder": str(tmp_path)})
    np.testing.assert_array_equal(decoder(guilty())[0], decode_and_crop(MICROSOFTVISION, LIMITS, samples.jpeg(1))[0])


def test_isolated__a_child_that_died_between_images_is_replaced(decoder: IsolatedDecoder) -> None:
    assert_decodes(decoder, 2)
    os.kill(decoder.pid, signal.SIGKILL)
    assert_decodes(decoder, 3)


@pytest.mark.parametrize("where", ["in Python", "in OpenCV"])
def test_isolated__too_much_processor_time_is_a_reject(where: str, fail: Callable[..., None]) -> None:
    fail({"action": "spin", "seconds": 60})
    # OpenCV takes some 30 s for such a GIF, in one call.
    data = guilty() if where == "in Python" else bombs.gif_of_clear_codes(4_000_000, side=2000)
    start = time.monotonic()
    with IsolatedDecoder(MICROSOFTVISION, LIMITS, cpu_s=0.5) as decoder:
        assert_decodes(decoder, 2)
        with pytest.raises(ImageReject, match=r"processor for more than 0\.5 s") as caught:
            decoder(data)
        assert caught.value.code is RejectCode.TIMED_OUT
        assert_decodes(decoder, 3)
    assert time.monotonic() - start < 15


def test_isolated__processor_time_is_counted_image_by_image(fail: Callable[..., None]) -> None:
    fail({"action": "spin", "seconds": 0.3})
    with IsolatedDecoder(MICROSOFTVISION, LIMITS, cpu_s=0.6) as decoder:
        for _ in range(4):
            decoder(guilty())


def test_isolated__time_without_processor_time_may_pass_and_is_no_reject(fail: Callable[..., None]) -> None:
    fail({"action": "sleep", "seconds": 60})
    with IsolatedDecoder(MICROSOFTVISION, LIMITS, cpu_s=0.5, wall_s=1.5) as decoder:
        assert_decodes(decoder, 2)
        before = decoder.pid
        with pytest.raises(TransientError, match=r"no answer for 1\.5 s"):
            decoder(guilty())
        assert is_gone(before)
        assert_decodes(decoder, 3)


def test_isolated__a_stopped_child_is_ended_even_before_it_takes_an_image(fail: Callable[..., None]) -> None:
    with IsolatedDecoder(MICROSOFTVISION, LIMITS, cpu_s=0.5, wall_s=1.5) as decoder:
        assert_decodes(decoder, 2)
        os.kill(decoder.pid, signal.SIGSTOP)
        with pytest.raises(TransientError):
            decoder(samples.jpeg(1) + bytes(10 * MIB))  # more than a pipe holds


def test_isolated__any_other_error_may_pass(decoder: IsolatedDecoder, fail: Callable[..., None]) -> None:
    fail({"action": "fail"})
    with pytest.raises(TransientError, match="OSError"):
        decoder(guilty())
    assert_decodes(decoder, 2)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_isolated__an_image_that_needs_more_memory_than_the_limit_is_too_large(image_format: str) -> None:
    data = samples.encode(np.ascontiguousarray(np.tile(samples.crop(1, 100, 100), (20, 20, 1))), image_format)
    with IsolatedDecoder(MICROSOFTVISION, LIMITS, memory_bytes=6 * MIB) as decoder:
        assert_decodes(decoder, 2)
        with pytest.raises(ImageReject, match=f"more than {6 * MIB} bytes of memory") as caught:
            decoder(data)
        assert caught.value.code is RejectCode.TOO_LARGE
        assert_decodes(decoder, 3)


def _hungry() -> dict[str, bytes]:
    """Return 4 Mpx images of the kinds that need most memory to decode."""
    image = np.ascontiguousarray(np.tile(samples.crop(1, 100, 100), (20, 20, 1)))
    picture = Image.fromarray(image)
    clear = picture.copy()
    clear.putalpha(picture.getchannel(0))
    deep = np.dstack([image, image[:, :, 0]]).astype(np.uint16) * 257
    rows = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep), 1)
    header = bombs.chunk(b"IHDR", struct.pack(">IIBBBBB", 2000, 2000, 16, 6, 0, 0, 0))
    frame = bombs.chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 2000, 2000, 0, 0, 1, 10, 2, 1))
    still, second = bombs.chunk(b"IDAT", rows), bombs.chunk(b"fdAT", bytes(4) + rows)
    start = b"\x89PNG\r\n\x1a\n" + header + bombs.chunk(b"acTL", struct.pack(">II", 2, 0))
    other = picture.rotate(90)
    return {
        "progressive CMYK JPEG on its side": samples.encode(
            picture.convert("CMYK"), "JPEG", progressive=True, exif=samples.exif(6)
        ),
        "animated 16-bit PNG": start + still + frame + second + bombs.chunk(b"IEND", b""),
        "animated lossless WebP": samples.encode(clear, "WEBP", save_all=True, append_images=[other], lossless=True),
        "GIF that restores": samples.encode(
            picture.quantize(256), "GIF", save_all=True, append_images=[other.quantize(256)], disposal=3
        ),
        "BMP": samples.encode(picture, "BMP"),
        "16-bit TIFF": cv2.imencode(".tiff", deep, [cv2.IMWRITE_TIFF_ROWSPERSTRIP, 2000])[1].tobytes(),
    }


def test_isolated__memory_that_lacks_in_the_midst_of_decoding_is_no_damage() -> None:
    images = _hungry()
    del images["BMP"]  # is decoded in place
    for name, data in images.items():  # a child each: the heap keeps what an earlier image has freed
        with IsolatedDecoder(MICROSOFTVISION, LIMITS, memory_bytes=30 * MIB) as decoder:  # the pixels alone fit
            with pytest.raises(ImageReject) as caught:
                decoder(data)
            assert caught.value.code is RejectCode.TOO_LARGE, (name, caught.value.message)
            assert_decodes(decoder, 3)


def test_isolated__the_hungriest_images_of_each_format_have_the_memory_they_need() -> None:
    for name, data in _hungry().items():
        memory = read_header(data, LIMITS).decoding_bytes + 8 * MIB  # not the usual margin, which 4 Mpx hardly pass
        with IsolatedDecoder(MICROSOFTVISION, LIMITS, memory_bytes=memory) as decoder:
            assert decoder(data)[1] == (2000, 2000), name


def test_isolated__closing_leaves_no_process(decoder: IsolatedDecoder) -> None:
    assert_decodes(decoder, 2)
    child = decoder.pid
    assert not is_gone(child)
    decoder.close()
    assert is_gone(child)
    assert decoder.pid is None


@pytest.mark.parametrize("state", ["waiting", "decoding"])
def test_isolated__the_child_ends_with_its_parent(state: str, tmp_path: Path) -> None:
    failures = [{"point": "decode", "match": "guilty", "action": "sleep", "seconds": 60}]
    program = (
        "import sys, time\n"
        "from pipeline.images import Limits\n"
        "from pipeline.isolation import IsolatedDecoder\n"
        "from pipeline.preprocessing import Preprocessing\n"
        "images = [open(path, 'rb').read() for path in sys.argv[1:]]\n"
        f"with IsolatedDecoder({MICROSOFTVISION}, Limits()) as decoder:\n"
        "    decoder(images[0])\n"
        "    print(decoder.pid, flush=True)\n"
        "    decoder(images[1])\n"
        "    time.sleep(60)\n"
    )
    paths = [samples.write(tmp_path / "0.jpg", samples.jpeg(2))]
    paths.append(samples.write(tmp_path / "1.jpg", guilty() if state == "decoding" else samples.jpeg(3)))
    parent = subprocess.Popen(
        [sys.executable, "-c", program, *paths],
        env={**os.environ, VARIABLE: json.dumps(failures), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        child = int(parent.stdout.readline())
        time.sleep(0.5)
        parent.kill()
    # Where nobody takes over orphans, as in some containers, a zombie stays.
    wait_until(lambda: is_gone(child) or ") Z" in Path(f"/proc/{child}/stat").read_text(), timeout_s=5)


def test_isolated__no_child_to_be_had_may_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    with IsolatedDecoder(MICROSOFTVISION, LIMITS) as decoder:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "path", [])
            with pytest.raises(TransientError, match="ended at its start with exit code 1: ModuleNotFoundError"):
                decoder(samples.jpeg(2))
            patch.setattr(sys, "executable", "/nowhere/python")
            with pytest.raises(TransientError, match="can be started"):
                decoder(samples.jpeg(2))
        assert_decodes(decoder, 2)


def test_isolated__the_child_imports_what_decoding_needs_wherever_it_starts(
    decoder: IsolatedDecoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    samples.write(tmp_path / "json.py", b"raise SystemExit('the current folder is no place to import from')")
    monkeypatch.chdir(tmp_path)
    assert_decodes(decoder, 2)
    loaded = Path(f"/proc/{decoder.pid}/maps").read_text()
    assert "cv2" in loaded
    assert not any(f"site-packages/{name}/" in loaded for name in ("ray", "torch", "pyarrow", "openvino"))


@pytest.mark.parametrize(("cpu_s", "wall_s"), [(0, 1), (2, 1)])
def test_isolated__times_must_make_sense(cpu_s: float, wall_s: float) -> None:
    with pytest.raises(ValueError, match="cpu_s < wall_s"):
        IsolatedDecoder(MICROSOFTVISION, LIMITS, cpu_s, wall_s)
