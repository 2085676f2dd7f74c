"""The jobs: `python -m jobs.NAME --help`."""
