#!/usr/bin/env bash
# Print, in one line, the first thing that this machine lacks for the set-up and what to install; nothing if all is there.
# usage: setup/prerequisites.sh PYTHON
set -uo pipefail

if ! "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null; then
    found=$("$1" --version 2>&1) || found="not found"
    echo "sparkrec needs Python 3.10, 3.11 or 3.12 with venv; $1 is: $found." \
        "Install one (Debian: apt install python3 python3-venv) or name it: make PYTHON=python3.11"
    exit
fi

java=${JAVA_HOME:+$JAVA_HOME/bin/}java
found=$("$java" -version 2>&1) || found="not found"
major=$(sed -nE '1,/version "/s/.*version "([0-9]+).*/\1/p' <<<"$found")
if ((${major:-0} < 17)); then
    echo "sparkrec needs Java 17 or newer on PATH or in JAVA_HOME; $java is: ${found%%$'\n'*}." \
        "Install one (Debian: apt install openjdk-17-jre-headless; Fedora: dnf install java-17-openjdk-headless)"
fi
