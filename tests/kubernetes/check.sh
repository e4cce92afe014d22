#!/usr/bin/env bash
# Checks the chart in compose/kubernetes without a cluster: lint, schemas, types of custom resources, refused values, the plain
# manifests, and the triggers against running services. Needs python3 with venv, node and npm, and a network for the first time.
#
#   tests/kubernetes/check.sh DIR PROGRAMS [--may-skip | --pods]
#
#   DIR          for what it installs, 450 MB
#   PROGRAMS     a folder with tepal-proxy and tepal-worker
#   --may-skip   without these tools, or where they cannot be fetched: say so, and succeed
#   --pods       also run the images of the chart as its pods, in the Docker engine of this machine
set -euo pipefail
usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2; }
[ $# -ge 2 ] || usage
here=$(cd "$(dirname "$0")" && pwd)
dir=$1 programs=$2 option=${3:-}
case $option in '' | --may-skip | --pods) ;; *) usage ;; esac
mkdir -p "$dir"

missing() {
  [ "$option" = --may-skip ] || { printf 'tepal: the chart cannot be checked: %s\n' "$*" >&2; exit 1; }
  printf 'SKIPPED: the check of the Helm chart: %s\n' "$*"
  exit 0
}

fetch_python() {
  cmp -s "$here/requirements.txt" "$dir/requirements.txt" && return
  echo "Installing the packages of requirements.txt ..."
  python3 -m venv --clear "$dir/venv" || return
  "$dir/venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$here/requirements.txt" || return
  cp "$here/requirements.txt" "$dir/requirements.txt"
}

fetch_node() {
  cmp -s "$here/package-lock.json" "$dir/fetched.json" && return
  echo "Installing the packages of package-lock.json ..."
  cp "$here/package.json" "$here/package-lock.json" "$dir"
  npm ci --prefix "$dir" --ignore-scripts --no-audit --no-fund --silent || return
  cp "$here/package-lock.json" "$dir/fetched.json"
}

command -v python3 >/dev/null || missing "python3 is not installed"
command -v node >/dev/null && command -v npm >/dev/null || missing "node and npm are not installed"
fetch_python || missing "pip could not install tests/kubernetes/requirements.txt"
fetch_node || missing "npm could not install tests/kubernetes/package-lock.json"
PYTHONDONTWRITEBYTECODE=1 exec "$dir/venv/bin/python" "$here/check.py" --types "$dir" --programs "$programs" \
  $([ "$option" != --pods ] || echo --pods)
