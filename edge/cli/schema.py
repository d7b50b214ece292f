"""`edge-pose schema`: what is written down elsewhere, out of the definitions that the code itself uses."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from edge import __version__
from edge.config import Config, MqttConfig
from edge.config_layers import ENVIRONMENT_PREFIX, SYSTEM_FILE

app = typer.Typer(help="Print schemas, for editors, clients and documentation.", no_args_is_help=True)


class Format(StrEnum):
    JSON = "json"
    MARKDOWN = "markdown"


_DEFAULT_PREFIX = MqttConfig().prefix


def _prefix(value: str) -> str:
    try:
        prefix = MqttConfig(prefix=value).prefix
    except ValidationError as error:
        raise typer.BadParameter(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
    if "{" in prefix or "}" in prefix:
        raise typer.BadParameter("a topic without braces, in which AsyncAPI puts parameters")
    return prefix


Prefix = Annotated[
    str, typer.Option("--prefix", help="What topics begin with: mqtt.prefix of the devices.", callback=_prefix)
]


@app.callback()
def _all_schemas() -> None:
    pass


@app.command()
def config(
    form: Annotated[Format, typer.Option("--format", help="A JSON Schema, or a page to read.")] = Format.JSON,
) -> None:
    """Every key of the configuration: title, type, unit, bounds, default.

    Editors check a TOML file against the JSON Schema, given a first line `#:schema FILE`.
    """
    if form is Format.JSON:
        typer.echo(json.dumps(json_schema(), indent=2))
    else:
        typer.echo("\n".join(_page(json_schema())).rstrip())


@app.command()
def messages(prefix: Prefix = _DEFAULT_PREFIX) -> None:
    """Every MQTT message: what its payload is, and what comes with it.

    A JSON Schema, draft 2020-12, of an object TOPIC -> PAYLOAD, such as {"pose/v1/hall-pi/state": "online"}: any
    validator can check a message by it. CBOR is decoded first; each message and its parts are in $defs.
    """
    from edge.mqtt import contract

    typer.echo(json.dumps(contract.json_schema(prefix), indent=2))


@app.command()
def asyncapi(prefix: Prefix = _DEFAULT_PREFIX) -> None:
    """Topics, messages, commands and their replies, with examples: an AsyncAPI 3.0.0 document.

    For documentation and for generators of clients. Its operations are the device's: it sends what it publishes and
    receives commands.
    """
    from edge.mqtt import contract

    typer.echo(json.dumps(contract.asyncapi(__version__, prefix), indent=2))


def json_schema() -> dict[str, Any]:
    """The configuration as JSON Schema, draft 2020-12; numbers have their `unit` beside their bounds."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Config.model_json_schema(),
        "title": "edge-pose",
    }


def _page(schema: Mapping[str, Any]) -> Iterator[str]:
    tables = schema["$defs"]
    yield "# Configuration"
    yield ""
    yield "<!-- made by `edge-pose schema config --format markdown`; `make docs` makes it anew -->"
    yield ""
    yield f"One TOML file, `{SYSTEM_FILE}` or what `--config` or `$EDGE_POSE_CONFIG` names. Unknown keys are refused."
    yield f"Above the file stands the environment (`{ENVIRONMENT_PREFIX}MQTT__URL=…`), above both `--set mqtt.url=…`."
    yield "`edge-pose check` prints what is in force and where it came from; `edge-pose schema config` has this page"
    yield "as a JSON Schema for editors. What is marked *at run time* can be set over MQTT while the daemon runs, above"
    yield "the file and below the environment: [mqtt.md](mqtt.md#commands)."
    yield ""
    plain = {name: key for name, key in schema["properties"].items() if "$ref" not in key and name != "camera"}
    yield from _table("Top level", {"description": "Before the first table."}, plain)
    yield from _tables("[camera.NAME]", tables["CameraConfig"], tables)
    for name, key in schema["properties"].items():
        if "$ref" in key:
            yield from _tables(f"[{name}]", tables[key["$ref"].rpartition("/")[2]], tables)


def _tables(heading: str, table: Mapping[str, Any], tables: Mapping[str, Any]) -> Iterator[str]:
    """A table, and those inside it."""
    keys = table["properties"]
    inner = {name: found for name, key in keys.items() if (found := _inner(key)) is not None}
    yield from _table(heading, table, {name: key for name, key in keys.items() if name not in inner})
    for name, (below, reference) in inner.items():
        yield from _tables(f"{heading[:-1]}.{name}{below}]", tables[reference.rpartition("/")[2]], tables)


def _inner(key: Mapping[str, Any]) -> tuple[str, str] | None:
    """Of a key that is a table, or a table of such: what its name has below it, and the reference to what it holds."""
    references = [arm["$ref"] for arm in (key, *key.get("anyOf", ())) if "$ref" in arm]
    if references:
        return "", references[0]
    of_names = [each["$ref"] for each in key.get("patternProperties", {}).values() if "$ref" in each]
    return (".NAME", of_names[0]) if of_names else None


def _table(heading: str, table: Mapping[str, Any], keys: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield f"## {heading}"
    yield ""
    yield table["description"].split("\n")[0]
    yield ""
    yield "| key | value | default | what it is |"
    yield "|---|---|---|---|"
    for name, key in keys.items():
        needed = name in table.get("required", ())
        given = key.get("default")
        default = "**needed**" if needed else "" if given in (None, "", [], {}) else f"`{_toml(given)}`"
        at_run_time = "; *at run time*" if key.get("at_run_time") else ""
        yield f"| `{name}` | {_values(key)} | {default} | {key['title']}: {key['description']}{at_run_time} |"
    yield ""


def _values(key: Mapping[str, Any]) -> str:
    """What may stand there, with unit and bounds."""
    if "anyOf" in key:
        # A path that may be left out is text for whoever writes TOML, which has no null.
        arms = [arm for arm in key["anyOf"] if arm.get("type") != "null"]
        return " or ".join(_values({**arm, "unit": key.get("unit")} if _is_number(arm) else arm) for arm in arms)
    if "enum" in key:
        return ", ".join(f"`{_toml(value)}`" for value in key["enum"])
    if "const" in key:
        return f"`{_toml(key['const'])}`"
    if key["type"] == "array":
        more = "" if key.get("maxItems") == key.get("minItems") else " or more"
        number = f" of {key['minItems']}{more}, each a" if "minItems" in key else " of"
        return f"list{number} {_values(key['items'])}"
    if not _is_number(key):
        text = "path" if key.get("format") == "path" else "text"
        words = {"boolean": "`true`, `false`", "object": "table of names and their values", "string": text}
        return words[key["type"]]
    low = f"{key['minimum']}" if "minimum" in key else f"above {key['exclusiveMinimum']}"
    bounds = f"{low} to {key['maximum']}" if "maximum" in key else f"from {low}" if "minimum" in key else low
    whole = "whole number" if key["type"] == "integer" else "number"
    multiple = f", a multiple of {key['multipleOf']}" if "multipleOf" in key else ""
    return f"{whole} in {key['unit']}, {bounds}{multiple}"


def _is_number(key: Mapping[str, Any]) -> bool:
    return key.get("type") in {"integer", "number"}


def _toml(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
