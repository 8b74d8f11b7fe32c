"""What llama.cpp's multimodal library (mtmd) makes of an image, one file per preprocessor.

It is not what the models' own processors do: sizes are computed in 32-bit floats, defaults and limits differ, little
is unpadded. Source of every rule here: llama.cpp 0.5.0-dev, tools/mtmd (mtmd-image.cpp, mtmd.cpp, clip.cpp).
"""
