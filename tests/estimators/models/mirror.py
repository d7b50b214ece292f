"""A web server that answers as the first part of the path says, and a model small enough to play with."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from edge.estimators.models.catalog import Bundle, Network

MODEL = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(MODEL).hexdigest()
TINY = Bundle("tiny", SHA256, len(MODEL), "0" * 64, Network("tiny.tflite", "0" * 64))


class Mirror(ThreadingHTTPServer):
    """Serves `content`; `requests` are the ranges that were asked for, "" for the whole."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, content: bytes, *, pause_s: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.pause_s = pause_s
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        content = self.server.content
        kind = self.path.strip("/").split("/")[0]
        asked = self.headers.get("Range", "")
        self.server.requests.append(asked)
        if kind == "missing":
            self.send_error(404, "Not Found")
            return
        if kind == "babble":
            self.wfile.write(b"this is no HTTP\r\n\r\n")
            return
        body = {"wrong": bytes(len(content)), "endless": content * 40}.get(kind, content)
        begin = int(found[1]) if (found := re.match(r"bytes=(\d+)-", asked)) and kind != "rangeless" else 0
        if begin >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
        if kind == "torn":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"1000\r\n" + content[begin : begin + 100])
            return
        self.send_header("Content-Length", str(len(body) - begin))
        self.end_headers()
        # "breaking" gives a third of the model at a time, "short" always ends before the end.
        most = {"breaking": len(content) // 3, "short": max(len(body) - begin - 1000, 0)}.get(kind, len(body))
        with contextlib.suppress(ConnectionError):  # whoever asked was killed, or had enough
            for start in range(begin, min(begin + most, len(body)), 1 << 16):
                self.wfile.write(body[start : min(start + (1 << 16), begin + most)])
                time.sleep(self.server.pause_s)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        pass


@contextlib.contextmanager
def mirror(content: bytes = MODEL, *, pause_s: float = 0.0) -> Iterator[Mirror]:
    with Mirror(content, pause_s=pause_s) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
