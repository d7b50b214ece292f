from __future__ import annotations

import socket

import pytest

from edge.rerun_log.probe import why_out_of_reach
from edge.tls import Identity
from tests.servers import free_port, mosquitto, rerun_server

pytestmark = pytest.mark.integration

PLAIN = Identity("rerun")


def test_a_server_is_known_by_how_it_answers() -> None:
    with rerun_server() as server:
        assert why_out_of_reach(server.url, PLAIN, 5.0) is None
    with mosquitto() as broker:
        reason = why_out_of_reach(f"rerun+http://127.0.0.1:{broker.port}/proxy", PLAIN, 5.0)
        assert reason == "what answers there is no Rerun server; where it wants TLS, rerun+https://"


def test_nobody_and_silence_are_told() -> None:
    assert why_out_of_reach(f"rerun+http://127.0.0.1:{free_port()}/proxy", PLAIN, 5.0) == "Connection refused"
    unknown = why_out_of_reach("rerun+http://nowhere.invalid/proxy", PLAIN, 5.0)
    assert unknown in {"Name or service not known", "Temporary failure in name resolution"}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"rerun+http://127.0.0.1:{silent.getsockname()[1]}/proxy"
        assert why_out_of_reach(url, PLAIN, 0.2) == "it does not answer"
