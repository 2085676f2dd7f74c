"""Feeds damaged images to the decoder: ``python -m tests.fuzz_images`` (``make fuzz``).

Each is decoded in a child with the limits of `IsolatedDecoder`, so that a crash, an endless loop or a gulp of memory is
seen and counted. Only pixels and rejects may come out. A case is made again by its seed and number.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.backbones.microsoftvision import MICROSOFTVISION
from pipeline.errors import ImageReject, RejectCode, TransientError
from pipeline.images import Limits
from pipeline.isolation import IsolatedDecoder
from tests.mutations import mutated

#: Of the decoder's own codes, those that no file may cause: they are of the isolation.
_FAILURES = {RejectCode.CRASHED: "crash", RejectCode.TIMED_OUT: "time-out"}
# Rejects that no file may cause unless a formula or a parser of ours is wrong, by words of their messages.
_SUSPICIOUS = {"memory": "bytes of memory", "other size": "its header says"}
_LIMITS = Limits(allow_tiff=True)
_CPU_S, _WALL_S = 20.0, 300.0


@dataclass
class Report:
    """What became of the files.

    Args:
        outcomes: How many, by ``decoded``, a code, or one of what must not be: ``crash``, ``time-out``, ``memory``,
            ``other size``, ``other error``.
        failures: What must not be, by number of the case.
        slowest: Longest time and the number of its case (seconds).
        peak_bytes: Most memory that a child has had resident.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: dict[int, str] = field(default_factory=dict)
    slowest: tuple[float, int] = (0.0, -1)
    peak_bytes: int = 0

    def add(self, other: Report) -> None:
        """Take up another part's report."""
        self.outcomes += other.outcomes
        self.failures.update(other.failures)
        self.slowest = max(self.slowest, other.slowest)
        self.peak_bytes = max(self.peak_bytes, other.peak_bytes)


def fuzz(seed: int, numbers: range, num_processes: int) -> Report:
    """Decode cases, in so many children at once."""
    report = Report()
    with ThreadPoolExecutor(num_processes) as pool:
        parts = [numbers[start::num_processes] for start in range(num_processes)]
        for part in pool.map(lambda part: _fuzz_part(seed, part), parts):
            report.add(part)
    return report


def _fuzz_part(seed: int, numbers: range) -> Report:
    report = Report()
    with IsolatedDecoder(MICROSOFTVISION, _LIMITS, _CPU_S, _WALL_S) as decoder:
        for number in numbers:
            data = mutated(seed, number)
            start = time.perf_counter()
            outcome, failure = _outcome(decoder, data)
            report.slowest = max(report.slowest, (time.perf_counter() - start, number))
            report.outcomes[outcome] += 1
            if failure:
                report.failures[number] = f"{outcome}: {failure}"
            if decoder.pid is not None:
                report.peak_bytes = max(report.peak_bytes, _peak_bytes(decoder.pid))
    return report


def _outcome(decoder: IsolatedDecoder, data: bytes) -> tuple[str, str | None]:
    """Return what became of a file, and what is wrong with that."""
    try:
        pixels, (height, width) = decoder(data)
    except ImageReject as reject:
        if reject.code in _FAILURES:
            return _FAILURES[reject.code], reject.message
        for outcome, words in _SUSPICIOUS.items():
            if words in reject.message:
                return outcome, reject.message
        return reject.code.value, None
    except TransientError as error:
        return "other error", str(error)
    if not (0 < height * width <= _LIMITS.max_pixels and pixels.shape == (224, 224, 3)):
        return "decoded", f"{width} x {height} pixels"
    return "decoded", None


def _peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def main() -> int:
    """Fuzz, print the report, and return whether something must not be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=50_000, help="files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--case", type=int, help="write this case to --output instead")
    parser.add_argument("--output", type=Path, default=Path("case.bin"))
    options = parser.parse_args()
    if options.case is not None:
        options.output.write_bytes(mutated(options.seed, options.case))
        return 0
    start = time.perf_counter()
    report = fuzz(options.seed, range(options.num), options.processes)
    seconds = time.perf_counter() - start
    print(f"{options.num} files, seed {options.seed}, {seconds:.0f} s, {options.num / seconds:.0f} images/s")
    for outcome, count in report.outcomes.most_common():
        print(f"{count:8d}  {outcome}")
    print(f"slowest: case {report.slowest[1]}, {report.slowest[0]:.2f} s")
    print(f"most memory of a child: {report.peak_bytes / 2**20:.0f} MiB")
    for number, failure in sorted(report.failures.items()):
        print(f"FAILED case {number}: {failure}")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
