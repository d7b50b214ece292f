#!/bin/sh
# Resolve the locks: every version and hash that a machine installs, for Python 3.11 to 3.13 on Linux.
set -eu
cd "$(dirname "$0")/.."
: "${UV:=uv}"

lock() { # lock NAME ARGUMENTS...: write requirements/NAME.txt
    name=$1
    shift
    "$UV" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
        --overrides requirements/overrides.in --custom-compile-command 'make lock' -o "requirements/$name.txt" "$@"
}

lock build requirements/build.in
lock ansible requirements/ansible.in
# dev is the largest set; the others take their versions from it, so that one .venv can hold any of them in turn.
lock dev pyproject.toml --extra device --extra demo --group dev --constraints requirements/current.in
lock demo pyproject.toml --extra device --extra demo --constraints requirements/dev.txt
lock device pyproject.toml --extra device --constraints requirements/dev.txt
lock client pyproject.toml --constraints requirements/dev.txt
lock viewer pyproject.toml --extra viewer --constraints requirements/dev.txt
lock picamera2 requirements/picamera2.in --constraints requirements/dev.txt

# The same versions for old ARM cores, but for MediaPipe and what only that one asks for.
same=$(mktemp)
trap 'rm -f "$same"' EXIT
sed -n '/^[a-z]/{/^mediapipe==/d; s/ \\$//; p}' requirements/dev.txt >"$same"
for name in demo device; do
    extra="--extra device"
    [ "$name" = device ] || extra="$extra --extra $name"
    # shellcheck disable=SC2086 # no word or two
    lock "$name-armv8.0" pyproject.toml $extra --constraints "$same" --overrides requirements/armv8.0.in
done
