"""Files that a profile stands for may have been made with an importance matrix, which changes what is in them.

The quantiser gives the first eighth of the layers' ``ffn_down`` Q5_K in an IQ4_XS or IQ4_NL file only where it has no
such matrix (llama.cpp, src/llama-quant.cpp). Most published files of these types were made with one; a published log of
GLM-Z1-32B in IQ4_XS has exactly that much less.
"""

from __future__ import annotations

from collections.abc import Mapping

from planner.engines.llama_cpp.layout import HOST, Layout, layer_of, place_weights
from planner.engines.llama_cpp.weights import stored_bytes
from planner.model import Language, Model
from planner.remembered import remembered

PLAIN = {"IQ4_XS": "iq4_xs", "IQ4_NL": "iq4_nl"}


def spared_bytes(model: Model, layout: Layout) -> Mapping[int, int]:
    """Return what each device holds less where the file was made with an importance matrix; a file itself is known."""
    plain = PLAIN.get(model.quantization or "")
    if plain is None or not model.source.startswith("profile "):
        return {}
    return _spared(model.language, layout, plain)


@remembered
def _spared(language: Language, layout: Layout, plain: str) -> Mapping[int, int]:
    spared: dict[int, int] = {}
    for tensor, device in place_weights(language, layout):
        layer = layer_of(tensor.name)
        if layer is None or layer >= language.n_layers // 8 or tensor.format != "q5_k" or "ffn_down" not in tensor.name:
            continue
        sizes = (stored_bytes(word, tensor.shape, on_gpu=device != HOST) for word in (tensor.format, plain))
        spared[device] = spared.get(device, 0) + next(sizes) - next(sizes)
    return spared
