"""Observations to the broker."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from edge.mqtt.session import Credentials, Delivery, Message, Session, Version
from edge.mqtt.topics import Topics
from edge.mqtt.wire import v1
from edge.pacing import RateGate
from edge.stats import DropCause, Stats
from edge.vision.observation import Observation

EXPIRY_S = 5
"""A landmark message that found no reader for so long is of no use to anybody."""


class MqttSink:
    """Publishes landmarks and summaries at their rates, and state and info whenever a connection begins.

    landmarks_hz, summary_hz: messages a second and camera at most; None for every frame. What is made while there is
    no connection is dropped and counted: a pose that comes late is worth less than none.
    """

    def __init__(
        self,
        url: str,
        *,
        topics: Topics,
        credentials: Credentials,
        info: v1.DeviceInfo,
        version: Version,
        landmarks_hz: float | None,
        summary_hz: float | None,
        stats: Stats,
    ) -> None:
        self._topics = topics
        self._info = info
        self._stats = stats
        # By camera, and made when it first shows: one that is stuck may outlive its place in the configuration.
        self._landmarks_gates = defaultdict[str, RateGate](lambda: RateGate(landmarks_hz))
        self._summary_gates = defaultdict[str, RateGate](lambda: RateGate(summary_hz))
        self._session = Session(
            url,
            client_id=f"edge-pose-{topics.device}",
            version=version,
            credentials=credentials,
            will=self._state("offline"),
            on_online=self._introduce,
        )

    @property
    def online(self) -> bool:
        """Whether the broker has accepted this client and is still there."""
        return self._session.online

    def write(self, batch: Sequence[Observation]) -> None:
        self._session.service()
        for observation in batch:
            camera, now_ns = observation.camera, observation.monotonic_ns
            if self._landmarks_gates[camera].admits(now_ns):
                self._publish("landmarks", self._topics.landmarks(camera), v1.landmarks(observation))
            if self._summary_gates[camera].admits(now_ns):
                self._publish("summary", self._topics.summary(camera), v1.summary(observation))

    def close(self, timeout_s: float) -> None:
        self._session.close(self._state("stopped"), timeout_s)

    def _publish(self, what: str, topic: str, payload: bytes) -> None:
        message = Message(topic, payload, expiry_s=EXPIRY_S, content_type=v1.CONTENT_TYPE)
        match self._session.publish(message):
            case Delivery.TAKEN:
                self._stats.sent(f"mqtt {what}")
            case Delivery.DISCONNECTED:
                self._stats.dropped(f"mqtt {what}", DropCause.DISCONNECTED)
            case Delivery.SLOW:
                self._stats.dropped(f"mqtt {what}", DropCause.SLOW_RECEIVER)

    def _introduce(self) -> None:
        self._session.publish(self._state("online"))
        self._session.publish(
            Message(self._topics.info, v1.info(self._info), qos=1, retain=True, content_type=v1.CONTENT_TYPE)
        )

    def _state(self, word: str) -> Message:
        return Message(self._topics.state, word.encode(), qos=1, retain=True)
