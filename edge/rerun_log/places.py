"""Which colour and which curves somebody has while they are there."""

from __future__ import annotations

from collections.abc import Mapping

from edge.vision.observation import Observation


class Places:
    """Of one camera: a few places, of which each person keeps one for as long as they are there. Ids only grow; colours
    and curves are as many as there are people at once. For one thread."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._places: dict[int, int] = {}

    def of(self, observation: Observation) -> Mapping[int, int]:
        """Id -> place, from 0, of those who are seen in this frame, the next one of its camera. Who is only away keeps
        theirs as long as nobody else needs it; who finds none free has none."""
        here = [person.person_id for person in observation.people]
        known = {*here, *observation.away}
        self._places = {person_id: place for person_id, place in self._places.items() if person_id in known}
        for person_id in here:
            if person_id not in self._places and (place := self._free(here)) is not None:
                self._places[person_id] = place
        return {person_id: self._places[person_id] for person_id in here if person_id in self._places}

    def _free(self, here: list[int]) -> int | None:
        taken = set(self._places.values())
        free = next((place for place in range(self._most) if place not in taken), None)
        if free is None:
            away = next((person_id for person_id in self._places if person_id not in here), None)
            free = None if away is None else self._places.pop(away)
        return free
