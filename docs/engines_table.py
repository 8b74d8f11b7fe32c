"""The table of ``engines.md``: which engine loads which model of the catalogue, by the program's own verdicts."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from planner.catalog import list_profiles
from planner.catalog.engines import load_engine
from planner.sources.opening import open_model

ENGINES = ("llama.cpp", "ollama", "transformers", "vllm", "sglang", "lmdeploy")
WORDS = {"supported": "yes", "remote_code": "remote code", "unsupported": "no", "unknown": "?"}


def verdict(engine: str, model: str) -> str:
    """Return the newest release's verdict in a word or two."""
    found = load_engine(engine).loads(open_model(model, engine=engine, quantization=None, projector=None))
    if found.verdict == "unsupported":
        return f"up to {found.until}" if found.until else "no"
    return WORDS[found.verdict] + ("" if found.vision else ", text only")


def families() -> dict[str, str]:
    """Return one model of the catalogue for every family that takes images, by family."""
    found: dict[str, str] = {}
    for profile in list_profiles():
        if profile.vision is not None:
            found.setdefault(profile.family, profile.name)
    return dict(sorted(found.items()))


def table() -> None:
    """Print one row per family, one column per engine at the release that is planned for."""
    heads = [f"{engine} {load_engine(engine).version}" for engine in ENGINES]
    print("| family | for example |", " | ".join(heads), "|")
    print("|---|---|", "|".join("---" for _ in heads), "|", sep="")
    for family, model in families().items():
        print(f"| {family} | {model} |", " | ".join(verdict(engine, model) for engine in ENGINES), "|")


if __name__ == "__main__":
    table()
