# shellcheck shell=bash
# Tries the engines on the node it runs on: run after udocker.sh, whose functions it uses, with the path of udocker as $1
# (may be empty). In a few seconds it prints, separated by tabs,
#
#   ENGINE ok|no COMMAND SAID          SAID is a version, or why not
#   fact NAME VALUE
#
# "ok" means that a dynamically linked program ran, in a tiny image made of this node's own files, saw that image's files
# and no others, and gave its exit code back: engines whose `--help` works often fail at just that.
set -u
udocker_command=${1:-}
patience_s=12
# shellcheck source=jobscripts/udocker.sh
declare -F engine_exec >/dev/null || . "${BASH_SOURCE[0]%/*}/udocker.sh"
fail() { printf '%s\n' "$1" >&2; exit 1; }
note() { fail "$1"; } # what an engine does without, it does not do

place=$(mktemp -d "${TMPDIR:-/tmp}/deephpc-probe.XXXXXX") || exit 1
trap 'chmod -R u+w "$place"; rm -rf "$place"' EXIT
image_digest=sha256:000000000000 prepared=$place/udocker mark=$place-$RANDOM
root=$prepared/containers/000000000000/ROOT
binds=() gpu='' engine='' layer='' private='' engine_command=$udocker_command

make_image() { # /bin/sh with what it is linked to, and a file that is nowhere else
  local image=$root library
  mkdir -p "$image/bin" "$image/etc" "$image/proc" "$image/sys" "$image/dev" "$image/tmp" "$image/var/tmp"
  cp -L /bin/sh "$image/bin/sh"
  for library in $(ldd /bin/sh | grep -o '/[^ )]*'); do
    mkdir -p "$image${library%/*}"
    cp -L "$library" "$image$library"
  done
  printf '%s\n' "$mark" >"$image/mark"
  chmod -R a-w "$prepared/containers" # else proot makes places for binds in it
}

try() { # NAME ENGINE: run the engine for true; answers ok, or why not
  local said status
  engine=$2 private=$place/$1
  mkdir -p "$private/tmp" "$private/var_tmp" "$private/home" "$private/deephpc/bin"
  # shellcheck disable=SC2016  # for the shell inside
  said=$(timeout -k 1 "$patience_s" /bin/bash -c "set -u; $(declare -f); $(declare -p binds gpu engine layer engine_command private prepared image_digest)
    declare -A opened=(); all_binds=() clean_environment=() image_mounts=()
    engine_exec /bin/sh -c 'read -r mark </mark; printf \"%s\\n\" \"\$mark\"; exit 7'" 2>"$private/err" </dev/null)
  status=$?
  if [ "$status" -eq 7 ] && [ "$said" = "$mark" ]; then
    printf ok
  elif [ "$status" -ge 124 ] && [ "$status" -ne 126 ] && [ "$status" -ne 127 ] && [ ! -s "$private/err" ]; then
    printf 'no answer within %d s' "$patience_s"
  elif [ "$status" -eq 7 ]; then
    printf 'it shows programs the files of the node'
  else
    said=$(grep -a . "$private/err" | tail -n 1)
    printf '%s' "${said:-it ended with exit code $status}"
  fi
}

version() { # PROGRAM: its number
  XDG_RUNTIME_DIR=$place timeout -k 1 5 "$1" --version 2>/dev/null </dev/null | grep -o -m 1 '[0-9][0-9]*\.[0-9][0-9.]*' | head -n 1
}

answer() { # ENGINE ok|REASON COMMAND VERSION
  local said=${2//[$'\t\r\n']/ }
  if [ "$said" = ok ]; then
    printf '%s\tok\t%s\t%s\n' "$1" "$3" "$4"
  else
    printf '%s\tno\t%s\t%s\n' "$1" "$3" "${said:-no reason}"
  fi
}

probe_apptainer() { # apptainer|singularity
  local program
  if ! program=$(command -v "$1"); then answer "$1" "$1 is not on PATH" '' '' && return; fi
  answer "$1" "$(UDOCKER_USE_SINGULARITY_EXECUTABLE=$program && export UDOCKER_USE_SINGULARITY_EXECUTABLE && try "$1" udocker-s)" \
    "$program" "$(version "$program")"
}

probe_mode() { # ENGINE PROGRAM'S-NAMES WORDS THAT FIND IT…
  local mode=$1 wanted=$2 program said
  shift 2
  if [ -z "$udocker_command" ]; then answer "$mode" "udocker is not installed beside deephpc" '' '' && return; fi
  if [ -n "$udocker_said" ]; then answer "$mode" "$udocker_said" "$udocker_command" '' && return; fi
  if ! program=$("$@"); then answer "$mode" "$wanted is not on the node" "$udocker_command" '' && return; fi
  said=$(try "$mode" "$mode")
  answer "$mode" "$said" "$udocker_command" "${program##*/}$(version "$program" | sed 's/^/ /')"
}

check_udocker() { # why an image cannot be unpacked here, or nothing
  local python=${udocker_command%/*}/python3
  [ -n "$udocker_command" ] || return
  [ -x "$udocker_command" ] || { printf '%s is not seen from this node' "$udocker_command" && return; }
  timeout -k 1 "$patience_s" "$python" -I -c 'import deephpc.containers.udocker' 2>/dev/null ||
    printf '%s does not run on this node' "$python"
}

facts() {
  printf 'fact\tnode\t%s\n' "${SLURMD_NODENAME:-$(uname -n)}"
  printf 'fact\tkernel\t%s\n' "$(uname -r)"
  printf 'fact\tglibc\t%s\n' "$(getconf GNU_LIBC_VERSION 2>/dev/null | grep -o '[0-9.]*$' || printf none)"
  printf 'fact\tuser_namespaces\t%s\n' "$(unshare --user true 2>/dev/null && printf yes || printf no)"
  printf 'fact\tmemlock\t%s\n' "$(ulimit -l)"
  printf 'fact\tgpus\t%s\n' "$(gpus)"
}

gpus() {
  local device count=0
  for device in /dev/nvidia[0-9]*; do [ ! -e "$device" ] || count=$((count + 1)); done
  if [ "$count" -gt 0 ]; then printf '%d nvidia' "$count" && return; fi
  if [ -e /dev/kfd ]; then
    for device in /dev/dri/renderD*; do [ ! -e "$device" ] || count=$((count + 1)); done
    printf '%d amd' "$count" && return
  fi
  printf 0
}

make_image
udocker_said=$(check_udocker)
probe_apptainer apptainer >"$place/1" &
probe_apptainer singularity >"$place/2" &
probe_mode udocker-r "crun or runc" engine_program UDOCKER_USE_RUNC_EXECUTABLE crun runc >"$place/3" &
probe_mode udocker-f libfakechroot.so fakechroot_library >"$place/4" &
probe_mode udocker-p2 proot engine_program UDOCKER_USE_PROOT_EXECUTABLE proot >"$place/5" &
probe_mode udocker-p1 proot engine_program UDOCKER_USE_PROOT_EXECUTABLE proot >"$place/6" &
probe_mode udocker-s "apptainer or singularity" engine_program UDOCKER_USE_SINGULARITY_EXECUTABLE apptainer singularity >"$place/7" &
facts >"$place/8"
wait
cat "$place"/[1-8]
