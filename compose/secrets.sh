#!/bin/sh
# Makes the passwords of this installation, once, and from them the ACL file of Redis. Each service gets only its own
# password, as a file in its own volume. Redis gets only the hashes. Nothing secret is in an environment variable of the
# composition, in an image or in the repository.
#
#   secrets.sh TEMPLATE DIR     DIR has one folder for each holder: proxy worker operator grafana redis
#
# A second run keeps the passwords and writes the ACL file again. To change a password, delete its file, run this script and
# restart Redis and the holder. To choose a password, of at least 16 characters, write it into the file before the first
# run.
set -eu

die() { printf 'secrets.sh: %s\n' "$*" >&2; exit 1; }

[ $# -eq 2 ] || die "give the template of the ACL file and the folder of the secrets"
template=$1
dir=$2
queue=${QUEUE_NAME:-predict_queue}

for tool in cat chmod mv od rm sed sha256sum tr; do
  command -v "$tool" >/dev/null || die "$tool is missing"
done
[ -f "$template" ] || die "the template $template is not a file"
for holder in proxy worker operator grafana redis; do
  [ -d "$dir/$holder" ] || die "the folder $dir/$holder is missing"
done
# Characters that an ACL file cannot hold in a pattern of keys, or does not take literally. The services refuse braces, too.
case "$queue" in
  *[[:space:][:cntrl:]{}*?\\[]* | *]*) die "QUEUE_NAME must not have blanks or any of { } [ ] * ? \\" ;;
esac

trap 'rm -f "$dir"/redis/users.acl.new "$dir"/*/password.new' EXIT

# A failure inside $(...) in the middle of a command is lost, and the hash of an empty password would let everybody in. So
# each step is a separate statement whose result is checked.

# Sets `password` to the password of one holder; the first call makes it from 192 random bits.
read_password() {
  file=$dir/$1/password
  if [ ! -s "$file" ]; then make_password; fi
  [ -f "$file" ] || die "$file is not a file"
  # As entrypoint.sh and Grafana read it: without the newlines at its end.
  password=$(cat "$file") || die "$file cannot be read"
  [ "${#password}" -ge 16 ] || die "the password in $file is shorter than 16 characters; delete the file to have one made"
}

make_password() {
  # An interrupted run may have left a file that cannot be written.
  rm -f "$file.new" || die "$file.new cannot be removed"
  password=$(od -An -N24 -tx1 /dev/urandom) || die "no random bytes could be read"
  password=$(printf %s "$password" | tr -d ' \n') || die "no random bytes could be read"
  [ "${#password}" -eq 48 ] || die "no random bytes could be read"
  printf %s "$password" >"$file.new" || die "$file.new cannot be written"
  # The holder runs under another user id; nobody else has the volume.
  chmod 444 "$file.new" || die "$file.new cannot be made readable"
  mv "$file.new" "$file" || die "$file cannot be written"
}

# Sets `hash` to the hash of one holder's password.
hash_password() {
  read_password "$1"
  hash=$(printf %s "$password" | sha256sum) || die "the password of $1 cannot be hashed"
  hash=${hash%% *}
  case "$hash" in *[!0-9a-f]*) hash="" ;; esac
  [ "${#hash}" -eq 64 ] || die "the password of $1 cannot be hashed"
}

read_password grafana
hash_password proxy
proxy=$hash
hash_password worker
worker=$hash
hash_password operator
operator=$hash
# In sed, & stands for the match, and / ends the text.
queue=$(printf %s "$queue" | sed 's/[&/]/\\&/g') || die "QUEUE_NAME cannot be used"

acl=$dir/redis/users.acl
[ ! -d "$acl" ] || die "$acl is a folder"
rm -f "$acl.new" || die "$acl.new cannot be removed"
sed -e "s/PROXY_PASSWORD_SHA256/$proxy/" -e "s/WORKER_PASSWORD_SHA256/$worker/" \
  -e "s/OPERATOR_PASSWORD_SHA256/$operator/" -e "s/predict_queue/$queue/g" "$template" >"$acl.new" ||
  die "$acl.new cannot be written"
chmod 444 "$acl.new" || die "$acl.new cannot be made readable"
mv "$acl.new" "$acl" || die "$acl cannot be written"
