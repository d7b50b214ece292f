"""The id that podman gives the image in an archive: as of `podman save`, or `buildah push ... docker-archive:FILE`.

usage: image.py ARCHIVE
"""

from __future__ import annotations

import json
import sys
import tarfile
from pathlib import Path


def image_id(archive: Path) -> str:
    """The hash of the image's configuration, which names it. Raises SystemExit when there is none."""
    try:
        with tarfile.open(archive) as members:
            manifest = members.extractfile("manifest.json")
            images = json.load(manifest) if manifest else []
    except (OSError, KeyError, tarfile.TarError) as error:
        sys.exit(f"edge_pose_image_archive = {archive}: expected an archive as of 'podman save': {error}")
    if len(images) != 1:
        sys.exit(f"edge_pose_image_archive = {archive}: holds {len(images)} images, expected one")
    return Path(images[0]["Config"]).stem


if __name__ == "__main__":
    print(image_id(Path(sys.argv[1])))
