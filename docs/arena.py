"""The worked example of ``memory-model.md``: one model's arena, from the program's own simulation.

``python docs/arena.py`` writes ``arena.svg``; ``table()`` is used by the page's cog blocks.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

from svg import FAINT, line, picture, rectangle, text  # noqa: E402 - the path is set above

from planner.catalog.engines import llama_cpp_data  # noqa: E402
from planner.engines.llama_cpp.compute import describe  # noqa: E402
from planner.engines.llama_cpp.language_graph import language_graph  # noqa: E402
from planner.engines.llama_cpp.run import graph_request, resolve_run  # noqa: E402
from planner.engines.llama_cpp.schedule import simulate  # noqa: E402
from planner.engines.llama_cpp.settings import LlamaCppSettings  # noqa: E402
from planner.machine_file import machine_of  # noqa: E402
from planner.sources.opening import open_model  # noqa: E402
from planner.units import MIB  # noqa: E402
from planner.workload import Workload  # noqa: E402

MODEL, GPU, CONTEXT_TOKENS = "qwen2.5-vl-7b", "RTX 3060", 8192
LAYERS_SHOWN = 2
COLORS = {"input": "#8c959f", "residual": "#0969da", "attention": "#2da44e", "feed-forward": "#bf8700"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A tensor in the GPU's arena: what it is, where it lies and in which steps; ``died`` -1: never released."""

    what: str
    layer: int
    address: int
    n_bytes: int
    born: int
    died: int


@cache
def blocks() -> tuple[int, tuple[Block, ...]]:
    """Return the size of the GPU's arena in bytes and everything that ever lay in it, in order of birth."""
    model = open_model(MODEL, engine="llama.cpp", quantization="Q4_K_M", projector=None)
    machine = machine_of({"gpus": [{"name": GPU}], "ram": "32GiB"})
    run = resolve_run(model, Workload(context_tokens=CONTEXT_TOKENS), machine, LlamaCppSettings())
    request = graph_request(run, llama_cpp_data().traits[model.language.architecture])
    graph = language_graph(request)
    assert graph is not None, "the example's layers are all known"  # noqa: S101
    done = simulate(graph, request.backends)
    found = done.reservation
    made = [
        Block(
            what=describe(node),
            layer=node.layer,
            address=found.addresses[t],
            n_bytes=node.n_bytes,
            born=found.born[t],
            died=found.died[t],
        )
        for t, node in enumerate(done.nodes)
        if found.arenas[t] == 0
    ]
    return found.arena_bytes[0], tuple(sorted(made, key=lambda block: block.born))


def mib(n_bytes: int) -> str:
    """Return mebibytes with as many decimals as they need, at most two."""
    return f"{n_bytes / MIB:.2f}".rstrip("0").rstrip(".")


def table(layer: int = 0) -> None:
    """Print the tensors of one layer as they come: size, place and last step."""
    print("| step | tensor | MiB | lies at (MiB) | last read in step |\n|--:|---|--:|---|--:|")
    for block in blocks()[1]:
        if block.layer == layer:
            place = f"{mib(block.address)} to {mib(block.address + block.n_bytes)}"
            print(f"| {block.born} | {block.what} | {mib(block.n_bytes)} | {place} | {block.died} |")


def peak() -> None:
    """Print the sum at the peak: what lies there, the holes, and the arena."""
    n_bytes, found = blocks()
    step = max(found, key=lambda block: block.address + block.n_bytes).born
    alive = [b for b in found if b.born <= step and (b.died < 0 or b.died >= step)]
    owned = {b.address: b for b in alive}  # where one works in place on another, the later one
    live_bytes = sum(b.n_bytes for b in owned.values())
    for block in sorted(owned.values(), key=lambda b: b.address):
        print(f"- {mib(block.n_bytes) if block.n_bytes >= MIB // 100 else '< 0.01'} MiB: {block.what}")
    print(f"- {mib(n_bytes - live_bytes)} MiB: holes, too small for what came next")
    print(f"\nTogether {n_bytes:,} bytes = {mib(n_bytes)} MiB, reached in step {step}.")


def role(block: Block) -> str:
    """Return which colour a tensor gets."""
    if block.layer < 0:
        return "residual" if block.what == "copy" else "input"
    if block.what == "add":
        return "residual"
    return "feed-forward" if "ffn" in block.what or block.what == "glu" else "attention"


def draw() -> str:
    """Return the picture: steps from left to right, addresses from bottom to top, one rectangle per tensor."""
    n_bytes, found = blocks()
    last = max(block.born for block in found if block.layer == LAYERS_SHOWN - 1) + 1
    left, top, width, height = 52, 34, 800, 420
    per_step, per_byte = width / last, height / n_bytes
    body = [text(left, 20, f"{MODEL} Q4_K_M, 512 tokens at once: the GPU's arena over two layers", size=14)]
    for level in range(0, n_bytes // MIB + 1, 20):
        y = top + height - level * MIB * per_byte
        body += [line([(left, y), (left + width, y)], color=FAINT), text(left - 6, y + 4, str(level), anchor="end")]
    for block in (block for block in found if block.born < last):
        start, end = max(block.born, 0), last if block.died < 0 else min(last, _end(block, found))
        title = f"{block.what}: {mib(block.n_bytes)} MiB at {mib(block.address)}, steps {start} to {end}"
        x, y = left + start * per_step, top + height - (block.address + block.n_bytes) * per_byte
        wide, high = (end - start) * per_step, block.n_bytes * per_byte
        body.append(rectangle(x, y, wide, high, fill=COLORS[role(block)], title=title))
    body += _labels(found, last, left, top + height, per_step)
    body += _legend(left, top + height + 44)
    body.append(text(left + width, top - 4, f"arena: {mib(n_bytes)} MiB", anchor="end"))
    return picture(left + width + 16, top + height + 66, "A GPU's compute arena over time", body)


def _end(block: Block, found: tuple[Block, ...]) -> int:
    """Return the step after which the place is free, or another works in it."""
    reused = any(b.address == block.address and b.born == block.died for b in found if b is not block)
    return block.died if reused else block.died + 1


def _labels(found: tuple[Block, ...], last: int, left: float, bottom: float, per_step: float) -> list[str]:
    starts = [min(b.born for b in found if b.layer == layer) for layer in range(LAYERS_SHOWN)]
    body = []
    for layer, (start, end) in enumerate(zip(starts, [*starts[1:], last], strict=True)):
        x = left + start * per_step
        body += [line([(x, bottom), (x, bottom + 8)], color="#1f2328")]
        body += [text((x + left + end * per_step) / 2, bottom + 18, f"layer {layer}", anchor="middle")]
    return [*body, text(left, bottom + 18, "inputs"), text(left - 6, 20, "MiB", anchor="end")]


def _legend(x: float, y: float) -> list[str]:
    body = []
    for name, color in COLORS.items():
        body += [rectangle(x, y - 10, 12, 12, fill=color), text(x + 18, y, name)]
        x += 130
    return body


if __name__ == "__main__":
    (ROOT / "docs" / "arena.svg").write_text(draw(), encoding="utf-8")
