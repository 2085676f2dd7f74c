"""Options of ``--precision int8``."""

from __future__ import annotations

from pydantic import Field, model_validator

from pipeline.options import flags
from pipeline.run_options import RunOptions

_OF_INT8 = ("calibration_images", "min_int8_cosine", "max_int8_accuracy_drop")


class Int8Options(RunOptions):
    """Options of a run that may quantise its network first."""

    calibration_images: int = Field(
        300,
        ge=8,
        le=5000,
        description="With --precision int8: images of the source by which a new table's network is quantised; as many "
        "others compare it with the float network.",
    )
    min_int8_cosine: float = Field(
        0.9,
        ge=-1,
        le=1,
        description="With --precision int8: least mean cosine similarity of the centred features of both networks.",
    )
    max_int8_accuracy_drop: float = Field(
        2.0,
        ge=0,
        le=100,
        description="With --precision int8: most that a head on the quantised network's features may lose, where the "
        "images have labels (percentage points of top-1 accuracy).",
    )

    @model_validator(mode="after")
    def _with_int8(self) -> Int8Options:
        given = [name for name in _OF_INT8 if name in self.model_fields_set]
        if given and self.precision != "int8":
            raise ValueError(f"{flags(given)} can be used with --precision int8 only")
        return self
