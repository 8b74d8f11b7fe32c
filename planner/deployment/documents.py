"""Files that hold deployments: request files, Modelfiles, docker-compose files, Kubernetes manifests."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from planner.catalog.foreign import parse_foreign_yaml
from planner.deployment.command_line import Line
from planner.deployment.containers import engine_line, split_words
from planner.errors import SourceError, UsageError
from planner.frozen import dataclass

MAX_FILE_BYTES = 4 << 20
_WORKLOADS = frozenset({"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob", "Pod"})
_SEPARATOR = re.compile(r"(?m)^---(?:[ \t].*)?$")
_INSTRUCTION = re.compile(r"\s*([A-Za-z]+)\s+(.*)")
_PARAMETERS = {"num_ctx": int, "num_gpu": int, "num_batch": int, "main_gpu": int, "use_mmap": lambda t: t == "true"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """One deployment found in a file, with where it stands there."""

    name: str
    line: Line


def read_deployments(path: str) -> list[Named]:
    """Return every deployment in the file, in its order.

    Raises:
        SourceError: the file cannot be read, or is nothing of what is understood.
        UsageError: a command line in it names no model or is malformed.
    """
    text = _text(path)
    if _is_modelfile(path, text):
        return [Named(name=path, line=_modelfile(text, path))]
    documents = [parse_foreign_yaml(part, path) for part in _SEPARATOR.split(text) if part.strip()]
    found = [named for index, document in enumerate(documents) for named in _document(document, f"{path}[{index}]")]
    if not found:
        raise SourceError(
            f"{path}: no deployment in it; a request has the key 'model', a compose file 'services', "
            "a Kubernetes manifest containers, a Modelfile FROM"
        )
    single = len(found) == 1
    return [Named(name=path, line=found[0].line)] if single else found


def _text(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SourceError(f"cannot read {path!r}: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise SourceError(f"{path}: larger than {MAX_FILE_BYTES} bytes; this is no deployment file")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise SourceError(f"{path}: is not text") from None


def _document(document: object, where: str) -> Iterator[Named]:
    if isinstance(document, list):
        for index, entry in enumerate(document):
            yield from _document(entry, f"{where}[{index}]")
    elif isinstance(document, dict):
        if "model" in document:
            yield Named(name=where, line=Line(request=document))
        elif isinstance(document.get("requests"), list):
            yield from _document(document["requests"], f"{where}.requests")
        elif isinstance(document.get("services"), dict):
            yield from _compose(document["services"])
        elif document.get("kind") in _WORKLOADS:
            yield from _kubernetes(document)
        elif document.get("kind") == "List" and isinstance(document.get("items"), list):
            yield from _document(document["items"], where)


# ---- docker-compose and Kubernetes: containers with words and variables


def _compose(services: Mapping[str, object]) -> Iterator[Named]:
    for name, service in services.items():
        if isinstance(service, dict):
            words = [*split_words(service.get("entrypoint")), *split_words(service.get("command"))]
            line = engine_line(words, str(service.get("image", "")), _variables(service.get("environment")))
            if line is not None:
                yield Named(name=f"services.{name}", line=line)


def _kubernetes(document: Mapping[str, object]) -> Iterator[Named]:
    for container in _containers(document):
        words = [*split_words(container.get("command")), *split_words(container.get("args"))]
        line = engine_line(words, str(container.get("image", "")), _variables(container.get("env")))
        if line is not None:
            yield Named(name=f"{document.get('kind')}.{container.get('name', '?')}", line=line)


def _containers(node: object, depth: int = 0) -> Iterator[Mapping[str, object]]:
    """Yield the containers of a manifest wherever its kind keeps the pod's template."""
    if not isinstance(node, dict) or depth > 6:
        return
    listed = node.get("containers")
    if isinstance(listed, list):
        yield from (entry for entry in listed if isinstance(entry, dict))
        return
    for key in ("spec", "template", "jobTemplate"):
        yield from _containers(node.get(key), depth + 1)


def _variables(value: object) -> dict[str, str]:
    if isinstance(value, dict):
        return {str(name): str(text) for name, text in value.items() if text is not None}
    found: dict[str, str] = {}
    for entry in value if isinstance(value, list) else []:
        if isinstance(entry, dict) and "name" in entry and "value" in entry:
            found[str(entry["name"])] = str(entry["value"])
        elif isinstance(entry, str) and "=" in entry:
            name, _, text = entry.partition("=")
            found[name] = text
    return found


# ---- Ollama's Modelfile


def _is_modelfile(path: str, text: str) -> bool:
    if Path(path).name.lower().startswith("modelfile"):
        return True
    first = next((line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")), "")
    return first.upper().startswith("FROM ")


def _modelfile(text: str, path: str) -> Line:
    """Return the request of a Modelfile: FROM is the model, PARAMETER the settings that touch memory."""
    request: dict[str, object] = {"engine": "ollama"}
    settings: dict[str, object] = {}
    remarks: list[str] = []
    for word, rest in _instructions(text):
        if word == "FROM":
            request["model"] = rest
        elif word == "PARAMETER":
            name, _, value = rest.partition(" ")
            convert = _PARAMETERS.get(name)
            if convert is not None:
                settings[name] = _converted(convert, name, value.strip(), path)
        elif word == "QUANTIZE":
            remarks.append("a Modelfile has no QUANTIZE; it does nothing")
    if "model" not in request:
        raise UsageError(f"{path}: a Modelfile needs a FROM line")
    return Line(request={**request, "settings": settings}, remarks=tuple(remarks))


def _converted(convert: object, name: str, value: str, path: str) -> object:
    try:
        return convert(value)  # type: ignore[operator]
    except ValueError:
        raise UsageError(f"{path}: PARAMETER {name} {value!r} is not a number") from None


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yield (instruction, rest) per line; what stands between triple quotes is skipped."""
    inside = False
    for line in text.splitlines():
        quotes = line.count('"""')
        if inside:
            inside = quotes % 2 == 0
            continue
        match = _INSTRUCTION.match(line)
        if match and not line.lstrip().startswith("#"):
            yield match[1].upper(), match[2].strip()
        inside = quotes % 2 == 1
