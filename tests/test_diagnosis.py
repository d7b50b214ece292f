from __future__ import annotations

import socket

from edge import diagnosis
from edge.config_layers import load
from edge.diagnosis import Finding, Verdict, exit_code
from edge.errors import ExitCode


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
