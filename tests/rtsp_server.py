"""An RTSP server on the loopback interface, by GStreamer's: a program for the system's Python.

usage: /usr/bin/python3 rtsp_server.py PORT [--user USER --password PASSWORD] [--mount /PATH PIPELINE]...

PIPELINE: what is streamed at that path, as gst-rtsp-server wants it: the payloader is called pay0. An appsrc called
"clock" in it is given pictures that show when they were drawn: see clock_program.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from runpy import run_path

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port")
    parser.add_argument("--user", default="")
    parser.add_argument("--password", default="")
    parser.add_argument("--mount", nargs=2, action="append", default=[], metavar=("PATH", "PIPELINE"))
    wanted = parser.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer(address="127.0.0.1", service=wanted.port)
    if wanted.user:
        server.set_auth(_auth(wanted.user, wanted.password))
    mounts = server.get_mount_points()
    for path, pipeline in wanted.mount:
        factory = GstRtspServer.RTSPMediaFactory(launch=f"( {pipeline} )", shared=True)
        factory.connect("media-configure", _configure)
        if wanted.user:
            permissions = GstRtspServer.RTSPPermissions.new()
            for permission in ("media.factory.access", "media.factory.construct"):
                permissions.add_permission_for_role("viewer", permission, True)
            factory.set_permissions(permissions)
        mounts.add_factory(path, factory)
    server.attach(None)
    GLib.MainLoop().run()


def _auth(user: str, password: str) -> GstRtspServer.RTSPAuth:
    auth = GstRtspServer.RTSPAuth.new()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    return auth


def _configure(factory: GstRtspServer.RTSPMediaFactory, media: GstRtspServer.RTSPMedia) -> None:
    source = media.get_element().get_by_name_recurse_up("clock")
    if source is not None:
        run_path(str(Path(__file__).with_name("clock_program.py")))["feed"](source)


if __name__ == "__main__":
    main()
