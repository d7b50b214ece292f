#!/bin/sh
# Install what pip can't: Debian packages, only those that are missing, with sudo when not root.
# usage: system-packages.sh demo|dev|ansible|system
set -eu

mediapipe="libegl1 libgles2" # its library is linked against both, also where it computes on the CPU
dev="$mediapipe mosquitto mosquitto-clients shellcheck iproute2 openssl python3-systemd"
case ${1:-} in
demo) packages=$mediapipe ;;
dev) packages=$dev ;;
ansible) packages="openssh-client mtools fdisk xz-utils" ;;
system)
    packages="$dev openssh-client mtools fdisk xz-utils mmdebstrap dosfstools e2fsprogs cloud-init"
    packages="$packages systemd-container nftables qemu-system-x86 qemu-user-static buildah podman runc"
    ;;
*)
    echo "usage: $0 demo|dev|ansible|system" >&2
    exit 2
    ;;
esac
"${PYTHON:-python3}" -c 'import ensurepip' 2>/dev/null || packages="$packages python3-venv"

missing=""
for package in $packages; do
    if [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
        missing="$missing $package"
    fi
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "this is not a Debian system; please install what corresponds to:$missing" >&2
    exit 1
fi
as_root=""
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || {
        echo "please install as root: apt-get install$missing" >&2
        exit 1
    }
    as_root=sudo
fi
echo "installing Debian packages:$missing"
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -qq
case $missing in
*" qemu-user-static"*)
    # The emulator of Debian 12 can't run MediaPipe; the one of Debian 13 is in its backports. The source stays out of
    # the system's list: it is named for this one installation only.
    if grep -q '^VERSION_ID="12"' /etc/os-release; then
        scratch=$(mktemp -d)
        trap '$as_root rm -rf "$scratch"' EXIT
        mkdir "$scratch/lists" "$scratch/none"
        chmod -R 755 "$scratch"
        # shellcheck disable=SC2016 # what looks like a variable is apt's
        mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' | head -n 1)
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bookworm-backports main" >"$scratch/one.list"
        set -- -o "Dir::Etc::SourceList=$scratch/one.list" -o "Dir::Etc::SourceParts=$scratch/none" \
            -o "Dir::State::Lists=$scratch/lists"
        $as_root apt-get "$@" update -qq
        $as_root apt-get "$@" install -y -qq --no-install-recommends qemu-user-static >/dev/null
        missing=$(echo "$missing" | sed 's/ qemu-user-static//')
    fi
    ;;
esac
# shellcheck disable=SC2086 # a list of words
$as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null
