#!/bin/sh
# Builds a wheel of the pyslurm source in folder $1 into folder $2, against the Slurm of the machine it runs on.
# Needs what the rich root file system has: libslurm-dev, gcc, python3-dev, cython3, python3-setuptools.
set -eu
library=$(find /usr/lib -name libslurmfull.so | head -n 1)
[ -n "$library" ] || { echo "no libslurmfull.so on this machine: install libslurm-dev and slurm-wlm-basic-plugins" >&2; exit 1; }
SLURM_LIB_DIR=$(dirname "$library")
export SLURM_LIB_DIR SLURM_INCLUDE_DIR=/usr/include CFLAGS=-O0 PYSLURM_BUILD_JOBS=2
cd "$1"
exec python3 setup.py bdist_wheel --dist-dir "$2" # its first word must be the command: setup.py looks for it there
