# shellcheck shell=bash disable=SC2154  # what it expects is set by container.sh
# Apptainer, or Singularity, as the engine of a job: sourced by container.sh, which sets the variables used here.
# The image is a SIF at $prepared (or a folder, after --stage-image), always read-only.

# shellcheck disable=SC2034  # for container.sh
[ "$is_module" != yes ] || engine_layers='overlay tmpfs' # container.sh tries which works here

engine_set_up() {
  local mask status
  [ ! -e "$prepared" ] || return 0
  [ -n "$layout_dir" ] || fail "$prepared is not on $(uname -n): put it where the nodes see it"
  mask=$(umask)
  umask "$(cache_mask)"
  mkdir -p "${prepared%/*}" || fail "cannot write in ${prepared%/*}"
  chmod --reference="$cache_dir/images" "${prepared%/*}" 2>/dev/null # a group's cache stays the group's
  locked "$prepared.lock" convert
  status=$?
  umask "$mask"
  return "$status"
}

cache_mask() { # what is made is for whom the images are for: the folder above, of the same mode as theirs, guards it
  local mode
  mode=$(stat -c %A "$cache_dir/images" 2>/dev/null)
  case ${mode:5:1} in
    w) printf 002 ;;
    *) printf 022 ;;
  esac
}

convert() { # OCI layout → SIF with zstd, as apptainer's gzip costs sixteen times the CPU; or → folder
  local part=$prepared.$$.part log=$private/convert.log threads=2 memory_mib=1024
  [ ! -e "$prepared" ] || return 0
  if [ -n "${SLURM_JOB_ID:-}" ]; then # a login node is everybody's
    threads=$(nproc)
    [ "${SLURM_MEM_PER_NODE:-0}" -eq 0 ] || [ $((SLURM_MEM_PER_NODE / 4)) -gt 1024 ] || memory_mib=$((SLURM_MEM_PER_NODE / 4))
  fi
  trap 'rm -f "$part"' EXIT
  find "${prepared%/*}" -maxdepth 1 -type f -name '*.part' -mmin +720 -delete 2>/dev/null # of conversions that were killed
  note "converting the image to $prepared"
  export APPTAINER_TMPDIR=$private/tmp APPTAINER_CACHEDIR=$private/cache SINGULARITY_TMPDIR=$private/tmp SINGULARITY_CACHEDIR=$private/cache
  if [ "$engine" = apptainer-sandbox ]; then
    trap 'chmod -R u+w "$part" 2>/dev/null; rm -rf "$part"' EXIT
    nice -n 10 "$engine_command" build --sandbox "$part" "oci:$layout_dir" >"$log" 2>&1 || refused
    chmod -R go+rX "$part"
  else
    build_sif
    chmod go+rX "$part"
  fi
  mv -T -f "$part" "$prepared" || fail "cannot write in ${prepared%/*}"
  trap - EXIT
}

build_sif() {
  nice -n 10 "$engine_command" build --mksquashfs-args "-comp zstd -Xcompression-level 1 -processors $threads -mem ${memory_mib}M" \
    "$part" "oci:$layout_dir" >"$log" 2>&1 ||
    nice -n 10 "$engine_command" build --force "$part" "oci:$layout_dir" >>"$log" 2>&1 || refused # releases without that option
}

refused() { # mksquashfs 4.6 names a full disk in a line before its last
  local said
  said=$(grep -a -i -E 'no space left on device|disk quota exceeded' "$log" | tail -n 1)
  fail "$engine cannot convert the image: ${said:-$(grep -a -E 'FATAL|ERROR' "$log" | tail -n 1)}"
}

engine_exec() { # WORDS…; a site may bind the node's /tmp, too (`bind path`): releases that know no paths in --no-mount show that
  local words=(--silent exec --cleanenv --no-home --no-mount 'cwd,tmp,/tmp,/var/tmp' --pwd /) bind
  layer_words
  for bind in ${binds[@]+"${binds[@]}"}; do words+=(--bind "$bind"); done
  case $gpu in
    nvidia) words+=(--nv) ;;
    amd) words+=(--rocm) ;;
  esac
  exec "$engine_command" "${words[@]}" "$prepared" "$@"
}
