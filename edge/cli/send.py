"""`edge-pose send`: one command for one device, and its answer."""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import secrets
import time
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from msgspec import UnsetType

from edge import logs
from edge.cli.broker_access import MOST_PICTURE_BYTES, BrokerAccess, broker_access, describe
from edge.cli.options import ConfigFile, Json, Sets, fail, reported_errors
from edge.config import NAME
from edge.config_layers import toml_value
from edge.errors import ExitCode
from edge.logs import printable
from edge.mqtt.message import Message, Received
from edge.mqtt.session import Delivery, Session
from edge.mqtt.topics import Topics
from edge.mqtt.wire import v1
from edge.pacing import Deadline

_TURN_S = 0.01
_PICTURES = 4  # of the device's cameras, while the answer is awaited: others may ask for some too


def send(
    device: Annotated[str, typer.Argument(help="The device's name.")],
    verb: Annotated[str, typer.Argument(help=f"{', '.join(v1.REQUESTS)}.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="For set: keys and values; KEY= takes one back. record: on, off."),
    ] = None,
    *,
    camera: Annotated[str | None, typer.Option(help="For snapshot, pause and resume: of this camera.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="What is changed stays so after a restart.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="For snapshot: the file to write; default: NAME-seq.jpg, by its camera.")
    ] = None,
    as_json: Json = False,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0.1, max=3600, help="Seconds to wait for the broker and the answer.")
    ] = 10.0,
    broker: Annotated[
        str | None, typer.Option(metavar="URL", help="The broker, in the place of the configuration's mqtt.url.")
    ] = None,
    config: ConfigFile = None,
    sets: Sets = None,
) -> None:
    """Send a device one command and print its answer: edge-pose send hall-pi set pose.max_people=2.

    Values are TOML where they are and text otherwise. Exit codes: 0 done, 1 the device refused or it failed there, 2 no
    such command, 69 no broker or no answer in time, 78 the configuration is wrong.
    """
    try:
        if not NAME.fullmatch(device):
            raise ValueError(f"DEVICE = {device!r}: expected 1 to 64 letters, digits, '-' or '_'")
        if out is not None and verb != "snapshot":
            raise ValueError(f"{verb} brings no picture for --out")
        command = request(verb, arguments or [], camera=camera, keep=keep)
    except ValueError as error:
        fail(ExitCode.USAGE, str(error))
    with reported_errors():
        logs.setup("error")
        exchange = _Exchange(broker_access(config, sets, broker), device, verb, command, timeout_s)
        try:
            why_not = exchange.run()
        finally:
            exchange.close()
        if exchange.reply is None:
            fail(ExitCode.UNAVAILABLE, why_not)
        if as_json:
            print(json.dumps(msgspec.to_builtins(exchange.reply)))
        _require_done(device, exchange.reply)
        if why_not:
            fail(ExitCode.UNAVAILABLE, why_not)
        saved = None if exchange.picture is None else _save(exchange.picture, exchange.reply, out)
        if not as_json:
            print("\n".join(lines(device, exchange.reply)))
            if saved:
                print(f"  saved as {saved}")


def _require_done(device: str, reply: v1.Reply) -> None:
    if not isinstance(reply.error, UnsetType):
        fail(ExitCode.FAILED, f"{device}: {printable(reply.error.text)}")
    if not reply.ok:
        fail(ExitCode.FAILED, f"{device}: {printable(reply.verb)} failed, and no reason is given")


# --- what is sent


def request(verb: str, arguments: Sequence[str], *, camera: str | None = None, keep: bool = False) -> v1.Request:
    """The command, with an id of its own. Raises ValueError with a line that says what is wrong."""
    kind = v1.REQUESTS.get(verb)
    if kind is None:
        near = difflib.get_close_matches(verb, v1.REQUESTS, n=1)
        meant = f"did you mean {near[0]}?" if near else f"expected {', '.join(v1.REQUESTS)}"
        raise ValueError(f"unknown command {verb!r}; {meant}")
    given = dict(_assignment(kind, verb, argument) for argument in arguments)
    fields: dict[str, Any] = {"values": given} if kind is v1.Set else given
    if camera is not None:
        fields["camera"] = camera
    if keep:
        fields["keep"] = True
    if unknown := [name for name in fields if name not in kind.__struct_fields__]:
        raise ValueError(f"{verb} takes no {unknown[0]}")
    if kind is v1.Set and not given:
        raise ValueError("set: what? expected KEY=VALUE, e.g. pose.max_people=2, or KEY= to take it back")
    if kind is v1.Record and "on" not in fields:
        raise ValueError("record: expected on or off")
    try:
        command = msgspec.convert({"id": secrets.token_hex(8), **fields}, type=kind)
    except ValueError as error:
        raise ValueError(f"{verb}: {str(error).replace(' - at `$.', ' at `')}") from None
    if (length := len(v1.encode(command))) > v1.MOST_COMMAND_BYTES:
        raise ValueError(f"{verb}: the command has {length} bytes, a device takes {v1.MOST_COMMAND_BYTES} at most")
    return command


def _assignment(kind: type[v1.Request], verb: str, argument: str) -> tuple[str, object]:
    key, equals, text = argument.partition("=")
    if kind is v1.Record and argument in {"on", "off"}:
        return "on", argument == "on"
    if not equals or not key.strip():
        if kind is v1.Set:
            raise ValueError(f"set: {argument!r}: expected KEY=VALUE, e.g. pose.max_people=2")
        if kind is v1.Record:
            raise ValueError(f"record: {argument!r}: expected on or off")
        named = "; a camera is named by --camera" if "camera" in kind.__struct_fields__ else ""
        raise ValueError(f"{verb} takes no {argument!r}{named}")
    return key.strip(), value(text)


def value(text: str) -> object:
    """`text` as a TOML value, or itself where it is none or one that JSON has not; null for null and for nothing."""
    if text in {"", "null"}:
        return None
    found = toml_value(text)
    number = isinstance(found, int | float) and math.isfinite(found)
    return found if number or isinstance(found, str | list | dict) else text


# --- the exchange


class _Exchange:
    """A command on its way, and what comes back."""

    def __init__(self, access: BrokerAccess, device: str, verb: str, command: v1.Request, timeout_s: float) -> None:
        self.reply: v1.Reply | None = None
        self.picture: Received | None = None
        self._topics = Topics(access.prefix, device)
        self._device = device
        self._verb = verb
        self._id = command.id
        self._timeout_s = timeout_s
        self._state = ""
        self._obeyed: list[str] | None = None
        self._pictures: deque[Received] = deque(maxlen=_PICTURES)
        self._message = Message(
            self._topics.command(verb),
            v1.encode(command),
            qos=1,
            expiry_s=math.ceil(timeout_s),  # a device that is away for longer finds nobody who waits
            content_type=v1.JSON,
            correlation=str(command.id).encode(),
        )
        self._session: Session = access.session(
            "send", on_online=self._subscribe, on_message=self._take, most_bytes=MOST_PICTURE_BYTES
        )

    def run(self) -> str:
        """Why there is no answer, or no picture though the answer says so; empty when all is well."""
        deadline = Deadline(self._timeout_s)
        sent = False
        while deadline.left_s():
            self._session.service()
            if not sent and self._session.online:
                sent = self._session.publish(self._message) is Delivery.TAKEN
            if self._complete():
                return ""
            if self._obeyed == []:
                return f"{self._device} obeys no commands: its mqtt.commands is empty"
            time.sleep(_TURN_S)
        within = f"within {self._timeout_s:g} s"
        if self.reply is not None:
            return f"{self._device} says that it sent a picture, which did not arrive {within}"
        if not sent or not self._session.online:
            return describe(self._session)
        state = f"its state is {self._state}" if self._state else "the broker knows of no such device"
        return f"{self._device} does not answer {within}; {state}"

    def close(self) -> None:
        self._session.close(None, 0.5)

    def _subscribe(self) -> None:
        for topic in (self._topics.reply("+"), self._topics.state, self._topics.info):
            self._session.subscribe(topic, qos=1)
        if self._verb == "snapshot":
            self._session.subscribe(self._topics.snapshot("+"), qos=0)

    def _take(self, received: Received) -> None:
        if received.topic == self._topics.state:
            self._state = printable(received.payload.decode(errors="replace"))[:64]
        elif received.topic == self._topics.info:
            with contextlib.suppress(ValueError, RecursionError):
                self._obeyed = msgspec.json.decode(received.payload, type=v1.Info).commands
        elif received.topic.startswith(self._topics.reply("")):
            try:
                reply = msgspec.json.decode(received.payload, type=v1.Reply)
            except (ValueError, RecursionError):  # whatever it is, it is no reply
                return
            if self._id in (reply.id, (received.correlation or b"").decode(errors="replace")):
                self.reply = reply
        else:
            self._pictures.append(received)

    def _complete(self) -> bool:
        if self.reply is None or not self.reply.ok or self._verb != "snapshot":
            return self.reply is not None
        self.picture = next((picture for picture in self._pictures if self._is_of(picture, self.reply)), None)
        return self.picture is not None

    def _is_of(self, picture: Received, reply: v1.Reply) -> bool:
        """Whether it is the one that the reply speaks of: by its number, or by its size where that does not come."""
        result = {} if isinstance(reply.result, UnsetType) else reply.result
        camera = str(result.get("camera"))
        if not NAME.fullmatch(camera) or picture.topic != self._topics.snapshot(camera):
            return False
        number = dict(picture.properties).get("seq")
        return number == str(result.get("seq")) if number else len(picture.payload) == result.get("bytes")


def _save(picture: Received, reply: v1.Reply, out: Path | None) -> Path:
    result = {} if isinstance(reply.result, UnsetType) else reply.result
    number = result.get("seq")
    file = out or Path(f"{picture.topic.split('/')[-2]}-{number if isinstance(number, int) else 0}.jpg")
    try:
        file.write_bytes(picture.payload)
    except OSError as error:
        fail(ExitCode.FAILED, f"{file} can't be written: {error.strerror}")
    return file


# --- what is printed


def lines(device: str, reply: v1.Reply) -> Iterator[str]:
    """The answer for people to read."""
    yield f"{device}: {printable(reply.verb)} done"
    for key, content in ({} if isinstance(reply.result, UnsetType) else reply.result).items():
        match content:
            case dict():
                yield "  set at run time, in all:" if content else "  nothing is set at run time"
                yield from (printable(f"    {name} = {json.dumps(inner)}") for name, inner in content.items())
            case list():
                changed = ", ".join(str(inner) for inner in content)
                yield printable(f"  changed: {changed}" if changed else "  it was so already")
            case int() if key == "t_us" and 0 <= content < 2**53:
                yield f"  time: {datetime.fromtimestamp(content / 1e6, UTC):%Y-%m-%d %H:%M:%S.%f} UTC"
            case _:
                yield printable(f"  {key}: {content}")
