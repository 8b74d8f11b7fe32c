"""File types: the words for how a GGUF file as a whole is quantised, their numbers and their usual block format."""

from __future__ import annotations

from planner.errors import UsageError

# number under general.file_type → name of the file type
FILE_TYPE_NUMBERS: dict[int, str] = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4_MOE",
    39: "NVFP4",
    40: "Q1_0",
    41: "Q2_0",
}

# file type → format of a tensor about which nothing special is known
DEFAULT_FORMATS: dict[str, str] = {
    "F32": "f32",
    "F16": "f16",
    "BF16": "bf16",
    "Q8_0": "q8_0",
    "Q6_K": "q6_k",
    "Q5_K_M": "q5_k",
    "Q5_K_S": "q5_k",
    "Q5_1": "q5_1",
    "Q5_0": "q5_0",
    "Q4_K_M": "q4_k",
    "Q4_K_S": "q4_k",
    "Q4_1": "q4_1",
    "Q4_0": "q4_0",
    "IQ4_NL": "iq4_nl",
    "IQ4_XS": "iq4_xs",
    "MXFP4_MOE": "mxfp4",
    "Q3_K_L": "q3_k",
    "Q3_K_M": "q3_k",
    "Q3_K_S": "q3_k",
    "Q2_K": "q2_k",
}


# other words for them, as llama-quantize and model cards use them
_ALIASES = {
    "FP32": "F32",
    "FP16": "F16",
    "Q3_K": "Q3_K_M",
    "Q4_K": "Q4_K_M",
    "Q5_K": "Q5_K_M",
    "MXFP4": "MXFP4_MOE",
}


def known_file_type(word: str) -> str:
    """Return the file type called ``word``, any case.

    Raises:
        UsageError: no such file type, or one whose recipe is not known.
    """
    name = word.strip().upper().replace("-", "_")
    name = _ALIASES.get(name, name)
    if name not in DEFAULT_FORMATS:
        raise UsageError(f"no recipe for the file type {word!r}; known: {', '.join(DEFAULT_FORMATS)}")
    return name
