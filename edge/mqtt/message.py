"""What is published, and what comes in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """Something to publish.

    expiry_s, content_type, properties (user properties) and correlation are for MQTT 5, and left out with 3.1.1.
    expiry_s: a broker drops it undelivered after so long.
    """

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    expiry_s: int | None = None
    content_type: str = ""
    properties: tuple[tuple[str, str], ...] = ()
    correlation: bytes | None = None


@dataclass(frozen=True, slots=True)
class Received:
    """What came in. With MQTT 3.1.1 there is nothing behind `retain`.

    response_topic: where the sender wants the answer; empty when there is none, or none that can be published to.
    """

    topic: str
    payload: bytes
    qos: int
    retain: bool
    correlation: bytes | None = None
    response_topic: str = ""
    content_type: str = ""
    properties: tuple[tuple[str, str], ...] = ()
