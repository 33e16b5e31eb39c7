#!/bin/bash
# setup.sh [PACKAGE...] : as root, installs what the test cluster and the tests of images need on a Debian 12 or 13 host,
# and other packages that are named; says nothing and costs nothing when it is there.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

PACKAGES=(mmdebstrap debian-archive-keyring ca-certificates iproute2 util-linux openssh-client zstd python3 python3-venv
  docker-registry skopeo umoci apache2 apache2-utils nginx busybox "$@")

missing=()
for package in "${PACKAGES[@]}"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

[ "$(id -u)" = 0 ] || { echo "setup.sh: missing ${missing[*]}; run as root: sudo $0 $*" >&2; exit 1; }
echo "setup.sh: installing ${missing[*]}" >&2
apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null 2>&1 || {
  apt-get update -qq
  apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
}

# The tests start servers of their own; the packages' would listen on this host for ever.
for server in docker-registry apache2 nginx; do
  if [[ " ${missing[*]} " == *" $server "* && -d /run/systemd/system ]]; then
    systemctl disable --now --quiet "$server"
  fi
done
