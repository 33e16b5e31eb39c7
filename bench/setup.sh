#!/bin/bash
# setup.sh : as root, installs the servers and peers of the data benchmarks that Debian has and PyPI has not;
# says nothing and costs nothing when they are there. It leaves no SSH server running or enabled.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

PACKAGES=(openssh-server openssh-client lftp)
POLICY=/usr/sbin/policy-rc.d # policy-rc.d(8): asked before a package starts its service; 101 forbids it

missing=()
for package in "${PACKAGES[@]}"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

[ "$(id -u)" = 0 ] || { echo "bench/setup.sh: missing ${missing[*]}; run: sudo apt-get install ${missing[*]}" >&2; exit 1; }
echo "bench/setup.sh: installing ${missing[*]}" >&2
if [ ! -e "$POLICY" ]; then
  trap 'rm -f "$POLICY"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$POLICY"
  chmod 755 "$POLICY"
fi
apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null 2>&1 || {
  apt-get update -qq
  apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
}
if [[ " ${missing[*]} " == *" openssh-server "* && -d /run/systemd/system ]]; then
  systemctl disable --now --quiet ssh.service ssh.socket
fi
