#!/usr/bin/env bash
# Builds a wheel of Horovod for the PyTorch of a Python: without MPI and TensorFlow, for launching ranks through Slurm.
#
#     tools/build-horovod.sh PYTHON FOLDER [SDIST]    # e.g. tools/build-horovod.sh .venv/bin/python wheels/
#
# Prints the wheel's path. It runs wherever that very release of PyTorch and of Python does; a wheel that is there already
# for both and for this compiler is not built again. Needs g++, cmake, make, and PyTorch with its headers (Debian: libtorch-dev pybind11-dev);
# two to four minutes and 3.5 GiB of memory on two cores. Horovod 0.28.1 is the last release (2023) and does not
# build against PyTorch 2.1 or newer as it is: the changes below are why this file exists.
set -euo pipefail

version=0.28.1
sha256=92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0

main() {
    local python=$1 folder=$2 sdist=${3:-} place
    "$python" -c 'import torch' 2>/dev/null || give_up "$python has no PyTorch"
    for program in g++ cmake make; do command -v "$program" >/dev/null || give_up "$program is missing; on Debian: apt install g++ cmake make"; done
    mkdir -p "$folder"
    folder=$(cd "$folder" && pwd)
    place=$folder/$(key "$python")
    if ! compgen -G "$place/*.whl" >/dev/null; then
        work=$(mktemp -d)
        trap 'rm -rf "$work"' EXIT
        unpack "$python" "$sdist"
        mend "$work/horovod-$version"
        build "$python" "$place"
    fi
    echo "$place"/*.whl
}

key() { # PYTHON: what the wheel depends on, as the name of a folder
    "$1" - "$version" "$(g++ -dumpfullversion)" <<'PYTHON'
import platform, sys, torch
print("horovod-{}-torch-{}-py{}{}-gcc-{}-{}".format(sys.argv[1], torch.__version__, *sys.version_info[:2], sys.argv[2], platform.machine()))
PYTHON
}

unpack() { # PYTHON SDIST: into $work
    local sdist=$2
    if [[ -z $sdist ]]; then
        "$1" -m pip download -qq --disable-pip-version-check --no-deps --no-binary :all: --no-build-isolation -d "$work" "horovod==$version"
        sdist=$work/horovod-$version.tar.gz
    fi
    echo "$sha256  $sdist" | sha256sum --check --quiet || give_up "$sdist is not the release of Horovod that is known here"
    tar -C "$work" -xzf "$sdist"
}

mend() { # TREE
    # PyTorch's headers are C++17 since 2.1; CMake appends its own -std last, so no CXXFLAGS can say so.
    replace "$1/CMakeLists.txt" 'set(CMAKE_CXX_STANDARD 14)' 'set(CMAKE_CXX_STANDARD 17)'
    replace "$1/horovod/torch/CMakeLists.txt" 'set(CMAKE_CXX_STANDARD 14)' 'set(CMAKE_CXX_STANDARD 17)'
    # A bug of the release: HOROVOD_GLOO_IFACE is lost for the connections that carry the training, which then go where the
    # host's own name resolves to: 127.0.1.1 on Debian, so that ranks on two nodes never meet.
    replace "$1/horovod/common/gloo/gloo_context.cc" '  device_attr.iface = gloo_iface_;' \
        '  device_attr.iface = global_context.gloo_iface_;' 'InitializeForProcessSet'
    # What it needs to run is not needed to build it, and an old form of asking for it would fetch that from the network.
    replace "$1/setup.py" 'setup_requires=require_list if is_build_action() else []' 'setup_requires=[]'
    # An assignment to a constant, in a template that nobody uses: GCC 14 looks into those as well.
    replace "$1/third_party/flatbuffers/include/flatbuffers/stl_emulation.h" '  const size_type count_;' '  size_type count_;'
    # Without debugging information the library is 2 MB in place of 62.
    replace "$1/CMakeLists.txt" 'string(REPLACE "-O2" "-O3" CMAKE_CXX_FLAGS_RELWITHDEBINFO' \
        'string(REPLACE "-O2 -g" "-O3" CMAKE_CXX_FLAGS_RELWITHDEBINFO'
}

replace() { # FILE OLD NEW [AFTER]: once, and only where the text is as it was in the release; AFTER begins where to look
    python3 - "$@" <<'PYTHON'
import sys
name, old, new, *after = sys.argv[1:]
with open(name) as file:
    text = file.read()
start = text.index("GlooContext::" + after[0]) if after else 0
if text.count(old, start) != 1:
    sys.exit("{}: {!r} is there {} times, not once".format(name, old, text.count(old, start)))
with open(name, "w") as file:
    file.write(text[:start] + text[start:].replace(old, new))
PYTHON
}

build() { # PYTHON PLACE
    local log=$work/build.log
    mkdir -p "$work/wheel"
    # GCC 13 and newer no longer include these by the way.
    if ! CXXFLAGS="-include stdexcept -include cstdint" HOROVOD_WITH_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1 HOROVOD_WITHOUT_MPI=1 HOROVOD_WITH_GLOO=1 \
        HOROVOD_CPU_OPERATIONS=GLOO HOROVOD_WITHOUT_NVTX=1 CMAKE_POLICY_VERSION_MINIMUM=3.5 MAKEFLAGS=-j$(jobs_at_once) \
        "$1" -m pip wheel -qq --disable-pip-version-check --no-deps --no-build-isolation -w "$work/wheel" "$work/horovod-$version" \
        >"$log" 2>&1; then
        { grep -A4 "CMake Error\|error:" "$log" || tail -n 40 "$log"; } | head -n 40 >&2
        give_up "Horovod does not build"
    fi
    mkdir -p "$2"
    mv "$work"/wheel/*.whl "$2/"
}

jobs_at_once() { # one compiler takes 1.5 GiB
    local cores memory
    cores=$(nproc)
    memory=$(($(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo) / 1600000))
    echo $((memory < 1 ? 1 : memory < cores ? memory : cores))
}

give_up() {
    echo "tools/build-horovod.sh: $*" >&2
    exit 1
}

[[ $# -ge 2 ]] || give_up "say which: build-horovod.sh PYTHON FOLDER [SDIST]"
main "$@"
