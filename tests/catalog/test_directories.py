"""Profiles of the user's own: found where they are said to be, before the catalogue's, duplicates reported."""

from __future__ import annotations

from datetime import date

import pytest

from planner.catalog import models
from planner.catalog.directories import profile_directories, user_profiles
from planner.catalog.writing import profile_yaml
from planner.errors import SourceError, UsageError
from planner.sources.opening import open_model


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Caches as at the start of a command, and no profiles of this machine's user."""
    monkeypatch.delenv("VLPLAN_PROFILES", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def clear():
        for name in ("load_model", "find_model", "_described", "_checked", "_stems", "_text"):
            getattr(models, name).cache_clear()

    clear()
    yield clear
    monkeypatch.undo()
    clear()


def write(directory, name, like="llama-3.1-8b"):
    """Write a profile of the user's own, made from one of the catalogue."""
    directory.mkdir(parents=True, exist_ok=True)
    text = profile_yaml(models.load_model(like, None, "hf"), checked=date(2026, 11, 20))
    (directory / f"{name}.yaml").write_text(text.replace(f"name: {like}", f"name: {name}"))


def test_places_in_order(tmp_path):
    """Named directories come first, in the order given, then the user's own if it is there."""
    for name in ("a", "b", "config/vlplan/profiles"):
        (tmp_path / name).mkdir(parents=True)
    environment = {"VLPLAN_PROFILES": f"{tmp_path / 'a'}:{tmp_path / 'b'}", "XDG_CONFIG_HOME": str(tmp_path / "config")}
    assert [path.name for path in profile_directories(environment)] == ["a", "b", "profiles"]
    assert profile_directories({"HOME": str(tmp_path)}) == ()
    with pytest.raises(SourceError, match="no such directory"):
        profile_directories({"VLPLAN_PROFILES": str(tmp_path / "missing")})


def test_own_profile_is_a_model(fresh, monkeypatch, tmp_path):
    """A file in the directory is found by its name like any profile of the catalogue, with the same budget."""
    write(tmp_path / "mine", "my-model")
    monkeypatch.setenv("VLPLAN_PROFILES", str(tmp_path / "mine"))
    fresh()
    mine, theirs = open_model("my-model"), open_model("llama-3.1-8b")
    assert mine.language.tensors == theirs.language.tensors
    assert "my-model" in models.model_names()


def test_duplicates_are_reported(fresh, monkeypatch, tmp_path):
    """A profile named as one of the catalogue replaces it, one of a later directory is passed over; both are said."""
    for place in ("one", "two"):
        write(tmp_path / place, "llama-3.1-8b")
    monkeypatch.setenv("VLPLAN_PROFILES", f"{tmp_path / 'one'}:{tmp_path / 'two'}")
    fresh()
    notes = open_model("llama-3.1-8b").notes
    assert any("replaces the catalogue's profile" in note for note in notes)
    assert any("comes before" in note for note in notes)


def test_damaged_profiles_are_one_line(fresh, monkeypatch, tmp_path):
    """A profile that is no YAML, of the wrong form, too large or under another name is named with its fault."""
    place = tmp_path / "mine"
    place.mkdir()
    (place / "broken.yaml").write_text("name: broken\nlanguage: [")
    (place / "wrong.yaml").write_text("name: wrong\nfamily: x\n")
    (place / "bomb.yaml").write_text("name: bomb\na: &a [x]\nb: [*a, *a]\n")
    (place / "large.yaml").write_text("name: large\n#" + "x" * (1 << 20))
    monkeypatch.setenv("VLPLAN_PROFILES", str(place))
    for name in ("broken", "wrong", "bomb", "large"):
        fresh()
        with pytest.raises((SourceError, UsageError)) as caught:
            open_model(name)
        assert "\n" not in str(caught.value)
    assert set(user_profiles()) == {"broken", "wrong", "bomb", "large"}
