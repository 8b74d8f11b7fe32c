"""The operations of each kind of layer, in the order the engine builds them: one description per kind.

Source: llama.cpp 0.5.0-dev, src/llama-graph.cpp and src/models/*.cpp.
"""
