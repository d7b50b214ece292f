"""Controls as a configuration gives them, against those of a camera."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.cameras.children.libcamera_controls import Control, checked, frame_duration
from edge.cameras.children.outlet import Failed

AUTOFOCUS = {"Manual": 0, "Auto": 1, "Continuous": 2}
CONTROLS = {
    "AeEnable": Control("Bool", False, True),
    "AfMode": Control("Integer32", 0, 2, AUTOFOCUS),
    "AfWindows": Control("Rectangle", elements=0),
    "AnalogueGain": Control("Float", 1.0, 16.0),
    "Brightness": Control("Float", -1.0, 1.0),
    "ColourGains": Control("Float", 0.0, 32.0, elements=2),
    "ExposureTime": Control("Integer32", 26, 220417486),
    "FrameDurationLimits": Control("Integer64", 17849, 220535845, elements=2),
    "LensPosition": Control("Float", 0.0, 15.0),
    "ScalerCrop": Control("Rectangle"),
}
"""Of a Raspberry Pi's camera module 3, about."""


@pytest.mark.parametrize(
    ("name", "value", "taken"),
    [
        ("AeEnable", False, False),
        ("AfMode", "Continuous", 2),
        ("AfMode", "continuous", 2),
        ("AfMode", 0, 0),
        ("AfWindows", [[16, 16, 64, 64]], [(16, 16, 64, 64)]),
        ("AnalogueGain", 2, 2.0),
        ("AnalogueGain", 0, 0.0),
        ("ColourGains", [1.5, 2], (1.5, 2.0)),
        ("ExposureTime", 10000, 10000),
        ("ExposureTime", 0, 0),
        ("FrameDurationLimits", [33333, 66666], (33333, 66666)),
        ("LensPosition", 0.5, 0.5),
        ("ScalerCrop", [0, 0, 4608, 2592], (0, 0, 4608, 2592)),
    ],
)
def test_what_is_right_is_taken(name: str, value: Any, taken: Any) -> None:
    got = checked({name: value}, CONTROLS)[name]
    assert got == taken
    assert type(got) is type(taken)


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("AeEnable", 1, "control AeEnable = 1; expected true or false"),
        ("AfMode", "continous", 'control AfMode = "continous"; expected one of Manual, Auto, Continuous'),
        ("AfMode", True, "control AfMode = true; expected one of Manual, Auto, Continuous"),
        ("AfMode", 3, "control AfMode = 3; expected one of Manual, Auto, Continuous"),
        ("AfWindows", [1, 2, 3, 4], "control AfWindows = [1, 2, 3, 4]; expected a list of 4 whole numbers"),
        ("AfWindows", "all", 'control AfWindows = "all"; expected lists of 4 whole numbers'),
        ("AnalogueGain", 17.5, "control AnalogueGain = 17.5; expected 1 to 16, or 0 for automatic"),
        ("Brightness", 2, "control Brightness = 2; expected -1 to 1"),
        ("Brightness", "high", 'control Brightness = "high"; expected a number'),
        ("ColourGains", [1.5], "control ColourGains = [1.5]; expected a list of 2"),
        ("ColourGains", 1.5, "control ColourGains = 1.5; expected a list of 2"),
        ("ColourGains", [1.5, 40], "control ColourGains = [1.5, 40]; expected 0 to 32"),
        ("ExposureTime", 20, "control ExposureTime = 20; expected 26 to 220417486, or 0 for automatic"),
        ("ExposureTime", 20.5, "control ExposureTime = 20.5; expected a whole number"),
        ("FrameDurationLimits", [1, 2], "control FrameDurationLimits = [1, 2]; expected 17849 to 220535845"),
        ("ScalerCrop", [0, 0, 10], "control ScalerCrop = [0, 0, 10]; expected a list of 4 whole numbers"),
        ("lensposition", 1, "control lensposition: the camera has none of that name; did you mean LensPosition"),
    ],
)
def test_what_is_wrong_is_one_line_that_says_what_would_be_right(name: str, value: Any, line: str) -> None:
    with pytest.raises(Failed) as failed:
        checked({name: value}, CONTROLS)
    assert str(failed.value) == line
    assert not failed.value.lost


def test_a_control_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(Failed, match=r"^control Focus: the camera has none of that name; it has AeEnable, AfMode, "):
        checked({"Focus": 1}, CONTROLS)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=5),
)


@given(name=st.sampled_from(sorted(CONTROLS)), value=_VALUES)
def test_whatever_is_given_is_taken_within_the_limits_or_refused_in_one_line(name: str, value: Any) -> None:
    control = CONTROLS[name]
    try:
        taken = checked({name: value}, CONTROLS)[name]
    except Failed as failed:
        refused = str(failed)
    else:
        refused = ""
        for number in taken if isinstance(taken, tuple) else [taken]:
            if isinstance(control.least, float | int):
                assert control.least <= number <= control.most or number == 0
    assert "\n" not in refused


def test_the_rate_becomes_a_duration() -> None:
    limits = CONTROLS["FrameDurationLimits"]
    assert frame_duration(30, limits) == (33333, "")
    assert frame_duration(120, limits) == (17849, " (not 120: this mode gives 0.00453 to 56)")
    assert frame_duration(0.001, limits) == (220535845, " (not 0.001: this mode gives 0.00453 to 56)")
    assert frame_duration(25, Control("Integer64", (33333, 33333), (120000, 120000), elements=2)) == (40000, "")
