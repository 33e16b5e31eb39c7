#!/usr/bin/env bash
# Makes a virtual environment with deephpc (editable) and some of its extras, or adds extras to it:
#
#     tools/setup-python.sh VENV [EXTRA...]        # e.g. tools/setup-python.sh .venv test train
#
# As root on Debian it installs the system packages it needs; elsewhere it says exactly what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=$1
shift

main() {
    local extras=() want_torch=false extra
    for extra in "$@"; do
        if [[ $extra == train ]]; then want_torch=true; else extras+=("$extra"); fi
    done
    [[ -x $venv/bin/pip ]] || make_venv
    say "deephpc${extras[*]:+ and the extras ${extras[*]}}"
    pip_install "${extras[@]}"
    if $want_torch && ! has_torch "$venv/bin/python"; then install_torch; fi
}

make_venv() {
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        give_up "deephpc needs Python 3.10 or newer; python3 is $(python3 --version 2>&1 || true)"
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        is_debian python3 && may_apt && apt_install python3-venv
        python3 -c 'import ensurepip, venv' 2>/dev/null ||
            give_up "python3 cannot make virtual environments; on Debian or Ubuntu: sudo apt install python3-venv"
    fi
    python3 -m venv "$venv"
}

pip_install() {
    local IFS=,
    # -qq: errors only
    "$venv/bin/pip" install -qq --editable ".${*:+[$*]}"
}

# PyTorch's wheel on the package registry carries CUDA's libraries: gigabytes that a first try on a CPU does not need.
# So Debian's packages come first, where the environment stands on Debian's own Python.
install_torch() {
    local base
    base=$("$venv/bin/python" -c 'import sys; print(sys._base_executable)')
    if ! has_torch "$base" && is_debian "$base" && may_apt; then
        apt_install python3-torch python3-sklearn
    fi
    if has_torch "$base"; then
        use_system_packages
    else
        say "PyTorch by pip (on Debian 'sudo apt install python3-torch python3-sklearn' beforehand spares this download)"
        pip_install train
    fi
}

has_torch() { "$1" -c 'import sklearn, torch' 2>/dev/null; }

# What pip installed into the environment still comes first.
use_system_packages() {
    sed -i 's/^include-system-site-packages = .*/include-system-site-packages = true/' "$venv/pyvenv.cfg"
}

is_debian() { [[ -e /etc/debian_version && $("$1" -c 'import sys; print(sys.base_prefix)') == /usr ]]; }

may_apt() { [[ $EUID == 0 ]] && command -v apt-get >/dev/null; }

apt_install() {
    local log
    log=$(mktemp)
    say "$* (apt)"
    if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; } \
        >"$log" 2>&1 </dev/null; then
        cat "$log" >&2
        rm -f "$log"
        give_up "apt could not install $*"
    fi
    rm -f "$log"
}

say() { echo "installing $*" >&2; }

give_up() {
    echo "tools/setup-python.sh: $*" >&2
    exit 1
}

main "$@"
