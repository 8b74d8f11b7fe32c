"""Engine-neutral terms of a memory budget."""
