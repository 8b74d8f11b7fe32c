"""Real model files and folders become models here: GGUF, Hugging Face folders, Ollama stores, the hub."""
