"""The catalogue: YAML under ``profiles/`` becomes values. Nothing below this package knows YAML."""

from planner.catalog.data import load_data, parse_yaml
from planner.catalog.models import find_model, list_profiles, load_model, model_names

__all__ = ["find_model", "list_profiles", "load_data", "load_model", "model_names", "parse_yaml"]
