"""Files that a profile stands for may have been made with an importance matrix, which changes what is in them.

In the first eighth of the layers the quantiser then stores ``ffn_down`` otherwise: an IQ4_XS or IQ4_NL file holds less
than without one, a Q4_0 or Q5_0 file more. Most published files of these types were made with one; a published log of a
32B model in IQ4_XS has exactly that much less. Source: src/llama-quant.cpp, llama.cpp 0.5.0-dev.
"""

from __future__ import annotations

from collections.abc import Mapping

from planner.engines.llama_cpp.layout import HOST, Layout, layer_of, place_weights
from planner.engines.llama_cpp.weights import stored_bytes
from planner.model import Language, Model
from planner.remembered import remembered

FORMATS_WITHOUT_AND_WITH = {
    "IQ4_XS": ("q5_k", "iq4_xs"),
    "IQ4_NL": ("q5_k", "iq4_nl"),
    "Q4_0": ("q4_0", "q4_1"),
    "Q5_0": ("q5_0", "q5_1"),
}


def matrix_bytes(model: Model, layout: Layout) -> Mapping[int, int]:
    """Return what each device holds more (or less) where the file was made with an importance matrix.

    Nothing for a file that was read, which says what is in it.
    """
    formats = FORMATS_WITHOUT_AND_WITH.get(model.quantization or "")
    if formats is None or not model.source.startswith("profile "):
        return {}
    return _differences(model.language, layout, *formats)


@remembered
def _differences(language: Language, layout: Layout, without: str, with_one: str) -> Mapping[int, int]:
    found: dict[int, int] = {}
    for tensor, device in place_weights(language, layout):
        layer = layer_of(tensor.name)
        if layer is None or layer >= language.n_layers // 8 or tensor.format != without:
            continue
        if "ffn_down" in tensor.name:
            before, after = (stored_bytes(word, tensor.shape, on_gpu=device != HOST) for word in (without, with_one))
            found[device] = found.get(device, 0) + after - before
    return found
