"""An engine's own command line, read as the request it makes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import PurePosixPath

from planner.catalog.data import load_data
from planner.errors import UsageError
from planner.frozen import dataclass

_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_WRAPPERS = frozenset({"sudo", "exec", "nohup", "env", "command", "time"})
_LLAMA_PROGRAMS = {
    "llama-server": "llama-server",
    "server": "llama-server",
    "llama-cli": "llama-cli",
    "llama-mtmd-cli": "llama-mtmd-cli",
}
_VLLM_MODULE = "vllm.entrypoints.openai.api_server"
_SGLANG_MODULE = "sglang.launch_server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A command line read: the request it makes, and what was seen but plays no part in memory.

    ``remarks`` are warnings for the user: options that do not exist, or that do nothing. ``whole_context``: the engine
    does not start unless one request of the model's own context fits, for the line gives no other.
    """

    request: Mapping[str, object]
    remarks: tuple[str, ...] = ()
    whole_context: bool = False


@dataclass(slots=True)
class _Reading:
    request: dict[str, object] = field(default_factory=dict)
    settings: dict[str, object] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    whole_context: bool = False

    def line(self) -> Line:
        request = {**self.request, "settings": self.settings}
        return Line(request=request, remarks=tuple(self.remarks), whole_context=self.whole_context)


def read_command_line(words: Sequence[str], environment: Mapping[str, str] | None = None) -> Line:
    """Return the request that the command line ``words`` makes.

    Args:
        words: the program and its arguments; leading ``NAME=value`` words are its environment.
        environment: further variables that the engine would see.

    Raises:
        UsageError: no engine's command line, or one without a model.
    """
    given = dict(environment or {})
    rest = list(words)
    while rest and (rest[0] in _WRAPPERS or _ASSIGNMENT.match(rest[0])):
        name, separator, value = rest.pop(0).partition("=")
        if separator:
            given[name] = value
    if not rest:
        raise UsageError(
            "no command line to check; write it after '--', like: vlplan check -- llama-server -m model.gguf"
        )
    reader = _reader(rest)
    if reader is None:
        raise UsageError(
            f"{rest[0]!r} is no engine this program knows; it reads llama-server, llama-cli, llama-mtmd-cli, "
            "vllm serve, sglang.launch_server, lmdeploy serve api_server, ollama run, and docker run of their images"
        )
    line = reader(rest, given)
    if "model" not in line.request:
        raise UsageError(f"{' '.join(words)[:80]!r} names no model")
    return line


def _reader(words: list[str]) -> Callable[[list[str], Mapping[str, str]], Line] | None:
    program = PurePosixPath(words[0].replace("\\", "/")).name.removesuffix(".exe")
    if program in _LLAMA_PROGRAMS:
        return _llama_cpp
    if program.startswith("python"):
        modules = {_VLLM_MODULE: _vllm, _SGLANG_MODULE: _sglang}
        return next((reader for module, reader in modules.items() if module in words), None)
    readers = {
        ("vllm", "serve"): _vllm,
        ("sglang", "serve"): _sglang,
        ("lmdeploy", "serve", "api_server"): _lmdeploy,
        ("ollama", "run"): _ollama,
        ("ollama", "serve"): _ollama,
        ("ollama", "create"): _ollama,
    }
    return next((reader for start, reader in readers.items() if (program, *words[1 : len(start)]) == start), None)


def _options(words: Sequence[str], takes_value: Callable[[str], bool | None]) -> Iterator[tuple[str, str | None]]:
    """Yield (option, value) pairs; a word that is no option comes as ("", word)."""
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if not word.startswith("-") or word == "-" or _is_number(word):
            yield "", word
            continue
        name, separator, value = word.partition("=")
        if separator:
            yield name, value
            continue
        wants = takes_value(name)
        follows = index < len(words) and (not words[index].startswith("-") or _is_number(words[index]))
        if wants or (wants is None and follows):
            if index >= len(words):
                raise UsageError(f"option {name} at the end of the command line has no value")
            yield name, words[index]
            index += 1
        else:
            yield name, None


def _is_number(word: str) -> bool:
    return re.fullmatch(r"-\d+(\.\d+)?(,-?\d+)*", word) is not None


# ---- llama.cpp


def _llama_cpp(words: list[str], environment: Mapping[str, str]) -> Line:
    reading = _Reading()
    program = PurePosixPath(words[0].replace("\\", "/")).name.removesuffix(".exe")
    reading.request["engine"] = "llama.cpp"
    reading.settings["program"] = _LLAMA_PROGRAMS[program]
    table = _llama_options()
    for name, value in _options(words[1:], lambda word: bool(table[word].get("value")) if word in table else None):
        if not name:
            reading.remarks.append(f"the word {value!r} belongs to no option")
            continue
        row = table.get(name)
        if row is None:
            reading.remarks.append(f"llama.cpp has no option {name}")
        elif "setting" in row:
            _set(reading, row, name, value)
    if environment.get("LLAMA_ARG_CTX_SIZE") and "ctx_size" not in reading.settings:
        reading.settings["ctx_size"] = _integer("LLAMA_ARG_CTX_SIZE", environment["LLAMA_ARG_CTX_SIZE"])
    _server_defaults(reading)
    return reading.line()


def _server_defaults(reading: _Reading) -> None:
    """Four slots with one shared cache is what a server without ``-np`` does (tools/server/server.cpp)."""
    if reading.settings["program"] == "llama-server" and "parallel" not in reading.settings:
        reading.settings |= {"parallel": 4, "kv_unified": True}
    if reading.settings.get("ctx_size") == 0:
        del reading.settings["ctx_size"]
        reading.remarks.append("-c 0 is the context the model was trained for")


def _llama_options() -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for row in load_data("engines/options/llama_cpp.yaml")["options"]:
        for word in row["flags"]:
            found[word] = row
        for word in row.get("negative", ()):
            found[word] = {**row, "value": False, "negative_word": True}
    return found


def _set(reading: _Reading, row: Mapping[str, object], name: str, value: str | None) -> None:
    setting, kind = str(row["setting"]), str(row["as"])
    if kind == "request":
        reading.request[setting] = value
    elif kind == "hub":
        reading.request["model"] = value
    elif kind in ("flag", "negated"):
        positive = not row.get("negative_word")
        reading.settings[setting] = positive if kind == "flag" else not positive
    elif kind == "none":
        if value == "none":
            reading.settings[setting] = "none"
        else:
            reading.remarks.append(f"{name} {value} is not followed; describe the GPUs it names with --gpu")
    elif setting == "fit_target":
        reading.settings[setting] = [_integer(name, part) for part in str(value).split(",")]
    else:
        reading.settings[setting] = _llama_value(kind, name, str(value), reading.settings.get(setting))


def _llama_value(kind: str, name: str, value: str, before: object) -> object:
    if kind == "int":
        return _integer(name, value)
    if kind == "layers":
        return -1 if value in ("all", "auto") else _integer(name, value)
    if kind == "floats":
        return [_number(name, part) for part in re.split(r"[,/]", value)]
    if kind == "texts":
        return [*(before if isinstance(before, list) else []), *value.split(",")]
    return (
        {"1": "on", "0": "off", "true": "on", "false": "off"}.get(value, value)
        if name in ("-fa", "--flash-attn")
        else value
    )


def _integer(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise UsageError(f"option {name}: {value!r} is not a whole number") from None


def _number(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise UsageError(f"option {name}: {value!r} is not a number") from None


# ---- vLLM, SGLang and LMDeploy: options are the settings' own words


def _vllm(words: list[str], environment: Mapping[str, str]) -> Line:
    del environment
    start = words.index(_VLLM_MODULE) + 1 if _VLLM_MODULE in words else 2
    return _python_style("vllm", words[start:], model_options=("--model",), context="max_model_len")


def _sglang(words: list[str], environment: Mapping[str, str]) -> Line:
    del environment
    start = words.index(_SGLANG_MODULE) + 1 if _SGLANG_MODULE in words else 2
    return _python_style("sglang", words[start:], model_options=("--model-path", "--model"))


def _lmdeploy(words: list[str], environment: Mapping[str, str]) -> Line:
    del environment
    return _python_style("lmdeploy", words[3:], model_options=("--model-path",))


def _python_style(engine: str, words: Sequence[str], model_options: tuple[str, ...], context: str = "") -> Line:
    """Read options by their names; without the setting ``context`` the engine reserves for the model's own."""
    reading = _Reading()
    reading.request["engine"] = engine
    flags = _flags_of(engine)
    seen: list[str] = []
    for name, value in _options(words, lambda _: None):
        if (not name and "model" not in reading.request) or name in model_options:
            reading.request["model"] = value
        elif name in flags:
            reading.settings[flags[name]] = _json_value(value)
        elif name.startswith("--no-") and "--" + name.removeprefix("--no-") in flags:
            reading.settings[flags["--" + name.removeprefix("--no-")]] = False
        elif name:
            seen.append(name)
    if seen:
        reading.remarks.append(f"options that play no part in this plan: {', '.join(seen)}")
    reading.whole_context = bool(context) and context not in reading.settings
    return reading.line()


def _flags_of(engine: str) -> dict[str, str]:
    data = load_data(f"engines/options/{engine}.yaml")
    prefix = data.get("flag_prefix", "--")
    found: dict[str, str] = {}
    for name, row in data["options"].items():
        found[(row or {}).get("flag") or prefix + name.replace("_", "-")] = name
        found[prefix + name.replace("_", "-")] = name
        found[prefix + name] = name
    return found | dict((data.get("short") or {}).items())


def _json_value(value: str | None) -> object:
    if value is None:
        return True
    try:
        return json.loads(value)
    except ValueError:
        return value


# ---- Ollama: the model on the line, the settings in the environment


def _switch(text: str) -> bool:
    return text.lower() in ("1", "true", "on")


_OLLAMA_WORDS: Mapping[str, tuple[str, Callable[[str], object]]] = {
    "OLLAMA_CONTEXT_LENGTH": ("num_ctx", int),
    "OLLAMA_NUM_PARALLEL": ("num_parallel", int),
    "OLLAMA_KV_CACHE_TYPE": ("kv_cache_type", str),
    "OLLAMA_FLASH_ATTENTION": ("flash_attention", _switch),
    "OLLAMA_GPU_OVERHEAD": ("gpu_overhead", int),
    "OLLAMA_SCHED_SPREAD": ("sched_spread", _switch),
}


def _ollama(words: list[str], environment: Mapping[str, str]) -> Line:
    reading = _Reading()
    reading.request["engine"] = "ollama"
    for name, value in _options(words[2:], lambda word: word in {"--keepalive", "--format"}):
        if not name and "model" not in reading.request:
            reading.request["model"] = value
        elif name and name not in {"--keepalive", "--format", "--verbose", "--insecure", "--nowordwrap", "--think"}:
            reading.remarks.append(
                f"ollama run has no option {name}: it does nothing; use a Modelfile or the environment"
            )
    for variable, (word, convert) in _OLLAMA_WORDS.items():
        if variable in environment:
            try:
                reading.settings[word] = convert(environment[variable])
            except ValueError:
                raise UsageError(f"{variable}={environment[variable]!r} is not a number") from None
    return reading.line()
