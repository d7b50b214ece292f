"""People's events and the ids by which they belong together, also when a camera goes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

from edge.config import PeopleConfig
from edge.event_log import EventLog
from edge.inference import Estimate
from edge.presence import Presence
from edge.reports import Event, Interrupted
from edge.vision.events import PersonEntered, PersonLeft, ZoneEntered
from edge.vision.frame import Frame
from edge.vision.people import Rules
from edge.vision.pose import Pose
from edge.vision.zones import Zone
from tests import bodies
from tests.bodies import Key
from tests.crowd import CAMERA, frames

EVERYWHERE = Zone("everywhere", ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)))
STAYS = [Key(0, bodies.STANDING), Key(4, bodies.STANDING)]


class Watched:
    """One camera's presence, and what it reports."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.events: list[Event] = []
        log = EventLog("session")
        log.listen(self.events.append)
        rules = rules or Rules(PeopleConfig(events=("presence", "zones")), CAMERA.mount, (EVERYWHERE,))
        self.presence = Presence(rules, itertools.count(1), lambda what: log.happened("front", what))

    def see(self, shown: Sequence[tuple[Frame, list[Pose]]]) -> list[list[int]]:
        return [
            [person.person_id for person in self.presence.observe(Estimate(frame, tuple(poses), 0, 0, 0)).people]
            for frame, poses in shown
        ]

    def told(self) -> list[tuple[str, str]]:
        return [(type(event.what).__name__, event.ends) for event in self.events]


def test_an_end_names_the_event_that_began_it() -> None:
    watched = Watched()
    leaves = [
        [Key(0, bodies.STANDING), Key(1, bodies.STANDING)],
        [Key(0, bodies.SITTING, x_m=1.5), Key(6, bodies.SITTING, x_m=1.5)],
    ]
    watched.see(list(frames(leaves)))

    begun = {
        (type(event.what), event.what.person_id): event.event_id
        for event in watched.events
        if isinstance(event.what, PersonEntered | ZoneEntered)
    }
    (left,) = [event for event in watched.events if isinstance(event.what, PersonLeft)]
    assert left.ends == begun[PersonEntered, 1]
    assert ("ZoneLeft", begun[ZoneEntered, 1]) in watched.told()
    assert [event.begins for event in watched.events if isinstance(event.what, PersonEntered)] == [True, True]


def test_events_bear_the_time_of_their_frame() -> None:
    watched, shown = Watched(), list(frames([STAYS]))
    watched.see(shown)

    entered = watched.events[0]
    assert (entered.at_ns, entered.what.seq) == (shown[0][0].captured_ns, 0)  # type: ignore[union-attr]


def test_when_the_camera_goes_what_lasted_is_watched_no_longer_and_whoever_is_seen_next_is_new() -> None:
    watched, shown = Watched(), list(frames([STAYS]))
    watched.see(shown[:30])
    watched.presence.interrupt("the camera is lost", 32)

    ended = [event.what for event in watched.events if isinstance(event.what, Interrupted)]
    assert ended == [Interrupted("session-1", "the camera is lost"), Interrupted("session-2", "the camera is lost")]
    late = watched.see(shown[30:32])
    assert late == [[1], [1]], "frames from before are still estimated, and tell of no events"
    assert len(watched.events) == 4
    assert watched.see(shown[40:43]) == [[2], [2], [2]]
    assert watched.told()[4] == ("PersonEntered", "")


def test_to_be_interrupted_twice_says_nothing_twice() -> None:
    watched, shown = Watched(), list(frames([STAYS]))
    watched.see(shown[:30])
    for _ in range(2):
        watched.presence.interrupt("the camera is paused", 30)

    assert len([event for event in watched.events if isinstance(event.what, Interrupted)]) == 2


@pytest.mark.parametrize(
    "after",
    [Rules(PeopleConfig(events=("presence", "zones")), CAMERA.mount), Rules(PeopleConfig(events=("presence",)))],
)
def test_what_is_not_configured_any_more_is_told_to_be_so(after: Rules) -> None:
    watched, shown = Watched(), list(frames([STAYS]))
    watched.see(shown[:30])
    watched.presence.adopt(after)

    assert watched.events[-1].what == Interrupted("session-2", "it is watched no longer, by configuration")
    assert watched.see(shown[30:40]) == [[1]] * 10
    assert len(watched.events) == 3


def test_the_end_of_what_nobody_was_told_of_is_not_told_either() -> None:
    quiet, wanted = (Rules(PeopleConfig(events=each), CAMERA.mount) for each in (("count",), ("presence",)))
    watched = Watched(quiet)
    shown = list(
        frames(
            [[*STAYS[:1], Key(1, bodies.STANDING)], [Key(0, bodies.SITTING, x_m=1.5), Key(5, bodies.SITTING, x_m=1.5)]]
        )
    )
    watched.see(shown[:20])
    watched.presence.adopt(wanted)
    watched.see(shown[20:])

    assert "PersonLeft" not in {name for name, _ in watched.told()}
