"""Folders of Hugging Face files become models: configuration, processors and safetensors headers."""

from planner.sources.hf.documents import Folder, LocalFolder
from planner.sources.hf.model import model_from_folder

__all__ = ["Folder", "LocalFolder", "model_from_folder"]
