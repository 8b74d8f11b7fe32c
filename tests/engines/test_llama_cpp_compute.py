"""Compute buffers against the real engine, to the byte; what is not understood is bounded, not guessed.

By default a stratified sample of the measured tables is checked: of every model one case of each regime. With
``VLPLAN_ALL_ROWS=1`` in the environment every case is.
"""

import os
from collections import defaultdict
from dataclasses import replace

import pytest
from llamacpp_rows import HOST as HOST_NAME
from llamacpp_rows import Case, fresh_cases, measured_case, table, traits

from planner.engines.llama_cpp.bound import bound_bytes
from planner.engines.llama_cpp.compute import _buffers, _scheduled, compute_buffers, output_buffer_bytes
from planner.engines.llama_cpp.flash_attention import mixer_supported
from planner.engines.llama_cpp.kv_cache import kv_cache_bytes
from planner.engines.llama_cpp.language_graph import language_graph
from planner.engines.llama_cpp.layout import HOST
from planner.engines.llama_cpp.schedule import arenas
from planner.engines.llama_cpp.shortening import find_runs, kept_layers, layer_signatures
from planner.engines.llama_cpp.traits import traits_from
from planner.engines.llama_cpp.weights import weights_bytes
from planner.model import Tensor
from planner.units import MIB

TABLES = ("llamacpp_text.csv.gz", "llamacpp_text_2026.csv.gz")
ALL_ROWS = bool(os.environ.get("VLPLAN_ALL_ROWS"))
REGIME = (
    "flash_attn",
    "cache_type_k",
    "no_kv_offload",
    "no_op_offload",
    "logits_rows",
    "sched_copies",
    "kv_unified",
    "swa_full",
)


def regime(rows):
    """Return what distinguishes cases that take other paths through the engine."""
    row = rows[0]
    n_layers = sum(int(line["n_repeating_layers"] or 0) for line in rows if line["device"] != "Host")
    partial = any(line["device"] == "Host" and int(line["n_repeating_layers"] or 0) for line in rows)
    n_gpus = row["device_free_mib"].count("/") + 1 if row["device_free_mib"] else 0
    flags = (min(n_gpus, 3), n_layers > 0, partial, row["n_cpu_moe"] not in ("", "0"), row["n_parallel"] != "1")
    return (*flags, *(row[key] for key in REGIME))


def sample():
    """Return the cases to check, by model."""
    chosen, seen = defaultdict(list), set()
    for name in TABLES:
        for rows in table(name):
            key = (rows[0]["model"], regime(rows))
            if ALL_ROWS or key not in seen:
                seen.add(key)
                chosen[rows[0]["model"]].append(rows)
    return chosen


SAMPLE = sample()


def missed(cases):
    """Return the cases whose buffers are not those of the engine, with both figures."""
    wrong = {}
    for case in cases:
        found = compute_buffers(case.request())
        if found is None or case.missed(found.bytes_by_device):
            wrong[case.name] = None if found is None else case.missed(found.bytes_by_device)
    return wrong


@pytest.mark.parametrize("model", sorted(SAMPLE))
def test_measured_tables_to_the_byte(model):
    """Every buffer of every device equals what the engine reserved."""
    assert missed(measured_case(rows) for rows in SAMPLE[model]) == {}


FRESH = defaultdict(list)
for _case in fresh_cases():
    FRESH[_case.language.architecture].append(_case)


@pytest.mark.parametrize("architecture", sorted(FRESH))
def test_random_models_to_the_byte(architecture):
    """Shapes and settings drawn at random, a third of them really allocated, are met as exactly."""
    assert missed(FRESH[architecture]) == {}


@pytest.mark.parametrize("architecture", sorted(FRESH))
def test_random_models_weights_and_caches(architecture):
    """Where the engine's figures were kept, weights and caches are met to the byte too."""
    for case in FRESH[architecture]:
        run = case.run()
        weights = weights_bytes(run.language, run.layout)
        caches = kv_cache_bytes(run.language, run.layout, run.cache)
        for found, given in ((weights, case.weight_bytes), (caches, case.cache_bytes)):
            own = {HOST_NAME if device == HOST else f"CUDA{device}": n_bytes for device, n_bytes in found.items()}
            assert {name: own.get(name, 0) for name in given} == given, case.name


def some_cases(n: int) -> list[Case]:
    """Return about ``n`` cases spread over models and regimes, random models among them."""
    measured = [rows for cases in SAMPLE.values() for rows in cases]
    step = max(len(measured) * 2 // n, 1)
    fresh = fresh_cases()
    return [measured_case(rows) for rows in measured[::step]] + fresh[:: max(len(fresh) * 2 // n, 1)]


def test_shortened_simulations_equal_full_depth():
    """Where a simulation of fewer layers proves itself, the full depth gives the same bytes."""
    n_shortened = 0
    for case in some_cases(60):
        request = case.request()
        runs = find_runs(layer_signatures(request))
        ready = _scheduled(request, runs) if runs else None
        short = _buffers(ready, runs, explain=False) if ready else None
        if short is None:
            continue
        n_shortened += len(kept_layers(request.language.n_layers, runs)) < request.language.n_layers
        full, _ = arenas(language_graph(request), request.backends)
        assert short.bytes_by_device == tuple(full.arena_bytes), case.name
    assert n_shortened >= 10


def test_the_bound_is_never_below_the_truth():
    """On every device of every case the bound from widths alone is at least what the engine reserved."""
    for cases in SAMPLE.values():
        for rows in cases:
            case = measured_case(rows)
            assert_bounded(case)
    for case in fresh_cases():
        assert_bounded(case)


def assert_bounded(case):
    """Check one case."""
    bound = bound_bytes(case.request())
    names = [f"CUDA{i}" for i in range(len(bound) - 1)] + ["Host"]
    for name, high in zip(names, bound, strict=True):
        assert high >= case.compute_bytes.get(name, 0), (case.name, name)


@pytest.fixture
def dense():
    """Return a request for a plain dense model on one GPU."""
    rows = next(r for r in table(TABLES[0]) if r[0]["model"] == "llama-3.1-8b" and r[0]["flash_attn"] == "on")
    return measured_case(rows).request()


def test_a_tensor_that_no_operation_reads_makes_a_model_unknown(dense):
    """A stored tensor without a place in the graph means that the graph is another one: no bytes are named."""
    strange = Tensor(name="blk.3.attn_mystery.weight", shape=(64, 64), format="f16")
    language = replace(dense.language, tensors=(*dense.language.tensors, strange))
    weights = {**dense.weights, strange.name: 0}
    assert compute_buffers(replace(dense, language=language, weights=weights)) is None


def test_a_tensor_that_is_missing_makes_a_model_unknown(dense):
    """Without a tensor that its kind of layer needs, nothing is claimed; the bound still stands."""
    tensors = tuple(t for t in dense.language.tensors if t.name != "blk.5.ffn_up.weight")
    request = replace(dense, language=replace(dense.language, tensors=tensors))
    assert compute_buffers(request) is None
    assert bound_bytes(request)[0] > compute_buffers(dense).bytes_by_device[0]


def test_a_model_without_known_layers_is_bounded(dense):
    """Where the layers are not understood the bound comes from the stored tensors."""
    unknown = replace(dense, language=replace(dense.language, layers=()))
    nowhere = replace(unknown, layer_devices=(), cache_devices=())
    assert compute_buffers(unknown) is None
    for request in (unknown, nowhere):
        assert bound_bytes(request)[0] >= compute_buffers(dense).bytes_by_device[0]


def test_a_peak_is_explained(dense):
    """The operation at the peak is named with its layer, and what lies there does not exceed the buffer."""
    found = compute_buffers(dense, explain=True)
    gpu = found.peaks[0]
    assert gpu.operation
    assert -1 <= gpu.layer < dense.language.n_layers
    assert 0 < sum(n_bytes for _, n_bytes in gpu.live) <= found.bytes_by_device[0]
    assert found.bytes_by_device == compute_buffers(dense).bytes_by_device


def test_more_tokens_or_cells_never_need_less(dense):
    """Buffers grow with the ubatch and with the context."""
    sizes = [compute_buffers(replace(dense, n_tokens=n, n_outputs=n)).bytes_by_device for n in (32, 64, 128, 512)]
    assert sizes == sorted(sizes)
    sizes = [compute_buffers(replace(dense, n_cells=n)).bytes_by_device for n in (512, 4096, 32768)]
    assert sizes == sorted(sizes)


def test_auto_gives_flash_attention_up_where_it_lands_elsewhere():
    """Supported head sizes are not enough: on the border of host and GPU layers the operation may be drawn over."""
    automatic = [case for case in fresh_cases() if case.settings.flash_attn == "auto"]
    given_up = [case for case in automatic if not case.request().flash_attn]
    surprising = [c for c in given_up if all(mixer_supported(layer.mixer) for layer in c.language.layers)]
    assert 0 < len(surprising) < len(given_up) < len(automatic)
    assert missed(surprising) == {}


def test_answers_are_remembered_by_content(dense):
    """An equal request gives the same answer, another one its own."""
    again = replace(dense, weights=dict(dense.weights))
    assert compute_buffers(again) is compute_buffers(dense)
    assert compute_buffers(replace(dense, n_tokens=dense.n_tokens // 2)) != compute_buffers(dense)


@pytest.mark.parametrize("name", TABLES)
def test_the_output_buffer_is_one_row_of_logits_per_sequence(name):
    """The engine's log gives it in hundredths of a MiB."""
    for rows in table(name)[::97]:
        row, case = rows[0], measured_case(rows)
        n_bytes = output_buffer_bytes(case.language.n_vocab, int(row["n_parallel"]))
        assert (
            row["output_buffer_mib"] in ("", f"{n_bytes / MIB:.2f}")
            or abs(n_bytes / MIB - float(row["output_buffer_mib"])) <= 0.005 + 1e-9
        )


def test_a_trait_that_does_not_exist_is_refused():
    """A misspelt trait in the table is an error, not a default."""
    with pytest.raises(ValueError, match="rotarry"):
        traits_from({"rotarry": "none"})


def test_every_architecture_in_the_table_is_exercised():
    """No entry stands in the table that no case here has shown to be right."""
    shown = {case.language.architecture for case in fresh_cases()}
    shown |= {measured_case(cases[0]).language.architecture for cases in SAMPLE.values()}
    assert set(traits()) <= shown
