from __future__ import annotations

import json
from pathlib import Path

from edge.device.status import STATUS_FILE, Status, StatusFile
from edge.reports import BrokerReach

STATUS = Status("s", ready=True, summary="device hall", broker=BrokerReach("online", 1))


def test_it_is_there_from_the_first_word_to_the_end_and_rewritten_only_for_another(tmp_path: Path) -> None:
    path = tmp_path / STATUS_FILE
    path.write_text("of a run that was killed")
    file = StatusFile({"RUNTIME_DIRECTORY": f"{tmp_path}:/elsewhere"})
    assert not path.exists()
    file.tell(STATUS)
    assert json.loads(path.read_text()) == {
        "session": "s",
        "ready": True,
        "summary": "device hall",
        "broker": {"state": "online", "connection": 1},
    }
    first = path.stat().st_ino
    file.tell(STATUS)
    assert path.stat().st_ino == first
    file.tell(Status("s", ready=False, summary="device hall", broker=BrokerReach("online", 1)))
    assert json.loads(path.read_text())["ready"] is False
    assert [each.name for each in tmp_path.iterdir()] == [STATUS_FILE]
    file.remove()
    assert list(tmp_path.iterdir()) == []


def test_where_there_is_no_place_for_it_nothing_is_written(tmp_path: Path) -> None:
    for environment in ({}, {"RUNTIME_DIRECTORY": str(tmp_path / "gone")}):
        file = StatusFile(environment)
        file.tell(STATUS)
        file.remove()
    assert list(tmp_path.iterdir()) == []
