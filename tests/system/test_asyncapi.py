"""The AsyncAPI document, read by AsyncAPI's own parser and judged by the rules that come with it.

Wants npm, and once a registry that it can ask for the parser.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import edge_pose
from tests.system.nspawn import CACHE

pytestmark = [
    pytest.mark.machine,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        shutil.which("npm") is None and not os.environ.get("CI"), reason="npm is missing: apt install npm"
    ),
]

PARSER = "@asyncapi/parser@3.6.6"
SEVERITIES = ("error", "warning", "information", "hint")

ACCEPTED = {
    # 3.1.0 adds nothing for MQTT, and there are more readers of 3.0.0.
    "asyncapi-latest-version",
}

# All rules that the parser has: the core ones, those that it recommends, and the validity of schemas.
READ = """
const { Parser } = require("@asyncapi/parser");
const text = require("fs").readFileSync(0, "utf8");
new Parser().parse(text).then(({ document, diagnostics }) => {
  const operations = document ? document.operations().all() : [];
  console.log(JSON.stringify({
    diagnostics: diagnostics.map(({ severity, code, message, path }) => ({ severity, code, message, path })),
    channels: document ? document.channels().all().map((channel) => channel.address()) : [],
    replies: Object.fromEntries(operations.filter((operation) => operation.reply()).map((operation) =>
      [operation.channels().all()[0].address(), operation.reply().channel().address()])),
  }));
});
"""


@pytest.fixture(scope="module")
def parser() -> Path:
    """The directory in which Node.js finds the parser: of the cache if it is there. No package's scripts are run."""
    folder = CACHE / PARSER.replace("/", "-").lstrip("@")
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", dir=CACHE) as scratch:
            (made := Path(scratch) / "made").mkdir()
            (made / "package.json").write_text("{}")
            command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--save-exact", PARSER]
            done = subprocess.run(command, check=False, cwd=made, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stderr
            made.replace(folder)
    return folder


def read(parser: Path, document: str) -> Any:
    done = subprocess.run(
        ["node", "--eval", READ], check=False, cwd=parser, input=document, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def lines(diagnostics: list[dict[str, Any]]) -> list[str]:
    return [
        f"{SEVERITIES[each['severity']]}: {each['code']}: {'.'.join(map(str, each['path']))}: {each['message']}"
        for each in diagnostics
        if each["code"] not in ACCEPTED
    ]


def test_asyncapi_s_own_parser_finds_nothing_wrong(parser: Path) -> None:
    text = edge_pose("schema", "asyncapi").stdout
    found = read(parser, text)
    assert lines(found["diagnostics"]) == []
    assert sorted(found["channels"]) == sorted(each["address"] for each in json.loads(text)["channels"].values())
    assert found["replies"]["pose/v1/{device}/cmd/ping"] == "pose/v1/{device}/reply/{verb}"
    assert len(found["replies"]) == 8


def test_it_would_find_what_is_wrong(parser: Path) -> None:
    document = json.loads(edge_pose("schema", "asyncapi").stdout)
    del document["channels"]["landmarks"]["parameters"]["camera"]
    document["operations"]["publishState"]["bindings"]["mqtt"]["qos"] = 3
    document["components"]["schemas"]["Info"]["type"] = "objekt"
    found = "\n".join(lines(read(parser, json.dumps(document))["diagnostics"]))
    assert "channels.landmarks" in found
    assert "publishState" in found
    assert "Info" in found
