from __future__ import annotations

from collections.abc import Iterator

from edge import errors
from edge.errors import ConfigError, ConfigProblem, EdgePoseError, ExitCode


def subclasses(of: type[EdgePoseError]) -> Iterator[type[EdgePoseError]]:
    for kind in of.__subclasses__():
        yield kind
        yield from subclasses(kind)


def test_the_exit_codes_are_those_that_unit_files_and_scripts_rely_on() -> None:
    assert {code.name: code.value for code in ExitCode} == {
        "OK": 0,
        "FAILED": 1,
        "USAGE": 2,
        "NO_INPUT": 66,
        "UNAVAILABLE": 69,
        "SOFTWARE": 70,
        "RESTART": 75,
        "CONFIG": 78,
        "INTERRUPTED": 130,
    }


def test_every_error_ends_the_process_with_its_documented_code() -> None:
    assert {kind.__name__: kind.exit_code.value for kind in subclasses(EdgePoseError)} == {
        "ConfigError": 78,
        "StateError": 70,
        "OrderRefused": 70,
        "BoardError": 78,
        "ModelError": 69,
        "CameraError": 66,
        "CameraLost": 66,
        "CameraUnusable": 66,
        "EstimatorError": 70,
        "SinkError": 70,
        "UnforeseenError": 70,
    }


def test_the_drawn_tree_names_every_error_under_its_parent() -> None:
    assert errors.__doc__ is not None
    lines = errors.__doc__.splitlines()
    above: list[tuple[int, str]] = []
    drawn = {}
    for line in lines:
        name = next((word for word in line.split() if isinstance(getattr(errors, word, None), type)), None)
        if name is None:
            continue
        depth = line.index(name)
        above = [(at, parent) for at, parent in above if at < depth]
        drawn[name] = above[-1][1] if above else "Exception"
        above.append((depth, name))

    assert drawn == {kind.__name__: kind.__base__.__name__ for kind in (EdgePoseError, *subclasses(EdgePoseError))}


def test_a_configuration_error_has_a_line_a_problem_with_place_key_value_and_expectation() -> None:
    problems = [
        ConfigProblem("/etc/edge-pose/config.toml", "camera.front.fps", "0", "expected greater than 0"),
        ConfigProblem("--set", "mqtt.sumary_hz", "", "unknown key; did you mean summary_hz?"),
    ]

    error = ConfigError(problems)

    assert str(error).splitlines() == [
        "/etc/edge-pose/config.toml: camera.front.fps = 0: expected greater than 0",
        "--set: mqtt.sumary_hz: unknown key; did you mean summary_hz?",
    ]
    assert error.problems == tuple(problems)
