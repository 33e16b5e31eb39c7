#!/usr/bin/env bash
# Runs shellcheck on every shell script of the repository: tools/check-shell.sh [SHELLCHECK]
#
# Job script templates are not shell until they are rendered; the rendered ones lie in tests/golden/.
set -euo pipefail
cd "$(dirname "$0")/.."

find .ci bench configs examples jobscripts tests tools -type f \( -name '*.sh' -o -path .ci/run \) -print0 |
    xargs -0 "${1:-shellcheck}"
