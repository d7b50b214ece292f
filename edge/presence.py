"""Who is before one camera, for its threads: people with their ids, and their events with theirs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

from edge.inference import Estimate
from edge.reports import Happening, Interrupted
from edge.vision.events import End, Noticed, Spell
from edge.vision.observation import Observation
from edge.vision.people import People, Rules

Report = Callable[[Happening], str]
"""Takes what has happened; gives the event's id."""


class Presence:
    """Keeps `People` for a camera whose frames come in one thread, while others change its rules or end its watch.

    What began is remembered by its event's id until it ends, or is told to be watched no longer.
    """

    def __init__(self, rules: Rules, ids: Iterator[int], report: Report) -> None:
        """ids: of people, one after the other; a camera that follows another one of its name goes on with them."""
        self._people = People(rules, ids)
        self._report = report
        self._lock = threading.Lock()
        self._open: dict[Spell, str] = {}
        self._anew_at: int | None = None
        """The frame with which everybody is forgotten."""

    def observe(self, estimate: Estimate) -> Observation:
        """What is known of the estimate's frame; what has become certain with it is reported before this returns."""
        with self._lock:
            if self._anew_at is not None and estimate.frame.seq >= self._anew_at:
                self._people.clear()
                self._anew_at = None
            observation, noticed = self._people.see(
                estimate.frame,
                estimate.poses,
                arrived_ns=estimate.arrived_ns,
                inference_ns=estimate.inference_ns,
            )
            for each in noticed if self._anew_at is None else ():
                self._tell(each)
        return observation

    def adopt(self, rules: Rules) -> None:
        """Go by other rules from the next frame on."""
        with self._lock:
            for spell in self._people.adopt(rules):
                self._end(spell, "it is watched no longer, by configuration")

    def interrupt(self, reason: str, next_seq: int) -> None:
        """The camera sees nothing any more: whoever is in its frame `next_seq` or a later one is somebody new, and what
        the frames before, which may still be estimated, tell of is no event any more."""
        with self._lock:
            self._anew_at = next_seq
            for spell in list(self._open):
                self._end(spell, reason)

    def _tell(self, noticed: Noticed) -> None:
        what, spell = noticed.what, noticed.spell
        if spell is None:
            self._report(what)
        elif isinstance(what, End):
            if (event_id := self._open.pop(spell, None)) is not None:  # else nobody was told that it began
                self._report(replace(what, of=event_id))
        else:
            self._open[spell] = self._report(what)

    def _end(self, spell: Spell, reason: str) -> None:
        if (event_id := self._open.pop(spell, None)) is not None:
            self._report(Interrupted(event_id, reason))
