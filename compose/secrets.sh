#!/bin/sh
# Makes the passwords of this installation, once, and the ACL file of Redis from them. Each service is given only its
# own password, as a file in its own volume; Redis is given only their hashes. Nothing secret is in an environment
# variable of the composition, in an image or in the repository.
#
#   secrets.sh TEMPLATE DIR     DIR has one folder for each holder: proxy worker operator grafana redis
#
# Running it again keeps the passwords and writes the ACL file anew. To change a password, delete its file, run this
# again and restart Redis and the holder.
set -eu

template=$1
dir=$2
queue=${QUEUE_NAME:-predict_queue}

# The password of one holder; 192 random bits on the first call.
password_of() {
  file=$dir/$1/password
  if [ ! -s "$file" ]; then
    # What an interrupted run left cannot be written to.
    rm -f "$file.new"
    head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$file.new"
    # The holder runs under another user id; nobody else has the volume.
    chmod 444 "$file.new"
    mv "$file.new" "$file"
  fi
  cat "$file"
}

sha256_of() { password_of "$1" | sha256sum | cut -c1-64; }

password_of grafana >/dev/null
rm -f "$dir/redis/users.acl.new"
sed -e "s/PROXY_PASSWORD_SHA256/$(sha256_of proxy)/" \
  -e "s/WORKER_PASSWORD_SHA256/$(sha256_of worker)/" \
  -e "s/OPERATOR_PASSWORD_SHA256/$(sha256_of operator)/" \
  -e "s/predict_queue/$queue/g" "$template" >"$dir/redis/users.acl.new"
chmod 444 "$dir/redis/users.acl.new"
mv "$dir/redis/users.acl.new" "$dir/redis/users.acl"
