#!/bin/sh
# Copies the files that the services of compose.yaml read from the checkout into a volume, readable for every user. In a
# checkout made with a strict umask only its owner can read them.
#
#   files.sh CHECKOUT DIR
#
# Unchanged files are not touched, so a running service never misses a file.
set -eu
checkout=$1
dir=$2
for path in compose/redis.conf compose/users-7.2.acl compose/secrets.sh compose/prometheus.yml compose/rules.yml \
  compose/alerts.yml compose/models grafana; do
  name=${path##*/}
  if diff -rq "$checkout/$path" "$dir/$name" >/dev/null 2>&1; then continue; fi
  rm -rf "$dir/$name.new"
  cp -R "$checkout/$path" "$dir/$name.new"
  chmod -R a+rX "$dir/$name.new"
  rm -rf "${dir:?}/$name"
  mv "$dir/$name.new" "$dir/$name"
done
