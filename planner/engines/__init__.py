"""One module or folder per engine: does it load a model, what it allocates where, and what to paste."""
