#!/bin/sh
# Starts a service with its password taken from the file that REDIS_PASSWORD_FILE names, as Docker and Kubernetes hand
# out secrets.
set -eu
if [ -n "${REDIS_PASSWORD_FILE:-}" ]; then
  REDIS_PASSWORD=$(cat "$REDIS_PASSWORD_FILE")
  export REDIS_PASSWORD
fi
exec "$@"
