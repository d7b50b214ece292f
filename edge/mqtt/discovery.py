"""What Home Assistant is told of this device, so that it appears there by itself: MQTT device discovery.

Keys and their meaning: https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload and the page of each
component there. Templates are Jinja; they take fields with `get`, because Home Assistant logs every attribute that it
doesn't find, and `None` is how they say "unknown".
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from typing import get_args

import msgspec

from edge.mqtt.topics import Topics
from edge.mqtt.wire import v1

_MAKER = "edge-pose"

# Presence goes this long after the last summary. Cameras may give as little as a frame in ten seconds.
_SUMMARY_EXPIRY_S = 30
_SUMMARIES_MISSED = 3

_Component = dict[str, object]


def device_config(topics: Topics, info: v1.Info, *, before: v1.Info | None = None) -> bytes:
    """The payload for `topics.discovery`, to be retained; an empty one there takes the device away.

    before: what this device was when it last said so. Home Assistant keeps a component that a later payload merely
    leaves out. So what `before` had and `info` hasn't (a camera, a verb) stands there with its platform alone: that
    removes it.
    """
    components = _components(topics, info)
    earlier = {} if before is None else _components(topics, before)
    gone = {key: {"p": component["p"]} for key, component in earlier.items() if key not in components}
    version = {"sw_version": info.versions[_MAKER]} if _MAKER in info.versions else {}
    return msgspec.json.encode(
        {
            "dev": {
                "identifiers": [_unique_id(topics)],
                "name": topics.device,
                "manufacturer": _MAKER,
                "model": info.board,
                **version,
            },
            "o": {"name": _MAKER, **version},
            "availability": [_online(topics.state)],
            "cmps": components | gone,
        }
    )


def _components(topics: Topics, info: v1.Info) -> dict[str, _Component]:
    """All of the device's, by a name that is unique within it and stays the same."""
    found = {what: {**it, "unique_id": _unique_id(topics, what)} for what, it in _of_device(topics, info.commands)}
    expire_after = _SUMMARY_EXPIRY_S
    if info.summary.hz is not msgspec.UNSET:
        expire_after = max(expire_after, math.ceil(_SUMMARIES_MISSED / info.summary.hz))
    for camera in info.cameras:
        for what, it in _of_camera(topics, camera, info, expire_after):
            found[f"{camera}_{what}"] = {**it, "unique_id": _unique_id(topics, camera, what)}
    return found


def _unique_id(topics: Topics, *names: str) -> str:
    """By it Home Assistant knows things again: changing one orphans what people have set for it.

    The separator is none that a device's or a camera's name may hold: with `_`, camera `b_c` of device `a` and camera
    `c` of device `a_b` would be one.
    """
    return "/".join((_MAKER, topics.device, *names))


def _of_device(topics: Topics, commands: Collection[str]) -> Iterator[tuple[str, _Component]]:
    reading = {
        "p": "sensor",
        "state_topic": topics.health,
        "state_class": "measurement",
        "entity_category": "diagnostic",
    }
    yield (
        "temperature",
        {
            **reading,
            "name": "Temperature",
            "device_class": "temperature",
            "unit_of_measurement": "°C",
            "suggested_display_precision": 1,
            "value_template": "{{ value_json.get('temperature_celsius') }}",
        },
    )
    yield (
        "cpu",
        {
            **reading,
            "name": "CPU",
            "icon": "mdi:chip",
            "unit_of_measurement": "%",  # of one core
            "suggested_display_precision": 0,
            "value_template": "{{ value_json.get('cpu_percent') }}",
        },
    )
    yield (
        "memory",
        {
            **reading,
            "name": "Memory",
            "device_class": "data_size",
            "unit_of_measurement": "MB",
            "suggested_display_precision": 0,
            "value_template": "{{ value_json.get('memory_mb') }}",
        },
    )
    if "restart" in commands:
        yield (
            "restart",
            {
                "p": "button",
                "name": "Restart",
                "device_class": "restart",
                "entity_category": "config",
                **_command(topics, "restart"),
                "payload_press": _payload(v1.Restart()),
            },
        )


def _of_camera(topics: Topics, camera: str, info: v1.Info, expire_after_s: int) -> Iterator[tuple[str, _Component]]:
    # A camera that is paused or lost sees nobody and nobody not: unknown at once where its status arrives, and by the
    # expiry where nothing does.
    seen = {
        "state_topic": topics.summary(camera),
        "expire_after": expire_after_s,
        "availability": [_online(topics.state), _online(topics.status(camera))],
        "availability_mode": "all",
    }
    yield (
        "presence",
        {
            "p": "binary_sensor",
            "name": f"{camera} presence",
            "device_class": "occupancy",
            **seen,
            "value_template": "{{ 'ON' if value_json.get('count') else 'OFF' }}",
        },
    )
    yield (
        "people",
        {
            "p": "sensor",
            "name": f"{camera} people",
            "icon": "mdi:account-group",
            "state_class": "measurement",
            **seen,
            "value_template": "{{ value_json.get('count') }}",
        },
    )
    yield (
        "posture",
        {
            "p": "sensor",
            "name": f"{camera} posture",
            "icon": "mdi:human",
            "device_class": "enum",
            "options": list(v1.Posture),
            **seen,
            "value_template": "{{ (value_json.get('people') or [{}])[0].get('posture') }}",
        },
    )
    yield (
        "fall",
        {
            "p": "binary_sensor",
            "name": f"{camera} fall",
            "device_class": "safety",
            **seen,
            "value_template": "{{ 'ON' if value_json.get('people', []) | selectattr('fallen') | list else 'OFF' }}",
        },
    )
    yield (
        "fps",
        {
            "p": "sensor",
            "name": f"{camera} frame rate",
            "icon": "mdi:speedometer",
            "entity_category": "diagnostic",
            "state_class": "measurement",
            "unit_of_measurement": "fps",
            "suggested_display_precision": 1,
            "state_topic": topics.health,
            "value_template": f"{{{{ value_json.get('cameras', {{}}).get('{camera}', {{}}).get('fps') }}}}",
        },
    )
    yield (
        "status",
        {
            "p": "sensor",
            "name": f"{camera} status",
            "icon": "mdi:cctv",
            "entity_category": "diagnostic",
            "device_class": "enum",
            "options": list(v1.CameraState),
            "state_topic": topics.status(camera),
            "value_template": "{{ value or none }}",  # the retained status of a camera that went is cleared
        },
    )
    yield (
        "event",
        {
            "p": "event",
            "name": f"{camera} event",
            "icon": "mdi:bell-outline",
            "event_types": [kind.__struct_config__.tag for kind in get_args(v1.Event)],
            "state_topic": topics.event(camera),
            "qos": 1,
            "value_template": "{{ dict(value_json, event_type=value_json.get('type')) | to_json }}",
        },
    )
    if "set" in info.commands:
        yield (
            "pause",
            {
                "p": "switch",
                "name": f"{camera} pause",
                "icon": "mdi:pause",
                **_command(topics, "set"),
                "payload_on": _pause(camera, paused=True, keep=info.keeps),
                "payload_off": _pause(camera, paused=False, keep=info.keeps),
                "state_topic": topics.status(camera),
                "value_template": "{{ 'paused' if value == 'paused' else 'running' }}",
                "state_on": "paused",
                "state_off": "running",
            },
        )
    if "snapshot" in info.commands:  # without it no picture ever comes
        yield (
            "snapshot",
            {
                "p": "image",
                "name": f"{camera} snapshot",
                "image_topic": topics.snapshot(camera),
                "content_type": v1.JPEG,
            },
        )
        yield (
            "capture",
            {
                "p": "button",
                "name": f"{camera} take snapshot",
                "icon": "mdi:camera",
                **_command(topics, "snapshot"),
                "payload_press": _payload(v1.Snapshot(camera=camera)),
            },
        )


def _online(topic: str) -> _Component:
    """Available while `topic` says online: any other word, `stopped` too, is taken for offline."""
    return {
        "topic": topic,
        "payload_available": "online",
        "payload_not_available": "offline",
        "value_template": "{{ 'online' if value == 'online' else 'offline' }}",
    }


def _command(topics: Topics, verb: str) -> _Component:
    return {"command_topic": topics.command(verb), "qos": 1, "retain": False}


def _pause(camera: str, *, paused: bool, keep: bool) -> str:
    return _payload(v1.Set(values={f"camera.{camera}.paused": paused}, keep=keep))


def _payload(request: v1.Request) -> str:
    return v1.encode(request).decode()
