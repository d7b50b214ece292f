"""Two real people, found by the real model, against an annotation by eye that no tracker had seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.measure.accuracy import Clip, estimate
from tests.measure.tracking import CAM01, annotated, tally, to_and_fro, tracked


@pytest.mark.integration
@pytest.mark.parametrize("people", [2, 3])
def test_two_people_keep_their_ids_and_nobody_is_invented_or_there_twice(model: Path, people: int) -> None:
    clip = Clip("cam01", CAM01, people=people)
    frames = clip.read()
    found = estimate(model, clip, frames, [0] * len(frames))

    for order in (range(len(found)), to_and_fro(len(found), 3)):
        places = [annotated("cam01")[at] for at in order]
        result = tally(tracked([found[at] for at in order]), places)
        assert (result.switches, result.passed_on, result.fragments, result.twice) == (0, 0, 0, 0)
        assert result.invented_s <= 0.5
        assert result.seen["athlete"] > 0.85
        assert result.seen["helper"] > 0.95
