"""A server on this machine's loopback interface for as long as a demonstration lasts."""

from __future__ import annotations

import contextlib
import errno
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence

from edge.children import end, ending_with_us
from edge.errors import SinkError

_START_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 2.0


@contextlib.contextmanager
def local_server(command: Sequence[str], *ports: int, environment: Mapping[str, str]) -> Iterator[None]:
    """Run `command`, which listens on `ports`, until the end of the block. Raises SinkError when it doesn't listen."""
    quiet = subprocess.DEVNULL
    # In a group of its own, Ctrl-C in the terminal does not reach it: it is to outlive the daemon.
    process = subprocess.Popen(
        ending_with_us(command), stdin=quiet, stdout=quiet, stderr=quiet, env=environment, process_group=0
    )
    try:
        for port in ports:
            wait_until_listening(port, process)
        yield
    finally:
        end(process, _STOP_TIMEOUT_S)


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def why_taken(port: int) -> str | None:
    """Why no server could listen on the loopback interface's `port`; None when one could."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return "another program listens there" if error.errno == errno.EADDRINUSE else error.strerror
    return None


def wait_until_listening(port: int, process: subprocess.Popen[bytes] | None = None) -> None:
    """Raises SinkError when nobody accepts connections on the loopback interface's `port` after a while, or when
    `process`, which is to do so, has ended."""
    end_s = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < end_s:
        if process is not None and process.poll() is not None:
            raise SinkError(f"the server for 127.0.0.1:{port} ended at once, with code {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return
        time.sleep(0.05)
    raise SinkError(f"nothing listens on 127.0.0.1:{port} after {_START_TIMEOUT_S:g} s")
