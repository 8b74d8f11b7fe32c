"""The catalogue: YAML under ``profiles/`` becomes values. Nothing below this package knows YAML."""

from planner.catalog.data import load_data, parse_yaml

__all__ = ["load_data", "parse_yaml"]
