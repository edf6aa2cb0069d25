"""A real HTTP server on this machine that misbehaves on demand."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class FaultyServer(ThreadingHTTPServer):
    """Serves the bytes of `files`; what goes wrong stands in the path.

    ``/ranges/NAME`` works; ``/plain/NAME`` knows no ranges; ``/drop/NAME`` breaks each
    connection after `drop_after` bytes; ``/dropplain/NAME`` does so and knows no
    ranges; ``/wrong/NAME`` serves other bytes of the same size; ``/short/NAME``
    serves, without a fault, half of them; ``/shifted/NAME`` answers with the wrong
    part; ``/huge/NAME`` announces an exabyte; ``/slow/NAME`` takes 0.5 s; anything
    else is not found.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.drop_after = 2**16 + 500  # one whole chunk of the downloader
        self.requests: list[tuple[str, str | None]] = []  # path, Range header

    def url(self, fault: str, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{fault}/{name}"


class _Handler(BaseHTTPRequestHandler):
    server: FaultyServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.requests.append((self.path, asked))
        _, fault, name = self.path.split("/", 2)
        content = self.server.files.get(name)
        if content is None or fault == "missing":
            self.send_error(404)
            return
        self.close_connection = True
        if fault == "slow":
            time.sleep(0.5)
        content = self._spoil(fault, content)
        start = 0
        if asked and fault not in ("plain", "dropplain", "wrong", "short", "huge"):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if start:
            first = start + 1 if fault == "shifted" else start
            self.send_response(206)
            self.send_header(
                "Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}"
            )
        else:
            self.send_response(200)
        body = content[start:]
        size = 10**18 if fault == "huge" else len(body)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        if fault in ("drop", "dropplain"):
            body = body[: self.server.drop_after]
        self.wfile.write(body)

    @staticmethod
    def _spoil(fault: str, content: bytes) -> bytes:
        if fault == "wrong":
            return bytes(255 - byte for byte in content)
        return content[: len(content) // 2] if fault == "short" else content

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def faulty_server() -> Iterator[FaultyServer]:
    server = FaultyServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
