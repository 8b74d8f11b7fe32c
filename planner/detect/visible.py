"""``CUDA_VISIBLE_DEVICES`` and its like, read as the driver reads them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_INDEX = re.compile(r"[+-]?\d{1,6}")


def chosen_devices(
    text: str | None,
    uuids: Sequence[str | None],
    *,
    n_indexed: int | None = None,
    variable: str = "CUDA_VISIBLE_DEVICES",
) -> tuple[tuple[int, ...], str | None]:
    """Return the positions in ``uuids`` that a process sees, in the order it sees them, and a note or None.

    Unset shows all; empty and ``-1`` show none. Entries are indices or unambiguous beginnings of UUIDs. The list
    ends at the first entry that names no device; a device named twice hides all.

    Args:
        text: the variable's value, None where it is not set.
        uuids: one UUID per device, None where the driver gave none.
        n_indexed: how many of them, from the first, have an index (MIG instances have none); all when None.
        variable: its name, for the note.
    """
    n_indexed = len(uuids) if n_indexed is None else n_indexed
    if text is None:
        return tuple(range(n_indexed)), None
    chosen: list[int] = []
    for token in (part.strip() for part in text.split(",")):
        position = _position(token, uuids, n_indexed)
        if position is None:
            return tuple(chosen), _ending(variable, text, token, len(chosen))
        if position in chosen:
            return (), f"{variable}={text[:80]} names a device twice, which hides all of them"
        chosen.append(position)
    return tuple(chosen), f"{variable}={text[:80]} shows {len(chosen)} of {n_indexed} devices"


def _ending(variable: str, text: str, token: str, n_chosen: int) -> str:
    if not n_chosen and token in {"", "-1"}:
        return f"{variable}={text[:80]} hides every device"
    return f"{variable}={text[:80]}: {token[:40]!r} names no device here, so only the {n_chosen} before it are visible"


def _position(token: str, uuids: Sequence[str | None], n_indexed: int) -> int | None:
    if _INDEX.fullmatch(token):
        return int(token) if 0 <= int(token) < n_indexed else None
    if not token.upper().startswith(("GPU-", "MIG-")):
        return None
    matching = [i for i, uuid in enumerate(uuids) if uuid is not None and uuid.lower().startswith(token.lower())]
    return matching[0] if len(matching) == 1 else None
