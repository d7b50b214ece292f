"""A hub's address, and what its answers to a certificate mean."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

import pytest

from edge.rerun_log.channel import Address
from edge.rerun_log.hub import Answer, hub_url, knock, mismatch, why_away
from edge.tls import Identity
from tests.rerun_log.tls_hub import TlsHub, tls_hub


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("hub.local", "rerun+https://hub.local:9876/proxy"),
        ("hub.local:4433", "rerun+https://hub.local:4433/proxy"),
        ("[fe80::1]:4433", "rerun+https://[fe80::1]:4433/proxy"),
        ("rerun+https://hub.local/proxy", "rerun+https://hub.local:9876/proxy"),
        ("rerun+http://127.0.0.1:9876/proxy", "rerun+http://127.0.0.1:9876/proxy"),
    ],
)
def test_a_name_is_enough(given: str, url: str) -> None:
    assert hub_url(given) == url


@pytest.mark.parametrize(
    "given",
    [
        "",
        "http://hub",
        "rerun+https://hub:9876",
        "hub:x",
        "hub:99999",
        "rerun+https://me:secret@hub/proxy",
        "hub/proxy?x",
    ],
)
def test_anything_else_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        hub_url(given)


@pytest.mark.parametrize(
    ("hub", "viewer", "differ"),
    [("0.41.0", "0.41.0", False), ("0.41.1", "0.41.0", False), ("0.42.0", "0.41.0", True), ("", "0.41.0", False)],
)
def test_versions_that_differ_in_more_than_a_correction_are_told(hub: str, viewer: str, *, differ: bool) -> None:
    assert bool(mismatch(hub, viewer)) is differ


@pytest.mark.parametrize(
    ("status", "refused", "troubled"),
    [(200, "", ""), (502, "", "is down"), (403, "may|let", ""), (495, "certificate", ""), (404, "no hub", "")],
)
def test_what_is_refused_and_what_is_worth_waiting_for(status: int, refused: str, troubled: str) -> None:
    answer = Answer(status, "")
    assert (bool(answer.refusal), bool(answer.trouble)) == (bool(refused), bool(troubled))


def test_nobody_there_is_told_in_the_systems_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(OSError, match="refused") as raised:
        knock(Address("127.0.0.1", port, None), Identity("rerun"), 5.0)
    assert why_away(raised.value) == "Connection refused"
    assert why_away(TimeoutError()) == "it does not answer"


@pytest.fixture(scope="module")
def hub() -> Iterator[TlsHub]:
    with tls_hub() as started:
        yield started


@pytest.mark.integration
class TestKnocking:
    @pytest.mark.parametrize(
        ("who", "status", "told"),
        [
            ("reader", 200, ""),
            ("device", 403, "let this certificate"),
            ("somebody", 400, "order"),
            (None, 400, "order"),
        ],
    )
    def test_each_certificate_gets_its_answer_and_the_version(
        self, hub: TlsHub, who: str | None, status: int, told: str
    ) -> None:
        answer = knock(hub.address, hub.identity(who), 5.0)
        assert (answer.status, answer.rerun) == (status, "0.41.0")
        assert told in answer.refusal if told else not answer.refusal

    def test_a_hub_of_another_authority_is_not_believed(self, hub: TlsHub) -> None:
        with pytest.raises(ssl.SSLError) as raised:
            knock(hub.address, Identity("rerun"), 5.0)
        assert "see rerun.ca_file" in why_away(raised.value)

    def test_what_speaks_no_tls_is_told(self, hub: TlsHub) -> None:
        with pytest.raises(ssl.SSLError) as raised:
            knock(Address("localhost", hub.rerun.port, None), hub.identity(), 5.0)
        assert "whether TLS is spoken there" in why_away(raised.value)
