"""Who is before one camera: from the poses of its frames to people, and to what happens with them.

poses -> Tracker -> of each person: PoseSmoother -> kinematics -> MotionWatch, PostureWatch, FallWatch
      -> Observation -> EventWatch -> what is noticed
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from edge.config import PeopleConfig
from edge.vision.events import EventWatch, Noticed, Spell
from edge.vision.falls import FallRules, FallWatch
from edge.vision.frame import Frame
from edge.vision.kinematics import bounding_box, kinematics, level_m
from edge.vision.motion import MotionWatch
from edge.vision.mount import LEVEL, Mount
from edge.vision.observation import Observation, Person, observe
from edge.vision.pose import Pose
from edge.vision.posture import PostureWatch
from edge.vision.smoothing import PoseSmoother
from edge.vision.tracking import Tracked, Tracker
from edge.vision.zones import Line, Zone


@dataclass(frozen=True, slots=True)
class Rules:
    """By what one camera's people are understood. mount: how it hangs, LEVEL where that is not known."""

    people: PeopleConfig = field(default_factory=PeopleConfig)
    mount: Mount = LEVEL
    zones: tuple[Zone, ...] = ()
    lines: tuple[Line, ...] = ()


class People:
    """One camera's. For one thread; frames come in their order."""

    def __init__(self, rules: Rules, ids: Iterator[int]) -> None:
        """ids: those that people get, one after the other."""
        self._rules = rules
        self._fall_rules = _fall_rules(rules.people)
        self._tracker = Tracker(ids, forget_after_s=rules.people.forget_after_s)
        self._known: dict[int, _Watched] = {}
        self._events = EventWatch(rules.people, rules.zones, rules.lines)

    def adopt(self, rules: Rules) -> list[Spell]:
        """Go by other rules from now on; who is there stays who they are. Of what lasts, what is watched no longer."""
        self._rules = rules
        self._fall_rules = _fall_rules(rules.people)
        self._tracker.forget_after_s = rules.people.forget_after_s
        return self._events.adopt(rules.people, rules.zones, rules.lines)

    def clear(self) -> None:
        """Forget everybody, without a word: whoever is seen next is somebody new."""
        self._tracker.clear()
        self._known.clear()
        self._events.clear()

    def see(
        self, frame: Frame, poses: Sequence[Pose], *, arrived_ns: int = 0, inference_ns: int = 0
    ) -> tuple[Observation, list[Noticed]]:
        """What is known of `frame`, in which `poses` were found, and what has become certain with it."""
        following = self._tracker.follow(frame.monotonic_ns, frame.rgb.width_px, frame.rgb.height_px, poses)
        people = [self._understand(frame, tracked) for tracked in following.present]
        for person_id in following.gone:
            self._known.pop(person_id, None)
        observation = observe(frame, people, away=following.away, arrived_ns=arrived_ns, inference_ns=inference_ns)
        return observation, self._events.see(observation, following.gone)

    def _understand(self, frame: Frame, tracked: Tracked) -> Person:
        watched = self._known.get(tracked.person_id)
        if watched is None:
            watched = self._known[tracked.person_id] = _Watched()
        now_ns, width_px, height_px = frame.monotonic_ns, frame.rgb.width_px, frame.rgb.height_px
        rules = self._rules
        pose = watched.smoother.smooth(now_ns, tracked.pose, width_px, height_px, rules.people.smoothing)
        level = level_m(pose, rules.mount)
        now = kinematics(pose, level, width_px, height_px)
        return Person(
            person_id=tracked.person_id,
            pose=pose,
            box=bounding_box(pose),
            kinematics=now,
            motion=watched.motion.update(now_ns, pose, width_px, height_px, now.length_px),
            posture=watched.posture.update(now_ns, pose, level, rules.people.posture_after_s),
            since_ns=tracked.since_ns,
            fall=watched.fall.update(now_ns, pose, now, height_px, self._fall_rules),
        )


class _Watched:
    """What is remembered of one person from frame to frame."""

    def __init__(self) -> None:
        self.smoother = PoseSmoother()
        self.motion = MotionWatch()
        self.posture = PostureWatch()
        self.fall = FallWatch()


def _fall_rules(rules: PeopleConfig) -> FallRules:
    return FallRules(speed_bl_s=rules.fall_speed_bl_s, tilt_deg=rules.fall_tilt_deg, still_s=rules.fall_still_s)
