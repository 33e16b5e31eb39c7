# shellcheck shell=bash disable=SC2034,SC2154  # set by and for container.sh
# GPUs and fabric of the node a job runs on: sourced by container.sh, outside the image.
#
#   find_devices [ROOT]     sets gpu (nvidia, amd, intel or ''), gpu_driver (its version), gpu_facts (one line) and device_files;
#                           adds to binds; puts the node's verbs libraries into $private/deephpc/fabric; notes what is amiss
#   device_variables        prints the names of the variables that say which GPUs are ours: they must reach the program
#   gpu_device_binds [ROOT] prints the device files of the allocated GPUs and of their driver, one a line
#
# Expects gpus_wanted, gpu_vendor ('' unknown, nvidia, amd, intel), private, the array binds, and note. ROOT stands before every
# path of the node that is looked at, for tests.
#
# device_files is apart from binds, for an engine whose containers have a /dev of their own (apptainer --contain, or
# "mount dev = minimal" in its configuration; runc and crun). Where the node's /dev is already inside, binding a device
# again takes it away: Apptainer mounts binds with nodev unless it makes /dev itself, and opening then fails with EACCES
# (addUserbindsMount in internal/pkg/runtime/engine/apptainer/container_linux.go, 1.4; seen with 1.4.5).
#
# What limits a job to its GPUs is Slurm: with ConstrainDevices (cgroup.conf(5)) opening another device fails with EPERM
# whatever is bound, and CUDA_VISIBLE_DEVICES counts what is left, from 0; without it the variable is all there is.
# `apptainer --nv` shows every /dev/nvidia*, with --contain too (NvidiaDevices in internal/pkg/util/gpu, 1.4), so files
# in /dev prove nothing, and the variables must pass into an otherwise clean environment (apptainer manual, "GPU Support").

device_variables() { # gres.conf(5), Flags=nvidia_gpu_env and so on, and mps; HIP_ and CUDA_DEVICE_ORDER are users' own
  printf '%s\n' CUDA_VISIBLE_DEVICES CUDA_DEVICE_ORDER CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY \
    CUDA_MPS_ACTIVE_THREAD_PERCENTAGE ROCR_VISIBLE_DEVICES HIP_VISIBLE_DEVICES GPU_DEVICE_ORDINAL ZE_AFFINITY_MASK
}

find_devices() { # [ROOT]
  local root=${1:-} file
  gpu='' gpu_driver='' gpu_facts='' device_files=()
  if [ "${gpus_wanted:-0}" -gt 0 ]; then
    find_gpus
    while IFS= read -r file; do device_files+=("$file"); done < <(gpu_device_binds "$root")
  fi
  find_fabric
}

find_gpus() {
  gpu=${gpu_vendor:-}
  if [ -z "$gpu" ]; then
    if any "$root"/dev/nvidia[0-9]* "$root/dev/nvidiactl"; then gpu=nvidia; elif any "$root/dev/kfd"; then gpu=amd; fi
  fi
  case $gpu in
    nvidia) gpu_driver=$(nvidia_driver) ;;
    amd) gpu_driver=$(first_line "$root/sys/module/amdgpu/version") ;;
    *) any "$root"/dev/dri/renderD* || note "$gpus_wanted GPUs were allocated, but this node shows no device of a GPU" ;;
  esac
  gpu_facts="vendor=${gpu:-none} driver=${gpu_driver:-unknown}$(allocation)"
  if [ -d "${CUDA_MPS_PIPE_DIRECTORY:-}" ]; then binds+=("$CUDA_MPS_PIPE_DIRECTORY:$CUDA_MPS_PIPE_DIRECTORY"); fi
}

nvidia_driver() { # the number in "NVRM version: NVIDIA UNIX … Kernel Module … 550.54.14 …"
  local word words
  read -r -a words < <(first_line "$root/proc/driver/nvidia/version")
  for word in ${words[@]+"${words[@]}"}; do
    if [[ $word =~ ^[0-9]+(\.[0-9]+)+$ ]]; then printf '%s' "$word" && return; fi
  done
  first_line "$root/sys/module/nvidia/version"
}

allocation() { # what Slurm says, as it says it
  local name
  for name in SLURM_JOB_GPUS SLURM_STEP_GPUS CUDA_VISIBLE_DEVICES ROCR_VISIBLE_DEVICES HIP_VISIBLE_DEVICES; do
    [ -z "${!name+set}" ] || printf ' %s=%s' "$name" "${!name}"
  done
}

# --- the device files of the allocation -----------------------------------------------------------------------------------
gpu_device_binds() { # [ROOT]
  local root=${1:-} file
  case ${gpu:-} in
    nvidia)
      allocated_nvidia
      for file in "$root"/dev/nvidia*; do
        case ${file##*/} in nvidia[0-9]*) ;; *) any "$file" && printf '%s\n' "${file#"$root"}" ;; esac
      done
      ;;
    *) # a GPU's render node cannot be told from its number in ROCR_VISIBLE_DEVICES: that variable alone chooses
      for file in "$root/dev/kfd" "$root/dev/dri"; do any "$file" && printf '%s\n' "${file#"$root"}"; done
      ;;
  esac
}

# SLURM_*_GPUS count GPUs by PCI address, which need not be the order of /dev/nvidiaN (gres_common.c, common_gres_set_env).
allocated_nvidia() {
  local minors number numbers
  read -r -a minors < <(minors_by_address)
  IFS=, read -r -a numbers <<<"${SLURM_STEP_GPUS:-${SLURM_JOB_GPUS:-}}"
  for number in ${numbers[@]+"${numbers[@]}"}; do
    if ! [[ $number =~ ^[0-9]+$ ]] || [ -z "${minors[number]:-}" ]; then numbers=() && break; fi
  done
  if [ "${#numbers[@]}" -eq 0 ]; then # Slurm or the driver does not say, or slices of GPUs were allocated
    for number in "$root"/dev/nvidia[0-9]*; do
      if any "$number" && ! forbidden "$number"; then printf '%s\n' "${number#"$root"}"; fi
    done
  else
    for number in "${numbers[@]}"; do printf '/dev/nvidia%s\n' "${minors[number]}"; done
  fi
}

forbidden() { [[ $(LC_ALL=C; (: <"$1") 2>&1) == *'Operation not permitted'* ]]; } # by the job's control group

minors_by_address() { # the N of each GPU's /dev/nvidiaN, in the order of PCI addresses: "Device Minor: N" in the driver's own words
  local file name value
  for file in "$root"/proc/driver/nvidia/gpus/*/information; do
    while IFS=: read -r name value; do
      if [ "$name" = 'Device Minor' ]; then printf '%d ' "$value"; fi
    done <"$file"
  done 2>/dev/null
  printf '\n'
}

# --- InfiniBand and its like ----------------------------------------------------------------------------------------------
find_fabric() {
  local file
  for file in "$root"/dev/infiniband "$root"/dev/gdrdrv "$root"/dev/knem "$root"/dev/xpmem "$root"/dev/hfi1_* "$root"/dev/cxi[0-9]*; do
    if [ -r "$file" ]; then device_files+=("${file#"$root"}"); fi
  done
  any "$root"/dev/infiniband/uverbs* || return 0
  copy_verbs
  [ "$(ulimit -l)" = unlimited ] ||
    note "this node has InfiniBand, but only $(ulimit -l) KiB of memory may be locked for it, which makes it fail or be slow: ask for PropagateResourceLimitsExcept=MEMLOCK in slurm.conf and LimitMEMLOCK=infinity for slurmd"
}

# libibverbs and its providers belong together (a provider loads only into the libibverbs of its private ABI, the number
# in libmlx5-rdmav34.so), so an image with a libibverbs keeps its own, and one without gets the node's whole set in one
# folder; preflight.sh decides inside, where it can be seen whether they load there. rdma-core, libibverbs/dynamic_driver.c:
# providers not found in their own folder are looked for on the library path, by the names in RDMAV_DRIVERS.
copy_verbs() {
  local folder library names='' source target=$private/deephpc/fabric
  for folder in "$root/usr/lib64" "$root/usr/lib/$(uname -m)-linux-gnu" "$root/lib64" "$root/usr/lib"; do
    if [ -e "$folder/libibverbs.so.1" ]; then break; fi
  done
  [ -e "$folder/libibverbs.so.1" ] && mkdir -p "$target" || return 0
  for library in "$folder"/lib{ibverbs,rdmacm,ibumad,nl-3,nl-route-3,mlx4,mlx5,efa,mana,hns}.so.[0-9] \
    "$folder"/libnl{,-route}-3.so.200 "$folder"/libibverbs/*.so; do
    any "$library" || continue
    source=$(readlink -f "$library") # one file under all its names, or a library would be loaded twice
    [ -e "$target/${source##*/}" ] || cp "$source" "$target/" 2>/dev/null || continue
    [ -e "$target/${library##*/}" ] || ln -s "${source##*/}" "$target/${library##*/}"
  done
  for library in "$root"/etc/libibverbs.d/*.driver; do
    any "$library" || continue
    source=$(first_line "$library")
    source=${source##*[ /]}
    if any "$target/lib${source#lib}"-rdmav*.so; then names=${names:+$names:}${source#lib}; fi
  done
  printf '%s\n' "$names" >"$target/drivers"
}

# --- small words ------------------------------------------------------------------------------------------------------------
any() { # FILE…: is there one of them
  local file
  for file; do [ ! -e "$file" ] || return 0; done
  return 1
}

first_line() { local line=''; { read -r line <"$1"; } 2>/dev/null; printf '%s\n' "$line"; }
