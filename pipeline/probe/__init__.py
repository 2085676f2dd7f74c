"""Linear probes of several backbones on several datasets, in one table."""

from pipeline.probe.options import ProbeOptions
from pipeline.probe.run import probe
from pipeline.probe.suite import Suite, builtin_suites, load_suite

__all__ = ["ProbeOptions", "Suite", "builtin_suites", "load_suite", "probe"]
