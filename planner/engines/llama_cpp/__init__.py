"""llama.cpp: what it loads, what it allocates where, and the flags it is run with."""
