"""The one error base. An error carries one line for the user and the exit code of the command."""

from __future__ import annotations


class VlplanError(Exception):
    """Something went wrong that the user can act on: the message says what, where and what to do.

    The command prints the message as one line on stderr and exits with ``exit_code``.
    """

    exit_code = 1


class UsageError(VlplanError):
    """The request itself is wrong: an unknown name, an impossible setting, a malformed value."""

    exit_code = 2


class SourceError(VlplanError):
    """A file or folder could not be read as a model: missing, truncated, hostile or foreign."""
