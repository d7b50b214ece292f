"""Whether a Rerun server or viewer listens at an address, without leaving a trace in it."""

from __future__ import annotations

import contextlib
import socket
from urllib.parse import urlsplit

from edge.rerun_log.link import DEFAULT_PORT

# RFC 9113: the client's preface (3.4), then an empty SETTINGS frame (6.5). A server answers with a SETTINGS frame of
# its own, whose header is 3 bytes of length, the type, 4, and flags.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS = 4


def why_out_of_reach(url: str, timeout_s: float) -> str | None:
    """Why nobody at rerun+http://HOST:PORT/proxy speaks gRPC, or None: somebody does."""
    parts = urlsplit(url)
    answer = b""
    try:
        with (
            socket.create_connection((parts.hostname or "", parts.port or DEFAULT_PORT), timeout_s) as connection,
            contextlib.suppress(ConnectionError),  # it hangs up on what it does not understand
        ):
            connection.sendall(_GREETING)
            answer = connection.recv(9)
    except TimeoutError:
        return "it does not answer"
    except (OSError, UnicodeError) as error:  # the latter for names that no host can have
        return getattr(error, "strerror", None) or str(error)
    return None if len(answer) >= 4 and answer[3] == _SETTINGS else "what answers there is no Rerun server"
