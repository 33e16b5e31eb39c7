#!/bin/bash
# setup.sh : as root, installs what tests/cluster/setup.sh does, and the servers and peers of the data benchmarks that
# Debian has and PyPI has not. It leaves no SSH server running or enabled.
set -euo pipefail
cd "$(dirname "$0")/.."
POLICY=/usr/sbin/policy-rc.d # policy-rc.d(8): asked before a package starts its service; 101 forbids it

had_server=$(dpkg-query -W -f '${db:Status-Status}' openssh-server 2>/dev/null || true)
if [ "$(id -u)" = 0 ] && [ ! -e "$POLICY" ]; then
  trap 'rm -f "$POLICY"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$POLICY"
  chmod 755 "$POLICY"
fi
tests/cluster/setup.sh openssh-server lftp
if [ "$had_server" != installed ] && [ -d /run/systemd/system ]; then
  systemctl disable --now --quiet ssh.service ssh.socket
fi
