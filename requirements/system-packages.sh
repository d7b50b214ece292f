#!/bin/sh
# Install what pip can't: Debian packages, only those that are missing, with sudo when not root.
# usage: system-packages.sh demo|dev
set -eu

packages="libegl1 libgles2" # MediaPipe's library is linked against both, also where it computes on the CPU
case ${1:-} in
demo) ;;
dev) packages="$packages mosquitto mosquitto-clients shellcheck iproute2 openssl" ;;
*)
    echo "usage: $0 demo|dev" >&2
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
# shellcheck disable=SC2086 # a list of words
$as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null
