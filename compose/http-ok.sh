#!/bin/bash
# Health check that needs nothing but bash: does GET PATH of a service in this container answer 2xx?
#
#   http-ok SETTING ADDRESS PATH     SETTING is the setting with the address that the service listens on, such as
#                                    LISTEN_ADDR; ADDRESS is its default
#
# With TLS, which bash cannot use, an open port is enough.
address=${!1:-$2}
port=${address##*:} host=${address%:*}
host=${host#[} host=${host%]}
case $host in
  0.0.0.0) host=127.0.0.1 ;;
  ::) host=::1 ;;
esac
exec 3<>"/dev/tcp/$host/$port" || exit 1
[[ -z ${TLS_CERT_FILE:-} ]] || exit 0
printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$3" >&3
read -r -t 5 _ status _ <&3
[[ $status == 2?? ]]
