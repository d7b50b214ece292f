"""The controller's side: playbooks against a host, with an inventory and variables of the test's own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.system.nspawn import USER, Host

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Play:
    """How a playbook ended. changed, failed: tasks, of the recap."""

    output: str
    changed: int
    failed: int


@dataclass(frozen=True)
class Controller:
    """host: the only one of the inventory. scratch: a directory for files. cache: what may be kept for other runs.

    group, role: whom the playbook is for, and what its variables begin with.
    """

    host: Host
    scratch: Path
    cache: Path
    group: str = "devices"
    role: str = "edge_pose"

    def play(self, playbook: str, *arguments: str, timeout_s: float = 900, **variables: Any) -> Play:
        """Run ansible/`playbook`.yml. variables: the role's, without its name. Also a failing play is an answer."""
        inventory = self.scratch / "inventory.json"
        ssh = {
            "ansible_host": self.host.address,
            "ansible_user": USER,
            "ansible_ssh_private_key_file": str(self.host.key),
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={self.host.known_hosts} -o StrictHostKeyChecking=yes",
        }
        inventory.write_text(json.dumps({self.group: {"hosts": {self.host.name: ssh}}}))
        extra = self.scratch / "variables.json"
        kept = {"wheelhouse_dir": str(self.cache.resolve() / "wheelhouse")} if self.role == "edge_pose" else {}
        extra.write_text(json.dumps({f"{self.role}_{name}": value for name, value in {**kept, **variables}.items()}))
        command = [ansible_playbook(), "-i", str(inventory), "-e", f"@{extra}", f"{playbook}.yml", *arguments]
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_HOME": str(self.scratch / "ansible")}
        done = subprocess.run(
            command, check=False, cwd=REPOSITORY / "ansible", env=environment, timeout=timeout_s,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        recap = re.search(rf"^{self.host.name} .*changed=(\d+) +unreachable=0 +failed=(\d+)", done.stdout, re.MULTILINE)
        assert recap, done.stdout
        return Play(done.stdout, int(recap[1]), int(recap[2]))


def ansible_playbook() -> str:
    """$EDGE_POSE_ANSIBLE is the bin directory of an environment with ansible-core, where it is not the usual one."""
    places = f"{os.environ.get('EDGE_POSE_ANSIBLE', '')}:{REPOSITORY}/.venv/ansible/bin:{os.environ['PATH']}"
    program = shutil.which("ansible-playbook", path=places)
    assert program, "ansible-playbook is missing: 'make ansible' installs it"
    return program
