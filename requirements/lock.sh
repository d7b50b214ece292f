#!/bin/sh
# Resolve the locks: every version and hash that a machine installs, for Python 3.11 to 3.13 on Linux.
set -eu
cd "$(dirname "$0")/.."
: "${UV:=uv}"

lock() { # lock NAME ARGUMENTS...: write requirements/NAME.txt
    name=$1
    shift
    "$UV" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
        --overrides requirements/overrides.txt --custom-compile-command 'make lock' -o "requirements/$name.txt" "$@"
}

lock build requirements/build.in
# dev is the largest set; the others take their versions from it, so that one .venv can hold any of them in turn.
lock dev pyproject.toml --extra demo --group dev
lock demo pyproject.toml --extra demo --constraints requirements/dev.txt
lock device pyproject.toml --constraints requirements/dev.txt
