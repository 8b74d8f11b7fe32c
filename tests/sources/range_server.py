"""A small HTTP server for the tests: serves files by range, counts requests and bytes, and can misbehave on purpose."""

from __future__ import annotations

import re
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PIECE_BYTES = 1 << 16


@dataclass
class Served:
    """What the server has, how it behaves, and what it saw."""

    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)  # sent with every status answer
    ranges: bool = True
    lie: str = ""  # begin, total, short, long, no_content_range, changing
    stall_s: float = 0.0
    trickle: bool = False
    n_requests: int = 0
    sent_bytes: int = 0
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    posted: list[bytes] = field(default_factory=list)
    base: str = ""


class _Handler(BaseHTTPRequestHandler):
    served: Served
    protocol_version = "HTTP/1.0"

    def log_message(self, *_args):
        """Stay silent."""

    def do_POST(self):
        """Answer like a GET, keeping what was posted."""
        self.served.posted.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        self.do_GET()

    def do_GET(self):
        """Answer one request as the test asked."""
        served = self.served
        served.n_requests += 1
        path = self.path.partition("?")[0]
        served.seen.append((path, {key.lower(): value for key, value in self.headers.items()}))
        if served.stall_s:
            time.sleep(served.stall_s)
        if path in served.redirects:
            return self._answer(302, {"Location": served.redirects[path]}, b"")
        if path in served.statuses:
            return self._answer(served.statuses[path], served.headers, b"no")
        data = served.files.get(path)
        if data is None:
            return self._answer(404, {}, b"")
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if match is None or not served.ranges:
            return self._answer(200, {}, data)
        return self._range(data, int(match[1]), int(match[2]))

    def _range(self, data, first, last):
        served = self.served
        if first >= len(data):
            return self._answer(416, {"Content-Range": f"bytes */{len(data)}"}, b"")
        body = data[first : last + 1]
        begin, total, final = first, len(data), first + len(body) - 1
        if served.lie == "begin":
            begin += 1
        if served.lie == "total":
            total = 10**17
        if served.lie == "changing":
            total += served.n_requests
        if served.lie == "short":
            body = body[: len(body) // 2]
        if served.lie == "long":
            body += b"x" * 100
        headers = {} if served.lie == "no_content_range" else {"Content-Range": f"bytes {begin}-{final}/{total}"}
        return self._answer(206, headers, body)

    def _answer(self, status, headers, body):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        if self.served.lie != "long":
            self.send_header("Content-Length", str(len(body) + (10 if self.served.lie == "length" else 0)))
        self.end_headers()
        try:
            if self.served.trickle:
                for byte in body[:100]:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    time.sleep(0.1)
                    self.served.sent_bytes += 1
            else:
                for start in range(0, len(body), PIECE_BYTES):
                    piece = body[start : start + PIECE_BYTES]
                    self.served.sent_bytes += len(piece)  # before the other side can have it and ask
                    self.wfile.write(piece)
        except OSError:
            pass


@contextmanager
def range_server(**behaviour):
    """Run a server for one test; yields what it serves and saw."""
    served = Served(**behaviour)
    handler = type("Handler", (_Handler,), {"served": served})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    served.base = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
