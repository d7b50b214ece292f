"""The certificate of this host, as files beside each other: mqtt.key, mqtt.cert. The key is made here and stays here.

usage: certificate.py show CREDENTIALS                   print the certificate; nothing if there is none for the key
       certificate.py ask NEW NAME                       make a key in the directory NEW, and print a request for it
       certificate.py put NEW CREDENTIALS OWNER          take what came as NEW/mqtt.cert, with its key, into use

For any Python from 3.8 on, and openssl.
"""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
from pathlib import Path

CERTIFICATE = "mqtt.cert"
KEY = "mqtt.key"


def show(credentials: Path) -> None:
    """Whatever is not of one piece counts as nothing: it is to be made anew."""
    if _belong_together(credentials):
        print((credentials / CERTIFICATE).read_text(), end="")


def ask(new: Path, name: str) -> None:
    """What an interrupted run has left there is forgotten: nobody else has that key."""
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(new / KEY)]
    command = ["openssl", "req", "-new", *key, "-subj", f"/CN={name}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"openssl req: {done.stderr.strip().splitlines()[-1]}")
    print(done.stdout, end="")


def put(new: Path, credentials: Path, owner: str) -> None:
    """Both at once, as nearly as there is such a thing; if it is cut short between them, `show` prints nothing."""
    if not _belong_together(new):
        sys.exit(f"{new}: {CERTIFICATE} is not for {KEY}; run the play again")
    for name in (KEY, CERTIFICATE):
        file = new / name
        shutil.chown(file, int(owner) if owner.isdigit() else owner, 0)
        file.chmod(0o600)
        with file.open("rb") as content:
            os.fsync(content.fileno())
    for name in (KEY, CERTIFICATE):
        (new / name).replace(credentials / name)
    descriptor = os.open(credentials, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    new.rmdir()


def _belong_together(folder: Path) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(folder / CERTIFICATE, folder / KEY, password="")
    except (OSError, ssl.SSLError, ValueError):
        return False
    return True


if __name__ == "__main__":
    verb, place, *rest = sys.argv[1:]
    {"show": show, "ask": ask, "put": put}[verb](Path(place), *(Path(each) if "/" in each else each for each in rest))
