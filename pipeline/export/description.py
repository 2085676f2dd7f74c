"""What is said of a program in the JSON file beside it: all that one needs to use it without this project."""

from __future__ import annotations

from typing import Any

from pipeline import __version__
from pipeline.export.formats import INPUT, OUTPUTS
from pipeline.export.options import ProgramFormat
from pipeline.heads import Head
from pipeline.preprocessing import Preprocessing
from pipeline.table.manifest import versions

DESCRIPTION_VERSION = 1

_RESIZE = {
    "exact": "both sides to `size`, the aspect not kept",
    "short_side": "the short side to `size`, the long one to size * long // short",
}
_INTERPOLATION = {
    "opencv-bilinear": "cv2.resize(image, …, interpolation=cv2.INTER_LINEAR)",
    "pillow-bilinear": "PIL.Image.Image.resize(…, PIL.Image.Resampling.BILINEAR), on the pixels that OpenCV decoded",
}


def describe_program(
    head: Head,
    preprocessing: Preprocessing,
    program_format: ProgramFormat,
    file: dict[str, Any],
    verified: dict[str, Any],
) -> dict[str, Any]:
    """Return the description.

    Args:
        head: What classifies.
        preprocessing: What turns an image into the backbone's input.
        program_format: How the program is stored.
        file: Name, length and SHA-256 of the program's file.
        verified: How it was compared with the pipeline, and what came of it.

    Returns:
        Plain JSON values.
    """
    side = preprocessing.crop
    contract = head.contract
    return {
        "description_version": DESCRIPTION_VERSION,
        "format": program_format,
        "file": file,
        "classes": list(head.classes),
        "input": {
            "name": INPUT,
            "dtype": "uint8",
            "shape": ["B", side, side, 3],
            "layout": "NHWC",
            "colour_order": preprocessing.channel_order,
        },
        "outputs": [
            {"name": OUTPUTS[0], "dtype": "float32", "shape": ["B", len(head.classes)], "order": "classes"},
            {"name": OUTPUTS[1], "dtype": "float32", "shape": ["B", contract.embedding_dim]},
        ],
        "preprocessing": {
            "name": preprocessing.name,
            "before": {
                "decode": "cv2.imread(path, cv2.IMREAD_COLOR): 8 bits, BGR, EXIF orientation applied, alpha dropped",
                "resize": preprocessing.resize,
                "resize_means": _RESIZE[preprocessing.resize],
                "size": preprocessing.size,
                "interpolation": preprocessing.interpolation,
                "interpolation_means": _INTERPOLATION[preprocessing.interpolation],
                "crop": side,
                "crop_means": "a square from the centre: top = round((height - crop) / 2), left likewise",
            },
            "inside": {
                "formula": "(pixels / 255 - mean) / std",
                "mean": list(preprocessing.mean),
                "std": list(preprocessing.std),
                "order_of_channels": preprocessing.channel_order,
            },
        },
        "head": {"kind": head.kind, "sha256": head.sha256, "temperature": head.temperature},
        "contract": contract.to_json(),
        "random_weights": contract.random_weights,
        "verified": verified,
        "versions": versions(),
        "created_by": f"vision-embedding-pipeline {__version__}",
    }
