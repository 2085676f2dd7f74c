"""The export job: a backbone and a head into one file, compared with the pipeline before it gets its name."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

from pipeline import storage
from pipeline.errors import ConfigError
from pipeline.export.options import SUFFIXES, ExportOptions, ProgramFormat
from pipeline.heads import load_head

logger = logging.getLogger(__name__)


def export(options: ExportOptions) -> dict[str, Any]:
    """Write backbone and head as one program, and its description.

    Returns:
        The record: where they are, and how near the program is to the pipeline.

    Raises:
        ConfigError: It can't be exported so, or the program gives something else than the pipeline; nothing is written.
        ContractMismatch: The weights give other features than the head was trained on.
        WeightsError: They can't be had.
    """
    started = time.perf_counter()
    uri, program_format = _place(options)
    head = load_head(options.head, options.table_storage_options)
    if head.contract.quantisation is not None:
        raise ConfigError(
            f"The head was trained on features of a network in int8 ({head.contract.describe()}), which OpenVINO alone "
            "executes, so it can't be exported. Train a head on a table of the float network, and export that."
        )
    # They import PyTorch and Ray, which take seconds: not before it is known what to do.
    from pipeline.export.description import describe_program
    from pipeline.export.formats import open_program, require_writer, write_program
    from pipeline.export.parity import compare, describe, require_parity
    from pipeline.export.program import Program
    from pipeline.targets import backbone_of

    require_writer(program_format)
    advice = "Give the weights that it was trained with as --weights."
    backbone = backbone_of(head.contract, options.weights, options.cache_dir, f"Head {options.head}", advice).backbone()
    if head.contract.random_weights:
        logger.warning(
            "RANDOM WEIGHTS (%s): the backbone is not trained. Good for a trial; use trained weights for real work.",
            head.contract.origin,
        )
    side = backbone.preprocessing.crop
    images, pixels = _images(options, backbone.preprocessing)
    with tempfile.TemporaryDirectory(prefix="vep-") as folder:
        path = Path(folder) / f"program{SUFFIXES[program_format]}"
        write_program(Program(backbone, head), side, path, program_format)
        run, executed_by = open_program(path, program_format)
        verified = {
            **compare(run, backbone, head, pixels, options.cache_dir),
            "source": images,
            "executed_by": executed_by,
            "tolerance": options.tolerance,
        }
        logger.info("%s", describe(verified))
        require_parity(verified, options.tolerance)
        data = path.read_bytes()
    file = {"name": storage.base_name(uri), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    description = describe_program(head, backbone.preprocessing, program_format, file, verified)
    _write(uri, data, description, options)
    return {
        "job": "export",
        "status": "done",
        "head": storage.absolute(options.head),
        "head_sha256": head.sha256,
        "program": uri,
        "description": f"{uri}.json",
        "format": program_format,
        "bytes": len(data),
        "classes": list(head.classes),
        "contract": head.contract.to_json(),
        "verified": verified,
        "seconds": round(time.perf_counter() - started, 3),
    }


def _place(options: ExportOptions) -> tuple[str, ProgramFormat]:
    """Return the program's URI and format.

    Raises:
        ConfigError: The format is not that of the file's name, or the place is none for a file.
    """
    uri = storage.absolute(options.output).rstrip("/")
    by_name = next((name for name, suffix in SUFFIXES.items() if uri.endswith(suffix)), None)
    if by_name is None:
        storage.require_folder(uri, "--output")
        chosen = options.format or "onnx"
        return f"{uri}/classifier{SUFFIXES[chosen]}", chosen
    if options.format not in (None, by_name):
        raise ConfigError(
            f"Expected --output with the suffix {SUFFIXES[options.format]} or a folder for --format {options.format}, "
            f"got {storage.redact(uri)}."
        )
    storage.require_folder(uri.rpartition("/")[0], "--output")
    return uri, by_name


def _images(options: ExportOptions, preprocessing: Any) -> tuple[str, Any]:
    """Return where the images to compare on come from, and their pixels: uint8 of shape (N, H, W, 3), BGR.

    Raises:
        ConfigError: The source has no image that can be decoded.
    """
    from pipeline.export.parity import built_in_pixels
    from pipeline.images import Limits
    from pipeline.int8.sample import draw_sample
    from pipeline.run_options import UNIT_SIZE
    from pipeline.sources.detect import open_source
    from pipeline.sources.options import SourceOptions

    if options.verify is None:
        return "pieces of scikit-learn's photographs", built_in_pixels(preprocessing, options.verify_images)
    source = open_source(SourceOptions(source=options.verify, storage_options=options.storage_options))
    sample = draw_sample(source, options.verify_images, preprocessing, Limits(), UNIT_SIZE, None)
    if not len(sample):
        raise ConfigError(f"Expected images in {source.identity} (--verify), found none that can be decoded.")
    return source.identity, sample.pixels


def _write(uri: str, data: bytes, description: dict[str, Any], options: ExportOptions) -> None:
    """Write the program, then its description, which names it by its SHA-256."""
    store = storage.store_for(uri, options.table_storage_options)
    store.replace(uri, data)
    store.replace(f"{uri}.json", (json.dumps(description, indent=2) + "\n").encode())
