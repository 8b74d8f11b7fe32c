"""A folder of Hugging Face files, on disk or on the hub, becomes one ``Model``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.errors import SourceError
from planner.model import Model
from planner.sources.hf.documents import read_config, read_documents
from planner.sources.hf.language import language_from_config, language_from_standard_keys
from planner.sources.hf.vision import unknown_vision, vision_from_config
from planner.sources.hf.weights import count_parameters, part_of, read_checkpoint, scheme_of, stored_weights
from planner.sources.hf.words import words

if TYPE_CHECKING:
    from planner.model import Language, Parameters, Vision
    from planner.sources.hf.documents import Documents, Folder
    from planner.sources.hf.weights import Scheme
    from planner.sources.hf.words import ModelWords
    from planner.sources.json_text import Fields
    from planner.sources.safetensors import Checkpoint

_TEXT_KEYS = ("text_config", "llm_config", "language_config")
_VISION_KEYS = ("vision_config", "vision_tower_config", "visual")
_DTYPES = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}


def model_from_folder(folder: Folder, *, hf_id: str | None = None) -> Model:
    """Return the model in ``folder``.

    Weights are exact where safetensors files are there; layers come from the configuration by the meaning that
    ``profiles/sources/hf.yaml`` gives its keys, or by the standard keys with a note that says so.

    Raises:
        SourceError: no configuration, or a file that is damaged, hostile or contradicts another.
    """
    config = read_config(folder)
    if config is None:
        raise SourceError(f"{folder.name}: has neither config.json nor a .gguf file; a model folder has one of them")
    model_type = config.text("model_type") or "unnamed"
    found = _words_for(config, model_type)
    documents = _documents(folder, config, found)
    language = _language(documents, found, model_type)
    checkpoint = read_checkpoint(folder)
    scheme = scheme_of(config, documents.text)
    return Model(
        name=_name(folder, hf_id),
        family=found.family if found else model_type,
        language=language,
        vision=_vision(documents, found, checkpoint),
        parameters=_parameters(checkpoint, scheme),
        architecture_class=_class(config),
        hf_id=hf_id,
        quantization=scheme.word or _dtype(config, documents.text),
        source=folder.name,
        file_bytes=checkpoint.file_bytes if checkpoint else None,
        stored=stored_weights(checkpoint.tensors, scheme) if checkpoint else None,
        notes=_notes(language, checkpoint),
    )


def _words_for(config: Fields, model_type: str) -> ModelWords | None:
    """Return the data of the model's type; where several families share one, that whose ``when`` fits."""
    for candidate in words().models.get(model_type, []):
        if all(_at(config, path) in allowed for path, allowed in candidate.when.items()):
            return candidate
    return None


def _at(config: Fields, path: str) -> object:
    value: object = config.values
    for key in path.split("."):
        if isinstance(value, list):
            value = value[0] if value and key == "0" else None
        else:
            value = value.get(key) if isinstance(value, dict) else None
    return value


def _documents(folder: Folder, config: Fields, found: ModelWords | None) -> Documents:
    text_key = found.text if found else next((key for key in _TEXT_KEYS if isinstance(config.first(key), dict)), None)
    vision_key = found.vision_at if found else next((k for k in _VISION_KEYS if isinstance(config.first(k), dict)), "")
    return read_documents(folder, config, text_key, vision_key)


def _language(documents: Documents, found: ModelWords | None, model_type: str) -> Language:
    named = found.language if found else None
    word = named or documents.text.text("model_type") or model_type
    entry = words().language.get(word)
    if entry is None:
        return language_from_standard_keys(documents, word)
    return language_from_config(documents, entry)


def _vision(documents: Documents, found: ModelWords | None, checkpoint: Checkpoint | None) -> Vision | None:
    """Return the tower; one that only the tensors betray is there too, of unknown kind."""
    if found is not None and found.vision is not None:
        return vision_from_config(documents, found.vision)
    stored = checkpoint is not None and any(part_of(tensor.name) == "vision" for tensor in checkpoint.tensors)
    return unknown_vision(documents) if stored or documents.vision.values else None


def _parameters(checkpoint: Checkpoint | None, scheme: Scheme) -> Parameters | None:
    return count_parameters(checkpoint.tensors, scheme) if checkpoint else None


def _name(folder: Folder, hf_id: str | None) -> str:
    return (hf_id or folder.name).rstrip("/").replace("\\", "/").rsplit("/", 1)[-1]


def _class(config: Fields) -> str | None:
    listed = config.items("architectures")
    return listed[0] if listed and isinstance(listed[0], str) else None


def _dtype(config: Fields, text: Fields) -> str | None:
    word = config.text("torch_dtype", "dtype") or text.text("torch_dtype", "dtype")
    return _DTYPES.get(word)


def _notes(language: Language, checkpoint: Checkpoint | None) -> tuple[str, ...]:
    said = [str(language.facts[key]) for key in ("unknown", "assumed") if key in language.facts]
    if checkpoint is None:
        said.append("no safetensors files: weights are worked out from the configuration")
    return tuple(said)
