"""GGUF files on disk become one ``Model``: a language model and, beside it, its projector."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from planner.errors import SourceError
from planner.model import Model, Parameters
from planner.quantization.file_types import FILE_TYPE_NUMBERS
from planner.sources.gguf.file import read_gguf
from planner.sources.gguf.language import language_from_gguf
from planner.sources.gguf.vision import vision_from_gguf

if TYPE_CHECKING:
    from planner.model import Language, Vision
    from planner.sources.gguf.file import GgufFile


def model_from_gguf(path: str | Path, projector: str | Path | None = None, *, allow_truncated: bool = False) -> Model:
    """Return the model in the GGUF file at ``path`` with the projector file beside it, if one is given.

    Raises:
        SourceError: a file is missing, foreign, truncated or hostile, or the two are the wrong way round.
    """
    language = read_gguf(path, allow_truncated=allow_truncated)
    vision = None if projector is None else read_gguf(projector, allow_truncated=allow_truncated)
    return model_from_files(language, vision)


def model_from_files(file: GgufFile, projector: GgufFile | None = None, name: str | None = None) -> Model:
    """Return the model of an already read language file and projector file.

    Raises:
        SourceError: a file is not what its place asks for.
    """
    if file.architecture == "clip":
        raise SourceError(
            f"{file.name}: is a projector (mmproj); give the language model first and this as its projector"
        )
    language = language_from_gguf(file)
    vision = None if projector is None else vision_from_gguf(projector)
    return Model(
        name=name or _title(file),
        family=language.architecture,
        language=language,
        vision=vision,
        parameters=_parameters(language, vision),
        quantization=_file_type(file),
        source=file.name,
        file_bytes=file.file_bytes,
        projector_file_bytes=None if projector is None else projector.file_bytes,
    )


def _title(file: GgufFile) -> str:
    title = file.metadata.get("general.name")
    return title if isinstance(title, str) and title.strip() else Path(file.name).stem


def _file_type(file: GgufFile) -> str | None:
    number = file.metadata.get("general.file_type")
    return FILE_TYPE_NUMBERS.get(number) if isinstance(number, int) else None


def _parameters(language: Language, vision: Vision | None) -> Parameters:
    """Count what is stored; what turns the tower's output into the language model's width is projector."""
    n_language = sum(tensor.n_elements for tensor in language.tensors)
    stored = vision.tensors if vision else ()
    n_all = sum(tensor.n_elements for tensor in stored)
    n_tower = sum(tensor.n_elements for tensor in stored if _in_tower(tensor.name))
    return Parameters(total=n_language + n_all, language=n_language, vision=n_tower, projector=n_all - n_tower)


def _in_tower(name: str) -> bool:
    return name.startswith(("v.", "a.")) and not name.startswith("v.deepstack.")
