"""A recording outlives its recorder; tests/measure/recording_kills.py does the same at length."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.measure.recording_kills import CAMERA, FAST, KEEP_BYTES, opened, run, start_again

pytestmark = [pytest.mark.integration, pytest.mark.system]


def test_a_killed_recorder_leaves_files_that_open_and_lack_two_seconds_at_most(tmp_path: Path) -> None:
    seed = random.randrange(1_000_000)
    print(f"seed {seed}")  # shown when it fails

    found = run(kills=5, seed=seed, scratch=tmp_path, paces=[replace(CAMERA, most_s=1.0), FAST])

    assert sum(kill.put for kill in found) > 10  # or nothing was shown; they may come early
    for kill in found:
        assert kill.missing_s <= 2
        assert kill.most_bytes <= KEEP_BYTES
    start_again(tmp_path / "recordings")
    for path in (tmp_path / "recordings").glob("*.rrd"):
        opened(path)
