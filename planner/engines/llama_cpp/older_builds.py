"""Builds before the memory savings of May 2026: what their compute buffers hold beyond what is simulated.

Until then the mask of flash attention was reserved in F32 and converted to F16 in the graph (llama.cpp PR #23764), and
the worst case asked for a row of logits of every token of a ubatch, in the server too. Builds of 2025 reserve no inputs
of deepstack layers, pick no rows of the last layer where all are asked for (a tensor of the stream less), and compute
the logits on the host where the output lies there, though a GPU takes the other large products. Seen in published logs,
tests/data/field_memory.yaml.gz.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from planner.engines.llama_cpp.bound import widths_of
from planner.engines.llama_cpp.layout import HOST
from planner.engines.versions import parse_version
from planner.frozen import dataclass

if TYPE_CHECKING:
    from planner.budget import Budget, Item
    from planner.engines.llama_cpp.run import Run

FIRST_WITHOUT = parse_version("b9500")  # the change is of 29 May 2026, b9235 of 20 May, b10456 of 17 August
MASK_BYTES = 6  # of a cell and token: F32 and F16 at once


def is_older(version: str | None) -> bool:
    """Whether ``version`` is a build (``b6895``) before the savings; releases like ``0.5`` are all after them."""
    return version is not None and version.strip().lower().startswith("b") and parse_version(version) < FIRST_WITHOUT


def with_all_rows(run: Run) -> Run:
    """Return the run with a row of logits for every token of the batch."""
    return replace(run, resolved=replace(run.resolved, n_outputs=run.resolved.n_batch))


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Bytes that a compute buffer of an older build may have more, or less.

    ``host_bytes``: more on the host where logits are computed there; ``output_bytes``: less on the GPU then.
    """

    more_bytes: int
    less_bytes: int
    host_bytes: int
    output_bytes: int


def difference_of(run: Run, *, flash_attn: bool) -> Difference:
    """Return what a run may need more or less.

    More: cells x tokens of a ubatch x 6 for every mask; on the host logits and stream, tokens x (vocabulary + width)
    x 4, where the output lies there beside a GPU. Less: tensors of the stream, tokens x width x 4, one and one for each
    deepstack layer; on a GPU what the host does instead, with the copy of the output's matrix.
    """
    n_tokens, n_copies = run.resolved.n_ubatch, 4 if run.pipelined else 1
    n_masks = 2 if any(getattr(layer.mixer, "window_tokens", None) for layer in run.language.layers) else 1
    mask = MASK_BYTES * run.resolved.n_ctx_seq * n_tokens * n_masks
    stream, logits = 4 * n_tokens * run.language.n_embd, 4 * n_tokens * run.language.n_vocab
    beside_gpu = run.layout.n_gpus > 0 and run.layout.output == HOST
    return Difference(
        more_bytes=mask * n_copies if flash_attn else 0,
        less_bytes=stream * (1 + run.language.n_deepstack_layers),
        host_bytes=logits + stream if beside_gpu else 0,
        output_bytes=widths_of(run.language).output_bytes + logits + stream if beside_gpu else 0,
    )


def as_older(found: Budget, run: Run) -> Budget:
    """Return the budget with the compute of the language model as a range of what an older build may need."""
    difference = difference_of(run, flash_attn=found.settings.get("flash_attn") == "on")
    devices = tuple(
        replace(device, items=tuple(_widened(item, difference, device.device) for item in device.items))
        for device in found.devices
    )
    note = "an older build than the one simulated: its compute buffers are a range, whose high holds the mask twice"
    return replace(found, devices=devices, notes=(*found.notes, note))


def _widened(item: Item, difference: Difference, device: str) -> Item:
    if item.component != "compute" or item.part != "language":
        return item
    on_host = device == "Host"
    more = difference.more_bytes + (difference.host_bytes if on_host else 0)
    less = difference.less_bytes + (0 if on_host else difference.output_bytes)
    return replace(
        item,
        low_bytes=max(0, item.low_bytes - less),
        high_bytes=item.high_bytes + more,
        basis="assumed" if item.basis == "assumed" else "modelled",
        formula=f"{item.formula}; builds before b9500: up to cells x ubatch x 6 bytes of masks more",
        source=f"{item.source}; llama.cpp PR #23764",
    )
