"""Quantise a backbone's network by a sample of a source, and compare it with the float one."""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline import storage
from pipeline.actor import BackboneSpec
from pipeline.backbones import Backbone
from pipeline.contract import FeatureContract, Quantisation, canonical_json
from pipeline.engines import embed, load_engine
from pipeline.engines.converted import locked
from pipeline.engines.quantise import SETTINGS, quantise, toolkit_versions
from pipeline.errors import ConfigError, WeightsError
from pipeline.images import Limits
from pipeline.int8.options import Int8Options
from pipeline.int8.parity import compare, describe, require_near
from pipeline.int8.sample import Sample, draw_sample
from pipeline.quantised import NetworkFiles, QuantisedNetwork, files_sha256, parse_network
from pipeline.run_options import UNIT_SIZE
from pipeline.sources import Source

logger = logging.getLogger(__name__)

#: Images without which ranges would be guesswork.
_FEWEST_IMAGES = 16


def quantised_by_sample(given: BackboneSpec, source: Source, options: Int8Options) -> QuantisedNetwork:
    """Return a backbone's network quantised by a sample of a source, if it is near enough to the float one.

    It is kept in the cache, under all that it follows from, so that the same source is not calibrated with again for
    another table, nor with other limits.

    Args:
        given: The float backbone.
        source: Where the images are.
        options: How many, and how near.

    Raises:
        ConfigError: NNCF isn't installed, the source has too few images, or the network is too far from the float one.
        WeightsError: The weights can't be had.
        TransientError: The source can't be read now.
        OSError: Likewise.
    """
    versions = toolkit_versions()
    limits = Limits(options.max_image_pixels, options.max_image_bytes, options.allow_tiff)
    count = 2 * options.calibration_images
    sample = draw_sample(source, count, given.preprocessing, limits, options.unit_size or UNIT_SIZE, options.limit)
    if len(sample) < _FEWEST_IMAGES:
        raise ConfigError(
            f"Expected {count} images (two times --calibration-images) to quantise the network by, at least "
            f"{_FEWEST_IMAGES}; {len(sample)} different ones could be had of the source. Leave --precision int8 out."
        )
    settings = {**SETTINGS, "versions": versions, "float": given.contract.digest}
    calibration = hashlib.sha256(canonical_json({**settings, "sample": sample.digest}).encode()).hexdigest()
    cache = Path(options.cache_dir).expanduser()
    path = cache / "networks" / f"{given.contract.backbone}-int8-{calibration[:32]}.safetensors"
    with locked(path):
        network = _kept(path)
        if network is None:
            network = _make(given, sample, calibration, settings)
            _keep(path, network)
    logger.info("%s", describe(network.report))
    require_near(network.report, options.min_int8_cosine, options.max_int8_accuracy_drop)
    return network


def _make(given: BackboneSpec, sample: Sample, calibration: str, settings: dict[str, Any]) -> QuantisedNetwork:
    samples = sample.halves()
    logger.info("Quantising the network by %d images, and comparing it on %d.", *map(len, samples))
    started = time.perf_counter()
    floats = given.backbone()
    files = quantise(floats, samples[0].pixels, given.cache_dir)
    contract = _contract(given.contract, files, calibration)
    ints = Backbone.of_quantised(given.preprocessing, contract, lambda: files)
    of_float, of_int8 = (
        (embed(engine, samples[0].pixels), embed(engine, samples[1].pixels))
        for engine in (load_engine(floats, "openvino", "fp32", cache_dir=given.cache_dir), load_engine(ints))
    )
    report = {
        **compare(of_float, of_int8, samples, given.contract),
        "calibrated_with": len(samples[0]),
        "settings": settings,
        "seconds": round(time.perf_counter() - started, 1),
    }
    return QuantisedNetwork(contract, files, report)


def _contract(floats: FeatureContract, files: NetworkFiles, calibration: str) -> FeatureContract:
    made_of = Quantisation("nncf int8", calibration, floats.weights_sha256, floats.weights)
    return replace(floats, weights_sha256=files_sha256(files), weights="", quantisation=made_of)


def _kept(path: Path) -> QuantisedNetwork | None:
    try:
        return parse_network(path.read_bytes(), str(path)) if storage.kept_sha256(path) else None
    except (OSError, WeightsError) as error:
        logger.warning("%s", storage.explained(error, "The quantised network in the cache can't be read"))
        return None


def _keep(path: Path, network: QuantisedNetwork) -> None:
    try:
        storage.clear_unfinished(path)
        storage.LocalStore().replace(str(path), network.to_bytes())
        storage.note_sha256(path)
    except OSError as error:  # it saves time, and must never be why a run fails
        logger.warning("%s", storage.explained(error, "The quantised network can't be kept in the cache"))
