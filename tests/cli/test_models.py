"""`edge-pose models`."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from edge.estimators.models.catalog import BUNDLES
from tests.cli.command import COMMAND, edge_pose
from tests.conftest import eventually
from tests.estimators.models.mirror import mirror

pytestmark = [pytest.mark.system]

FULL = BUNDLES["full"]


@pytest.fixture(autouse=True)
def _directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_they_are_listed_fetched_verified_and_found(model: Path, tmp_path: Path) -> None:
    here = ("--dir", str(tmp_path / "models"))
    listed = edge_pose("models", "list", *here)
    assert listed.stdout.splitlines() == [
        "lite     5.8 MB  missing   edge-pose models fetch lite brings it",
        "full     9.4 MB  missing   edge-pose models fetch full brings it",
        "heavy   30.7 MB  missing   edge-pose models fetch heavy brings it",
    ]
    for command in ("verify", "path"):
        missing = edge_pose("models", command, *here)
        assert missing.returncode == 69
        assert "edge-pose models fetch" in missing.stderr
    fetched = edge_pose("models", "fetch", "--from", str(model.parent), *here)
    assert fetched.returncode == 0, fetched.stderr
    assert fetched.stdout == f"full   official  sha256 {FULL.sha256[:12]}…  {tmp_path}/models/{FULL.file_name}\n"
    assert edge_pose("models", "verify", *here).stdout == fetched.stdout
    assert edge_pose("models", "path", "full", *here).stdout == f"{tmp_path}/models/{FULL.file_name}\n"
    rows = {row["name"]: row for row in json.loads(edge_pose("models", "list", "--json", *here).stdout)}
    assert {name: row["state"] for name, row in rows.items()} == {
        "lite": "missing",
        "full": "official",
        "heavy": "missing",
    }
    assert rows["full"]["sha256"] == FULL.sha256


def test_the_configuration_says_where_they_are_and_come_from(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f'[pose]\nmodel_dir = "{tmp_path}/kept"\nmodel_source = "{model.parent}"\n')
    assert edge_pose("models", "fetch", "--config", str(file)).returncode == 0
    assert edge_pose("models", "path", "-c", str(file)).stdout == f"{tmp_path}/kept/{FULL.file_name}\n"
    file.write_text("[pose]\nmodel_dri = 5\n")
    wrong = edge_pose("models", "path", "-c", str(file))
    assert wrong.returncode == 78
    assert wrong.stderr == f"edge-pose: {file}: pose.model_dri: unknown key; did you mean model_dir?\n"


@pytest.mark.parametrize("name", ["medium", "mine.task", ""])
def test_only_what_there_is_can_be_fetched(name: str) -> None:
    fetch = edge_pose("models", "fetch", name)
    assert fetch.returncode == 69
    assert fetch.stderr == f"edge-pose: model {name!r}: expected lite, full, heavy; only those can be fetched\n"


def test_a_damaged_one_is_told_and_replaced(model: Path, tmp_path: Path) -> None:
    here = ("--dir", str(tmp_path))
    (tmp_path / FULL.file_name).write_bytes(model.read_bytes()[:-1])
    verify = edge_pose("models", "verify", *here)
    assert verify.returncode == 69
    assert verify.stderr.endswith("; 'edge-pose models fetch full' replaces it\n")
    assert "damaged" in edge_pose("models", "list", *here).stdout
    assert edge_pose("models", "fetch", "full", "--from", str(model.parent), *here).returncode == 0
    assert edge_pose("models", "verify", *here).returncode == 0


def test_killed_twenty_times_a_fetch_never_leaves_a_wrong_model_nor_a_lock(model: Path, tmp_path: Path) -> None:
    kept = tmp_path / FULL.file_name
    chance = random.Random(7)
    content = model.read_bytes()
    with mirror(content, pause_s=0.02) as server:  # about 3 s for the whole
        command = [*COMMAND, "models", "fetch", "full", "--from", server.url, "--dir", str(tmp_path)]
        for _ in range(20):
            asked = len(server.requests)
            with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as fetch:
                eventually(lambda: len(server.requests) > asked, 30)  # noqa: B023 - called before the next round
                with contextlib.suppress(subprocess.TimeoutExpired):
                    fetch.wait(chance.uniform(0.0, 0.5))
                fetch.send_signal(signal.SIGKILL)
            if kept.exists():
                assert kept.read_bytes() == content
                kept.unlink()  # once more from the beginning
            descriptor = os.open(tmp_path, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises if somebody still holds it
            os.close(descriptor)
        resumed = [asked for asked in server.requests if asked]
        assert resumed, "what had come was of use"
        assert edge_pose(*command[len(COMMAND) :]).returncode == 0
    assert kept.read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == [FULL.file_name]


def test_a_wrong_model_from_the_mirror_is_refused_and_not_kept(tmp_path: Path) -> None:
    with mirror() as server:
        settings = ["--set", "camera.front.source=synthetic", "--set", f"pose.model_dir={tmp_path}"]
        for kind, reason in (("wrong", "what arrived has sha256"), ("missing", "the mirror answers 404 Not Found")):
            run = edge_pose("run", *settings, "--set", f"pose.model_source={server.url}/{kind}")
            assert run.returncode == 69
            assert f"edge-pose: model full can't be fetched ({reason}" in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_must_not_fetch_says_what_to_do(tmp_path: Path) -> None:
    settings = ["--set", "camera.front.source=synthetic", "--set", f"pose.model_dir={tmp_path}"]
    run = edge_pose("run", *settings, "--set", "pose.model_source=off")
    assert run.returncode == 69
    assert run.stderr.startswith(
        "edge-pose: model full can't be fetched (pose.model_source is off); put pose_landmarker_"
    )
