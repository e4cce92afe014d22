#!/bin/sh
# Starts the program of the same name with the settings that are in files, as Docker and Kubernetes hand out secrets: if
# REDIS_PASSWORD_FILE or MODEL_BACKEND_FILE names a file, its text is the value. It stands in the PATH under the program's
# own name, so `docker exec CONTAINER tepal-proxy doctor` has the same settings as the service.
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
