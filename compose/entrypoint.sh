#!/bin/sh
# Reads settings from files, as Docker and Kubernetes deliver secrets, and starts the program of the same name: if
# REDIS_PASSWORD_FILE or MODEL_BACKEND_FILE names a file, its text is the value. The script is in the PATH under the name of
# the program, so `docker exec CONTAINER tepal-proxy doctor` has the same settings as the service.
set -eu
if [ -n "${REDIS_PASSWORD_FILE:-}" ]; then
  REDIS_PASSWORD=$(cat "$REDIS_PASSWORD_FILE")
  export REDIS_PASSWORD
fi
if [ -n "${MODEL_BACKEND_FILE:-}" ]; then
  MODEL_BACKEND=$(cat "$MODEL_BACKEND_FILE")
  export MODEL_BACKEND
fi
exec "${0%/*}/../lib/tepal/${0##*/}" "$@"
