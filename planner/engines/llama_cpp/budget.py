"""llama.cpp's whole memory, device by device: weights, cache, compute buffers, vision encoder and overhead."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from planner.budget import Budget, DeviceBudget, ImageTokens, Item, exact_item
from planner.engines.llama_cpp.bound import bound_bytes
from planner.engines.llama_cpp.compute import ComputeBuffers, compute_buffers, output_buffer_bytes
from planner.engines.llama_cpp.importance import matrix_bytes
from planner.engines.llama_cpp.kv_cache import kv_cache_bytes
from planner.engines.llama_cpp.layout import HOST
from planner.engines.llama_cpp.run import Run, device_names, graph_request
from planner.engines.llama_cpp.settings import LlamaCppSettings
from planner.engines.llama_cpp.traits import GraphTraits
from planner.engines.llama_cpp.weights import weights_bytes
from planner.frozen import dataclass
from planner.machine import Gpu

SOURCE = "llama.cpp 0.5.0-dev, ggml 0.25.3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """The vision encoder's bytes: ``device`` holds it (``HOST`` or a GPU), the host a smaller part beside."""

    device: int
    items: tuple[Item, ...]
    host_items: tuple[Item, ...] = ()


Overhead = Callable[[Gpu, int], tuple[Item, ...]]


def assemble(  # noqa: PLR0913 - every term of a budget
    run: Run,
    *,
    traits: GraphTraits | None,
    overhead: Overhead,
    encoding: Encoding | None,
    images: tuple[ImageTokens, ...] = (),
    refused: tuple[str, ...] = (),
) -> Budget:
    """Return the budget of one run: every term on the device that holds it, the host's last."""
    run = replace(run, flash_attn=graph_request(run, traits or GraphTraits()).flash_attn)
    compute = _compute_items(run, traits)
    weights = weights_bytes(run.language, run.layout)
    cache = kv_cache_bytes(run.language, run.layout, run.cache)
    devices = [
        DeviceBudget(
            device=name,
            name=gpu.name,
            total_bytes=gpu.total_bytes,
            free_bytes=gpu.free_bytes,
            items=(
                *_stored_items(run, index, weights, cache),
                *_present(compute[index]),
                *_encoder_items(encoding, index),
                *overhead(gpu, index),
            ),
            layers=_layers(run, index),
            has_output=run.layout.output == index,
        )
        for index, (name, gpu) in enumerate(zip(device_names(run.machine.gpus), run.machine.gpus, strict=True))
    ]
    return Budget(
        devices=(*devices, _sharing(run, devices, _host(run, weights, cache, compute[-1], encoding))),
        image_tokens=images,
        settings=resolved_settings(run),
        notes=_notes(run),
        refusals=refused,
        unknown=tuple(_unknown(run)),
    )


def _unknown(run: Run) -> Iterator[str]:
    """Yield what keeps the bytes from being known."""
    if not run.language.layers:
        yield str(run.language.facts.get("unknown", "layers of no known kind"))
    if run.settings.split_mode == "row":
        yield "split_mode row shares every matrix between the GPUs, which is not modelled; use split_mode layer"
    vision = run.model.vision
    if vision is not None and not vision.tensors:
        yield f"what the projector file of {run.model.name} holds is not known; name the file as projector"


def _present(item: Item) -> tuple[Item, ...]:
    return (item,) if item.high_bytes else ()


def _layers(run: Run, device: int) -> tuple[int, int] | None:
    held = [index for index, slot in enumerate(run.layout.slots[: run.language.n_layers]) if slot == device]
    return (held[0], held[-1]) if held else None


def _sharing(run: Run, gpus: Sequence[DeviceBudget], host: DeviceBudget) -> DeviceBudget:
    """Return the host with what GPUs of unified memory take from it no longer free."""
    pairs = zip(gpus, run.machine.gpus, strict=True)
    taken = sum(device.high_bytes for device, gpu in pairs if gpu.unified_memory)
    return replace(host, free_bytes=max(0, host.free_bytes - taken)) if taken else host


def _host(
    run: Run, weights: Mapping[int, int], cache: Mapping[int, int], compute: Item, encoding: Encoding | None
) -> DeviceBudget:
    host = run.machine.host
    items: list[Item] = [*_stored_items(run, HOST, weights, cache), *_present(compute)]
    n_vocab, n_seqs = run.language.n_vocab, run.resolved.n_seqs
    items.append(
        exact_item(
            "overhead",
            "language",
            output_buffer_bytes(n_vocab, n_seqs),
            formula="logits buffer: 4 bytes x vocabulary x sequences, outside the compute buffer",
            source=SOURCE,
            n_vocab=n_vocab,
            n_seqs=n_seqs,
        )
    )
    items += _encoder_items(encoding, HOST)
    return DeviceBudget(
        device="Host",
        name=host.cpu,
        total_bytes=host.total_bytes,
        free_bytes=host.free_bytes,
        items=tuple(items),
        layers=_layers(run, HOST),
        has_output=run.layout.output == HOST,
    )


def _encoder_items(encoding: Encoding | None, device: int) -> tuple[Item, ...]:
    if encoding is None:
        return ()
    own = encoding.items if encoding.device == device else ()
    return (*own, *(encoding.host_items if device == HOST else ()))


def _stored_items(run: Run, device: int, weights: Mapping[int, int], cache: Mapping[int, int]) -> Iterator[Item]:
    if weights[device]:
        yield _weights_item(run, device, weights[device])
    if cache[device]:
        resolved = run.resolved
        yield exact_item(
            "kv_cache",
            "language",
            cache[device],
            formula="sum over the layers here of cells x streams x (K row + V row), and of state per sequence",
            source=SOURCE,
            cells=resolved.n_ctx_seq,
            streams=resolved.n_streams,
            sequences=resolved.n_seqs,
            cache_type_k=run.settings.cache_type_k,
            cache_type_v=run.settings.cache_type_v,
        )


def _weights_item(run: Run, device: int, n_bytes: int) -> Item:
    """Return the item; its range is what files made with and without an importance matrix hold, where they differ."""
    item = exact_item(
        "weights",
        "language",
        n_bytes,
        formula="sum over the tensors on this device of their bytes, padded to the buffer's alignment",
        source=f"{SOURCE}; {run.model.source or 'profile'}",
        quantization=run.model.quantization or "as stored",
    )
    more = matrix_bytes(run.model, run.layout).get(device, 0)
    if not more:
        return item
    return replace(item, low_bytes=n_bytes + min(more, 0), high_bytes=n_bytes + max(more, 0), basis="modelled")


def _compute_items(run: Run, traits: GraphTraits | None) -> list[Item]:
    """Return the compute buffer of each device, the host's last: simulated, or a bound that says so."""
    found = None if traits is None or run.settings.split_mode == "row" else compute_buffers(graph_request(run, traits))
    if found is None or traits is None:
        return [_bounded(n_bytes, n_bytes) for n_bytes in _bounds(run)]
    if any(gpu.backend != "cuda" for gpu in run.machine.gpus):
        return [_bounded(n, max(n, most)) for n, most in zip(found.bytes_by_device, _bounds(run), strict=True)]
    estimates = _without_allocation(run, traits, found)
    return [
        _simulated(run, n_bytes, estimate) for n_bytes, estimate in zip(found.bytes_by_device, estimates, strict=True)
    ]


def _bounds(run: Run) -> tuple[int, ...]:
    return bound_bytes(graph_request(run, GraphTraits()))


def _without_allocation(run: Run, traits: GraphTraits, found: ComputeBuffers) -> tuple[int, ...]:
    """Return what the engine's own estimate (``--fit``, its memory table before a load) says of each device.

    It forgets which device a norm or a host-side attention is tied to, which matters with several GPUs or with the
    cache on the host: under pipeline parallelism it is 16 bytes x width x ubatch more on every GPU after the first.
    """
    tied = run.settings.no_kv_offload or (run.layout.n_gpus > 1 and run.layout.all_offloaded)
    estimate = compute_buffers(graph_request(run, traits, pinned=False)) if tied else None
    return (estimate or found).bytes_by_device


def _simulated(run: Run, n_bytes: int, estimate: int) -> Item:
    """Return the item; outside pipelines the engine's own estimate, where larger, is the high bound."""
    item = exact_item(
        "compute",
        "language",
        n_bytes,
        formula="peak of the best-fit arena in which the engine places this device's share of the graph of one ubatch",
        source=f"{SOURCE}, simulated operation by operation",
        ubatch=run.resolved.n_ubatch,
        logits_rows=min(run.resolved.n_ubatch, run.resolved.n_outputs),
        flash_attn="on" if run.flash_attn else "off",
        pipeline_copies=4 if run.pipelined else 1,
    )
    if estimate == n_bytes:
        return replace(item, basis="modelled")
    return replace(
        item,
        basis="modelled",
        high_bytes=n_bytes if run.pipelined else max(n_bytes, estimate),
        inputs={**item.inputs, "estimate_without_allocation_bytes": estimate},
    )


def _bounded(expected: int, high: int) -> Item:
    """Return the item of an architecture or a back end whose rules were not read."""
    return Item(
        component="compute",
        part="language",
        resident_bytes=expected,
        low_bytes=0,
        expected_bytes=expected,
        high_bytes=high,
        basis="assumed",
        formula="upper bound from the widths of the layers: this architecture's graph or this back end's rules are not "
        "known operation by operation; where the graph is, the CUDA figure is expected",
        source=SOURCE,
    )


def _notes(run: Run) -> tuple[str, ...]:
    notes = []
    trained = run.language.n_context_train
    if trained and run.resolved.n_ctx_seq > trained:
        notes.append(
            f"The context of {run.resolved.n_ctx_seq} is above the {trained} tokens the model was trained for."
        )
    return tuple(notes)


def resolved_settings(run: Run) -> dict[str, object]:
    """Return the settings as the engine runs with them, defaults included."""
    words = settings_of(run.settings)
    words |= {"ctx_size": run.resolved.n_ctx_asked, "parallel": run.resolved.n_seqs}
    words |= {"batch_size": run.resolved.n_batch, "ubatch_size": run.resolved.n_ubatch}
    words |= {"kv_unified": run.resolved.kv_unified, "flash_attn": "on" if run.flash_attn else "off"}
    return words


def settings_of(settings: LlamaCppSettings) -> dict[str, object]:
    """Return what was asked, without what was left to the engine."""
    words = {name: getattr(settings, name) for name in settings.__slots__}
    return {name: value for name, value in words.items() if value is not None}
