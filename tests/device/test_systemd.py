from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge.device.systemd import ALIVE_FILE, ServiceManager


@contextmanager
def listener(address: str) -> Iterator[socket.socket]:
    """The service manager's end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(address)
        end.settimeout(10)
        yield end


def heard(end: socket.socket) -> list[str]:
    return end.recv(4096).decode().splitlines()


@pytest.mark.parametrize("kind", ["a path", "the abstract namespace"])
def test_the_service_manager_hears_all_about_it(kind: str, tmp_path: Path) -> None:
    name = f"edge-pose-test-{os.getpid()}"
    address, shown = (str(tmp_path / "notify"),) * 2 if kind == "a path" else (f"\0{name}", f"@{name}")
    with listener(address) as end:
        manager = ServiceManager({"NOTIFY_SOCKET": shown})
        manager.ready("device hall, cameras front")
        manager.show("device hall, cameras front")
        manager.show("broker online")
        manager.alive()
        manager.reloading()
        manager.stopping()
        told = [heard(end) for _ in range(5)]
    (reloading, clock) = told.pop(3)
    assert told == [
        ["READY=1", "STATUS=device hall, cameras front"],
        ["STATUS=broker online"],
        ["WATCHDOG=1"],
        ["STOPPING=1", "STATUS=stopping"],
    ]
    assert reloading == "RELOADING=1"
    assert clock.removeprefix("MONOTONIC_USEC=").isdigit()


def test_progress_shows_in_the_age_of_a_file(tmp_path: Path) -> None:
    manager = ServiceManager({"RUNTIME_DIRECTORY": str(tmp_path)})
    manager.ready("")
    assert not (tmp_path / ALIVE_FILE).exists()
    manager.alive()
    os.utime(tmp_path / ALIVE_FILE, (0, 0))
    manager.alive()
    assert (tmp_path / ALIVE_FILE).stat().st_mtime > 0


def test_where_nobody_listens_nothing_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for manager in (
        ServiceManager({}),
        ServiceManager({"RUNTIME_DIRECTORY": str(tmp_path / "gone")}),
        ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")}),
    ):
        manager.ready("")
        manager.alive()
    assert caplog.messages == [f"NOTIFY_SOCKET = {tmp_path}/gone: can't be told: [Errno 2] No such file or directory"]
