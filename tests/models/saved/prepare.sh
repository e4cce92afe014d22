#!/usr/bin/env bash
# Makes a folder with SavedModels, inputs for them, and the answers of TensorFlow to these inputs. Needs python3.11 or later with
# venv, and a network for the first time.
#
#   tests/models/saved/prepare.sh DIR
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=$1
mkdir -p "$dir"
python=$dir/venv/bin/python

if ! cmp -s "$here/requirements.txt" "$dir/requirements.txt"; then
  echo "Installing TensorFlow ..."
  python3 -m venv --clear "$dir/venv"
  "$python" -m pip install --quiet --disable-pip-version-check --no-deps --requirement "$here/requirements.txt"
  cp "$here/requirements.txt" "$dir/requirements.txt"
fi
echo "Making SavedModels and computing the expected answers ..."
rm -rf "$dir/models"
TF_CPP_MIN_LOG_LEVEL=2 "$python" "$here/make_models.py" "$dir/models"
