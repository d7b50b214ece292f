"""What happens with people, told when it is certain: who comes and goes, how they stand, where they are.

Each kind has its own patience (edge.config.PeopleConfig): what was so for a frame or two is no event. `captured_ns` and
`seq` are of the frame with which it became certain, and `since_ns`, where there is one, is when it began; all are
capture times, nanoseconds since the Unix epoch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

from edge.config import PeopleConfig
from edge.vision.debounce import Settled
from edge.vision.falls import FallEvidence
from edge.vision.kinematics import Box
from edge.vision.observation import Observation, Person
from edge.vision.posture import Posture
from edge.vision.zones import Crossing, Line, LineWatch, Zone, body_point

Hands = Literal["left", "right", "both"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    captured_ns: int
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonEntered(_Seen):
    """Somebody is there who was not. since_ns: of the first frame with this person. box: where now."""

    person_id: int
    since_ns: int
    box: Box


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonLeft(_Seen):
    """Somebody has not been seen for people.forget_after_s. until_ns: of the last frame with this person.
    stayed_s: from the first to that."""

    person_id: int
    until_ns: int
    stayed_s: float
    of: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PostureChanged(_Seen):
    """Somebody stands, sits, crouches or lies who did not, or it can't be told any more. before_s: how long it was
    `before`. confidence: 0..1, of the new one."""

    person_id: int
    since_ns: int
    before: Posture
    posture: Posture
    before_s: float
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HandsRaised(_Seen):
    """Somebody who is upright has one hand or both above the head."""

    person_id: int
    since_ns: int
    hands: Hands


@dataclass(frozen=True, slots=True, kw_only=True)
class HandsLowered(_Seen):
    """And now has none, or has left."""

    person_id: int
    raised_s: float
    of: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FallSuspected(_Seen):
    """Somebody went down fast and stays down. One camera can't be certain of it: `evidence` is what speaks for it."""

    person_id: int
    evidence: FallEvidence


@dataclass(frozen=True, slots=True, kw_only=True)
class FallCleared(_Seen):
    """Somebody who may have fallen is up again, or is not seen any more. down_s: for so long after it was suspected."""

    person_id: int
    why: Literal["up", "left"]
    down_s: float
    of: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneEntered(_Seen):
    """Somebody is in a zone who was not."""

    person_id: int
    zone: str
    since_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneLeft(_Seen):
    """And now is not. stayed_s: until the last frame with the person inside."""

    person_id: int
    zone: str
    stayed_s: float
    of: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineCrossed(_Seen):
    """Somebody is on the other side of a line. to: which side that is, for who looks from its beginning to its end.
    at: where on the line, as fractions of the picture."""

    person_id: int
    line: str
    to: Literal["left", "right"]
    at: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class CountChanged(_Seen):
    """There is another number of people, those included who are hidden for the moment."""

    since_ns: int
    before: int
    count: int


Begin = PersonEntered | HandsRaised | FallSuspected | ZoneEntered
End = PersonLeft | HandsLowered | FallCleared | ZoneLeft
PeopleEvent = Begin | End | PostureChanged | LineCrossed | CountChanged

Spell = tuple[object, ...]
"""By what the end of something is known to belong to its beginning: unique while it lasts, within one camera."""


@dataclass(frozen=True, slots=True)
class Noticed:
    """spell: of a beginning and of its end; None where nothing lasts."""

    what: PeopleEvent
    spell: Spell | None = None


_ABOVE_THE_EARS_M = 0.1
"""A wrist that is higher is above the head: a palm's length more, and the hand is above its crown."""
_UPRIGHT_DEG = 60.0
_MARGIN_BL = 0.04
"""A line is crossed when somebody is so far beyond it, of the body's own length: about 7 cm."""


class EventWatch:
    """What happens before one camera. For one thread; observations come in the frames' order."""

    def __init__(self, rules: PeopleConfig, zones: Sequence[Zone] = (), lines: Sequence[Line] = ()) -> None:
        self._rules, self._zones, self._lines = rules, tuple(zones), tuple(lines)
        self._people: dict[int, _Known] = {}
        self._count: Settled[int] | None = None

    def adopt(self, rules: PeopleConfig, zones: Sequence[Zone], lines: Sequence[Line]) -> list[Spell]:
        """Go by other rules from now on. Of what lasts, what is watched no longer."""
        stay = [zone for zone in zones if zone in self._zones and "zones" in rules.events]
        ended: list[Spell] = []
        for person_id, known in self._people.items():
            if "presence" not in rules.events:
                ended.append(("presence", person_id))
            if "hands" not in rules.events and known.hands.value:
                ended.append(("hands", person_id))
            if "falls" not in rules.events and known.fell_ns is not None:
                ended.append(("fall", person_id))
            gone = [name for name in known.zones if name not in {zone.name for zone in stay}]
            ended += [("zone", person_id, name) for name in gone if known.zones[name].value]
            known.zones = {name: state for name, state in known.zones.items() if name not in gone}
            known.lines = {line: watch for line, watch in known.lines.items() if line in lines}
        self._rules, self._zones, self._lines = rules, tuple(zones), tuple(lines)
        return ended

    def clear(self) -> None:
        """Forget everybody, without a word: what lasts is ended by others."""
        self._people.clear()
        self._count = None

    def see(self, observation: Observation, gone: Collection[int]) -> list[Noticed]:
        """What has become certain with this frame. gone: those who are given up with it."""
        noticed: list[Noticed] = []
        for person in observation.people:
            known = self._people.get(person.person_id)
            if known is None:
                known = self._people[person.person_id] = _Known(person, observation.monotonic_ns)
                noticed += self._entered(observation, person)
            known.last_ns = observation.monotonic_ns
            noticed += self._posture(observation, person, known)
            noticed += self._hands(observation, person, known)
            noticed += self._fall(observation, person, known)
            noticed += self._places(observation, person, known)
        for person_id in gone:
            if (known := self._people.pop(person_id, None)) is not None:
                noticed += self._left(observation, person_id, known)
        noticed += self._counted(observation)
        return noticed

    def _entered(self, observation: Observation, person: Person) -> Iterator[Noticed]:
        if "presence" in self._rules.events:
            stamp, since_ns = _stamp(observation), _captured(observation, person.since_ns)
            entered = PersonEntered(**stamp, person_id=person.person_id, since_ns=since_ns, box=person.box)
            yield Noticed(entered, ("presence", person.person_id))

    def _posture(self, observation: Observation, person: Person, known: _Known) -> Iterator[Noticed]:
        reading = person.posture
        if reading.posture in {Posture.UNKNOWN, known.posture}:
            return
        before, known.posture = known.posture, reading.posture
        before_ns, known.posture_ns = known.posture_ns, reading.since_ns
        if "posture" in self._rules.events:
            changed = PostureChanged(
                **_stamp(observation),
                person_id=person.person_id,
                since_ns=_captured(observation, reading.since_ns),
                before=before,
                posture=reading.posture,
                before_s=max(0, reading.since_ns - before_ns) / 1e9,
                confidence=reading.confidence,
            )
            yield Noticed(changed)

    def _hands(self, observation: Observation, person: Person, known: _Known) -> Iterator[Noticed]:
        hands = raised_hands(person)
        if not known.hands.see(
            observation.monotonic_ns, None if hands is None else bool(hands), self._rules.hands_after_s
        ):
            return
        if "hands" not in self._rules.events:
            return
        stamp, since_ns, spell = _stamp(observation), known.hands.since_ns, ("hands", person.person_id)
        if hands:
            raised = HandsRaised(
                **stamp, person_id=person.person_id, since_ns=_captured(observation, since_ns), hands=hands
            )
            known.raised_ns = since_ns
            yield Noticed(raised, spell)
        else:
            raised_s = (since_ns - known.raised_ns) / 1e9
            yield Noticed(HandsLowered(**stamp, person_id=person.person_id, raised_s=raised_s), spell)

    def _fall(self, observation: Observation, person: Person, known: _Known) -> Iterator[Noticed]:
        spell = "fall", person.person_id
        if person.fall is not None and known.fell_ns is None:
            known.fell_ns = observation.monotonic_ns
            if "falls" in self._rules.events:
                suspected = FallSuspected(**_stamp(observation), person_id=person.person_id, evidence=person.fall)
                yield Noticed(suspected, spell)
        elif person.fall is None and known.fell_ns is not None:
            down_s, known.fell_ns = (observation.monotonic_ns - known.fell_ns) / 1e9, None
            if "falls" in self._rules.events:
                cleared = FallCleared(**_stamp(observation), person_id=person.person_id, why="up", down_s=down_s)
                yield Noticed(cleared, spell)

    def _places(self, observation: Observation, person: Person, known: _Known) -> Iterator[Noticed]:
        points = {point: body_point(person.pose, point) for point in {each.point for each in self._zones + self._lines}}
        if "zones" in self._rules.events:
            for zone in self._zones:
                if (at := points[zone.point]) is not None:
                    yield from self._in_or_out(observation, person, known, zone, inside=zone.holds(*at))
        length_px = person.kinematics.length_px
        if "lines" in self._rules.events and length_px is not None:
            for line in self._lines:
                if (at := points[line.point]) is None:
                    continue
                watch = known.lines.get(line)
                if watch is None:
                    watch = known.lines[line] = LineWatch(line)
                crossing = watch.follow(at, observation.width_px, observation.height_px, _MARGIN_BL * length_px)
                if crossing is not None:
                    yield Noticed(_crossed(observation, person, line, crossing))

    def _in_or_out(
        self, observation: Observation, person: Person, known: _Known, zone: Zone, *, inside: bool
    ) -> Iterator[Noticed]:
        now_ns = observation.monotonic_ns
        state = known.zones.get(zone.name)
        if state is None:
            state = known.zones[zone.name] = Settled(value=False, since_ns=now_ns)
        changed = state.see(now_ns, inside, self._rules.zone_after_s)
        stamp, spell = _stamp(observation), ("zone", person.person_id, zone.name)
        if changed and inside:
            since_ns = _captured(observation, state.since_ns)
            entered = ZoneEntered(**stamp, person_id=person.person_id, zone=zone.name, since_ns=since_ns)
            known.entered_ns[zone.name] = state.since_ns
            yield Noticed(entered, spell)
        elif changed:
            stayed_s = (state.since_ns - known.entered_ns.pop(zone.name)) / 1e9
            yield Noticed(ZoneLeft(**stamp, person_id=person.person_id, zone=zone.name, stayed_s=stayed_s), spell)

    def _left(self, observation: Observation, person_id: int, known: _Known) -> Iterator[Noticed]:
        """What ends with the person does so in the opposite order of its beginning."""
        stamp, last_ns, wanted = _stamp(observation), known.last_ns, self._rules.events
        for zone, since_ns in known.entered_ns.items() if "zones" in wanted else ():
            stayed_s = (last_ns - since_ns) / 1e9
            left = ZoneLeft(**stamp, person_id=person_id, zone=zone, stayed_s=stayed_s)
            yield Noticed(left, ("zone", person_id, zone))
        if known.fell_ns is not None and "falls" in wanted:
            down_s = max(0, last_ns - known.fell_ns) / 1e9
            cleared = FallCleared(**stamp, person_id=person_id, why="left", down_s=down_s)
            yield Noticed(cleared, ("fall", person_id))
        if known.hands.value and "hands" in wanted:
            raised_s = (last_ns - known.raised_ns) / 1e9
            yield Noticed(HandsLowered(**stamp, person_id=person_id, raised_s=raised_s), ("hands", person_id))
        if "presence" in wanted:
            gone = PersonLeft(
                **stamp,
                person_id=person_id,
                until_ns=_captured(observation, last_ns),
                stayed_s=(last_ns - known.since_ns) / 1e9,
            )
            yield Noticed(gone, ("presence", person_id))

    def _counted(self, observation: Observation) -> Iterator[Noticed]:
        now_ns, count = observation.monotonic_ns, len(observation.people) + len(observation.away)
        if self._count is None:
            self._count = Settled(0, now_ns)
        before = self._count.value
        if self._count.see(now_ns, count, self._rules.count_after_s) and "count" in self._rules.events:
            since_ns = _captured(observation, self._count.since_ns)
            yield Noticed(CountChanged(**_stamp(observation), since_ns=since_ns, before=before, count=count))


class _Known:
    """What is remembered of one person. Times are on the frames' monotonic clock."""

    def __init__(self, person: Person, now_ns: int) -> None:
        self.since_ns = person.since_ns
        self.last_ns = now_ns
        self.posture = Posture.UNKNOWN
        self.posture_ns = person.since_ns
        self.hands = Settled(value=False, since_ns=now_ns)
        self.raised_ns = now_ns
        self.fell_ns: int | None = None
        self.zones: dict[str, Settled[bool]] = {}
        self.entered_ns: dict[str, int] = {}
        self.lines: dict[Line, LineWatch] = {}


def raised_hands(person: Person) -> Hands | Literal[""] | None:
    """Which hands of somebody who is upright are above the head; "" for none, None where it can't be told."""
    now = person.kinematics
    if now.tilt_deg is None or (now.left_hand_m is None and now.right_hand_m is None):
        return None
    if now.tilt_deg > _UPRIGHT_DEG:
        return ""
    left = now.left_hand_m is not None and now.left_hand_m[1] > _ABOVE_THE_EARS_M
    right = now.right_hand_m is not None and now.right_hand_m[1] > _ABOVE_THE_EARS_M
    return "both" if left and right else "left" if left else "right" if right else ""


def _crossed(observation: Observation, person: Person, line: Line, crossing: Crossing) -> LineCrossed:
    return LineCrossed(
        **_stamp(observation), person_id=person.person_id, line=line.name, to=crossing.to, at=crossing.at
    )


class _Stamp(TypedDict):
    captured_ns: int
    seq: int


def _stamp(observation: Observation) -> _Stamp:
    return {"captured_ns": observation.captured_ns, "seq": observation.seq}


def _captured(observation: Observation, monotonic_ns: int) -> int:
    """When that was, on the clock of captures."""
    return observation.captured_ns - (observation.monotonic_ns - monotonic_ns)
