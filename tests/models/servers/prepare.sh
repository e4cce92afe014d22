#!/usr/bin/env bash
# Makes a virtual environment for each server of the Open Inference Protocol. Needs python3.11 with venv and a shared library, and a
# network for the first time.
#
#   tests/models/servers/prepare.sh DIR
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=$1
mkdir -p "$dir"

for name in triton mlserver kserve; do
  requirements=$here/requirements-$name.txt
  environment=$dir/$name
  if ! cmp -s "$requirements" "$environment/requirements.txt"; then
    echo "Installing $name ..."
    python3 -m venv --clear "$environment"
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --requirement "$requirements"
    "$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))' > "$environment/libdir"
    cp "$requirements" "$environment/requirements.txt"
  fi
done
