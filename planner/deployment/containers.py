"""Containers that run an engine: an image, its words and variables, and the command line that starts one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from planner.deployment.command_line import Line, read_command_line
from planner.errors import UsageError

_IMAGES = (
    (re.compile(r"vllm"), ("vllm", "serve")),
    (re.compile(r"sglang"), ("sglang", "serve")),
    (re.compile(r"llama\.cpp.*server"), ("llama-server",)),
    (re.compile(r"lmdeploy"), ("lmdeploy", "serve", "api_server")),
)
_STARTERS = frozenset({"docker", "podman", "nerdctl"})
# options of `docker run` that stand alone; every other one has a value
_ALONE = frozenset(
    {
        "--detach",
        "--init",
        "--interactive",
        "--no-healthcheck",
        "--oom-kill-disable",
        "--privileged",
        "--publish-all",
        "--read-only",
        "--rm",
        "--tty",
    }
)
_LETTERS_ALONE = re.compile(r"-[ditPq]+")


def read_started(words: Sequence[str], environment: Mapping[str, str]) -> Line:
    """Return the request that a command line makes, an engine's own or one that starts a container with it.

    Raises:
        UsageError: no engine's command line, or one without a model.
    """
    given = list(words[1:] if words[:1] == ["sudo"] else words)
    if given[:1] and given[0] in _STARTERS and "run" in given[1:3]:
        return _docker_run(given[given.index("run") + 1 :])
    return read_command_line(words, environment)


def _docker_run(words: Sequence[str]) -> Line:
    variables: dict[str, str] = {}
    entrypoint: list[str] = []
    rest = list(words)
    while rest and rest[0].startswith("-"):
        name, separator, value = rest.pop(0).partition("=")
        if name in _ALONE or (_LETTERS_ALONE.fullmatch(name) and not separator):
            continue
        if not separator:
            value = rest.pop(0) if rest else ""
        if name in ("-e", "--env"):
            variable, _, text = value.partition("=")
            variables[variable] = text
        elif name == "--entrypoint":
            entrypoint = [value]
    if not rest:
        raise UsageError("this starts no container: no image is named")
    line = engine_line([*entrypoint, *rest[1:]], rest[0], variables)
    if line is None:
        raise UsageError(f"the image {rest[0][:80]!r} with these words starts no engine this program knows")
    return line


def engine_line(words: Sequence[str], image: str, variables: Mapping[str, str]) -> Line | None:
    """Return the line of an engine's container; one that runs something else is None.

    Raises:
        UsageError: an engine's words that make no sense.
    """
    given = list(words)
    if given[:2] and given[0] in ("sh", "bash", "/bin/sh", "/bin/bash") and len(given) > 2 and given[1].startswith("-"):
        given = split_words(given[2])
    for attempt in (given, [*_program(image), *given]):
        try:
            return read_command_line(attempt, variables)
        except UsageError as error:
            if "names no model" in str(error) or "option" in str(error):
                raise
    return None


def split_words(value: object) -> list[str]:
    """Return the words of a command: a text as a shell would split it, or a list.

    Raises:
        UsageError: a quotation is not closed.
    """
    if isinstance(value, str):
        try:
            return shlex.split(value)
        except ValueError as error:
            raise UsageError(f"command {value[:60]!r}: {error}") from None
    return [str(word) for word in value] if isinstance(value, list) else []


def _program(image: str) -> tuple[str, ...]:
    return next((words for pattern, words in _IMAGES if pattern.search(image)), ())
