"""A hub as whoever wants to read from it finds it: its address, and how it answers a certificate."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from edge import tls
from edge.rerun_log.channel import DEFAULT_PORT, NO_CERTIFICATE, SECURE, SERVER_AWAY, VERSION_HEADER, Address

READ_MESSAGES = "/rerun.sdk_comms.v1alpha1.MessageProxyService/ReadMessages"

_GREETING_BYTES = 4096

AWAY = "the hub at %s is away: %s; it is tried again until it is there"
THERE = "the hub at %s is there"
"""To be logged, with the address and why. Whoever reads from a hub says the same."""


def hub_url(given: str) -> str:
    """Of NAME, NAME:PORT or an address such as rerun+https://NAME:PORT/proxy the last one. Raises ValueError."""
    url = given if "://" in given else f"{SECURE}://{given}/proxy"
    expected = "NAME, NAME:PORT or rerun+https://NAME:PORT/proxy"
    if not url.isprintable() or " " in url:
        raise ValueError(f"expected {expected}, without a space or a line's end")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"expected {expected} ({error})") from None
    if parts.scheme not in {SECURE, "rerun+http"} or not host or parts.path != "/proxy":
        raise ValueError(f"expected {expected}")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError(f"expected {expected}, without a password or anything behind it")
    place = Address(host, port or DEFAULT_PORT, None)
    return f"{parts.scheme}://{place}/proxy"


@dataclass(frozen=True, slots=True)
class Answer:
    """status: HTTP's. rerun: the version of Rerun there, "" where it is not told."""

    status: int
    rerun: str

    @property
    def refusal(self) -> str:
        """Why this client will not read there however often it asks; "" when it may, or when it may later."""
        if 200 <= self.status < 400 or self.status in SERVER_AWAY:
            return ""
        if self.status == 403:
            return "it does not let this certificate read (403): that takes an operator's or a reader's"
        if self.status in NO_CERTIFICATE:
            return f"it wants a certificate that is in order ({self.status}): this one expired, was revoked, is of \
another authority, or there is none; see rerun.cert_file and rerun.key_file"
        return f"what answers there ({self.status}) is no hub of edge-pose; see rerun.url"

    @property
    def trouble(self) -> str:
        """Why there is nothing to read at the moment; "" when there is."""
        return f"Rerun's server behind it is down ({self.status})" if self.status in SERVER_AWAY else ""


def knock(address: Address, identity: tls.Identity, timeout_s: float) -> Answer:
    """What the hub says to this certificate. Raises OSError when it can't be reached, which `why_away` explains.

    A request of its own, for what a viewer's connection carries is between the viewer and Rerun.
    """
    context = tls.client_context(identity)  # of its own: that of `address` speaks nothing but HTTP/2
    connection = http.client.HTTPSConnection(address.host, address.port, timeout=timeout_s, context=context)
    try:
        connection.request("HEAD", "/")
        response = connection.getresponse()
    except http.client.HTTPException:
        return Answer(0, "")
    finally:
        connection.close()
    return Answer(response.status, response.getheader(VERSION_HEADER, ""))


def greets(address: Address, timeout_s: float) -> bool:
    """Whether who answers at an address without TLS greets as a Rerun server does, in HTTP/2; who speaks TLS does not.

    Raises OSError when nobody answers.
    """
    ours = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    ours.initiate_connection()
    with socket.create_connection((address.host, address.port), timeout_s) as connection:
        connection.sendall(ours.data_to_send())
        if not (received := connection.recv(_GREETING_BYTES)):  # as who speaks TLS, or an ssh tunnel to nowhere
            raise OSError(f"it hangs up without a word; a hub is {SECURE}://{address}/proxy")
        with contextlib.suppress(h2.exceptions.ProtocolError):
            while received:
                if any(isinstance(event, h2.events.RemoteSettingsChanged) for event in ours.receive_data(received)):
                    return True
                received = connection.recv(_GREETING_BYTES)
    return False


def why_away(error: Exception) -> str:
    """In one line, with the key to look at where there is one."""
    match error:
        case ssl.SSLError():
            return tls.why_no_tls(error, "rerun")
        case TimeoutError():
            return "it does not answer"
        case OSError(errno=int(number)) if number > 0:
            return os.strerror(number)  # asyncio puts other words there
        case OSError(strerror=str(reason)) if reason:
            return reason
        case _:
            return str(error) or type(error).__name__


def mismatch(hub: str, here: str, who: str = "viewer") -> str:
    """What to say of two versions of Rerun that don't understand each other; "" when they do, or one is not known."""
    theirs, ours = (re.match(r"\d+\.\d+", version) for version in (hub, here))
    if theirs is None or ours is None or theirs[0] == ours[0]:
        return ""
    return f"the hub has Rerun {hub} and this {who} is {here}: they may not understand each other; \
have the same edge-pose on both"
