#!/bin/sh
# What a program will see inside its image, in one line: GPUs, driver, CUDA, fabric, MPI. POSIX sh is all that is assumed.
#
#   preflight.sh GPUS VENDOR [ROOT [SECONDS]]
#
# GPUS is how many the job has on this node (0: they are not looked for), VENDOR nvidia, amd, intel or ''. Exit code 42, with the
# reason in one line on stderr, when fewer than that can be used. ROOT stands before every path that is looked at, for
# tests; SECONDS is how long nvidia-smi may take. Where the node's verbs libraries are needed, and load here, it leaves
# /deephpc/fabric.env, to be sourced before the program.
wanted=$1 vendor=$2 root=${3:-} patience=${4:-30}
fabric=$root/deephpc/fabric
LC_ALL=C
export LC_ALL
facts='' reason='' usable=0
newline='
'

fact() { facts="$facts${facts:+ }$1"; }

printable() { # TEXT: what is safe between JSON's quotes, without a program's help
  rest=$1 clean=''
  while [ -n "$rest" ]; do
    one=${rest%"${rest#?}"}
    case $one in
      [\"\\]) one='?' ;;
      [\ -~]) ;;
      *) one='?' ;;
    esac
    clean=$clean$one rest=${rest#?}
  done
  printf '%s\n' "$clean"
}

first_line() { # FILE
  line=''
  if [ -r "$1" ]; then read -r line <"$1"; fi
  printf '%s' "$line"
}

# --- programs that may hang: a driver in trouble keeps nvidia-smi for ever, even from SIGKILL ------------------------------
answer() { # SECONDS WORDS…: prints what the program says; 124 when it does not end
  (
    limit=$(($1 * 50)) waited=0 box=${TMPDIR:-/tmp}/deephpc-preflight.$$
    shift
    (umask 077 && mkdir "$box") 2>/dev/null || { "$@" 2>/dev/null </dev/null; exit; }
    { "$@" >"$box/out" 2>"$box/err" </dev/null & printf '%s' "$!" >"$box/pid"; wait "$!"; printf '%s' "$?" >"$box/code"; } >/dev/null 2>&1 &
    waiter=$!
    while [ ! -s "$box/code" ] && [ "$waited" -lt "$limit" ]; do
      if sleep 0.02 2>/dev/null; then waited=$((waited + 1)); else sleep 1; waited=$((waited + 50)); fi
    done
    if [ -s "$box/code" ]; then
      while IFS= read -r said || [ -n "$said" ]; do printf '%s\n' "$said"; done <"$box/out"
      code=$(first_line_of "$box/code")
    else
      { kill -9 "$waiter" && wait "$waiter"; } 2>/dev/null # else it may write into the folder while that is removed
      kill -9 "$(first_line_of "$box/pid")" 2>/dev/null
      code=124
    fi
    rm -rf "$box"
    exit "$code"
  )
}

first_line_of() { read -r line <"$1"; printf '%s' "$line"; }

# --- what the dynamic loader of this image finds: it is asked, not its folders ----------------------------------------------
loads() { # LIBRARY [FOLDER]; glibc tells on stderr, or ends the process, when a library or one it needs is not there
  [ -z "$(LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}${2:+:$2} LD_PRELOAD=${LD_PRELOAD:+$LD_PRELOAD:}$1 /bin/sh -c : 2>&1 || printf no)" ]
}
loader_tells() { ! loads libdeephpc-absent.so.0; } # a static shell says nothing

# --- NVIDIA -------------------------------------------------------------------------------------------------------------------
see_nvidia() {
  query=index,uuid,driver_version,compute_cap,name
  if command -v nvidia-smi >/dev/null 2>&1; then
    table=$(answer "$patience" nvidia-smi --query-gpu="$query" --format=csv,noheader)
    code=$?
    if [ "$code" -ne 0 ] && [ "$code" -ne 124 ]; then # compute_cap came with driver 510
      query=index,uuid,driver_version,name
      table=$(answer "$patience" nvidia-smi --query-gpu="$query" --format=csv,noheader)
      code=$?
    fi
    case $code in
      0) read_table && return ;;
      124) reason="nvidia-smi did not answer within $patience s: the driver of this node is in trouble" ;;
      *) reason="nvidia-smi fails: ${table%%"$newline"*}" ;;
    esac
    fact 'gpus=0'
    fact "driver=$(nvidia_driver)"
    return
  fi
  see_nvidia_files
}

read_table() { # lines of "0, GPU-…, 550.54.14, 8.0, NVIDIA A100-SXM4-40GB"
  seen=0 uuids='' names='' many=0 last='' driver='' capability='' slices=''
  case ${CUDA_VISIBLE_DEVICES:-} in *MIG-*) slices=$(answer "$patience" nvidia-smi -L) ;; esac
  while IFS= read -r row; do
    case $row in [0-9]*', GPU-'*', '*', '*) ;; *) continue ;; esac
    next_field && number=$field && next_field && uuid=$field && next_field && driver=$field
    case $query in *compute_cap*) next_field && capability=$field ;; esac
    seen=$((seen + 1)) uuids="$uuids $uuid"
    is_ours "$number" "$uuid" || continue
    if [ "$row" != "$last" ] && [ -n "$last" ]; then names="$names${many}x $last, " many=0; fi
    last=$row many=$((many + 1))
  done <<EOF
$table
EOF
  [ -z "$last" ] || names="$names${many}x $last"
  count_visible "$seen"
  fact "gpus=$usable${names:+ ($names)}"
  fact "driver=${driver:-unknown}"
  cuda=$(answer "$patience" nvidia-smi)
  case $cuda in *'CUDA Version: '*) cuda=${cuda#*CUDA Version: } && cuda=${cuda%%[ |]*} ;; *) cuda=unknown ;; esac
  fact "cuda=$cuda${CUDA_VERSION:+ image-cuda=$CUDA_VERSION}"
  [ -z "$capability" ] || fact "cc=$capability"
}

next_field() { field=${row%%, *} row=${row#*, }; }

is_ours() { # NUMBER UUID: does CUDA_VISIBLE_DEVICES name this GPU; a slice of it is counted, not told apart
  [ -n "${CUDA_VISIBLE_DEVICES+set}" ] || return 0
  case ,$CUDA_VISIBLE_DEVICES, in *",$1,"* | *",$2,"* | *,MIG-*) return 0 ;; esac
  return 1
}

count_visible() { # SEEN: CUDA stops at the first name it does not know (CUDA C++ Programming Guide, environment variables)
  usable=$1
  [ -n "${CUDA_VISIBLE_DEVICES+set}" ] || return 0
  usable=0 list=$CUDA_VISIBLE_DEVICES,
  while [ -n "$list" ]; do
    name=${list%%,*} list=${list#*,}
    case $name in
      MIG-*) case ${slices:-$name} in *"$name"*) ;; *) break ;; esac ;;
      GPU-*) case ${uuids:-$name} in *"$name"*) ;; *) break ;; esac ;;
      '' | *[!0-9]*) break ;;
      *) [ "$name" -lt "$1" ] || break ;;
    esac
    usable=$((usable + 1))
  done
  [ "$usable" -gt 0 ] || reason="CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES names none of the $1 GPUs that are here"
}

see_nvidia_files() { # an image without nvidia-smi: the device files, each of which must open
  seen=0 why=''
  for file in "$root"/dev/nvidia[0-9]*; do
    [ -e "$file" ] || continue
    trouble=$( (: <"$file") 2>&1) && seen=$((seen + 1)) && continue
    case $trouble in
      *'not permitted'*) ;; # another job's
      *) why="; ${file#"$root"}: ${trouble##*: }" ;;
    esac
  done
  count_visible "$seen"
  if [ "$seen" -eq 0 ]; then
    reason="no device file of a GPU can be opened inside$why"
  elif loader_tells && ! loads libcuda.so.1; then
    usable=0 reason='there is no driver library (libcuda.so.1) inside'
  fi
  fact "gpus=$usable"
  fact "driver=$(nvidia_driver)"
  [ -z "${CUDA_VERSION:-}" ] || fact "image-cuda=$CUDA_VERSION"
}

nvidia_driver() { # the number in "NVRM version: NVIDIA UNIX … Kernel Module … 550.54.14 …"
  for word in $(first_line "$root/proc/driver/nvidia/version"); do
    case $word in [0-9]*.*[0-9]) printf '%s' "$word" && return ;; esac
  done
  printf 'unknown'
}

# --- AMD ------------------------------------------------------------------------------------------------------------------------
see_amd() { # the kernel's own list: /sys/class/kfd, Documentation/gpu/amdgpu; nodes without SIMD units are CPUs
  seen=0 kinds=''
  for node in "$root"/sys/class/kfd/kfd/topology/nodes/*; do
    [ -r "$node/properties" ] || continue
    simd=0 target=0
    while read -r name value; do
      case $name in simd_count) simd=$value ;; gfx_target_version) target=$value ;; esac
    done <"$node/properties" 2>/dev/null
    [ "$simd" -gt 0 ] || continue
    seen=$((seen + 1))
    kind=$(printf 'gfx%d%x%x' $((target / 10000)) $((target / 100 % 100)) $((target % 100)))
    case ",$kinds," in *",$kind,"*) ;; *) kinds=$kinds${kinds:+,}$kind ;; esac
  done
  (: <"$root/dev/kfd") 2>/dev/null || { seen=0 && reason='/dev/kfd cannot be opened inside'; }
  usable=$seen
  for list in "${ROCR_VISIBLE_DEVICES-unset}" "${HIP_VISIBLE_DEVICES-unset}"; do
    [ "$list" = unset ] || { named=$(count_names "$list") && [ "$named" -ge "$usable" ] || usable=$named; }
  done
  [ "$usable" -gt 0 ] || reason=${reason:-"no AMD GPU shows inside (ROCR_VISIBLE_DEVICES=${ROCR_VISIBLE_DEVICES-})"}
  fact "gpus=$usable${kinds:+ ($kinds)}"
  driver=$(first_line "$root/sys/module/amdgpu/version")
  rocm=$(first_line "$root/opt/rocm/.info/version")
  fact "driver=${driver:-unknown} rocm=${rocm:-none}"
}

count_names() { # LIST
  list=$1${1:+,} named=0
  while [ -n "$list" ]; do list=${list#*,} named=$((named + 1)); done
  printf '%s' "$named"
}

# --- any other: Intel's, say; their render nodes ----------------------------------------------------------------------------------
see_others() {
  for file in "$root"/dev/dri/renderD*; do
    if [ -e "$file" ] && (: <"$file") 2>/dev/null; then usable=$((usable + 1)); fi
  done
  [ "$usable" -gt 0 ] || reason='no render node of a GPU (/dev/dri/renderD*) can be opened inside'
  fact "gpus=$usable"
}

# --- fabric, MPI, limits ----------------------------------------------------------------------------------------------------------
see_fabric() {
  adapters=''
  for file in "$root"/sys/class/infiniband/*; do
    [ ! -e "$file" ] || adapters=$adapters${adapters:+,}${file##*/}
  done
  open=no
  for file in "$root"/dev/infiniband/uverbs*; do [ ! -r "$file" ] || open=yes; done
  case $adapters,$open in
    ,*) fact 'ib=none' ;;
    *,no) fact "ib=none ($adapters has no device file inside)" ;;
    *) fact "ib=$adapters verbs=$(choose_verbs)" ;;
  esac
}

choose_verbs() { # the image's libraries, else the node's where they load (its C library may be newer than the image's)
  if ! loader_tells; then
    printf 'unknown'
  elif loads libibverbs.so.1; then
    printf 'image'
  elif [ ! -e "$fabric/libibverbs.so.1" ]; then
    printf 'none'
  elif ! loads libibverbs.so.1 "$fabric"; then
    printf 'none (those of the node do not load in this image)'
  else
    # shellcheck disable=SC2016  # read later
    printf 'LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}%s\nRDMAV_DRIVERS=%s\nexport LD_LIBRARY_PATH RDMAV_DRIVERS\n' \
      "$fabric" "$(first_line "$fabric/drivers")" >"$root/deephpc/fabric.env"
    printf 'node'
  fi
}

see_mpi() { # "mpirun (Open MPI) 4.1.6", "Intel(R) MPI Library for Linux* OS, Version 2021.6 …", hydra's "Version: 4.0.2"
  mpi=none
  if command -v mpirun >/dev/null 2>&1; then
    mpi=$(answer 5 mpirun --version) || mpi=unknown
    case $mpi in
      *'(Open MPI)'*) mpi=${mpi#*(Open MPI) } && mpi="Open MPI ${mpi%%"$newline"*}" ;;
      *Intel*Version*) mpi=${mpi#*Version } && mpi="Intel MPI ${mpi%% *}" ;;
      *HYDRA*Version:*) mpi=${mpi#*Version:} && mpi=${mpi%%"$newline"*} && mpi="MPICH ${mpi##* }" ;;
      *) mpi=unknown ;;
    esac
  fi
  fact "mpi=$mpi"
}

see_limits() { # proc(5): "Max locked memory  8388608  8388608  bytes"
  memlock=unknown
  if [ -r "$root/proc/self/limits" ]; then
    while read -r one two three soft rest; do
      if [ "$one $two $three" = 'Max locked memory' ]; then memlock=$soft; fi
    done <"$root/proc/self/limits"
  fi
  case $memlock in *[!0-9]*) ;; *) memlock=$((memlock / 1024))KiB ;; esac
  fact "memlock=$memlock"
}

any() { # FILE…
  for file; do [ ! -e "$file" ] || return 0; done
  return 1
}

see_gpus() {
  if [ -z "$vendor" ] && ! any "$root"/dev/nvidia[0-9]*; then
    if any "$root/dev/kfd"; then vendor=amd; elif any "$root"/dev/dri/renderD*; then vendor=other; fi
  fi
  case $vendor in
    '' | nvidia) see_nvidia ;;
    amd) see_amd ;;
    *) see_others ;;
  esac
}

if [ "$wanted" -eq 0 ]; then fact 'gpus=0'; else see_gpus; fi
see_fabric
see_mpi
see_limits
printable "$facts"
if [ "$usable" -lt "$wanted" ]; then
  some=$usable
  [ "$usable" -gt 0 ] || some=none
  plural='s were' && [ "$wanted" -gt 1 ] || plural=' was'
  hint='look at the GPUs of this node with nvidia-smi in a job without --image, and ask the site or use another --engine'
  printable "$wanted GPU$plural allocated but the container sees $some: ${reason:-$usable of them can be used}; $hint" >&2
  exit 42
fi
