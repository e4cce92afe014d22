#!/usr/bin/env bash
# Installs the servers behind HTTP endpoints into a virtual environment. Needs python3.10 or later with venv, and a network for the first
# time.
#
#   tests/servers/http/prepare.sh DIR
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=$1
mkdir -p "$dir"

if ! cmp -s "$here/requirements.txt" "$dir/requirements.txt"; then
  echo "Installing FastAPI and BentoML ..."
  python3 -m venv --clear "$dir/venv"
  "$dir/venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
  cp "$here/requirements.txt" "$dir/requirements.txt"
fi
