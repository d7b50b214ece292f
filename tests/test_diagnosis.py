from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from edge import diagnosis
from edge.config import CameraConfig, Config, MqttConfig, PrivacyConfig, RerunConfig
from edge.config_layers import load
from edge.device import core_dumps
from edge.diagnosis import _privacy
from edge.errors import ExitCode
from edge.findings import Finding, Verdict, exit_code
from edge.privacy import Mode


def failed(code: ExitCode) -> Finding:
    return Finding("part", Verdict.FAILED, "no", "mend it", code)


def test_what_would_end_run_decides_before_what_run_would_endure() -> None:
    fine = [Finding("a", Verdict.OK, ""), Finding("b", Verdict.WARNING, "", "better"), Finding("c", Verdict.OFF, "")]
    assert exit_code([]) == exit_code(fine) == ExitCode.OK
    assert exit_code([*fine, failed(ExitCode.FAILED)]) == ExitCode.FAILED
    assert exit_code([failed(ExitCode.FAILED), failed(ExitCode.NO_INPUT), failed(ExitCode.CONFIG)]) == ExitCode.NO_INPUT


def test_an_address_to_serve_at_is_tried() -> None:
    def found(serve: str) -> Finding:
        settings = [f"rerun.serve={serve}", "camera.front.source=synthetic"]
        return diagnosis._serve(load(None, environment={}, sets=settings).config)

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert found(f"127.0.0.1:{port}").verdict is Verdict.WARNING
    assert found(f"127.0.0.1:{port}").verdict is Verdict.OK
    assert found(f"192.0.2.1:{port}").verdict is Verdict.FAILED
    assert found("").verdict is Verdict.OFF


class TestPrivacy:
    @staticmethod
    def found(mode: Mode, **tables: BaseModel) -> Finding:
        cameras = {"front": CameraConfig(source="synthetic")}
        return _privacy(Config(device="bench", camera=cameras, privacy=PrivacyConfig(mode=mode), **tables))

    @pytest.fixture(autouse=True)
    def dumpable(self) -> Iterator[None]:
        """Before as well: a test of a daemon with a mode may have been here."""
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: prctl(2)
        yield
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)

    @pytest.mark.parametrize(
        ("mode", "to_broker", "logged"),
        [
            ("full", "landmarks, and pictures that the command snapshot asks for,", "video and masks and landmarks"),
            ("mask", "landmarks", "masks and landmarks"),
            ("landmarks", "landmarks", "landmarks"),
        ],
    )
    def test_it_says_what_leaves_to_where(self, mode: Mode, to_broker: str, logged: str, tmp_path: Path) -> None:
        rerun = RerunConfig(url="rerun+http://hub/proxy", record_dir=tmp_path / "not yet", serve="127.0.0.1:9876")
        finding = self.found(mode, mqtt=MqttConfig(url="mqtt://anna@hub"), rerun=rerun)
        assert finding.detail == (
            f"{mode}: {to_broker} to mqtt://***@hub; "
            f"{logged} to rerun+http://hub/proxy and whoever comes to 127.0.0.1:9876 and {tmp_path}/not yet"
        )
        assert finding.verdict is Verdict.OK
        assert core_dumps.are_possible() is (mode == "full")
        assert self.found(mode).detail == f"{mode}: nothing leaves this process"

    @pytest.mark.integration
    def test_what_it_can_not_look_at_is_no_all_clear(self, tmp_path: Path) -> None:
        from tests.rerun_log.scenes import Recorder, points_parcel, scene

        recorder = Recorder(tmp_path, scene())
        recorder.put(points_parcel(0))
        recorder.close()
        was = os.geteuid()
        if was == 0:
            os.seteuid(65534)
        else:
            tmp_path.chmod(0)
        try:
            finding = self.found("landmarks", rerun=RerunConfig(record_dir=tmp_path, record=False))
        finally:
            if was == 0:
                os.seteuid(0)
            else:
                tmp_path.chmod(0o700)
        assert finding.verdict is Verdict.WARNING
        assert f"1 file(s) in {tmp_path} can't be looked at by this user" in finding.detail
        assert "service's user" in finding.remedy

    @pytest.mark.integration
    def test_it_warns_of_recordings_from_an_opener_mode(self, tmp_path: Path) -> None:
        from tests.rerun_log.scenes import Recorder, points_parcel, scene

        for number, mode in enumerate(get_args(Mode)):
            recorder = Recorder(tmp_path, scene(session=f"2026010{number + 1}T000000Z-0000abcd", privacy=mode))
            recorder.put(points_parcel(0))
            recorder.close()
        for mode, files in (("full", 0), ("mask", 1), ("landmarks", 2)):
            finding = self.found(mode, rerun=RerunConfig(record_dir=tmp_path, record=False))
            assert finding.verdict is (Verdict.WARNING if files else Verdict.OK)
            assert (f"{files} file(s) in {tmp_path} show more" in finding.detail) is bool(files)
