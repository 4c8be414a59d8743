#!/bin/sh
# Check this folder and install it, without a network: sh install.sh [--to FOLDER]
cd "$(dirname "$0")" || exit 2
wanted=$(sed -n 's/.*"python": "\([0-9.]*\)".*/\1/p' manifest.json)
for python in "python$wanted" python3; do
    command -v "$python" >/dev/null 2>&1 && exec "$python" install.py "$@"
done
echo "install: no python3 here; install Python $wanted first." >&2
exit 2
