"""libcamera's controls: names and values of a configuration, checked against what the camera offers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from .libcamera_formats import listed
from .outlet import Failed

if TYPE_CHECKING:
    from collections.abc import Mapping


class Control(NamedTuple):
    """One control. kind: the name of its libcamera.ControlType. least, most: None where there is no limit; one limit,
    or one for each element. choices: names and numbers of an enumeration, None for others. elements: of an array; 0 any
    number, None no array."""

    kind: str
    least: Any = None
    most: Any = None
    choices: Mapping[str, int] | None = None
    elements: int | None = None


_AUTOMATIC_AT_0 = ("ExposureTime", "AnalogueGain")
"""picamera2 takes 0 as "automatic" for these, whatever the range is."""

_NUMBERS = {"Rectangle": 4, "Size": 2, "Point": 2}


def checked(given: Mapping[str, Any], controls: Mapping[str, Control]) -> dict[str, Any]:
    """What a configuration says as picamera2 takes it. Raises Failed with the control, its value and what is
    expected."""
    return {name: _value(name, value, controls) for name, value in given.items()}


def _value(name: str, value: Any, controls: Mapping[str, Control]) -> Any:
    control = controls.get(name)
    if control is None:
        near = next((other for other in controls if other.lower() == name.lower()), "")
        hint = f"did you mean {near}" if near else f"it has {listed(sorted(controls))}"
        raise Failed(f"control {name}: the camera has none of that name", lost=False, remedy=hint)
    if control.kind in _NUMBERS:
        count = _NUMBERS[control.kind]
        if control.elements is None:
            return _whole_numbers(name, value, value, count)
        if not isinstance(value, (list, tuple)):
            raise _refused(name, value, f"lists of {count} whole numbers")
        return [_whole_numbers(name, one, value, count) for one in value]
    if control.elements is None:
        return _element(name, value, value, control)
    if not isinstance(value, (list, tuple)) or control.elements not in (0, len(value)):
        raise _refused(name, value, f"a list of {control.elements or 'several'}")
    return tuple(
        _element(name, one, value, control._replace(least=_limit(control.least, at), most=_limit(control.most, at)))
        for at, one in enumerate(value)
    )


def _limit(limit: Any, at: int) -> Any:
    if isinstance(limit, (list, tuple)):
        return limit[at] if at < len(limit) else None
    return limit


def _whole_numbers(name: str, value: Any, shown: Any, count: int) -> tuple[int, ...]:
    """Pixels, whose limits libcamera moves them into by itself."""
    several = isinstance(value, (list, tuple)) and len(value) == count
    if not several or any(isinstance(one, bool) or not isinstance(one, int) for one in value):
        raise _refused(name, shown, f"a list of {count} whole numbers")
    return tuple(value)


def _element(name: str, value: Any, shown: Any, control: Control) -> Any:
    """value: one of those in `shown`, or all of it."""
    if control.kind == "Bool":
        if not isinstance(value, bool):
            raise _refused(name, shown, "true or false")
        return value
    if control.kind == "String":
        if not isinstance(value, str):
            raise _refused(name, shown, "a text")
        return value
    if control.choices:
        return _chosen(name, value, shown, control.choices)
    whole = control.kind != "Float"
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise _refused(name, shown, "a whole number" if whole else "a number")
    least, most = control.least, control.most
    limited = isinstance(least, (int, float)) and isinstance(most, (int, float)) and least < most
    automatic = name in _AUTOMATIC_AT_0
    if limited and not least <= value <= most and not (automatic and value == 0):
        also = ", or 0 for automatic" if automatic else ""
        raise _refused(name, shown, f"{_number(least)} to {_number(most)}{also}")
    return value if whole else float(value)


def _chosen(name: str, value: Any, shown: Any, choices: Mapping[str, int]) -> int:
    """By name in whatever case, or by number."""
    if isinstance(value, str):
        for choice, number in choices.items():
            if choice.lower() == value.lower():
                return number
    elif not isinstance(value, bool) and value in choices.values():
        return int(value)
    raise _refused(name, shown, f"one of {listed(choices)}")


def _refused(name: str, value: Any, expected: str) -> Failed:
    return Failed(
        f"control {name} = {json.dumps(value, ensure_ascii=False)}", lost=False, remedy=f"expected {expected}"
    )


def _number(value: float) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def frame_duration(fps: float, limits: Control) -> tuple[int, str]:
    """Microseconds from frame to frame for `fps`, as near as a camera with these FrameDurationLimits gets, and what to
    say where that is not what was wanted."""
    wanted_us = round(1e6 / fps)
    least_us, most_us = _limit(limits.least, 0), _limit(limits.most, 0)
    if not 0 < least_us <= most_us or least_us <= wanted_us <= most_us:
        return wanted_us, ""
    reached_us = min(max(wanted_us, least_us), most_us)
    return reached_us, f" (not {fps:g}: this mode gives {1e6 / most_us:.3g} to {1e6 / least_us:.3g})"
