from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from edge.config import (
    CameraConfig,
    Config,
    KbitRate,
    MqttConfig,
    QuarterTurns,
    Rate,
    RerunConfig,
    Workers,
    can_be_set_at_run_time,
    masked,
)


def test_of_several_addresses_each_is_masked_and_what_is_no_address_stays() -> None:
    both = ("wss://anna:geheim@hub/mqtt?token=geheim", "mqtt://hub")

    assert masked(both) == ("wss://***@hub/mqtt?token=***", "mqtt://hub")
    assert masked((both, 5)) == (("wss://***@hub/mqtt?token=***", "mqtt://hub"), 5)
    assert [masked(value) for value in (5, None, True, ())] == [5, None, True, ()]


def test_no_repr_holds_a_password() -> None:
    config = Config(
        camera={"front": CameraConfig(source="rtsp://anna:geheim@door/1")}, mqtt=MqttConfig(username="anna")
    )

    assert "rtsp://***@door/1" in repr(config)
    assert "geheim" not in repr(MqttConfig(url=("ws://hub/?token=geheim", "mqtt://anna@hub")))
    assert "geheim" not in repr(config) + str(config) + f"{config.camera}"
    assert config.camera["front"].source == "rtsp://anna:geheim@door/1"


def _keys(section: type[BaseModel] = Config, above: str = "") -> list[tuple[str, FieldInfo]]:
    keys = []
    for name, field in section.model_fields.items():
        inner = CameraConfig if name == "camera" else field.annotation
        keys.append((f"{above}{name}", field))
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            keys += _keys(inner, f"{above}{name}.")
    return keys


@pytest.mark.parametrize(("key", "field"), _keys(), ids=[key for key, _ in _keys()])
def test_every_key_has_a_title_and_every_number_a_unit(key: str, field: FieldInfo) -> None:
    is_number = field.annotation in (int, float, Rate, KbitRate, Workers, QuarterTurns)
    unit = field.json_schema_extra.get("unit") if isinstance(field.json_schema_extra, dict) else None

    assert field.title
    assert field.description or "." not in key or key == "camera.mount", "a table says it itself"
    assert is_number == bool(unit)


@pytest.mark.parametrize(
    ("key", "least", "most", "beyond"),
    [
        ("h264_crf", 18, 40, (17, 41, True, 26.5)),
        ("h264_kbit_s", 100, 50_000, (99, 50_001, True, "much")),
        ("jpeg_quality", 30, 95, (29, 96, True)),
        ("keyframe_s", 0.2, 10, (0.1, 10.5, True, float("nan"))),
    ],
)
def test_video_has_a_quality_below_which_nobody_would_recognise_anything(
    key: str, least: float, most: float, beyond: tuple[object, ...]
) -> None:
    assert [getattr(RerunConfig(**{key: value}), key) for value in (least, most)] == [least, most]
    for value in beyond:
        with pytest.raises(ValidationError, match=key):
            RerunConfig(**{key: value})


@pytest.mark.parametrize("key", ["crop", "roi"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([0.25, 0, 0.5], r"\[left, top, width, height\], four fractions of the picture's sides such as"),
        ([0, 0, 1, True], "four fractions"),
        ("half", "four fractions"),
        ({"left": 0.5}, "four fractions"),
        ([-0.1, 0, 1, 1], "left from 0 to 1, not -0.1"),
        ([0, float("nan"), 1, 1], "top from 0 to 1, not nan"),
        ([0, 0, 0.04, 1], "width from 0.05 to 1, not 0.04"),
        ([0, 0, 1, 0], "height from 0.05 to 1, not 0"),
        ([0.5, 0, 0.6, 1], r"left \+ width of 1 at most, not 1.1"),
        ([0, 1, 1, 0.05], r"top \+ height of 1 at most, not 1.05"),
    ],
)
def test_a_part_lies_in_the_picture(key: str, value: object, expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        CameraConfig.model_validate({"source": "synthetic", key: value})


def test_a_part_is_given_in_fractions() -> None:
    camera = CameraConfig.model_validate({"source": "synthetic", "crop": [0.7, 0, 0.3, 1], "roi": (0.8, 0.1, 0.2, 0.9)})

    assert camera.crop == (0.7, 0.0, 0.3, 1.0)
    assert camera.roi == (0.8, 0.1, 0.2, 0.9)


def test_what_can_be_set_from_afar_is_a_list_that_nobody_makes_longer_by_the_way() -> None:
    """None of them may name a file or an address: whoever may send commands would have this machine read it."""
    keys = [key.replace("camera.", "camera.front.") for key, _ in _keys()]

    assert {key for key in keys if can_be_set_at_run_time(key)} == {
        "log_level",
        "camera.front.paused",
        "pose.model",
        "pose.workers",
        "pose.max_people",
        "pose.segmentation",
        "people.smoothing",
        "people.forget_after_s",
        "people.posture_after_s",
        "people.hands_after_s",
        "people.zone_after_s",
        "people.count_after_s",
        "people.fall_speed_bl_s",
        "people.fall_tilt_deg",
        "people.fall_still_s",
        "mqtt.landmarks_hz",
        "mqtt.summary_hz",
        "mqtt.landmarks_format",
        "rerun.record",
    }


@given(
    st.text(max_size=20)
    | st.lists(
        st.sampled_from([*(part for key, _ in _keys() for part in key.split(".")), "front", ""]), max_size=5
    ).map(".".join)
)
def test_of_what_is_no_key_nothing_can_be_set_at_run_time(text: str) -> None:
    assert not can_be_set_at_run_time(text) or text.rpartition(".")[2] in {key.split(".")[-1] for key, _ in _keys()}


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("picamera2", "picamera2"),
        ("picamera2:1", "picamera2"),
        ("v4l2:/dev/v4l/by-id/usb-Cam_1-video-index0", "v4l2"),
        ("gstreamer:rtspsrc location=rtsp://door/1 ! decodebin", "gstreamer"),
        ("rtsp://door/1", "rtsp"),
        ("http://door/mjpg", "http"),
        ("picamera2.mp4", "file"),
        ("synthetic.mp4", "file"),
        ("synthetic", "synthetic"),
    ],
)
def test_the_kind_of_a_source(source: str, kind: str) -> None:
    assert CameraConfig(source=source).kind == kind


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("/dev/video0", "v4l2:/dev/video0 for this camera"),
        ("/dev/v4l/by-id/usb-Cam_1", "v4l2:/dev/v4l/by-id/usb-Cam_1 for this camera"),
        ("0", "v4l2:0 for a USB camera, picamera2:0 for one on the ribbon cable"),
        ("v4l2", "v4l2: and a device, such as v4l2:/dev/video0, or better its name in /dev/v4l/by-id"),
        ("v4l2: ", "v4l2: and a device, such as v4l2:/dev/video0, or better its name in /dev/v4l/by-id"),
        ("rstp://door/1", "one of rtsp, rtsps, rtmp, http, https, tcp, udp, srt in front of ://; rtsp?"),
        ("RTSP://door/1", "one of rtsp, rtsps, rtmp, http, https, tcp, udp, srt in front of ://; rtsp?"),
        ("rtsp://anna:a/b@door/1", "rtsp://USER:PASSWORD@HOST/PATH, / and # written %2F and %23"),
        ("rtsp://anna:a#b@door/1", "rtsp://USER:PASSWORD@HOST/PATH, / and # written %2F and %23"),
        ("gstreamer:", "gstreamer: and a pipeline as gst-launch-1.0 takes it, without a sink"),
    ],
)
def test_a_source_that_is_not_quite_one_is_told_what_is_meant(source: str, expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)):
        CameraConfig(source=source)


@pytest.mark.parametrize(
    ("polygon", "expected"),
    [
        ([[0, 0], [1, 1]], "3 to 64 corners such as"),
        ("all", "3 to 64 corners"),
        ([[0, 0], [1, 1], [0.5, 0.5]], "these lie on a line, or its edges cross"),
        ([[0, 0], [1, 1], [1, 0], [0, 1]], "these lie on a line, or its edges cross"),
        ([[0, 0], [1, 0], [1.2, 1]], "corner 3 as x and y from 0 to 1, not 1.2"),
        ([[0, 0], [1, 0], [True, 1]], r"corner 3 as \[x, y\], two fractions"),
        ([[0, 0], [1, 0], [float("nan"), 1]], "corner 3 as x and y from 0 to 1, not nan"),
        ([[0, 0]] * 65, "3 to 64 corners"),
    ],
)
def test_a_zone_is_a_part_of_the_picture(polygon: object, expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        CameraConfig.model_validate({"source": "synthetic", "zone": {"door": {"polygon": polygon}}})


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"begin": [0, 0], "end": [0, 0.001]}, "an end that is not its beginning"),
        ({"begin": [0, 0]}, "Field required"),
        ({"begin": [0, 0], "end": [2, 0]}, "x and y from 0 to 1, not 2"),
        ({"begin": [0, 0], "end": [1, 0], "point": "knee"}, "'feet', 'hips' or 'head'"),
    ],
)
def test_a_line_has_two_ends(keys: dict[str, object], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        CameraConfig.model_validate({"source": "synthetic", "line": {"door": keys}})


@pytest.mark.parametrize("name", ["", "a/b", "x" * 65, "ä"])
def test_zones_and_lines_have_names_as_cameras_do(name: str) -> None:
    with pytest.raises(ValidationError, match="1 to 64 letters"):
        CameraConfig.model_validate({"source": "synthetic", "line": {name: {"begin": [0, 0], "end": [1, 1]}}})
