from __future__ import annotations

import os
from pathlib import Path

from edge.device import board


def test_cores_are_those_of_the_affinity_or_fewer_where_there_is_a_limit(tmp_path: Path) -> None:
    allowed = len(os.sched_getaffinity(0))
    assert board.usable_cores(tmp_path, tmp_path) == allowed

    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text("0::/\n")
    for limit, usable in (("50000 100000", 1), (f"{(allowed + 7) * 1000} 1000", allowed)):
        (tmp_path / "cpu.max").write_text(limit)
        assert board.usable_cores(tmp_path, tmp_path) == usable
