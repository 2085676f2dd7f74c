"""Compute some of a table's rows again from their sources, by the reference path, and compare."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import storage
from pipeline.backbones import Backbone
from pipeline.engines import Engine, embed
from pipeline.errors import ImageReject, PipelineError, RejectCode
from pipeline.images import MAX_IMAGE_PIXELS, Limits, Pixels, decode
from pipeline.sources import Fetched, Source
from pipeline.sources.detect import reopened
from pipeline.table import Plan, Table, Unit, embeddings, read_file, ref_columns, unit_refs

_COLUMNS = ("uri", "sha256", "width", "height", "embedding")


@dataclass(slots=True)
class Recomputed:
    """What came of rows that were computed again.

    Args:
        cosines: Cosine similarity of the stored and the new embedding, by URI; with the data file that holds the row.
        wrong: What else is wrong with rows: the data file and a message.
        changed: URIs of images whose bytes are others by now.
        missing: URIs of images that are gone.
        unreadable: URIs of images that can't be read now, and why.
    """

    cosines: dict[str, tuple[float, str]] = field(default_factory=dict)
    wrong: list[tuple[str, str]] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the counts, the worst cosine similarity and the mean as plain JSON values."""
        worst = min(self.cosines, key=lambda uri: self.cosines[uri][0], default=None)
        values = [cosine for cosine, _ in self.cosines.values()]
        return {
            "compared": len(values),
            "changed": len(self.changed),
            "missing": len(self.missing),
            "unreadable": len(self.unreadable),
            "worst_cosine": None if worst is None else self.cosines[worst][0],
            "worst_uri": worst,
            "mean_cosine": float(np.mean(values)) if values else None,
        }


def choose(
    units: Sequence[tuple[Plan, Unit, int]], count: int, seed: int
) -> list[tuple[Plan, Unit, NDArray[np.int64]]]:
    """Choose rows of a table at random, each as likely as any other.

    Args:
        units: Committed units, with how many rows each has.
        count: How many rows.
        seed: Of the choice.

    Returns:
        Units, each with the numbers of the rows that were chosen in it.
    """
    ends = np.cumsum([rows for _, _, rows in units], dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    rows = np.sort(np.random.default_rng(seed).choice(total, min(count, total), replace=False)) if total else ends[:0]
    places = np.searchsorted(ends, rows, side="right")
    chosen = []
    for place in np.unique(places).tolist():
        plan, unit, length = units[place]
        chosen.append((plan, unit, rows[places == place] - (int(ends[place]) - length)))
    return chosen


def recompute(
    table: Table,
    chosen: Sequence[tuple[Plan, Unit, NDArray[np.int64]]],
    backbone: Backbone,
    engine: Engine,
    max_bytes: int,
) -> Recomputed:
    """Read the images of some rows again, embed them, and compare.

    Args:
        table: Where the rows are.
        chosen: The rows, unit by unit.
        backbone: Of the table's contract.
        engine: What executes it.
        max_bytes: Longest image (bytes).

    Raises:
        OSError: The table can't be read now.
    """
    result, sources = Recomputed(), dict[str, Source]()
    for plan, unit, places in chosen:
        where = table.data_uri(unit.name)
        rows = read_file(table, where, _COLUMNS)
        rows = rows.take(pa.array(places[places < len(rows)]))  # another run may have taken some out meanwhile
        expected = {row["uri"]: row for row in rows.drop_columns(["embedding"]).to_pylist()}
        vectors = dict(zip(expected, embeddings(rows["embedding"]), strict=True))
        pixels: dict[str, Pixels] = {}
        left = set(expected)
        try:
            key = json.dumps(plan.opened_with, sort_keys=True)
            if key not in sources:
                sources[key] = reopened(plan.opened_with)
            for image in _images(table, plan, unit, sources[key], left, max_bytes):
                decoded = _decoded(image, expected[image.uri], where, max_bytes, result)
                if decoded is not None:
                    pixels[image.uri] = backbone.preprocessing.pixels(decoded)
                left.discard(image.uri)
            result.missing.extend(sorted(left))
        except (PipelineError, OSError) as error:
            result.unreadable.update(dict.fromkeys(left, storage.explained(error)))
        if pixels:
            again = embed(engine, np.stack(list(pixels.values())))
            for uri, vector in zip(pixels, again, strict=True):
                result.cosines[uri] = _cosine(vectors[uri], vector), where
    return result


def _images(
    table: Table, plan: Plan, unit: Unit, source: Source, wanted: Collection[str], max_bytes: int
) -> Iterator[Fetched]:
    """Yield those of some images of a unit that are still there; a container is read whole."""
    refs = ref_columns(unit_refs(table, unit))
    if not plan.containers:
        refs = refs.filter(pc.is_in(refs["uri"], pa.array(sorted(wanted), pa.string())))
    yield from (image for image in source.read(refs, max_bytes).images() if image.uri in wanted)


def _decoded(image: Fetched, row: Mapping[str, Any], where: str, max_bytes: int, result: Recomputed) -> Pixels | None:
    """Return an image that is as it was; of another one, note what became of it."""
    if isinstance(image.data, ImageReject):
        if image.data.code is RejectCode.MISSING:
            result.missing.append(image.uri)
        else:
            result.unreadable[image.uri] = image.data.message
        return None
    if len(image.data) > max_bytes:
        result.unreadable[image.uri] = f"The file is longer than {max_bytes} bytes (--max-image-bytes)."
        return None
    if hashlib.sha256(image.data).hexdigest() != row["sha256"]:
        result.changed.append(image.uri)
        return None
    # The limits of the run that wrote the row aren't known; these are the bytes that it accepted.
    limits = Limits(max(MAX_IMAGE_PIXELS, row["width"] * row["height"]), max_bytes, allow_tiff=True)
    try:
        decoded = decode(image.data, limits)
    except ImageReject as reject:
        result.wrong.append((where, f"Expected {image.uri} to decode, as it did: {reject.message}"))
        return None
    height, width = decoded.shape[:2]
    if (width, height) != (row["width"], row["height"]):
        got = f"{row['width']} x {row['height']}"
        result.wrong.append((where, f"Expected {width} x {height} pixels as the size of {image.uri}, got {got}."))
    return decoded


def _cosine(stored: NDArray[np.float32], computed: NDArray[np.float32]) -> float:
    """Return the cosine similarity of two embeddings; of two that are zero, 1; -1 where it isn't defined."""
    one, other = stored.astype(np.float64), computed.astype(np.float64)
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    if lengths == 0:
        return float(np.array_equal(one, other))
    cosine = float(one @ other) / lengths
    return cosine if np.isfinite(cosine) else -1.0
