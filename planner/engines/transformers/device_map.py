"""Where accelerate puts each module.

Modules in order, layers never split, the largest piece kept free on the first GPU and on the CPU, one GPU filled to
90 %, several balanced. Source: transformers 5.23.0, ``integrations/accelerate.py`` (``get_balanced_memory``,
``infer_auto_device_map``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from planner.engines.transformers.weights import Piece
from planner.frozen import dataclass

DISK = "disk"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The device of each piece, in order. ``limits`` are the sizes that the walk respected."""

    devices: tuple[str, ...]
    limits: Mapping[str, int]

    def indices(self, device: str) -> list[int]:
        """Return the numbers of the pieces on ``device``."""
        return [i for i, name in enumerate(self.devices) if name == device]


def balanced_limits(
    pieces: Sequence[Piece], free_bytes: Mapping[str, int], given: Mapping[str, int] | None, *, quantized: bool
) -> dict[str, int]:
    """Return the size each GPU may take.

    One GPU: 90 % of it. Several: an equal share and 1.25 times the largest piece. The last
    GPU keeps its whole size; sizes the user gave are only ever lowered. bitsandbytes takes 10 % off.
    """
    limits = dict(given) if given is not None else dict(free_bytes)
    gpus = [device for device in limits if device != "Host" and limits[device] > 0]
    if len(gpus) == 1 and given is None:
        limits[gpus[0]] = limits[gpus[0]] * 9 // 10
    if len(gpus) > 1:
        largest = max(piece.n_bytes for piece in pieces)
        share = sum(piece.n_bytes for piece in pieces) // len(gpus) + largest * 5 // 4
        limits.update({gpu: min(share, limits[gpu]) for gpu in gpus[:-1]})
    return {device: size * 9 // 10 for device, size in limits.items()} if quantized else limits


def place(pieces: Sequence[Piece], limits: Mapping[str, int]) -> Placement:
    """Return the device of each piece: the current one while it has room, else the next; what no device takes: disk."""
    order = [device for device in limits if device != "Host"] + (["Host"] if "Host" in limits else []) + [DISK]
    reserving = {order[0], "Host"}
    used = dict.fromkeys(order, 0)
    at = 0
    devices: list[str] = []
    where: dict[str | None, str] = {}
    for i, piece in enumerate(pieces):
        if piece.tied_to in where:
            devices.append(where[piece.tied_to])
            continue
        largest = max(other.n_bytes for other in pieces[i:])
        while order[at] != DISK:
            room = limits[order[at]] - (largest if order[at] in reserving else 0)
            if used[order[at]] + piece.n_bytes <= room:
                break
            at += 1
        used[order[at]] += piece.n_bytes
        where[piece.name] = order[at]
        devices.append(order[at])
    return Placement(devices=tuple(devices), limits=limits)
