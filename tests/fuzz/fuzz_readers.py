"""Coverage-guided fuzzing of the readers of foreign files, with atheris (libFuzzer): run by hand, minutes to hours.

    python tests/fuzz/fuzz_readers.py gguf -max_total_time=150
    python tests/fuzz/fuzz_readers.py all 150        # every target in turn, so many seconds each

An input may be read or refused with one of the program's own errors. Anything else is a finding: another exception,
more than a second, or more than 100 MB above what the process needs by itself. New inputs are kept for the run only;
the seeds beside this file are small and stay as they are.
"""

from __future__ import annotations

import copy
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent), str(HERE.parent)]
TARGETS = ("gguf", "safetensors", "index", "manifest", "config_text", "config_values")
LIMIT_BYTES = 100_000_000
LIMIT_S = 1.0
ODD = (
    0,
    -1,
    1,
    3,
    2**31,
    2**63,
    10**30,
    1.5,
    float("1e300"),
    "",
    "x",
    "../../etc",
    None,
    True,
    [],
    [0],
    [[]],
    {},
    {"a": 1},
)


def run_one(target: str, arguments: list[str]) -> None:
    """Fuzz one target in this process until libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=["planner"]):
        import planner.catalog.models
        import planner.sources.hf
        import planner.sources.opening  # noqa: F401 - to be instrumented
    check = make_check(target)
    check(b"")
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def guarded(data: bytes) -> None:
        start = time.process_time()  # a busy machine must not be taken for a slow reader
        check(data)
        if time.process_time() - start > LIMIT_S:
            raise TimeoutError(f"more than {LIMIT_S} s")
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - base > LIMIT_BYTES:
            raise MemoryError("more than the corpus and 100 MB")

    atheris.Setup([sys.argv[0], *arguments], guarded)
    atheris.Fuzz()


def make_check(target: str):
    """Return the function that reads one input and lets only the program's own errors pass."""
    from planner.errors import VlplanError

    reader = {
        "gguf": read_gguf,
        "safetensors": read_safetensors,
        "index": read_index,
        "manifest": read_manifest,
        "config_text": lambda data: read_folder({"config.json": data}),
        "config_values": read_values,
    }[target]

    def check(data: bytes) -> None:
        try:
            reader(data)
        except VlplanError as error:
            if "\n" in str(error):
                raise AssertionError("an error of more than one line") from error

    return check


def read_gguf(data: bytes) -> None:
    """Read a header and make a model of it, as a language file or as a projector."""
    from planner.sources.bytes import MemoryBytes
    from planner.sources.gguf.file import read_parts
    from planner.sources.gguf.model import model_from_files
    from planner.sources.gguf.vision import vision_from_gguf
    from planner.sources.image_rules import with_mtmd_rule
    from planner.sources.inspection import inspect
    from planner.sources.projectors import embedded_projector
    from planner.vision import image_tokens
    from planner.workload import ImageSize

    file = read_parts(("f.gguf",), lambda name: MemoryBytes(name=name, data=data), allow_truncated=True)
    if file.architecture == "clip":
        vision_from_gguf(file)
    else:
        model = with_mtmd_rule(model_from_files(*embedded_projector(file)))
        inspect(model)
        if model.vision is not None and "mtmd" in model.vision.rules:
            image_tokens(model.vision, ImageSize(width=640, height=480), engine="llama.cpp")


def read_safetensors(data: bytes) -> None:
    """Read the header of one shard."""
    from planner.sources.bytes import MemoryBytes
    from planner.sources.safetensors import read_header

    read_header(MemoryBytes(name="f.safetensors", data=data))


def read_index(data: bytes) -> None:
    """Read the index of a sharded checkpoint; no shard may have a name that leads elsewhere."""
    from planner.sources.safetensors import read_index as read

    for shard in read(data, "index.json").values():
        assert "/" not in shard, shard
        assert "\\" not in shard, shard
        assert ".." not in shard, shard


def read_manifest(data: bytes) -> None:
    """Read a manifest of Ollama's; no digest may be more than one."""
    from planner.sources.ollama import read_manifest as read

    for layer in read(data, "manifest"):
        assert re.fullmatch(r"[0-9a-f]{64}", layer.digest), layer.digest


class MemoryFolder:
    """A folder whose files are bytes."""

    name = "folder"

    def __init__(self, files: dict[str, bytes]) -> None:
        """Hold ``files``."""
        self.held = files

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files."""
        return tuple(self.held)

    def source(self, name: str):
        """Return a file as a source."""
        from planner.sources.bytes import MemoryBytes

        return MemoryBytes(name=name, data=self.held[name]) if name in self.held else None

    def small(self, name: str) -> bytes | None:
        """Return a file whole."""
        return self.held.get(name)


def read_folder(files: dict[str, bytes]) -> None:
    """Make a model of a folder, and of that the tensors of a converted file and the facts of an inspection."""
    from planner.catalog.models import with_tensors
    from planner.sources.hf import model_from_folder
    from planner.sources.image_rules import with_mtmd_rule
    from planner.sources.inspection import inspect
    from planner.vision import image_tokens
    from planner.workload import ImageSize

    model = with_mtmd_rule(model_from_folder(MemoryFolder(files)))
    inspect(model)
    for engine, rule in (("transformers", "processor"), ("llama.cpp", "mtmd")):
        if model.vision is not None and rule in model.vision.rules:
            image_tokens(model.vision, ImageSize(width=640, height=480), engine=engine)
    if model.language.layers:
        with_tensors(model, "Q4_K_M")


def read_values(data: bytes) -> None:
    """Take an honest configuration, put odd values at places the input chooses, and read that."""
    import json

    import atheris
    from sources.configurations import CONFIGURATIONS

    chosen = atheris.FuzzedDataProvider(data)
    names = sorted(CONFIGURATIONS)
    config, preprocessor = json.loads(json.dumps(CONFIGURATIONS[names[chosen.ConsumeIntInRange(0, len(names) - 1)]]))
    for _ in range(chosen.ConsumeIntInRange(0, 6)):
        _disturb(chosen.PickValueInList([config, config, preprocessor]), chosen)
    files = {"config.json": json.dumps(config), "preprocessor_config.json": json.dumps(preprocessor)}
    read_folder({name: text.encode() for name, text in files.items()})


def _disturb(place, chosen) -> None:
    """Walk into ``place`` and replace one value."""
    for _ in range(4):
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = keys[chosen.ConsumeIntInRange(0, len(keys) - 1)]
        if isinstance(place[key], dict | list) and place[key] and chosen.ConsumeBool():
            place = place[key]
            continue
        odd = chosen.ConsumeIntInRange(0, len(ODD))
        place[key] = chosen.ConsumeIntInRange(-5, 70_000) if odd == len(ODD) else copy.deepcopy(ODD[odd])
        return


def write_dictionary(path: Path) -> None:
    """Write the words that headers and configurations are made of, for libFuzzer to insert."""
    from sources.configurations import CONFIGURATIONS

    found = {
        "weight_map",
        "data_offsets",
        "dtype",
        "shape",
        "__metadata__",
        "layers",
        "mediaType",
        "digest",
        "sha256:",
        "size",
    }
    for config, _ in CONFIGURATIONS.values():
        found |= set(config) | set(config.get("text_config") or {}) | set(config.get("vision_config") or {})
    path.write_text("".join(f'"{word}"\n' for word in sorted(found) if re.fullmatch(r"[\w:.-]+", word)))


def say(*words: object) -> None:
    """Write a line at once."""
    sys.stdout.write(" ".join(str(word) for word in words) + "\n")
    sys.stdout.flush()


def run_all(seconds: int) -> None:
    """Fuzz every target in a process of its own and print what libFuzzer counted."""
    with tempfile.TemporaryDirectory() as folder:
        dictionary = Path(folder) / "words.dict"
        write_dictionary(dictionary)
        for target in TARGETS:
            corpus = Path(folder) / target
            corpus.mkdir()
            command = [sys.executable, __file__, target, str(corpus), str(HERE / "seeds" / target)]
            command += [f"-max_total_time={seconds}", "-timeout=60", "-max_len=65536", f"-dict={dictionary}"]
            command += [f"-artifact_prefix={HERE}/finding-{target}-", "-rss_limit_mb=600", "-print_final_stats=1"]
            start = time.monotonic()
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            say(target, "seconds", round(time.monotonic() - start), "exit", done.returncode)
            wanted = ("DONE", "stat::", "ERROR", "SUMMARY", "Uncaught")
            say("\n".join(line for line in done.stderr.splitlines() if any(word in line for word in wanted)))
            if done.returncode:
                say(done.stderr[-3000:])


if __name__ == "__main__":
    if sys.argv[1] == "all":
        run_all(int(sys.argv[2]))
    else:
        run_one(sys.argv[1], sys.argv[2:])
