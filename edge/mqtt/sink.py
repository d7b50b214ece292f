"""What the daemon knows, to the broker: observations at their rates, and everything else whenever it changes."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from edge.control import Answer, Refusal, Still
from edge.logs import printable
from edge.mqtt import commands, messages
from edge.mqtt.commands import Answers, CommandDesk
from edge.mqtt.discovery import device_config
from edge.mqtt.message import Message, Received
from edge.mqtt.outbox import Outbox
from edge.mqtt.retained import RetainedTopics
from edge.mqtt.session import Delivery, Session
from edge.mqtt.topics import Topics
from edge.mqtt.wire import v1
from edge.pacing import Deadline, RateGate
from edge.privacy import Shows, most_shown
from edge.reports import BrokerReach, DeviceInfo, HealthReport
from edge.stats import CameraStatus, DropCause, Stats
from edge.vision.observation import Observation
from edge.vision.window import SummaryWindow

HEALTH_EVERY_S = 10.0

_MOST_EVENTS_IN_FLIGHT = 16
_SETTLE_S = 0.5
_BROKERS_WRITE_WITHIN_S = 1.0
_FIRST_CONNECTION_S = 1.0
_EARLY_MOST = 64
_NOT_YET = "not connected yet"
_MOST_SHOWN = 40

# What Home Assistant says when it has started: by then it has forgotten who was there.
_BIRTH_TOPIC = "homeassistant/status"
_BIRTH = b"online"


@dataclass(frozen=True, slots=True)
class Streams:
    """How frames are published: messages a second and camera at most, None for every frame; and the encoding.

    against_gravity: the cameras of which it is known how they hang, so that tilts are.
    """

    landmarks_hz: float | None
    summary_hz: float | None
    landmarks_format: Literal["json", "cbor"]
    against_gravity: frozenset[str] = frozenset()

    @property
    def landmarks_type(self) -> str:
        return v1.CBOR if self.landmarks_format == "cbor" else v1.JSON


class Knowledge:
    """What the sink's thread looks up when it publishes. Replaced as a whole by the main thread, at any time."""

    def __init__(self, info: DeviceInfo, streams: Streams) -> None:
        self.now = (info, streams)
        self.introduced: v1.Info | None = None
        """What Home Assistant was told last: the sink's."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What outlives a connection: the sink that takes over from another one goes on with it."""

    knowledge: Knowledge
    outbox: Outbox
    answers: Answers
    retained: RetainedTopics


class MqttSink:
    """One device at its broker.

    What is made of frames while there is no connection is dropped and counted: a pose that comes late is worth less
    than none; the first connection alone is waited for, a second at most. State, info and statuses are retained, and
    told again at each connection; events wait in the outbox until the broker has acknowledged them.

    session: makes the connection, given the last will and what is called when it stands and when a message comes.
    health: what is published of it every ten seconds. verbs: those that are obeyed. home_assistant: whether the device
    is introduced there.
    """

    def __init__(
        self,
        session: Callable[[Message, Callable[[], None], Callable[[Received], None]], Session],
        *,
        topics: Topics,
        standing: Standing,
        health: Callable[[], HealthReport],
        stats: Stats,
        desk: CommandDesk,
        verbs: Sequence[str],
        home_assistant: bool,
    ) -> None:
        self._topics = topics
        self._knowledge = standing.knowledge
        self._outbox = standing.outbox
        self._answers = standing.answers
        self._retained = standing.retained
        self._health = health
        self._stats = stats
        self._desk = desk
        self._verbs = verbs
        self._home_assistant = home_assistant
        self._streams: Streams | None = None
        self._landmarks_gates: defaultdict[str, RateGate]
        self._summary_gates: defaultdict[str, RateGate]
        self._windows: defaultdict[str, SummaryWindow] = defaultdict(SummaryWindow)
        self._contents: dict[str, bytes] = {}
        self._published: dict[str, bytes] = {}
        self._current: set[str] = set()
        self._told: DeviceInfo | None = None
        self._next_health_s = 0.0
        self._in_flight: set[str] = set()
        self._acknowledged: dict[str, float] = {}  # events, and when that was
        self._replies: list[Message] = []
        self._ignored = 0
        self._connections = 0
        self._early: list[Observation] = []
        self._patience: Deadline | None = None  # with the first connection
        self._heard: bytes | None = None  # the device's state, as the broker told it in this connection
        self._reach = BrokerReach(_NOT_YET)
        self._session = session(self._state(v1.DeviceState.OFFLINE), self._connected, self._received)

    @property
    def online(self) -> bool:
        """Whether the broker has accepted this client and is still there."""
        return self._session.online

    @property
    def reach(self) -> BrokerReach:
        """How it stands with the broker, as of the last turn. For any thread."""
        return self._reach

    def write(self, batch: Sequence[Observation]) -> None:
        self._session.service()
        self._look()
        if batch and self._patience is None:
            self._patience = Deadline(_FIRST_CONNECTION_S)
        self._early.extend(batch)
        if not self._connects_for_the_first_time():
            early, self._early = self._early, []
            self._publish_frames(early)
        if self._session.online:
            self._keep_up()

    def _connects_for_the_first_time(self) -> bool:
        """So far nothing has failed, and it takes a moment only: a file's first frames are there before it stands, and
        of a picture there is but one."""
        is_first = not self._connections and not self._session.failures
        return is_first and len(self._early) <= _EARLY_MOST and (self._patience is None or self._patience.left_s() > 0)

    def _publish_frames(self, batch: Sequence[Observation]) -> None:
        _, streams = self._knowledge.now
        if streams is not self._streams:
            # By camera, and made when it first shows: one that is stuck may outlive its place in the configuration.
            self._landmarks_gates = defaultdict(lambda: RateGate(streams.landmarks_hz))
            self._summary_gates = defaultdict(lambda: RateGate(streams.summary_hz))
            self._streams = streams
        for observation in batch:
            camera, now_ns = observation.camera, observation.monotonic_ns
            if self._landmarks_gates[camera].admits(now_ns):
                encode = messages.landmarks_binary if streams.landmarks_format == "cbor" else messages.landmarks
                content = encode(observation)
                if self._stream("landmarks", self._topics.landmarks(camera), content, streams.landmarks_type):
                    self._count_published(observation)
            summed = self._windows[camera]
            summed.add(observation)
            if self._summary_gates[camera].admits(now_ns) and (window := summed.take()) is not None:
                content = v1.encode(messages.summary(window, against_gravity=camera in streams.against_gravity))
                self._stream("summary", self._topics.summary(camera), content, v1.JSON)

    def close(self, timeout_s: float) -> None:
        deadline = Deadline(timeout_s)
        while self._early and self._connects_for_the_first_time() and deadline.left_s() > timeout_s / 2:
            time.sleep(0.01)
            self.write(())
        self._publish_frames(self._early)
        if self._session.online:
            self._outbox.settle(min(timeout_s / 4, _SETTLE_S))
            self._keep_up()
        self._session.close(self._state(v1.DeviceState.STOPPED), deadline.left_s())
        self._remove_acknowledged(since_s=0.0)

    def _look(self) -> None:
        """That a connection stands is no proof that the broker has what is published: what it says of the device is."""
        if not self._session.online:
            self._heard = None
            state = self._session.trouble_at or _NOT_YET
        elif self._heard is None:
            state = (
                f"{self._session.address}: connected, but what is published at {self._topics.state} "
                "does not come back; see the broker's access control list"
            )
        elif self._heard == v1.DeviceState.ONLINE.encode():
            state = self._heard.decode()
        else:
            heard = self._heard[:_MOST_SHOWN].decode(errors="replace")
            state = f"{self._session.address}: {self._topics.state} is {heard!r}, by another client"
        state = printable(state)  # a broker or a stranger may have worded it, and it is a line to systemd
        if (state, self._connections) != (self._reach.state, self._reach.connection):
            self._reach = BrokerReach(state, self._connections)

    def _count_published(self, observation: Observation) -> None:
        camera = self._stats.cameras.get(observation.camera)
        if camera is not None:
            now_ns = time.monotonic_ns()
            camera.frame_published(
                publish_ms=(now_ns - observation.arrived_ns) / 1e6,
                inference_ms=observation.inference_ns / 1e6,
                age_ms=(now_ns - observation.monotonic_ns) / 1e6,
            )

    def _stream(self, what: str, topic: str, payload: bytes, content_type: str) -> bool:
        return self._publish(what, Message(topic, payload, expiry_s=v1.STREAM_EXPIRY_S, content_type=content_type))

    def _publish(self, what: str, message: Message) -> bool:
        """Whether the broker takes it; what it does not take is not kept either, and counted."""
        delivery = self._session.publish(message)
        match delivery:
            case Delivery.TAKEN:
                self._stats.sent(f"mqtt {what}")
            case Delivery.DISCONNECTED:
                self._stats.dropped(f"mqtt {what}", DropCause.DISCONNECTED)
            case Delivery.SLOW:
                self._stats.dropped(f"mqtt {what}", DropCause.SLOW_RECEIVER)
            case Delivery.TOO_LARGE:
                self._stats.dropped(f"mqtt {what}", DropCause.TOO_LARGE)
        return delivery is Delivery.TAKEN

    def _connected(self) -> None:
        """Everything is told anew: what the broker still has of an earlier connection may be anything."""
        self._connections += 1
        self._heard = None
        self._published.clear()
        self._told = None
        self._in_flight.clear()
        self._acknowledged.clear()
        self._outbox.rewind()
        self._next_health_s = 0.0
        self._session.subscribe(self._topics.state, qos=1)
        if self._verbs:
            self._session.subscribe(self._topics.commands, qos=1)
        if self._home_assistant:
            self._session.subscribe(_BIRTH_TOPIC, qos=0)
        self._keep_up()

    def _received(self, received: Received) -> None:
        if received.topic == self._topics.state:
            self._heard = received.payload
            if not received.payload:  # a device that had this name before has taken back what is ours by now
                self._published.clear()
            return
        if received.topic == _BIRTH_TOPIC:
            if received.payload == _BIRTH:
                self._published.pop(self._topics.discovery, None)  # it has forgotten everything
            return
        refused = self._desk.receive(received)
        if refused is not None:
            self._replies.append(refused)
        if self._desk.ignored > self._ignored:
            self._stats.dropped("mqtt commands", DropCause.TOO_MANY, self._desk.ignored - self._ignored)
            self._ignored = self._desk.ignored

    def _keep_up(self) -> None:
        """Publish what differs from what the broker was told last. What it does not take now comes at the next turn."""
        info, streams = self._knowledge.now
        statuses = {name: camera.status for name, camera in self._stats.cameras.items() if name in info.cameras}
        self._retain_all(info, streams, statuses)
        self._send_events()
        self._send_replies()
        if time.monotonic() >= self._next_health_s:
            self._next_health_s = time.monotonic() + HEALTH_EVERY_S
            report = messages.health(self._health(), outbox=self._outbox_health())
            self._stream("health", self._topics.health, v1.encode(report), v1.JSON)

    def _outbox_health(self) -> v1.OutboxHealth:
        outbox = self._outbox
        return v1.OutboxHealth(waiting=len(outbox), lost=outbox.lost, durable=outbox.durable)

    def _retain_all(self, info: DeviceInfo, streams: Streams, statuses: dict[str, CameraStatus]) -> None:
        if info is not self._told:
            about = messages.info(info, landmarks_type=streams.landmarks_type, commands=self._obeyed(info))
            current = {self._topics.state, self._topics.info, *map(self._topics.status, info.cameras)}
            retained = {self._topics.info: v1.encode(about)}
            if self._home_assistant:
                current.add(self._topics.discovery)
                stale = self._retained.stale(current)
                retained[self._topics.discovery] = device_config(self._topics, about, before=self._before(about, stale))
                self._knowledge.introduced = about
            self._current = current
            self._take_back(self._retained.stale(current))
            self._retained.hold(current)
            self._contents = retained
            self._told = info
        self._retain(self._topics.state, v1.DeviceState.ONLINE.encode(), v1.TEXT)
        for topic, content in self._contents.items():
            self._retain(topic, content, v1.JSON)
        for camera, status in statuses.items():
            self._retain(self._topics.status(camera), status.encode(), v1.TEXT)

    def _obeyed(self, info: DeviceInfo) -> list[str]:
        """The verbs that are good for something: one that asks for a picture is refused where none may leave."""
        return [verb for verb in self._verbs if verb != "snapshot" or _may_show(info)]

    def _before(self, now: v1.Info, stale: Iterable[str]) -> v1.Info:
        """What Home Assistant may still know of this device: also cameras that went while it was down."""
        gone = [camera for topic in stale if (camera := self._topics.camera_of_status(topic)) is not None]
        before = self._knowledge.introduced or now
        cameras = {**dict.fromkeys(gone, v1.CameraInfo(source="")), **before.cameras}
        return msgspec.structs.replace(before, cameras=cameras, commands=[*v1.REQUESTS])

    def _retain(self, topic: str, payload: bytes, content_type: str) -> None:
        if self._published.get(topic) == payload:
            return
        message = Message(topic, payload, qos=1, retain=True, content_type=content_type)
        if self._session.publish(message) in {Delivery.TAKEN, Delivery.TOO_LARGE}:  # later it would be no smaller
            self._published[topic] = payload

    def _take_back(self, topics: set[str]) -> None:
        # The state last: whoever has this name by now tells everything anew when that goes.
        for topic in sorted(topics, key=lambda topic: topic.endswith("/state")):
            self._published.pop(topic, None)
            message = Message(topic, b"", qos=1, retain=True)
            self._session.publish(message, functools.partial(self._is_taken_back, topic))

    def _is_taken_back(self, topic: str) -> None:
        if topic not in self._current:  # it may have come back before the broker got to it
            self._retained.cleared(topic)

    def _send_events(self) -> None:
        self._remove_acknowledged(since_s=_BROKERS_WRITE_WITHIN_S)
        for event in self._outbox.waiting() if len(self._outbox) else ():
            if event.event_id in self._in_flight or event.event_id in self._acknowledged:
                continue
            if len(self._in_flight) >= _MOST_EVENTS_IN_FLIGHT:
                return
            message = Message(self._topics.event(event.camera), event.content, qos=1, content_type=v1.JSON)
            has_it = functools.partial(self._has_event, event.event_id)
            refused = functools.partial(self._has_refused, event.event_id)
            if self._session.publish(message, has_it, refused) is not Delivery.TAKEN:
                return
            self._in_flight.add(event.event_id)

    def _has_refused(self, event_id: str) -> None:
        self._in_flight.discard(event_id)
        self._outbox.set_aside(event_id)

    def _has_event(self, event_id: str) -> None:
        self._in_flight.discard(event_id)
        self._acknowledged[event_id] = time.monotonic()
        self._stats.sent("mqtt event")

    def _remove_acknowledged(self, *, since_s: float) -> None:
        """Not at once: brokers acknowledge first and write then. One that is killed in between breaks the connection,
        and at the next one gets the event again."""
        until_s = time.monotonic() - since_s
        for event_id in [event_id for event_id, at_s in self._acknowledged.items() if at_s <= until_s]:
            del self._acknowledged[event_id]
            self._outbox.remove(event_id)

    def _send_replies(self) -> None:
        waiting, self._replies = self._replies, []
        for message in waiting:
            self._publish("reply", message)
        for asked, answer in self._answers.take():
            told = answer
            if answer.still is not None and not _may_show(self._knowledge.now[0]):  # it was taken before a reload
                told = Answer(Refusal.FAILED, "privacy.mode does not let a picture leave this device any more")
            elif answer.still is not None and not self._show(answer.still):
                told = Answer(Refusal.FAILED, "the broker did not take the picture: it is too large, or comes too fast")
            self._publish("reply", commands.reply(asked, told))

    def _show(self, still: Still) -> bool:
        about = (("seq", str(still.seq)), ("t_us", str(still.captured_ns // 1000)))
        topic = self._topics.snapshot(still.camera)
        message = Message(topic, still.jpeg, expiry_s=v1.ANSWER_EXPIRY_S, content_type=v1.JPEG, properties=about)
        return self._publish("snapshot", message)

    def _state(self, state: v1.DeviceState) -> Message:
        return Message(self._topics.state, state.encode(), qos=1, retain=True, content_type=v1.TEXT)


def _may_show(info: DeviceInfo) -> bool:
    """Whether pictures may leave the device."""
    return most_shown(info.privacy) >= Shows.PICTURES
