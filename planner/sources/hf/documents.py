"""The configuration files of one folder, and look-ups across them by a dotted path such as ``vision.patch_size``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from planner.errors import SourceError
from planner.frozen import dataclass
from planner.sources.bytes import open_file, read_whole
from planner.sources.hf.words import Lookup
from planner.sources.json_text import Fields, parse_object
from planner.units import MIB

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from planner.model import Number
    from planner.sources.bytes import ByteSource

MAX_CONFIG_BYTES = 4 * MIB
MAX_INDEX_BYTES = 24 * MIB
_EMPTY: dict[str, object] = {}


class Folder(Protocol):
    """A model's files, on disk or on the hub."""

    @property
    def name(self) -> str:
        """Path or repository, for messages."""
        ...

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files directly inside."""
        ...

    def source(self, name: str, /) -> ByteSource | None:
        """Return a file to be read in pieces, None where there is none."""
        ...

    def small(self, name: str, /) -> bytes | None:
        """Return a small file whole, None where there is none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFolder:
    """A folder on disk."""

    path: Path

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files directly inside, sorted.

        Raises:
            SourceError: the folder cannot be listed.
        """
        try:
            return tuple(sorted(entry.name for entry in self.path.iterdir() if entry.is_file()))
        except OSError as error:
            raise SourceError(f"{self.path}: cannot be listed: {error.strerror}") from error

    def source(self, name: str) -> ByteSource | None:
        """Return the file ``name``, None where there is none."""
        path = self.path / name
        return open_file(path) if path.exists() else None

    def small(self, name: str) -> bytes | None:
        """Return the file ``name`` whole, None where there is none."""
        found = self.source(name)
        return read_whole(found, MAX_INDEX_BYTES) if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """The objects that describe a model: the configuration, its parts, and the processors'."""

    name: str
    config: Fields
    text: Fields
    vision: Fields
    preprocessor: Fields
    processor: Fields

    def find(self, path: str) -> object:
        """Return what stands at ``document.key.key``, None where nothing does."""
        document, *keys = path.split(".")
        value: object = getattr(self, document).values
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def value(self, wanted: object) -> Number:
        """Return the number that a word of the data file asks for: a literal, or a look-up.

        Raises:
            SourceError: what stands there is of another kind.
        """
        if isinstance(wanted, list):
            return tuple(wanted)
        if not isinstance(wanted, Lookup):
            return _plain(wanted, self.name)
        found = next((v for path in wanted.at if (v := self.find(path)) is not None), wanted.default)
        number = _plain(found, f"{self.name}, {' or '.join(wanted.at)}")
        if wanted.equals is not None:
            return None if number is None else number == wanted.equals
        if isinstance(number, tuple):
            return _listed(number, wanted, self)
        if isinstance(number, bool) or not isinstance(number, int | float):
            return number
        return _shaped(number, wanted, self)


def read_config(folder: Folder) -> Fields | None:
    """Return the folder's ``config.json``, None where it has none.

    Raises:
        SourceError: it is no honest JSON object.
    """
    return _document(folder, "config.json")


def read_documents(folder: Folder, config: Fields, text_key: str | None, vision_key: str) -> Documents:
    """Return all documents of ``folder``; a processor kept inside processor_config.json stands for its own file.

    Raises:
        SourceError: one of them is no honest JSON object.
    """
    empty = Fields(values=_EMPTY, where=folder.name)
    processor = _document(folder, "processor_config.json") or empty
    preprocessor = _document(folder, "preprocessor_config.json") or processor.fields("image_processor") or empty
    text = (config.fields(text_key) if text_key else None) or config
    return Documents(
        name=folder.name,
        config=config,
        text=text,
        vision=config.fields(vision_key) or empty,
        preprocessor=preprocessor,
        processor=processor,
    )


def with_defaults(fields: Fields, defaults: Mapping[str, object]) -> Fields:
    """Return ``fields`` with what the configuration class assumes for keys that are left out."""
    missing = {key: value for key, value in defaults.items() if key not in fields.values}
    return Fields(values={**fields.values, **missing}, where=fields.where)


def _document(folder: Folder, name: str) -> Fields | None:
    data = folder.small(name)
    if data is None:
        return None
    if len(data) > MAX_CONFIG_BYTES:
        raise SourceError(f"{folder.name}/{name}: {len(data)} bytes; refused as too large for a configuration")
    where = f"{folder.name}/{name}"
    return Fields(values=parse_object(data, where), where=where)


def _plain(value: object, where: str) -> Number:
    if isinstance(value, list):
        flat = [n for item in value for n in (item if isinstance(item, list) else [item])]
        if len(flat) > 4096 or not all(isinstance(n, int) and abs(n) < 1 << 62 for n in flat):
            raise SourceError(f"{where}: a list of whole numbers is expected")
        return tuple(flat)
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float) and abs(value) < 1 << 62:
        return value
    raise SourceError(f"{where}: a number is expected")


def _listed(numbers: tuple[int, ...], wanted: Lookup, documents: Documents) -> tuple[int, ...]:
    if wanted.from_end is not None:
        end = documents.value(Lookup(at=[wanted.from_end]))
        numbers = tuple(n + end if n < 0 and isinstance(end, int) else n for n in numbers)
    return numbers + (0,) * (wanted.pad - len(numbers))


def _shaped(number: float, wanted: Lookup, documents: Documents) -> int | float:
    for divisor in wanted.divide:
        by = documents.value(Lookup(at=[divisor])) if isinstance(divisor, str) else divisor
        if not isinstance(by, int | float) or by <= 0:
            raise SourceError(f"{documents.name}: {divisor} must be a number above 0, found {by!r}")
        number = number // by if isinstance(by, int) else number / by
    whole = int(number) if wanted.divide else number
    return (whole * whole if wanted.square else whole) + wanted.plus
