"""Which stage of a run is slow on this machine, what to do about it, and how long the whole source will take."""

from pipeline.doctor.diagnose import diagnose
from pipeline.doctor.options import DoctorOptions

__all__ = ["DoctorOptions", "diagnose"]
