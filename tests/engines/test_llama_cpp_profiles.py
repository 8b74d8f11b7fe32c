"""What is read from a file of any architecture in the tables can be said by a profile, and loads back from it."""

from collections import defaultdict
from dataclasses import replace
from datetime import date

import pytest
from llamacpp_rows import fresh_cases

from planner.catalog.build import model_of
from planner.catalog.foreign import parse_foreign_yaml
from planner.catalog.merging import unfolded
from planner.catalog.profile import Profile
from planner.catalog.writing import profile_yaml
from planner.model import Model
from planner.strict import read_record
from planner.tensors import language_tensors

LANGUAGES = defaultdict(dict)
for _case in fresh_cases():
    LANGUAGES[_case.language.architecture][id(_case.language)] = _case.language


def trimmed(shape):
    """Return a shape without ones at its end."""
    return trimmed(shape[:-1]) if len(shape) > 1 and shape[-1] == 1 else shape


@pytest.mark.parametrize("architecture", sorted(LANGUAGES))
def test_a_random_model_loads_back_from_its_profile(architecture):
    """Layers and facts are the same, and so are the names and shapes of all tensors."""
    for language in LANGUAGES[architecture].values():
        model = Model(name="x", family=architecture, language=language, source="a file")
        text = profile_yaml(model, checked=date(2026, 1, 1), source="a file")
        back = model_of(read_record(Profile, unfolded(parse_foreign_yaml(text, "p.yaml"), gguf=True))).language
        assert replace(back, tensors=()) == replace(language, tensors=())
        found = {name: trimmed(shape) for name, shape in language_tensors(back)}
        assert found == {tensor.name: trimmed(tensor.shape) for tensor in language.tensors}
