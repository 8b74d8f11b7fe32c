"""What a detector hands back: the GPUs it saw, and a sentence for each thing it could not see."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from planner.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from planner.machine import Gpu

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """GPUs with their notes; nothing at all is an answer too."""

    gpus: tuple[Gpu, ...] = ()
    notes: tuple[str, ...] = ()

    def __add__(self, other: Found) -> Found:
        return Found(gpus=self.gpus + other.gpus, notes=self.notes + other.notes)


def attempt(default: T, question: Callable[[], T]) -> T:
    """Return the answer of a driver or file, or ``default`` where it refuses in whatever way."""
    try:
        return question()
    except Exception:  # noqa: BLE001 - a broken driver may raise anything, and detection must go on
        return default


def read_small(path: Path, n_characters: int = 65536) -> str:
    """Return at most ``n_characters`` of a file of the kernel, or nothing where it cannot be read."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(n_characters)
    except OSError:
        return ""


def reason(error: BaseException) -> str:
    """Return one line that says why, with at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__
