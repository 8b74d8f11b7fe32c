"""What llama.cpp 0.5.0-dev itself reserved for vision encoders: projector files, pictures, bytes.

``llamacpp_vision`` and ``llamacpp_vision_2026``: full-size projector files (true headers) on a stand-in for a CUDA
device that runs the engine's own planning and allocation; ``llamacpp_vision_views`` adds, row by row, the pictures
that were encoded (width, height, batch) and the host's arena. ``llamacpp_vision_fresh``: further towers with random
and published shapes, asked after the code was written: header, and rows of (device, flash attention, image, arenas
after each reservation, views with the arenas after each, weights as counted, device bytes after load).
``llamacpp_vision_images``: random towers again, from the image's size on: header, and runs of (device, flash attention,
--image-max-tokens or 0, equal views together or not, compute capability, weights as counted, device bytes after load,
arenas after each reservation, images). An image is (size, tokens per chunk, marker tokens, positions, views with the
arenas after each and how often in a row); one without chunks was refused by the engine.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gguf_headers import headers, read_bytes

from planner.budget import ImageTokens
from planner.catalog import load_data
from planner.engines.llama_cpp.encoder import EncoderKind, Picture, encoder_kinds
from planner.model import ImageRule, Tensor, Vision
from planner.sources.gguf import vision_from_gguf
from planner.vision import counted
from planner.vision.mtmd.projector_file import mtmd_rule
from planner.workload import parse_image_size

DATA = Path(__file__).parents[1] / "data"
TABLES = ("llamacpp_vision", "llamacpp_vision_2026")
AUDIO_FRAMES = 3000  # of an audio tower's warm-up; no vision tower warms up with a picture so wide


def lines(name: str) -> list[dict]:
    """Return the rows of a table."""
    with gzip.open(DATA / f"{name}.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


@cache
def kinds() -> dict[str, EncoderKind]:
    """Return the encoder kinds of the data."""
    return encoder_kinds(load_data("engines/llama_cpp/encoders.yaml"))


@cache
def tower(name: str) -> Vision:
    """Return a tower by the name of its projector file."""
    return vision_from_gguf(read_bytes(headers()[f"mmproj-{name}.gguf"]))


def towers() -> list[str]:
    """Return the names of all towers of the tables."""
    return sorted({row["mmproj"] for table in TABLES for row in lines(table)})


@dataclass(frozen=True)
class Row:
    """One question to the engine and what it reserved; None where the table does not say."""

    vision: Vision
    on_gpu: bool
    flash_attn: str
    pictures: tuple[Picture, ...]
    weights: int
    warm_up: tuple[int, int]
    peak_host: int | None = None
    peak_device: int | None = None
    device_after_load: int | None = None
    device_after_images: int | None = None
    flash_used: bool | None = None
    capability: int = 890
    max_tokens: int | None = None


@cache
def table_rows() -> dict[str, list[Row]]:
    """Return the rows of both tables by tower."""
    views = iter(lines("llamacpp_vision_views"))
    found: dict[str, list[Row]] = {}
    for table in TABLES:
        for row in lines(table):
            found.setdefault(row["mmproj"], []).append(_table_row(row, next(views)))
    return found


def _table_row(row: dict, view: dict) -> Row:
    on_gpu = row["device"] == "cuda"
    counted, used = row["weights_only_usage"], row["mtmd_get_memory_usage"]
    weights = counted["CUDA0" if on_gpu else "CPU"]
    limit = row["env"].get("IMG_MAX_TOKENS")
    return Row(
        vision=tower(row["mmproj"]),
        on_gpu=on_gpu,
        flash_attn=row["fa"],
        pictures=tuple(Picture(width=w, height=h, batch=n) for w, h, n in view["views"]),
        weights=weights,
        warm_up=(used["CUDA0"] - weights, used["CPU"]) if on_gpu else (0, used["CPU"] - weights),
        peak_host=view["host"],
        device_after_load=row["gpu_bytes_after_init"] if on_gpu else None,
        device_after_images=row["gpu_bytes_after_encode"] if on_gpu else None,
        flash_used=row["fa_used"],
        capability=int(row["env"].get("FAKECUDA_CC", 890)),
        max_tokens=int(limit) if limit else None,
    )


@cache
def fresh_rows() -> dict[str, list[Row]]:
    """Return the rows of towers that were asked about afterwards, by tower."""
    return {entry["tower"]: [_fresh_row(entry, row) for row in entry["rows"]] for entry in _fresh()}


@cache
def _fresh() -> list[dict]:
    entries = lines("llamacpp_vision_fresh")
    for entry in entries:
        entry["vision"] = _vision(entry)
    return entries


def _vision(entry: dict) -> Vision:
    facts = {key: tuple(value) if isinstance(value, list) else value for key, value in entry["facts"].items()}
    return Vision(
        tower="vit",
        projector=entry["projector"],
        n_layers=facts["block_count"],
        n_embd=facts["embedding_length"],
        n_ff=facts["feed_forward_length"],
        n_heads=facts["attention.head_count"],
        patch_size=facts["patch_size"],
        image_size=facts["image_size"],
        facts=facts,
        tensors=tuple(Tensor(name=name, shape=tuple(shape), format=kind) for name, shape, kind in entry["tensors"]),
    )


def _fresh_row(entry: dict, row: list) -> Row:
    device, flash, _, reserved, encoded, weights, after_load = row
    side = kinds()[entry["projector"]].overview
    last = len(encoded) - 1
    return Row(
        vision=entry["vision"],
        on_gpu=device == "cuda",
        flash_attn=flash,
        pictures=tuple(
            Picture(width=w, height=h, batch=n, overview=bool(side) and i == last)
            for i, (w, h, n, _, _) in enumerate(encoded)
        ),
        weights=weights,
        warm_up=(max(r[3] for r in reserved), max(r[4] for r in reserved)),
        peak_device=max(r[3] for r in reserved + encoded),
        peak_host=max(r[4] for r in reserved + encoded),
        device_after_load=after_load,
    )


# ---- from the image's size on


@dataclass(frozen=True)
class Asked:
    """One image given to the engine, and what it said and reserved: tokens, views (width, height, batch), bytes."""

    vision: Vision
    image: str
    on_gpu: bool
    flash_attn: str
    max_tokens: int | None
    together: bool
    capability: int
    weights: int
    device_after_load: int | None
    warm_up: tuple[int, int]
    chunk_tokens: tuple[int, ...]
    marker_tokens: int
    n_positions: int
    views: tuple[tuple[int, int, int], ...]
    peak: tuple[int, int]

    def tokens(self) -> ImageTokens:
        """Return the planner's tokens for the image, by the rule that the file's own keys lead to."""
        rule = mtmd_rule(self.vision.projector, self.vision.facts, load_data("engines/llama_cpp/image_rules.yaml"))
        limit = {"image_max_tokens": self.max_tokens} if self.max_tokens else {}
        complete = ImageRule(rule=rule.rule, parameters={**rule.parameters, **limit})
        return counted(parse_image_size(self.image), complete, "mtmd")


@cache
def asked_images() -> dict[str, list[Asked]]:
    """Return the images of ``llamacpp_vision_images`` by tower."""
    found: dict[str, list[Asked]] = {}
    for entry in lines("llamacpp_vision_images"):
        vision = _vision(entry)
        found[entry["tower"]] = [_asked(vision, run[:7], run[7], image) for run in entry["runs"] for image in run[8]]
    return found


def _asked(vision: Vision, run: list, reserved: list, image: list) -> Asked:
    device, flash, limit, together, capability, weights, after_load = run
    size, chunks, marker, n_positions, encoded = image
    return Asked(
        vision=vision,
        image=size,
        on_gpu=device == "cuda",
        flash_attn=flash,
        max_tokens=limit or None,
        together=bool(together),
        capability=capability,
        weights=weights,
        device_after_load=after_load if device == "cuda" else None,
        warm_up=_arenas(reserved, []),
        chunk_tokens=tuple(chunks),
        marker_tokens=marker,
        n_positions=n_positions,
        views=tuple((w, h, n) for w, h, n, _, _, times in encoded for _ in range(times)),
        peak=_arenas(reserved, encoded),
    )


def _arenas(reserved: list, encoded: list) -> tuple[int, int]:
    """Return the arenas on the device and on the host: the vision tower's largest and the audio tower's."""
    heard = [r for r in reserved if r[0] == AUDIO_FRAMES]
    seen = [r for r in reserved if r[0] != AUDIO_FRAMES] + encoded
    device, host = (max(r[at] for r in seen) + max((r[at] for r in heard), default=0) for at in (3, 4))
    return device, host
