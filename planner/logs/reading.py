"""A file becomes a log: whichever of the known kinds its lines speak of."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from planner.errors import SourceError
from planner.logs.found import Log
from planner.logs.lines import lines_of
from planner.logs.llama_cpp import LlamaCppReader
from planner.logs.nvidia_smi import NvidiaSmiReader
from planner.logs.ollama import OllamaReader
from planner.logs.torch_summary import TorchReader
from planner.logs.vllm import VllmReader

_MARKS = (  # a line without any of them says nothing to any reader
    *(
        "buffer size",
        "llama",
        "llm_",
        "print_info",
        "load_tensors",
        "ffload",
        "KV",
        "CLIP",
        "Device ",
        "MiB",
        "GiB",
        " GB",
    ),
    *("device", "msg=", "LLM engine", "max_num", "memory", "blocks:", "clip", "mtmd", "build", "server is listening"),
    *("vision using", "model size", "Flash Attention", "pid"),
)
KNOWN = "llama.cpp, Ollama, vLLM, nvidia-smi CSV and PyTorch memory summaries"


def read_log(path: Path | str) -> Log:
    """Return what the log file at ``path`` says about memory.

    At most 8 MiB are read, from both ends of a longer file; a line counts up to its 65,536th character.

    Raises:
        SourceError: it cannot be read, or has no line about memory of a known kind.
    """
    try:
        with Path(path).open("rb") as file:
            n_bytes = file.seek(0, 2)
            file.seek(0)
            return _read(lines_of(file, n_bytes), str(path))
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error


def read_text(text: str, name: str = "log") -> Log:
    """Return what a log's text says about memory.

    Raises:
        SourceError: it has no line about memory of a known kind.
    """
    return _read(text.splitlines(), name)


def _read(lines: Iterable[str], name: str) -> Log:
    llama, ollama, vllm = LlamaCppReader(), OllamaReader(), VllmReader()
    smi, torch = NvidiaSmiReader(), TorchReader()
    readers = (llama, ollama, vllm, smi, torch)
    for line in lines:
        if not any(mark in line for mark in _MARKS):
            continue
        for reader in readers:
            reader.feed(line)
    inner = llama.finish()
    found = [log for log in (ollama.finish(inner), inner, vllm.finish(), torch.finish(), smi.finish()) if log]
    if not found:
        raise SourceError(f"{name}: no line about memory in it; known are the logs of {KNOWN}")
    return found[0]
