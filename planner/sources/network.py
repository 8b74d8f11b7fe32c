"""One HTTP(S) request with a deadline: redirects by hand, the token with its host only, secrets never in a message.

Semantics of statuses and redirects: RFC 9110. A proxy named in the environment is honoured.
"""

from __future__ import annotations

import json
import queue
import re
import threading
from dataclasses import field
from typing import TYPE_CHECKING, Protocol, Self, TypeVar, cast
from urllib.parse import urljoin, urlsplit, urlunsplit

from planner.errors import SourceError
from planner.frozen import dataclass
from planner.sources.access import DEFAULT_TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from email.message import Message
    from urllib.request import Request

MAX_REDIRECTS = 5

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_T = TypeVar("_T")


class _Response(Protocol):
    """What urllib answers with, an HTTPResponse or the HTTPError around one."""

    status: int
    headers: Message

    def read(self, size: int, /) -> bytes: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """How to reach servers. ``allowed`` is False offline; ``token`` is sent to ``token_host`` only."""

    allowed: bool = False
    timeout_s: float = DEFAULT_TIMEOUT_S
    token: str | None = field(default=None, repr=False)
    token_host: str | None = None
    reason: str = "add --online to allow it"

    def headers_for(self, url: str) -> dict[str, str]:
        """Return the request headers for ``url``; the token goes to its own host over TLS or to this machine."""
        parts = urlsplit(url)
        headers = {"User-Agent": "vlplan", "Accept-Encoding": "identity"}
        safe = parts.scheme == "https" or parts.hostname in {"localhost", "127.0.0.1", "::1"}
        if self.token and safe and parts.netloc == self.token_host:
            headers["Authorization"] = f"Bearer {self.token}"
        return headers


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answered request: final address, status, headers by lower-case name, and at most the bytes asked for."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes


def public_address(url: str) -> str:
    """Return ``url`` without user, password, query and fragment, for messages."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit((parts.scheme, f"{host}{port}", parts.path, "", ""))


def check_address(url: str) -> str:
    """Return ``url`` where it is a plain http or https address.

    Raises:
        SourceError: another scheme, no host, or characters that do not belong there.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise SourceError(f"not a usable address: {error}") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or re.search(r"[\s\x00-\x20\x7f]", url):
        raise SourceError(f"{public_address(url)!r} is not a usable http or https address")
    return url


def request(
    network: Network,
    url: str,
    *,
    limit_bytes: int,
    headers: Mapping[str, str] | None = None,
    post: Mapping[str, str] | None = None,
) -> Answer:
    """Ask for ``url`` within the deadline, following redirects, reading at most ``limit_bytes`` + 1 of the body.

    GET, or POST where there is something to ``post`` (as JSON).

    Raises:
        SourceError: the network is not allowed, nothing answers in time, or the transport breaks.
    """
    name = public_address(check_address(url))
    if not network.allowed:
        raise SourceError(f"{name}: reading it needs the network; {network.reason}")
    ask = _Ask(headers=dict(headers or {}), limit_bytes=limit_bytes, body=json.dumps(post).encode() if post else None)
    return _within(network.timeout_s, name, lambda: _follow(network, url, ask))


def raise_for_status(answer: Answer, name: str) -> None:
    """Turn an HTTP error status into one line that says what to do.

    Raises:
        SourceError: the status is not a success.
    """
    if answer.status < 400:
        return
    advice = {
        401: "it wants a login: set HF_TOKEN to a token with access",
        403: "access is refused: accept the model's terms on its page, or set HF_TOKEN",
        404: "there is no such file: check the name and the revision",
        429: f"too many requests{_retry_after(answer.headers)}: wait and try again",
    }.get(answer.status, "the server failed: try again later" if answer.status >= 500 else "the server refused")
    raise SourceError(f"{name}: HTTP {answer.status}: {advice}")


def fetch_small(
    network: Network, url: str, *, limit_bytes: int, headers: Mapping[str, str] | None = None
) -> bytes | None:
    """Return a small remote file whole, or None where there is none (404).

    Raises:
        SourceError: any other failure, or more than ``limit_bytes``.
    """
    answer = request(network, url, headers=headers, limit_bytes=limit_bytes)
    name = public_address(url)
    if answer.status == 404:
        return None
    raise_for_status(answer, name)
    if len(answer.body) > limit_bytes:
        raise SourceError(f"{name}: more than {limit_bytes} bytes where a small text file is expected")
    return answer.body


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ask:
    """What is asked, wherever redirects lead."""

    headers: Mapping[str, str]
    limit_bytes: int
    body: bytes | None


def _follow(network: Network, url: str, ask: _Ask) -> Answer:
    """Follow redirects by hand: https never becomes http, and the token is sent only to its own host."""
    for _ in range(MAX_REDIRECTS + 1):
        answer = _one_request(network, url, ask)
        target = answer.headers.get("location")
        if answer.status not in _REDIRECTS or not target:
            return answer
        following = check_address(urljoin(url, target))
        if url.startswith("https:") and not following.startswith("https:"):
            raise SourceError(f"{public_address(url)}: redirects from https to http; refused")
        url = following
    raise SourceError(f"{public_address(url)}: more than {MAX_REDIRECTS} redirects; refused")


def _one_request(network: Network, url: str, ask: _Ask) -> Answer:
    import urllib.request  # noqa: PLC0415 - 50 ms that commands without a network can spare
    from http.client import HTTPException  # noqa: PLC0415 - same

    name = public_address(url)
    headers = {**network.headers_for(url), **ask.headers}
    prepared = urllib.request.Request(url, data=ask.body, headers=headers)  # noqa: S310 - the scheme was checked
    if ask.body is not None:
        prepared.add_header("Content-Type", "application/json")
    try:
        with _opened(prepared, network.timeout_s) as response:
            found = {key.lower(): value for key, value in response.headers.items()}
            return Answer(url=url, status=response.status, headers=found, body=_body(response, found, ask))
    except HTTPException as error:
        raise SourceError(f"{name}: the server broke off or sent something that is not HTTP") from error
    except (OSError, ValueError) as error:
        raise SourceError(f"{name}: {_transport_reason(error, network.timeout_s)}") from error


def _opened(prepared: Request, timeout_s: float) -> _Response:
    """Return the response, also of an error status. Redirects are followed elsewhere: the token stays with its host."""
    import urllib.error  # noqa: PLC0415 - see _one_request
    import urllib.request  # noqa: PLC0415 - see _one_request

    class NoRedirect(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_args: object, **_kwargs: object) -> None:
            return None

    try:
        return cast("_Response", urllib.request.build_opener(NoRedirect).open(prepared, timeout=timeout_s))
    except urllib.error.HTTPError as error:
        return cast("_Response", error)


def _body(response: _Response, found: Mapping[str, str], ask: _Ask) -> bytes:
    """Return the body where it is wanted: not of errors, not of a whole file when a range was asked for."""
    if response.status != (206 if "Range" in ask.headers else 200):
        return b""
    if found.get("content-encoding", "identity") != "identity":
        raise ValueError("the server compressed what was asked for plain")
    return response.read(ask.limit_bytes + 1)


def _within(timeout_s: float, name: str, ask: Callable[[], _T]) -> _T:
    """Return ``ask()``, or give up after ``timeout_s``: name lookups and trickling servers escape socket timeouts."""
    done: queue.SimpleQueue[tuple[_T | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            done.put((ask(), None))
        except BaseException as error:  # noqa: BLE001 - handed to the waiting thread
            done.put((None, error))

    threading.Thread(target=run, daemon=True, name="vlplan-request").start()
    try:
        result, error = done.get(timeout=timeout_s + 0.1)
    except queue.Empty:
        raise SourceError(f"{name}: no complete answer within {timeout_s:g} s; --timeout allows more") from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]


def _transport_reason(error: Exception, timeout_s: float) -> str:
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, TimeoutError):
        return f"no complete answer within {timeout_s:g} s; --timeout allows more"
    text = getattr(reason, "strerror", None) or str(reason)
    return f"cannot be reached: {text}"


def _retry_after(headers: Mapping[str, str]) -> str:
    seconds = headers.get("retry-after", "")
    return f" (retry after {seconds} s)" if seconds.isascii() and seconds.isdigit() and len(seconds) < 6 else ""
