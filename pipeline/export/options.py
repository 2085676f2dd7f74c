"""What an export can be asked for."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from pipeline.options import Options
from pipeline.storage import default_cache_dir

ProgramFormat = Literal["onnx", "torch-export"]
#: What the files of each format are called.
SUFFIXES: dict[ProgramFormat, str] = {"onnx": ".onnx", "torch-export": ".pt2"}


class ExportOptions(Options):
    """Write a backbone and a head as one program, from pixels to probabilities, once it agrees with the pipeline."""

    head: str = Field(description="Folder of the head.")
    output: str = Field(
        description="File of the program (.onnx, .pt2), or a folder for it, where it is called classifier; a "
        "description is written beside it, under its name and .json. Local, s3://, gs:// or az://."
    )
    format: ProgramFormat | None = Field(
        None,
        description="onnx (needs the packages of the extra onnx here), or torch-export, a program of torch.export; "
        "unset: by the name of --output, onnx for a folder.",
    )
    weights: str | None = Field(
        None, description="Weights of the backbone; unset: those that the head's contract names."
    )
    verify: str | None = Field(
        None,
        description="Source of the images to compare on, as for jobs.embed; unset: pieces of the two photographs that "
        "scikit-learn brings along.",
    )
    verify_images: int = Field(32, ge=1, le=4096, description="How many images to compare on, at most.")
    tolerance: float = Field(
        1e-3, ge=0, le=1, description="Largest difference of a probability; above it nothing is written."
    )
    storage_options: dict[str, Any] = Field(
        {}, description="Of the file system of --verify (fsspec), as JSON; no credentials."
    )
    table_storage_options: dict[str, Any] = Field(
        {}, description="Of the head's and the output's file system (fsspec), as JSON; no credentials."
    )
    cache_dir: str = Field(
        default_cache_dir(), description="Folder where fetched weights and converted networks are kept."
    )
    verbose: bool = Field(False, description="Show the traceback of a failure.")
