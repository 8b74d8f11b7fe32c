"""What is asked for beside a model's source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.frozen import dataclass
from planner.sources.access import Access

if TYPE_CHECKING:
    from planner.sources.network import Network

GGUF_ENGINES = frozenset({"llama.cpp", "ollama"})
NO_PROJECTOR = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which engine reads the model, in which quantisation, with which projector, and what it may ask of the network."""

    engine: str
    quantization: str | None
    projector: str | None
    access: Access

    @property
    def gguf(self) -> bool:
        """Whether the engine reads GGUF files."""
        return self.engine in GGUF_ENGINES

    @property
    def text_only(self) -> bool:
        """Whether the vision part is to be left out."""
        return self.projector == NO_PROJECTOR

    @property
    def network(self) -> Network:
        """The network as far as it is allowed."""
        from planner.sources.network import Network  # noqa: PLC0415 - a profile needs none

        return Network(
            allowed=self.access.online and not self.access.offline,
            timeout_s=self.access.timeout_s,
            reason="--offline forbids it" if self.access.offline else "add --online to allow it",
        )
