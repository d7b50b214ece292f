"""What the files for devices say twice, they say alike: unit, container files, roles and the code."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from edge.config_layers import SYSTEM_FILE, load
from edge.daemon import STOP_DEADLINE_S
from edge.device.systemd import ALIVE_FILE
from edge.errors import ExitCode
from edge.estimators.models.store import PRELOADED_DIR, STATE_DIR
from edge.pipeline import STALLED_AFTER_S
from edge.rerun_log.channel import DEFAULT_PORT

ROOT = Path(__file__).parents[1]
UNIT = (ROOT / "deploy/systemd/edge-pose.service").read_text()
QUADLET = (ROOT / "deploy/container/edge-pose.container").read_text()
COMPOSE = yaml.safe_load((ROOT / "deploy/container/compose.yaml").read_text())
DOCKERFILE = (ROOT / "Dockerfile.arm64").read_text()
EXAMPLE = yaml.safe_load((ROOT / "ansible/inventory.example.yml").read_text())["devices"]
ROLES = {"broker": "broker.md", "edge_pose": "deployment.md", "flash": "flashing.md", "hub": "hub.md"}
BROKER = (ROOT / "deploy/broker/edge-pose.conf").read_text()
HUB = ROOT / "deploy/hub"
NGINX = (HUB / "nginx.conf").read_text()


def values(unit: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", unit, re.MULTILINE)


def seconds(unit: str, key: str) -> float:
    (found,) = values(unit, key)
    return float(found.removesuffix("s"))


def options(role: str) -> dict[str, dict[str, object]]:
    specs = yaml.safe_load((ROOT / f"ansible/roles/{role}/meta/argument_specs.yml").read_text())
    return {name: option for entry in specs["argument_specs"].values() for name, option in entry["options"].items()}


@pytest.mark.parametrize("unit", [UNIT, QUADLET], ids=["unit", "quadlet"])
def test_what_somebody_has_to_correct_is_not_started_again(unit: str) -> None:
    assert values(unit, "RestartPreventExitStatus") == [str(int(ExitCode.CONFIG))]
    assert values(unit, "Restart") == ["on-failure"]


@pytest.mark.parametrize("unit", [UNIT, QUADLET], ids=["unit", "quadlet"])
def test_a_restart_that_was_asked_for_is_one_and_no_failure(unit: str) -> None:
    assert values(unit, "RestartForceExitStatus") == values(unit, "SuccessExitStatus") == [str(int(ExitCode.RESTART))]


@pytest.mark.parametrize("unit", [UNIT, QUADLET], ids=["unit", "quadlet"])
def test_the_managers_patience_is_longer_than_the_daemons(unit: str) -> None:
    assert seconds(unit, "TimeoutStopSec") > STOP_DEADLINE_S + 1
    assert seconds(unit, "WatchdogSec") > STALLED_AFTER_S
    check, signal = values(unit, "ExecReload")
    assert check.endswith("edge-pose check --quiet")
    assert "HUP" in signal


def test_places_are_those_of_the_code() -> None:
    assert values(UNIT, "StateDirectory") == [STATE_DIR.name]
    assert values(UNIT, "WorkingDirectory") == [str(STATE_DIR)]
    for place in (STATE_DIR, PRELOADED_DIR, SYSTEM_FILE.parent):
        assert str(place) in DOCKERFILE + QUADLET
    assert f"/run/edge-pose/{ALIVE_FILE}" in DOCKERFILE
    runtime = Path(yaml.safe_load((ROOT / "ansible/roles/edge_pose/vars/main.yml").read_text())["edge_pose_runtime"])
    assert values(UNIT, "RuntimeDirectory") == [runtime.name]
    assert f"RUNTIME_DIRECTORY={runtime} " in DOCKERFILE


def test_containers_have_no_more_rights_than_they_need() -> None:
    assert {"ReadOnly=true", "DropCapability=all", "NoNewPrivileges=true"} <= {*QUADLET.splitlines()}
    (service,) = COMPOSE["services"].values()
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert float(service["stop_grace_period"].removesuffix("s")) > STOP_DEADLINE_S + 1


@pytest.mark.parametrize("role", ROLES)
def test_defaults_specifications_and_documentation_agree(role: str) -> None:
    specified = options(role)
    defaults = yaml.safe_load((ROOT / f"ansible/roles/{role}/defaults/main.yml").read_text())
    assert defaults == {name: option["default"] for name, option in specified.items() if not option.get("required")}
    page = (ROOT / "docs" / ROLES[role]).read_text()
    rows = "\n".join(line for line in page.splitlines() if line.startswith("| `"))
    for name in specified:
        short = name.removeprefix("flash_wifi")  # `flash_wifi_ssid`, `…_password`
        assert f"`{name}`" in rows or f"`…{short}`" in rows, name


def test_every_playbook_and_variable_on_the_pages_exists() -> None:
    known = {name for role in ROLES for name in options(role)}
    for page in (ROOT / "README.md", *ROOT.glob("docs/*.md")):
        text = page.read_text()
        for playbook in re.findall(r"ansible-playbook ([\w.]+)", text):
            assert (ROOT / "ansible" / playbook).is_file(), f"{page.name}: {playbook}"
        assert {*re.findall(r"\b(?:broker|edge_pose|flash|hub)_[a-z0-9_]+", text)} <= known | {"flash_wifi_"}, page.name


def test_the_example_inventory_uses_what_the_role_knows_and_its_configuration_is_valid(tmp_path: Path) -> None:
    hosts = EXAMPLE["hosts"].values()
    given = {name for variables in (*hosts, EXAMPLE["vars"]) for name in variables}
    assert {name for name in given if name.startswith("edge_pose_")} <= options("edge_pose").keys()
    text = EXAMPLE["vars"]["edge_pose_config"]
    text = text.replace("{{ inventory_hostname }}", "hall-pi").replace("{{ edge_pose_model }}", "full")
    assert tomllib.loads(text)
    file = tmp_path / "config.toml"
    file.write_text(text)
    assert load(file, environment={}, sets=[]).config.device == "hall-pi"


def test_every_credential_of_the_example_stands_in_for_a_key(tmp_path: Path) -> None:
    for name in EXAMPLE["vars"]["edge_pose_credentials"]:
        (tmp_path / name).write_text("content")
        layers = load(
            None, environment={"CREDENTIALS_DIRECTORY": str(tmp_path)}, sets=["camera.front.source=synthetic"]
        )
        assert f"credential {name}" in layers.origins.values()


def test_the_broker_s_files_are_where_its_configuration_looks_for_them() -> None:
    configuration = (ROOT / "deploy/broker/mosquitto.conf").read_text()
    (place,) = {path.rpartition("/")[0] for path in re.findall(r"^\w+file (/\S+)$", configuration, re.MULTILINE)}
    (data,) = re.findall(r"^persistence_location (\S+)/$", configuration, re.MULTILINE)
    assert values(BROKER, "ExecStart") == ["", f"/usr/sbin/mosquitto -c {place}/mosquitto.conf"]
    assert [f"/var/lib/{directory}" for directory in values(BROKER, "StateDirectory")] == [data]
    watched = values((ROOT / "deploy/broker/edge-pose-broker-revoked.path").read_text(), "PathChanged")
    assert watched == re.findall(r"^crlfile (\S+)$", configuration, re.MULTILINE)
    role = yaml.safe_load((ROOT / "ansible/roles/broker/vars/main.yml").read_text())
    assert role["broker_etc"] == place
    assert values(BROKER, "Restart") == ["always"]


@pytest.mark.parametrize("role", ["broker", "hub"])
def test_the_example_inventory_s_servers_use_what_their_roles_know(role: str) -> None:
    servers = yaml.safe_load((ROOT / "ansible/inventory.example.yml").read_text())[f"{role}s"]
    given = {name for variables in (*servers["hosts"].values(), servers["vars"]) for name in variables}
    assert {name for name in given if name.startswith(f"{role}_")} <= options(role).keys()
    required = {name for name, option in options(role).items() if option.get("required")}
    assert required <= given


def test_the_hub_s_files_are_where_its_configuration_looks_for_them() -> None:
    gate, server = (HUB / "edge-pose-hub-gate.service").read_text(), (HUB / "edge-pose-hub.service").read_text()
    role = yaml.safe_load((ROOT / "ansible/roles/hub/vars/main.yml").read_text())
    places = {path.rpartition("/")[0] for path in re.findall(r"^ +ssl_\w+ (/\S+);$", NGINX, re.MULTILINE)}
    assert places == {role["hub_etc"]}
    assert f"-c {role['hub_etc']}/nginx.conf" in gate
    assert {path.split("/")[2] for path in re.findall(r"/run/\S+", NGINX)} == {*values(gate, "RuntimeDirectory")}
    assert values((HUB / "edge-pose-hub-revoked.path").read_text(), "PathChanged") == re.findall(
        r"^ +ssl_crl (\S+);$", NGINX, re.MULTILINE
    )
    assert values(gate, "User") == values(gate, "Group") == [role["hub_user"]]
    (program,) = re.findall(r"^ExecStart=(\S+)", server, re.MULTILINE)
    assert program == f"{role['hub_home']}/rerun"
    assert f"XDG_CONFIG_HOME={role['hub_home']}/config " in server
    analytics = json.loads((HUB / "analytics.json").read_text())
    assert analytics["analytics_enabled"] is False
    assert analytics["config_file_path"] == f"{role['hub_home']}/config/rerun/analytics.json"
    assert {*role["hub_units"]} == {path.name for path in HUB.glob("edge-pose-hub*")}


def test_the_hub_s_ports_are_the_same_everywhere() -> None:
    server = (HUB / "edge-pose-hub.service").read_text()
    (port,) = values((HUB / "edge-pose-hub-gate.socket").read_text(), "ListenStream")
    assert re.findall(r"listen \S+:(\d+) ", NGINX) == [port] == [str(DEFAULT_PORT)]
    assert {*re.findall(r"server 127\.0\.0\.1:(\d+);", NGINX)} == {*re.findall(r"port (\d+)", server)}


def test_the_hub_says_which_rerun_it_has() -> None:
    (locked,) = re.findall(r"^rerun-sdk==(\S+)", (ROOT / "requirements/device.txt").read_text(), re.MULTILINE)
    assert re.findall(r"add_header edge-pose-rerun (\S+) always;", NGINX) == [locked]


def test_the_hub_s_memory_is_what_the_role_replaces() -> None:
    server = (HUB / "edge-pose-hub.service").read_text()
    default = options("hub")["hub_memory_mb"]["default"]
    assert server.count(f"{default}MiB") == 1
    assert values(server, "MemoryMax") == [f"{3 * int(str(default))}M"]


@pytest.mark.parametrize("unit", ["edge-pose-hub.service", "edge-pose-hub-gate.service"])
def test_the_hub_s_services_have_a_network_of_their_own(unit: str) -> None:
    text = (HUB / unit).read_text()
    assert values(text, "PrivateNetwork") == values(text, "NoNewPrivileges") == ["yes"]
    assert values(text, "Restart") == ["always"]
