#!/bin/sh
# Install what pip can't: Debian packages, only those that are missing, with sudo when not root.
# usage: system-packages.sh demo|dev|ansible|brokers|system
set -eu

mediapipe="libegl1 libgles2" # its library is linked against both, also where it computes on the CPU
gstreamer="python3-gi gir1.2-gstreamer-1.0 gir1.2-gst-plugins-base-1.0 gir1.2-gst-rtsp-server-1.0"
gstreamer="$gstreamer gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-libav"
dev="$mediapipe faketime mosquitto mosquitto-clients nginx shellcheck iproute2 openssl python3-systemd $gstreamer"
brokers="$dev ejabberd rabbitmq-server"
command -v npm >/dev/null || brokers="$brokers nodejs npm" # who has it from elsewhere can't have Debian's as well
case ${1:-} in
demo) packages=$mediapipe ;;
dev) packages=$dev ;;
ansible) packages="openssh-client mtools fdisk xz-utils" ;;
brokers) packages=$brokers ;;
system)
    packages="$brokers openssh-client mtools fdisk xz-utils mmdebstrap dosfstools e2fsprogs cloud-init"
    packages="$packages systemd-container nftables qemu-system-x86 qemu-user-static buildah podman runc"
    ;;
*)
    echo "usage: $0 demo|dev|ansible|brokers|system" >&2
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
undo=""
trap '[ -z "$undo" ] || $as_root rm -rf $undo' EXIT
$as_root apt-get update -qq
services=""
for package in $missing; do
    case $package in
    ejabberd) services="$services ejabberd.service epmd.service epmd.socket" ;;
    nginx) services="$services nginx.service" ;;
    rabbitmq-server) services="$services rabbitmq-server.service epmd.service epmd.socket" ;;
    esac
done
if [ -n "$services" ]; then
    # The tests start servers of their own. As services, which Debian makes of what it installs, these would listen to
    # the network: they start neither now nor with the machine. What is here already stays as it is.
    for unit in $services; do
        if ! [ -e "/lib/systemd/system/$unit" ] && ! [ -e "/etc/systemd/system/$unit" ]; then
            $as_root mkdir -p /etc/systemd/system
            $as_root ln -s /dev/null "/etc/systemd/system/$unit"
        fi
    done
    if ! [ -e /usr/sbin/policy-rc.d ]; then # also where no systemd runs
        undo="$undo /usr/sbin/policy-rc.d"
        printf '#!/bin/sh\nexit 101\n' | $as_root tee /usr/sbin/policy-rc.d >/dev/null
        $as_root chmod 755 /usr/sbin/policy-rc.d
    fi
fi
case $missing in
*" qemu-user-static"*)
    # The emulator of Debian 12 can't run MediaPipe; the one of Debian 13 is in its backports. The source stays out of
    # the system's list: it is named for this one installation only.
    if grep -q '^VERSION_ID="12"' /etc/os-release; then
        scratch=$(mktemp -d)
        undo="$undo $scratch"
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
