"""What engines and drivers write about memory, read back: text in, measured figures out."""

from planner.logs.found import Figure, Log, LoggedDevice, LoggedModel
from planner.logs.reading import read_log, read_text

__all__ = ["Figure", "Log", "LoggedDevice", "LoggedModel", "read_log", "read_text"]
