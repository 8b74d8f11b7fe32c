"""Published memory figures and the configurations that could be recovered for them."""

import gzip
from pathlib import Path

import yaml

DATA = Path(__file__).parents[1] / "data" / "field_memory.yaml.gz"


def field_cases():
    """Every published case by its id."""
    return {case["id"]: case for case in yaml.safe_load(gzip.decompress(DATA.read_bytes()))}
