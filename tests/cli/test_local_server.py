from __future__ import annotations

import os
import socket

import pytest

from edge.cli.local_server import free_port, local_server, why_taken
from edge.errors import SinkError


def test_a_server_that_ends_at_once_is_told_as_that_and_not_waited_for() -> None:
    port = free_port()
    with (
        pytest.raises(SinkError, match=rf"^the server for 127\.0\.0\.1:{port} ended at once, with code 3$"),
        local_server(["sh", "-c", "exit 3"], port, environment=os.environ),
    ):
        pass


def test_a_port_is_taken_while_somebody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert why_taken(port) == "another program listens there"
    assert why_taken(port) is None
