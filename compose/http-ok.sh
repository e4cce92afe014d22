#!/bin/bash
# Health check that needs nothing but bash: does GET http://127.0.0.1:PORT/PATH answer 2xx?
#
#   http-ok PORT PATH
#
# With TLS, which bash cannot speak, an open port must do.
exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
[[ -z ${TLS_CERT_FILE:-} ]] || exit 0
printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$2" >&3
read -r -t 5 _ status _ <&3
[[ $status == 2?? ]]
