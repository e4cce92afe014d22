#!/usr/bin/env bash
# Installs unmodified clients of other inference servers from PyPI into two virtual environments, 2 GB. Needs python3 with venv, and a
# network for the first time.
#
#   tests/clients/prepare.sh DIR
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=$1
mkdir -p "$dir"

for name in requirements requirements-kserve; do
  if ! cmp -s "$here/$name.txt" "$dir/$name.txt"; then
    echo "Installing the clients of $name.txt ..."
    python3 -m venv --clear "$dir/$name"
    "$dir/$name/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$here/$name.txt"
    cp "$here/$name.txt" "$dir/$name.txt"
  fi
done
