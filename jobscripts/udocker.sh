# shellcheck shell=bash
# udocker's engines for a job: sourced by container.sh, which sets the variables used here.
#
# $prepared is a udocker repository with one container, made once per image and never written again. proot (P), crun or
# runc (R) and Apptainer (S) are started as udocker would start them, but without its process in between: that one waits
# in Python, dies of a signal meant for the program, and in R mode loses the exit code, merges the streams and breaks on
# characters of several bytes (udocker 1.3.17, engine/runc.py). fakechroot (F) takes 5 ms in place of 1.9 s.
# What may change is private to the job, so that jobs of any mode use one image at once.
# shellcheck disable=SC2154  # container.sh sets them

# shellcheck disable=SC2034  # for container.sh: F binds by links, so the place for a bind must be free
[ "$engine" != udocker-f ] || engine_links=yes
: "${is_module:=no}" "${layer:=}" # the probe of the engines has no module
# shellcheck disable=SC2034
[ "$engine:$is_module" != udocker-r:yes ] || engine_layers=overlay # container.sh tries whether it works here

engine_set_up() {
  local python=${engine_command%/*}/python3
  [ ! -d "$prepared" ] || return 0
  [ -x "$python" ] || python=${engine_command%/*}/python
  "$python" -I -c 'import deephpc.containers.udocker' 2>/dev/null ||
    fail "$engine_command is not the udocker of deephpc's own environment, which unpacks the image; leave \`engine_command\` to deephpc"
  note "unpacking the image to $prepared"
  nice -n 10 "$python" -I -X utf8 -m deephpc.node.image_tree "$store_root" "$image_digest" "$prepared" "$engine" 2>"$private/unpack.log" ||
    fail "$engine cannot unpack the image: $(tail -n 1 "$private/unpack.log")"
}

engine_exec() { # WORDS…
  local root=$prepared/containers/${image_digest:7:12}/ROOT work
  work=$(mktemp -d "$private/engine.XXXXXX") || fail "cannot write in $private"
  case $engine in
    udocker-p*) proot_exec "$@" ;;
    udocker-r) runtime_exec "$@" ;;
    udocker-s) apptainer_exec "$@" ;;
    udocker-f) fakechroot_exec "$@" ;;
  esac
  fail "$engine is no engine of udocker's"
}

engine_folder() { # PATH: where a folder of the image lies on this node
  local root=$prepared/containers/${image_digest:7:12}/ROOT
  within_image "$1"
  [ -d "$root$REPLY" ] && printf '%s' "$root$REPLY"
}

engine_program() { # VARIABLE NAME…: the one named by udocker's own variable, else one among udocker's files, else on PATH
  local chosen=${!1:-} files=${UDOCKER_BIN:-${UDOCKER_DIR:-${HOME:-}/.udocker}/bin} machine name
  shift
  if [ -n "$chosen" ] && [ "$chosen" != UDOCKER ]; then printf '%s' "$chosen" && return; fi
  machine=$(uname -m)
  machine=${machine/aarch64/arm64}
  for name; do
    for chosen in "$files/$name-$machine-4_8_0" "$files/$name-$machine" "$files/$name"; do
      if [ -x "$chosen" ]; then printf '%s' "$chosen" && return; fi
    done
  done
  for name; do command -v "$name" && return; done
  return 1
}

# --- what every engine binds ----------------------------------------------------------------------------------------------
all_binds=()
gather_binds() { # fills all_binds: first what belongs to the node, then what belongs to the run
  local file
  all_binds=()
  for file in /etc/hosts /etc/resolv.conf; do [ ! -e "$file" ] || all_binds+=("$file:$file:ro"); done
  identity_files
  all_binds+=("$work/passwd:/etc/passwd:ro" "$work/group:/etc/group:ro")
  [ "$layer" = overlay ] || [ -n "${looks_at_tmp:-}" ] || all_binds+=("$private/tmp:/tmp" "$private/var_tmp:/var/tmp")
  all_binds+=(${binds[@]+"${binds[@]}"})
  [ "$gpu" != nvidia ] || [ "$engine" = udocker-f ] || bind_driver
}

identity_files() { # the image's users and groups, and the job's own
  local name group_name number
  name=$(id -un 2>/dev/null) || name=user
  group_name=$(id -gn 2>/dev/null) || group_name=user
  number=$(id -g)
  printf '%s:x:%d:%d::/deephpc/home:/bin/sh\n' "$name" "$UID" "$number" >"$work/passwd"
  printf '%s:x:%d:\n' "$group_name" "$number" >"$work/group"
  [ ! -f "$root/etc/passwd" ] || [ -L "$root/etc/passwd" ] || grep -v "^$name:" "$root/etc/passwd" >>"$work/passwd"
  [ ! -f "$root/etc/group" ] || [ -L "$root/etc/group" ] || cat "$root/etc/group" >>"$work/group"
  chmod 444 "$work/passwd" "$work/group"
}

bind_driver() { # the NVIDIA driver's libraries of this very node, each in a folder that the loader searches first
  local name path place=$private/deephpc/nvidia
  mkdir -p "$place/lib" "$place/bin"
  while read -r name path; do
    : >>"$place/lib/$name"
    all_binds+=("$path:/deephpc/nvidia/lib/$name:ro")
  done < <(driver_libraries)
  [ -e "$place/lib/libcuda.so.1" ] || note "no NVIDIA driver library (libcuda.so.1) on $(uname -n)"
  if path=$(command -v nvidia-smi); then
    : >>"$place/bin/nvidia-smi"
    all_binds+=("$path:/deephpc/nvidia/bin/nvidia-smi:ro")
  fi
}

driver_libraries() { # prints NAME PATH; what computing needs of the driver, as the loader of this node finds it
  local wanted='^(libcuda|libcudadebugger|libnvcuvid|libnvidia-(cfg|compiler|encode|fatbinaryloader|gpucomp|ml|nvvm|nvvm70|opencl|opticalflow|ptxjitcompiler|tls|pkcs11-openssl3))\.so(\.|$)'
  local name kind path folder file folders
  local -A seen=()
  while IFS=$'\t' read -r name kind path; do
    case $kind in *64*) ;; *) continue ;; esac
    if [[ $name =~ $wanted ]] && [ -z "${seen[$name]+x}" ] && [ -e "$path" ]; then seen[$name]=1 && printf '%s %s\n' "$name" "$path"; fi
  done < <({ ldconfig -p || /sbin/ldconfig -p; } 2>/dev/null |
    sed -n 's/^[[:space:]]*\([^ ]*\) (\([^)]*\)) => \(.*\)$/\1\t\2\t\3/p')
  IFS=: read -r -a folders <<<"${LD_LIBRARY_PATH:-}"
  for folder in ${folders[@]+"${folders[@]}"}; do
    for file in "$folder"/libcuda.so.1 "$folder"/libnvidia-*.so.1; do
      name=${file##*/}
      if [[ $name =~ $wanted ]] && [ -z "${seen[$name]+x}" ] && [ -e "$file" ]; then seen[$name]=1 && printf '%s %s\n' "$name" "$file"; fi
    done
  done
}

clean_environment=()
gather_environment() { # all that the engine and the first process inside are given; env.sh brings the rest
  clean_environment=(PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/deephpc/home)
  [ "$gpu" != nvidia ] || clean_environment+=(LD_LIBRARY_PATH=/deephpc/nvidia/lib)
}

# --- P: proot ------------------------------------------------------------------------------------------------------------
# proot answers 255 for a program that a signal ended, and a signal of its own with pages on stderr: a shell between the
# two keeps the exit code, lives on while the program deals with a signal to all, and hands stderr to the program alone.
proot_exec() {
  local program words=() bind source
  program=$(engine_program UDOCKER_USE_PROOT_EXECUTABLE proot) || fail "$engine needs proot, which is not on $(uname -n)"
  gather_binds
  gather_environment
  clean_environment+=("PROOT_TMP_DIR=$work")
  words=(-r "$root" -w / -b /proc -b /sys -b /dev)
  ! "$program" --help 2>/dev/null | grep -q -e --kill-on-exit || words+=(--kill-on-exit)
  for bind in "${all_binds[@]}"; do
    source=${bind%%:*} bind=${bind#*:}
    words+=(-b "$source:${bind%%:*}") # proot knows no read-only binds
  done
  if [ "$engine" = udocker-p1 ] && ! proot_shows_image; then
    note "proot with seccomp (P1) does not work on $(uname -n); going on without (P2)"
    engine=udocker-p2
  fi
  [ "$engine" = udocker-p1 ] || clean_environment+=(PROOT_NO_SECCOMP=1)
  [ "$engine" = udocker-p1 ] || proot_shows_image || fail "proot does not show the image to programs: $(tail -n 1 "$work/proot.log")"
  # shellcheck disable=SC2016  # for the shell inside
  exec env -i "${clean_environment[@]}" "$program" "${words[@]}" /bin/sh -c '
    unset PROOT_TMP_DIR PROOT_NO_SECCOMP
    trap : TERM INT HUP USR1 USR2
    (exec "$@" 2>&3 3>&-)
    exit $?' sh "$@" 3>&2 2>>"$work/proot.log"
}

proot_shows_image() { # kernels that let proot run but not look on give programs the node's own files, without a word
  local ours shown
  read -r ours <"$work/passwd"
  # shellcheck disable=SC2016  # for the shell inside
  shown=$(env -i "${clean_environment[@]}" "$program" "${words[@]}" /bin/sh -c 'read -r line </etc/passwd && printf %s "$line"' \
    </dev/null 2>"$work/proot.log")
  [ "$shown" = "$ours" ]
}

# --- R: crun or runc, in a user and a mount name space alone ----------------------------------------------------------------
# The program stays in the node's process name space, so that it is sent signals like any other, and keeps the node's
# network and shared memory for MPI. Its root is an empty skeleton over which the image's folders are bound read-only:
# so there is a place for every bind, and nothing is ever made in the image itself.
runtime_exec() {
  local program words=() outer=() user=$UID group host_user=$UID host_group root_is_ro=true rights=''
  program=$(engine_program UDOCKER_USE_RUNC_EXECUTABLE crun runc) ||
    fail "$engine needs crun or runc, which are not on $(uname -n)"
  host_group=$(id -g) group=$host_group
  case ${program##*/} in
    *crun*) words=(--cgroup-manager=disabled) ;;
    *) user=0 group=0 words=(--log "$work/runtime.log") ;; # runc maps root or nobody; it warns on the program's stderr
  esac
  gather_binds
  gather_environment
  if [ "$layer" = overlay ]; then
    lay_over
  else
    lay_skeleton
  fi
  write_words "$@"
  write_bundle >"$work/config.json"
  mkdir -p "$work/state"
  exec env -i PATH="$PATH" HOME="${HOME:-/}" XDG_RUNTIME_DIR="$work" ${outer[@]+"${outer[@]}"} "$program" "${words[@]}" \
    --root "$work/state" run --bundle "$work" "deephpc-$$-${work##*.}"
}

lay_over() { # the image with a folder of this node over it as its root, in a name space around that of the runtime
  local layer_folder
  layer_folder=$(layer_place)
  mkdir -p "$work/root" "$layer_folder/upper" "$layer_folder/work"
  host_user=0 host_group=0 root_is_ro=false
  # the unpacked image is closed to writing for everybody; what is written goes to the folder over it, as root's would
  rights='"CAP_DAC_OVERRIDE"'
  # shellcheck disable=SC2016  # for the shell inside
  outer=(unshare --user --map-root-user --mount /bin/sh -c 'mount -t overlay -o "$1" overlay "$2" && shift 2 && exec "$@"' sh
    "lowerdir=$root,upperdir=$layer_folder/upper,workdir=$layer_folder/work,userxattr" "$work/root")
}

write_words() { # WORDS…: as a script, since JSON has no room for all that a word may be
  local word
  {
    printf 'exec'
    for word; do printf " '%s'" "${word//\'/\'\\\'\'}"; done
    printf '\n'
  } >"$work/words.sh"
  chmod 600 "$work/words.sh"
  all_binds+=("$work/words.sh:/deephpc/bin/${work##*/}.sh:ro")
}

json() { # TEXT: sets REPLY to it as a string of JSON; no process is started for each of a hundred
  local code
  REPLY=${1//\\/\\\\} REPLY=${REPLY//\"/\\\"}
  if [[ $REPLY == *[[:cntrl:]]* ]]; then
    for code in {1..31}; do
      printf -v code '\\x%02x' "$code"
      printf -v code '%b' "$code"
      [[ $REPLY != *"$code"* ]] || REPLY=${REPLY//"$code"/$(printf '\\u%04x' "'$code")}
    done
  fi
  REPLY=\"$REPLY\"
}

write_bundle() { # an OCI bundle's config.json (runtime specification 1.0.2)
  local mount options separator=''
  printf '{"ociVersion":"1.0.2","process":{"terminal":false,"noNewPrivileges":true,"cwd":"/","user":{"uid":%d,"gid":%d}' "$user" "$group"
  json "/deephpc/bin/${work##*/}.sh"
  printf ',"args":["/bin/sh",%s],"env":[' "$REPLY"
  for mount in "${clean_environment[@]}"; do json "$mount" && printf '%s%s' "$separator" "$REPLY" && separator=,; done
  printf '],"capabilities":{"bounding":[%s],"effective":[%s],"permitted":[%s],"inheritable":[%s],"ambient":[%s]}' \
    "$rights" "$rights" "$rights" "$rights" "$rights"
  json "$work/root"
  printf '},"root":{"path":%s,"readonly":%s},"hostname":""' "$REPLY" "$root_is_ro"
  printf ',"annotations":{"run.oci.keep_original_groups":"1"},"linux":{"namespaces":[{"type":"user"},{"type":"mount"}]'
  printf ',"uidMappings":[{"containerID":%d,"hostID":%d,"size":1}]' "$user" "$host_user"
  printf ',"gidMappings":[{"containerID":%d,"hostID":%d,"size":1}]},"mounts":[' "$group" "$host_group"
  separator=''
  for mount in ${image_mounts[@]+"${image_mounts[@]}"} /proc:/proc /sys:/sys /dev:/dev "${all_binds[@]}"; do
    json "${mount%%:*}"
    printf '%s{"type":"bind","source":%s' "$separator" "$REPLY"
    separator=, mount=${mount#*:} options='"rbind","nosuid","nodev"'
    case $mount in
      *:ro) mount=${mount%:ro} options=$options',"ro"' ;;
      /dev | /dev/*) options='"rbind"' ;;
    esac
    json "${mount%:rw}"
    printf ',"destination":%s,"options":[%s]}' "$REPLY" "$options"
  done
  printf ']}\n'
}

image_mounts=()
declare -A opened=()
lay_skeleton() { # makes $work/root and fills image_mounts
  local bind source
  image_mounts=() opened=([/]=1)
  mkdir -p "$work/root/proc" "$work/root/sys" "$work/root/dev"
  for bind in "${all_binds[@]}"; do
    bind=${bind#*:}
    within_image "${bind%%:*}"
    open_way_to "$REPLY"
  done
  lay_folder /
  for bind in "${all_binds[@]}"; do
    source=${bind%%:*} bind=${bind#*:}
    within_image "${bind%%:*}"
    place_for "$source" "$REPLY"
  done
}

within_image() { # PATH: sets REPLY to where it leads when the image's links are followed as if its root were /
  local rest=$1/ part target links=0
  REPLY=''
  while [ -n "$rest" ]; do
    part=${rest%%/*} rest=${rest#*/}
    case $part in
      '' | .) continue ;;
      ..) REPLY=${REPLY%/*} && continue ;;
    esac
    if [ -L "$root$REPLY/$part" ] && [ $((links += 1)) -le 40 ]; then
      target=$(readlink "$root$REPLY/$part")
      case $target in /*) REPLY='' ;; esac
      rest=$target/$rest
    else
      REPLY=$REPLY/$part
    fi
  done
  REPLY=${REPLY:-/}
}

open_way_to() { # PATH: mark the image's folders above a place that the image does not have
  local path=$1
  [ ! -e "$root$path" ] || return 0
  while path=${path%/*}; do
    opened[${path:-/}]=1
    [ -n "$path" ] || return 0
  done
}

lay_folder() { # FOLDER: a folder of the skeleton; its members are bound, or are folders of the skeleton themselves
  local folder=${1%/} entry name
  for entry in "$root$folder"/* "$root$folder"/.[!.]* "$root$folder"/..?*; do
    name=$folder/${entry##*/}
    case $name in /proc | /sys | /dev) continue ;; esac
    if [ -L "$entry" ]; then
      cp -P "$entry" "$work/root$name"
    elif [ -d "$entry" ]; then
      mkdir "$work/root$name"
      if [ -n "${opened[$name]+x}" ]; then lay_folder "$name"; else image_mounts+=("$entry:$name:ro"); fi
    elif [ -e "$entry" ]; then
      : >"$work/root$name"
      image_mounts+=("$entry:$name:ro")
    fi
  done
}

place_for() { # SOURCE PATH: where a bind goes, when the image has nothing there
  if [ -e "$root$2" ] || [ -e "$work/root$2" ]; then
    return 0
  elif [ -d "$1" ]; then
    mkdir -p "$work/root$2"
  else
    mkdir -p "$work/root${2%/*}"
    : >>"$work/root$2"
  fi
}

# --- S: Apptainer or Singularity on the unpacked tree -----------------------------------------------------------------------
apptainer_exec() {
  local program words=(--silent exec --cleanenv --no-home --no-mount 'cwd,tmp,/tmp,/var/tmp' --pwd /) bind
  program=$(engine_program UDOCKER_USE_SINGULARITY_EXECUTABLE apptainer singularity) ||
    fail "$engine needs apptainer or singularity, which are not on $(uname -n)"
  [ -n "${looks_at_tmp:-}" ] || words+=(--bind "$private/tmp:/tmp" --bind "$private/var_tmp:/var/tmp")
  for bind in ${binds[@]+"${binds[@]}"}; do words+=(--bind "$bind"); done
  case $gpu in
    nvidia) words+=(--nv) ;;
    amd) words+=(--rocm) ;;
  esac
  exec "$program" "${words[@]}" "$root" "$@"
}

# --- F: fakechroot -----------------------------------------------------------------------------------------------------------
# No process is traced and no name space needed: a library loaded before all others turns paths into those under a root.
# udocker's own and Debian's fakechroot both do; only the first knows of binds, so the root is a folder of links to the
# image's folders and to what is bound. The kernel follows links from the node's root: the image of this engine is unpacked
# with relative ones. Static programs see the node's files.
fakechroot_exec() {
  local library loader shell bind folder search='' names=()
  local -A linked=() laid=()
  library=$(fakechroot_library) || fail "$engine needs libfakechroot.so, udocker's or the system's, which is not on $(uname -n)"
  loader=$(image_loader) || fail "$engine runs glibc images alone; this one has no loader of glibc's"
  within_image /bin/sh && shell=$root$REPLY
  gather_binds
  for bind in "${all_binds[@]}" /proc:/proc /sys:/sys /dev:/dev; do link_bind "${bind%%:*}" "${bind#*:}"; done
  lay_code
  link_folder /
  chmod -R a-w "$work/root"
  [ "$gpu" != nvidia ] || link_driver
  while read -r folder; do [ ! -d "$root$folder" ] || search=$search:$root$folder; done < <(library_folders)
  gather_environment
  names=("FAKECHROOT_BASE=$work/root" "FAKECHROOT_EXCLUDE_PATH=/proc:/sys:/dev:$prepared:$private$(bound_sources)"
    "FAKECHROOT_ELFLOADER=$loader" "FAKECHROOT_CMD_SUBST=/sbin/ldconfig=/bin/true:/usr/sbin/ldconfig=/bin/true" "LD_PRELOAD=$library"
    "LD_LIBRARY_PATH=$([ "$gpu" != nvidia ] || printf '%s:' "$private/deephpc/nvidia/lib")${search#:}")
  cd "$work/root" || fail "cannot enter $work/root"
  # shellcheck disable=SC2016  # for the shell inside
  exec env -i "${clean_environment[@]}" "${names[@]}" "$loader" "$shell" -c 'cd / && exec "$@"' sh "$@"
}

fakechroot_library() {
  local files=${UDOCKER_LIB:-${UDOCKER_DIR:-${HOME:-}/.udocker}/lib} system release machine file
  if [ -n "${UDOCKER_FAKECHROOT_SO:-}" ]; then printf '%s' "$UDOCKER_FAKECHROOT_SO" && return; fi
  machine=$(uname -m)
  system=$(sed -n 's/^NAME="\{0,1\}\([A-Za-z]*\).*/\1/p' "$root/etc/os-release" 2>/dev/null)
  release=$(sed -n 's/^VERSION_ID="\{0,1\}\([0-9]*\).*/\1/p' "$root/etc/os-release" 2>/dev/null)
  for file in "$files/libfakechroot-$system-$release-${machine/aarch64/arm64}.so" "$files/libfakechroot.so" \
    /usr/lib/"$machine"-linux-gnu/fakechroot/libfakechroot.so /usr/lib64/fakechroot/libfakechroot.so /usr/lib/fakechroot/libfakechroot.so; do
    if [ -r "$file" ]; then printf '%s' "$file" && return; fi
  done
  return 1
}

image_loader() {
  local name
  for name in /lib64/ld-linux-x86-64.so.2 /lib/ld-linux-aarch64.so.1 /lib64/ld64.so.2; do
    within_image "$name"
    if [ -x "$root$REPLY" ]; then printf '%s' "$root$REPLY" && return; fi
  done
  return 1
}

library_folders() { # where the image's loader would look, from the image's root
  local pair
  for pair in ${image_environment[@]+"${image_environment[@]}"}; do
    case $pair in LD_LIBRARY_PATH=*) tr : '\n' <<<"${pair#*=}" ;; esac
  done
  { ldconfig -p -C "$root/etc/ld.so.cache" || /sbin/ldconfig -p -C "$root/etc/ld.so.cache"; } 2>/dev/null |
    sed -n 's/.* => \(.*\)\/[^\/]*$/\1/p' | awk '!seen[$0]++'
  printf '/%s\n' "lib/$(uname -m)-linux-gnu" "usr/lib/$(uname -m)-linux-gnu" lib64 usr/lib64 lib usr/lib
}

bound_sources() { # what is bound keeps its name of the node too, unless the image means something else by it
  local bind
  for bind in "${all_binds[@]}"; do [ -e "$root${bind%%:*}" ] || printf ':%s' "${bind%%:*}"; done
}

link_bind() { # SOURCE PATH; linked: path of a bind → its number among those so far, and its source
  local path=${2%:r[ow]} above outer
  [ -n "${linked[$path]+x}" ] || linked[$path]=${#linked[@]}:$1
  outer=$path above=${path%/*}
  while [ -n "$above" ]; do
    if [ -n "${linked[$above]+x}" ] && [ "${linked[$above]%%:*}" -lt "${linked[$outer]%%:*}" ]; then outer=$above; fi
    above=${above%/*}
  done
  if [ "$outer" != "$path" ]; then # inside what is bound before
    above=${linked[$outer]#*:}${path#"$outer"}
    [ -e "$above" ] || ln -s "$1" "$above" || fail "$engine cannot bind $path inside $outer"
    return
  fi
  within_image "$path"
  mkdir -p "$work/root${REPLY%/*}"
  [ -e "$work/root$REPLY" ] || ln -s "$1" "$work/root$REPLY"
}

# Through links a program that asks where its own file really lies, as most modules do, would be sent to the image, where
# nothing is bound: so the Python files beside what is bound for a module are copies, in folders of the root itself.
lay_code() { # laid: paths in the root that need nothing more
  local folder home entry name _
  [ -e "$private/deephpc/folders.list" ] || return 0
  while read -r _ folder; do
    [ -n "${folder%/*}" ] || continue
    within_image "${folder%/*}"
    home=$REPLY
    case $home in /opt | /mnt | /media | /home | /root | /var | /usr | /usr/local | /usr/share | /usr/src) continue ;; esac # all kinds of things lie there
    for entry in "$root$home"/*; do
      name=${entry##*/}
      case $entry in *.py) ;; *) [ -d "$entry" ] || continue ;; esac
      if [ -L "$entry" ] || [ -e "$work/root$home/$name" ]; then continue; fi
      { cp -rs --no-preserve=mode "$entry" "$work/root$home/" && (cd "$root$home" && copy_code "./$name" "$work/root$home"); } ||
        fail "$engine cannot lay out $home in $private"
      laid[$home/$name]=1
    done
  done <"$private/deephpc/folders.list"
}

copy_code() { # FOLDER|FILE DESTINATION
  find "$1" -type f -name '*.py' -exec cp --preserve=timestamps --parents --remove-destination -t "$2" {} +
}

link_folder() { # FOLDER: a folder of the root; what has no place in it yet is linked to the image's
  local folder=${1%/} entry name files=() links=()
  mkdir -p "$work/root$folder"
  for entry in "$root$folder"/* "$root$folder"/.[!.]* "$root$folder"/..?*; do
    name=$folder/${entry##*/}
    if [ -L "$work/root$name" ] || [ -n "${laid[$name]+x}" ]; then
      continue
    elif [ -L "$entry" ]; then
      links+=("$entry")
    elif [ -d "$work/root$name" ]; then
      link_folder "$name"
    elif [ -e "$entry" ]; then
      files+=("$entry")
    fi
  done
  [ ${#files[@]} -eq 0 ] || ln -s -t "$work/root$folder" -- "${files[@]}"
  [ ${#links[@]} -eq 0 ] || cp -P -t "$work/root$folder" -- "${links[@]}"
}

link_driver() {
  local name path
  mkdir -p "$private/deephpc/nvidia/lib"
  while read -r name path; do ln -sf "$path" "$private/deephpc/nvidia/lib/$name"; done < <(driver_libraries)
}
