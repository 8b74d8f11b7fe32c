"""Published memory figures and the configurations that could be recovered for them."""

import gzip
from functools import cache
from pathlib import Path

import yaml

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DATA = Path(__file__).parents[1] / "data" / "field_memory.yaml.gz"


@cache
def field_cases():
    """Every published case by its id."""
    cases = yaml.load(gzip.decompress(DATA.read_bytes()), Loader=LOADER)  # noqa: S506 - one of the safe loaders
    return {case["id"]: case for case in cases}
