"""The items of a device: weights by part, KV cache, prefill peak, context and allocator."""

from __future__ import annotations

from collections.abc import Iterable

from planner.budget import Basis, Item, Part
from planner.engines.transformers.decode import decode_step_bytes
from planner.engines.transformers.forms import Forms
from planner.engines.transformers.kv_cache import held_cache_bytes, kv_cache_bytes
from planner.engines.transformers.peak import Peak, Share, prefill_peak, tower_peaks
from planner.engines.transformers.prefill import Prefill
from planner.engines.transformers.settings import TransformersSettings
from planner.engines.transformers.weights import PartWeights, Piece, ffn_width
from planner.frozen import dataclass
from planner.memory.overhead import Overhead
from planner.model import Model
from planner.units import GIB, MIB
from planner.workload import Workload

ALLOCATOR_HIGH = 0.10  # of what is not weights: segments that hold pieces too small for the next request
ALLOCATOR_EXPECTED = 0.05
QUANTIZED_SPREAD = 0.01
SOURCE = "transformers 5.23.0, torch 2.13"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One batch on one model: what every device's items are computed from."""

    model: Model
    prefill: Prefill
    forms: Forms
    settings: TransformersSettings
    workload: Workload
    parts: tuple[PartWeights, ...]

    def peak(self, share: Share) -> Peak:
        """Return the prefill's peak on a device that runs ``share``."""
        settings = self.settings
        return prefill_peak(self.prefill, self.forms, settings.attn_implementation, settings.dtype, share)


def device_items(call: Call, mine: list[Piece], guests: list[Piece], overhead: Overhead) -> tuple[Item, ...]:
    """Return the items of a GPU with the pieces ``mine``; ``guests`` are kept in host memory and run here."""
    share = _share(call, [*mine, *guests])
    items = [*weight_items(call, mine), *running_items(call, share)]
    if guests:
        items.append(_guest_item(guests))
    if call.settings.load_in is not None:
        items.append(_unpacking_item(call))
    working = sum(item.expected_bytes for item in items if item.component != "weights")
    return (*items, _allocator_item(working), _context_item(overhead))


def host_items(call: Call, mine: list[Piece], *, computes: bool) -> tuple[Item, ...]:
    """Return the items of host memory: the process, the pieces kept there, and the run where there is no GPU."""
    running = running_items(call, _share(call, mine)) if computes else []
    process = Item(
        component="overhead",
        part="language",
        resident_bytes=GIB,
        low_bytes=GIB // 2,
        expected_bytes=GIB,
        high_bytes=5 * GIB // 2,
        basis="assumed",
        formula="Python, torch and transformers in host memory",
        source="assumed",
    )
    return (*weight_items(call, mine), *running, process)


def weight_items(call: Call, mine: list[Piece]) -> list[Item]:
    """Return one item per part that has pieces here."""
    found = []
    for part in call.parts:
        n_bytes = sum(piece.n_bytes for piece in mine if piece.part == part.part)
        if not n_bytes:
            continue
        spread = 0 if part.basis == "exact" else int(n_bytes * QUANTIZED_SPREAD)
        whole = n_bytes == part.n_bytes
        found.append(
            Item(
                component="weights",
                part=part.part,
                resident_bytes=n_bytes,
                low_bytes=n_bytes - spread,
                expected_bytes=n_bytes,
                high_bytes=n_bytes + spread,
                basis=part.basis if whole else "modelled",
                formula=part.formula if whole else f"modules placed here, of {part.formula}",
                source=SOURCE,
                inputs={"parameters": part.n_elements, "linear": part.n_linear},
            )
        )
    return found


def running_items(call: Call, share: Share) -> list[Item]:
    """Return KV cache, compute and the rows that windows will cut, for what runs on one device."""
    p = call.prefill
    kept = kv_cache_bytes(p, share.layers, p.n_tokens)
    held = held_cache_bytes(p, share.layers)
    items = [_cache_item(call, share, kept), _compute_item(call, share, held)]
    if held > kept:
        formula = "rows beyond the sliding windows, held by the prompt's views until the first decode step"
        items.append(_plain("overhead", held - kept, "exact", formula))
    return [item for item in items if item.high_bytes]


def _cache_item(call: Call, share: Share, kept: int) -> Item:
    p = call.prefill
    answered = p.n_tokens + call.workload.answer_tokens
    whole = longest_tokens(call)
    return Item(
        component="kv_cache",
        part="language",
        resident_bytes=0,
        low_bytes=kept,
        expected_bytes=kv_cache_bytes(p, share.layers, answered),
        high_bytes=kv_cache_bytes(p, share.layers, whole),
        basis="exact",
        formula="batch x sum over layers of tokens x KV heads x (key + value size) x bytes; low: prompt, expected: with"
        " the answer, high: the whole context",
        source=SOURCE,
        inputs={
            "batch": p.n_batch,
            "prompt_tokens": p.n_tokens,
            "with_answer": answered,
            "context": whole,
            "layers": len(share.layers),
            "element_bytes": p.element_bytes,
        },
    )


def _compute_item(call: Call, share: Share, held: int) -> Item:
    p = call.prefill
    peak = call.peak(share)
    n_bytes = max(peak.n_bytes - held, 0)
    margin = int(peak.n_bytes * p.margin) + MIB
    step = _step_bytes(call) if share.layers else 0
    logits = every_logit_bytes(p) if share.head and not p.traced else 0
    basis: Basis = "modelled" if p.traced else "assumed"
    return Item(
        component="compute",
        part="language",
        resident_bytes=0,
        low_bytes=max(0, n_bytes - margin),
        expected_bytes=n_bytes,
        high_bytes=max(n_bytes + margin, step, logits),
        basis=basis,
        formula=f"largest moment of the prefill less the KV cache held then; here: {peak.at}",
        source=call.forms.source,
        inputs={**peak.tensors, "vision_peak": tower_bytes(call) if share.tower else 0, "kv_cache_held": held},
    )


def _step_bytes(call: Call) -> int:
    return decode_step_bytes(call.prefill, call.settings.attn_implementation, longest_tokens(call))


def every_logit_bytes(p: Prefill) -> int:
    """Return the logits of all positions with a copy in 32 bit: N x V x (bytes + 4).

    What modelling code that was not followed may compute, whatever logits are asked for.
    """
    return p.n_rows * p.language.n_vocab * (p.element_bytes + 4)


def longest_tokens(call: Call) -> int:
    """Return the tokens that one sequence can come to: prompt and answer, or the whole context."""
    return max(call.prefill.n_tokens + call.workload.answer_tokens, call.workload.context_tokens)


def tower_bytes(call: Call) -> int:
    """Return the vision tower's own peak, whether or not it is the prefill's."""
    settings = call.settings
    towers = tower_peaks(call.prefill, settings.attn_implementation, settings.dtype)
    return max((peak.n_bytes for peak in towers), default=0)


def _share(call: Call, mine: Iterable[Piece]) -> Share:
    """Return what runs with these pieces; a tower whose weights are not told apart runs where the embedding is."""
    pieces = list(mine)
    apart = any(part.part == "vision" for part in call.parts)
    return Share(
        layers=tuple(piece.layer_index for piece in pieces if piece.layer_index is not None),
        tower=any(piece.part == "vision" if apart else piece.name == "embed_tokens" for piece in pieces),
        head=any(piece.name == "lm_head" for piece in pieces),
    )


def _guest_item(guests: list[Piece]) -> Item:
    largest = max(piece.n_bytes for piece in guests)
    return _plain("overhead", largest, "modelled", "the largest module kept in host memory, copied here to run")


def unpacking_bytes(call: Call) -> int:
    """Return what bitsandbytes needs beside its weights while one linear runs over a whole prompt.

    nf4: the largest matrix in the model's dtype, h x width x bytes. int8: the 32-bit result N x width x 4 and the
    rounded input N x h. Source: bitsandbytes ``autograd/_functions.py`` (``MatMul4Bit``, ``MatMul8bitLt``).
    """
    p = call.prefill
    width = max((ffn_width(layer) for layer in p.language.layers), default=0)
    if call.settings.load_in == "int8":
        return p.n_rows * (4 * width + p.language.n_embd)
    return p.language.n_embd * width * p.element_bytes


def _unpacking_item(call: Call) -> Item:
    n_bytes = unpacking_bytes(call)
    return Item(
        component="overhead",
        part="language",
        resident_bytes=0,
        low_bytes=0,
        expected_bytes=n_bytes,
        high_bytes=n_bytes,
        basis="modelled",
        formula="nf4: largest matrix unpacked; int8: 32-bit result and rounded input of the widest linear",
        source="bitsandbytes, autograd/_functions.py",
    )


def _allocator_item(working: int) -> Item:
    expected = int(working * ALLOCATOR_EXPECTED)
    return Item(
        component="overhead",
        part="language",
        resident_bytes=0,
        low_bytes=0,
        expected_bytes=expected,
        high_bytes=int(working * ALLOCATOR_HIGH),
        basis="modelled",
        formula="0 to 10 % of cache and activations: torch reserves in segments and frees cached ones before it gives"
        " up; nvidia-smi shows 1.25 to 1.5 times of it",
        source="reserved over allocated in simulated traces: median 1.27, p90 1.53; limit between 1.05 and 1.1",
    )


def _context_item(overhead: Overhead) -> Item:
    return Item(
        component="overhead",
        part="language",
        resident_bytes=overhead.expected_bytes,
        low_bytes=overhead.low_bytes,
        expected_bytes=overhead.expected_bytes,
        high_bytes=overhead.high_bytes,
        basis=overhead.basis,
        formula="CUDA context and libraries of one process",
        source=overhead.source,
    )


def _plain(component: str, n_bytes: int, basis: Basis, formula: str, part: Part = "language") -> Item:
    return Item(
        component="overhead" if component == "overhead" else "compute",
        part=part,
        resident_bytes=0,
        low_bytes=n_bytes,
        expected_bytes=n_bytes,
        high_bytes=n_bytes,
        basis=basis,
        formula=formula,
        source=SOURCE,
    )
