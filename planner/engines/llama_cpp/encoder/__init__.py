"""The vision encoder's memory, from its own operations: weights, what is reserved at load, the largest picture."""

from planner.engines.llama_cpp.encoder.buffers import Compute, Encoder, Picture, RunningEncoder
from planner.engines.llama_cpp.encoder.kinds import EncoderKind, encoder_kinds
from planner.engines.llama_cpp.encoder.memory import EncoderBuffers, encoder_buffers, fit_reservation
from planner.engines.llama_cpp.encoder.pictures import encoding_batches, picture_of, pictures_of
from planner.engines.llama_cpp.encoder.weights import EncoderWeights, encoder_weights

__all__ = [
    "Compute",
    "Encoder",
    "EncoderBuffers",
    "EncoderKind",
    "EncoderWeights",
    "Picture",
    "RunningEncoder",
    "encoder_buffers",
    "encoder_kinds",
    "encoder_weights",
    "encoding_batches",
    "fit_reservation",
    "picture_of",
    "pictures_of",
]
