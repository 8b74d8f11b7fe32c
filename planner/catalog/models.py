"""Models by name: profiles found by any of their names, read one by one, and turned into models for an engine."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from planner.catalog.data import load_data, profiles_folder, read_text
from planner.catalog.directories import profile_text, read_user_profile, replacements, user_profiles
from planner.catalog.merging import merged, unfolded
from planner.catalog.towers import projector_tensors
from planner.errors import SourceError, UsageError
from planner.quantization import tensor_bytes
from planner.quantization.file_types import known_file_type
from planner.recipe import quantized_tensors
from planner.strict import read_record
from planner.tensors import language_tensors
from planner.units import align

if TYPE_CHECKING:
    from collections.abc import Iterable

    from planner.catalog.profile import Profile
    from planner.model import Model, Tensor

Engine = Literal["gguf", "hf"]
DEFAULT_FILE_TYPE = "Q4_K_M"  # what llama.cpp and Ollama fetch unless told otherwise
ALIGNMENT = 32  # of tensors in a GGUF file
_FILE_TYPE = re.compile(
    r"(.+?)(?:-gguf)?[-:._](i?q\d\w*|b?f16|f32)", re.IGNORECASE
)  # a name with its file type behind it


@cache
def load_model(name: str, quantization: str | None = None, engine: Engine = "gguf") -> Model:
    """Return the catalogue's model called ``name``, any case, by name, alias, Hub id or Ollama tag.

    Args:
        name: what the user calls it.
        quantization: for ``gguf`` the file type (None: Q4_K_M, or what the model is published in), for ``hf`` a word
            that is handed on.
        engine: ``gguf`` follows the conventions of GGUF files and lists their tensors with formats (llama.cpp, Ollama);
            ``hf`` those of the published checkpoint, with parameter counts and no tensors.

    Raises:
        UsageError: no such model (the message names the nearest), or no such file type.
        SourceError: the profile is damaged.
    """
    profile, model = find_model(name, engine), _described(name, engine)
    if engine == "hf":
        published = () if profile.stored_as is None else (profile.stored_as,)
        return replace(model, quantization=quantization or profile.stored_as, file_types=published)
    usual = DEFAULT_FILE_TYPE if DEFAULT_FILE_TYPE in profile.quantizations else profile.quantizations[0]
    return _in_file_type(model, known_file_type(quantization or usual))


@cache
def _described(name: str, engine: Engine) -> Model:
    """Return what all file types of a model share: everything but the language model's tensors."""
    from planner.catalog.build import model_of  # noqa: PLC0415 - not needed to find out that a name is unknown

    profile = find_model(name, engine)
    model = model_of(profile)
    said = replacements(user_profiles(), _shipped(), profile.name) if profile.name in user_profiles() else ()
    model = replace(model, notes=(*model.notes, *said))
    return model if engine == "hf" else _with_projector(model)


def with_tensors(model: Model, file_type: str) -> Model:
    """Return ``model`` as a GGUF file of ``file_type`` and an F16 projector file would store it."""
    return _in_file_type(_with_projector(model), file_type)


def _in_file_type(model: Model, file_type: str) -> Model:
    language = model.language
    tensors = quantized_tensors(language, file_type, language_tensors(language))
    return replace(
        model,
        language=replace(language, tensors=tensors),
        quantization=file_type,
        file_bytes=_data_bytes(tensors),
    )


def _with_projector(model: Model) -> Model:
    vision = model.vision
    if vision is None:
        return model
    tensors = projector_tensors(model.name, vision, model.language.n_embd)
    return replace(
        model,
        vision=replace(vision, tensors=tensors),
        projector_file_bytes=_data_bytes(tensors) if tensors else None,
    )


def _data_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of a file's data, each tensor aligned; the header (a few MB with its vocabulary) is not in."""
    return sum(align(tensor_bytes(tensor.format, tensor.shape), ALIGNMENT) for tensor in tensors)


@cache
def find_model(name: str, engine: Engine = "hf") -> Profile:
    """Return the profile called ``name``, any case, by name, alias, Hub id (with or without owner) or Ollama tag.

    Args:
        name: what the user calls it.
        engine: ``gguf`` lays the differences of GGUF files over the profile.

    Raises:
        UsageError: no such model; the message names the nearest.
        SourceError: the profile is damaged.
    """
    wanted = _key(name)
    for stem in _stems():
        if wanted in _text(stem) and wanted in _names(_raw(stem)):
            return _checked(stem, engine)
    import difflib  # noqa: PLC0415 - only errors need it

    known = {alias for stem in _stems() for alias in _names(_raw(stem))}
    near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
    asked = with_file_type(name)
    near = near if asked is None else [asked]
    hint = f"; did you mean {', '.join(near)}?" if near else "; `vlplan profiles` lists them"
    raise UsageError(f"no model called {name!r} in the catalogue{hint}")


def with_file_type(name: str) -> str | None:
    """Return how a model is asked for whose name has its file type behind it; None where the rest is no known name."""
    typed = _FILE_TYPE.fullmatch(name.strip())
    wanted = None if typed is None else _key(typed[1])
    if typed is None or not any(wanted in _names(_raw(stem)) for stem in _stems()):
        return None
    return f"{typed[1]} with --quantization {typed[2].upper()}"


def forget_profiles() -> None:
    """Read profiles anew from now on: the directories have changed."""
    for cached in (load_model, _described, find_model, _checked, _stems, _text):
        cached.cache_clear()


def model_names() -> tuple[str, ...]:
    """Return the names of all profiles, sorted."""
    return tuple(sorted(_stems()))


def list_profiles(engine: Engine = "hf", *, unlisted: bool = False) -> tuple[Profile, ...]:
    """Return all profiles, sorted by name; ``unlisted`` includes other settings of models that are listed already.

    Raises:
        SourceError: one is damaged.
    """
    profiles = (_checked(stem, engine) for stem in model_names())
    return tuple(profile for profile in profiles if profile.listed or unlisted)


@cache
def _checked(stem: str, engine: Engine) -> Profile:
    from planner.catalog.profile import Profile  # noqa: PLC0415 - not needed to find out that a name is unknown

    whole = unfolded(_extended(stem), gguf=engine == "gguf")
    try:
        profile = read_record(Profile, whole)
    except UsageError as error:
        raise SourceError(f"{_place(stem)}: {error}") from error
    if profile.name != stem:
        raise SourceError(f"{_place(stem)}: its name is {profile.name!r}")
    return profile


def _extended(stem: str, depth: int = 0) -> dict[str, Any]:
    """Return a profile's content laid over what it extends; names and aliases are not inherited."""
    raw = _raw(stem)
    base = raw.get("extends")
    if base is None:
        return raw
    if depth > 3 or base not in _stems():
        raise SourceError(f"{_place(stem)}: cannot extend {base!r}")
    below = {
        key: value
        for key, value in _extended(str(base), depth + 1).items()
        if key not in ("aliases", "listed", "notes")
    }
    return merged(below, raw)


def _raw(stem: str) -> dict[str, Any]:
    own = user_profiles().get(stem)
    raw = load_data(f"models/{stem}.yaml") if own is None else read_user_profile(own)
    if not isinstance(raw, dict):
        raise SourceError(f"{_place(stem)}: is no mapping")
    return raw


def _place(stem: str) -> str:
    """Return where the profile lies, for messages."""
    return str(user_profiles().get(stem, f"profiles/models/{stem}.yaml"))


def _names(raw: dict[str, Any]) -> tuple[str, ...]:
    """Return all names of a profile, as they are compared."""
    hf_id = str(raw.get("hf_id") or "")
    aliases = raw.get("aliases") or []
    given = [raw.get("name", ""), *aliases, hf_id, hf_id.rpartition("/")[2]]
    return tuple(_key(str(name)) for name in given if name)


def _key(name: str) -> str:
    """Return a name as names are compared: any case, and blanks and underscores as hyphens."""
    return name.strip().casefold().replace("_", "-").replace(" ", "-")


@cache
def _stems() -> tuple[str, ...]:
    """Return the names of all profiles, users' own before the catalogue's."""
    own = sorted(user_profiles())
    return (*own, *sorted(_shipped() - set(own)))


@cache
def _shipped() -> frozenset[str]:
    folder = profiles_folder() / "models"
    found = folder.iterdir() if folder.is_dir() else ()
    return frozenset(entry.name.removesuffix(".yaml") for entry in found if entry.name.endswith(".yaml"))


@cache
def _text(stem: str) -> str:
    """Return a profile's text for a first look, before anything is parsed."""
    own = user_profiles().get(stem)
    return _key(read_text(f"models/{stem}.yaml") if own is None else profile_text(own))
