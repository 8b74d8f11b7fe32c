"""Where the YAML of ``profiles/`` lies and how it is read: strictly, once, and only the files asked for."""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Hashable


@lru_cache(maxsize=1)
def profiles_folder() -> Path:
    """Return the folder of profiles: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "profiles"
    return packaged if packaged.is_dir() else package.parent / "profiles"


@cache
def load_data(relative_path: str) -> Any:  # noqa: ANN401 - YAML holds anything; callers validate
    """Return the parsed content of a YAML file under ``profiles/``, e.g. ``engines/llama_cpp/layers.yaml``.

    The value is shared between callers: read it, never change it.

    Raises:
        SourceError: there is no such file, or it is not YAML without duplicate keys.
    """
    return parse_yaml(read_text(relative_path), f"profiles/{relative_path}")


def read_text(relative_path: str) -> str:
    """Return the text of a file under ``profiles/``.

    Raises:
        SourceError: there is no such file.
    """
    try:
        return profiles_folder().joinpath(*relative_path.split("/")).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"profiles/{relative_path}: cannot be read: {error}; reinstall vlplan") from error


def parse_yaml(text: str, name: str) -> Any:  # noqa: ANN401 - see load_data
    """Return the content of YAML ``text``, refusing duplicate keys; ``name`` is for the message.

    Raises:
        SourceError: the text is no such YAML.
    """
    import yaml  # noqa: PLC0415 - 20 ms that most commands can spare

    try:
        return yaml.load(text, Loader=_strict_loader())  # noqa: S506 - a subclass of the safe loader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SourceError(f"{name}: {yaml_trouble(error)}") from error


def yaml_trouble(error: Exception) -> str:
    """Return what the parser found wrong in one line, without its word for a text that came from no file."""
    return " ".join(str(error).replace('in "<unicode string>", ', "at ").split())


@lru_cache(maxsize=1)
def _strict_loader() -> Any:  # noqa: ANN401 - the class is made at run time
    import yaml  # noqa: PLC0415 - see parse_yaml

    safe = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class StrictLoader(safe):  # type: ignore[misc, valid-type]  # whichever of the two there is
        """The safe loader, but a key that stands twice is an error."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:  # noqa: ANN401, FBT001, FBT002 - PyYAML's signature
            seen: set[str] = set()
            for key_node, _ in node.value:
                key = repr(self.construct_object(key_node, deep=True))
                if key in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key}", node.start_mark)
                seen.add(key)
            mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
            return mapping

    return StrictLoader
