#!/usr/bin/env bash
# The demo: trains the digits as a job of the local scheduler, and shows what deephpc keeps of it.
#
#     tools/demo.sh [VENV]
#
# Settings, record and runs lie under .demo/; nothing outside this folder is touched.
set -euo pipefail
cd "$(dirname "$0")/.."

main() {
    use_own_places
    # shellcheck disable=SC1091  # made by tools/setup-python.sh
    . "${1:-.venv}/bin/activate"

    show deephpc train examples/digits/train.py --time 10 --wait -- --epochs 20
    run=$(tail -n 1 <<<"$answer")
    show deephpc jobs show "$run"

    local model=$DEEPHPC_WORK_DIR/$run/output/model.pt
    [[ -f $model ]] || { echo "tools/demo.sh: there is no model at $model" >&2 && exit 1; }
    echo
    deephpc logs "$run" | grep '^test accuracy'
    echo "the model is $model"
    echo "all of it is in $DEEPHPC_WORK_DIR/$run"
}

use_own_places() {
    local here=$PWD/.demo
    mkdir -p "$here"
    : >"$here/config.toml"
    export DEEPHPC_SITE=local DEEPHPC_CONFIG=$here/config.toml
    export DEEPHPC_STATE_DIR=$here/state DEEPHPC_WORK_DIR=$here/runs DEEPHPC_CACHE_DIR=$here/cache
}

# Runs a command as a person would see it, and keeps what it answered on stdout.
show() {
    printf '\n$ %s\n' "$*"
    answer=$("$@")
    echo "$answer"
}

main "$@"
