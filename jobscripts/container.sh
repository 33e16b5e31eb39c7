#!/bin/bash
# Runs a program in its image: on the node, outside the image, after the job script has loaded modules and variables.
#
#   container.sh PRIVATE WORDS…        run the words inside; the streams and the exit code are the program's
#   container.sh PRIVATE               only make the image ready for its engine (a login node, or a job of its own)
#   container.sh --set-up PRIVATE      do all that comes before the program, once on a node for all its ranks
#   container.sh --rank PRIVATE WORDS… run the words of one rank inside, on a node that was set up so
#
# PRIVATE is an empty folder of ours (0700) on this node. This file lies in RUN/container beside facts.sh, which tells
# what was decided, and the file of the engine, which defines engine_set_up and engine_exec. Descriptor 9, where it is
# open, takes the reason when something fails before the program starts. Bash 4.2 and coreutils are all it needs.
# shellcheck disable=SC2154  # set by facts.sh
set -u
verb=
case $1 in --*) verb=${1#--} && shift ;; esac
private=$1
shift
place=$(cd "${BASH_SOURCE[0]%/*}" && pwd) || exit 1

fail() { # REASON
  printf 'deephpc: %s\n' "$1" >&2
  { printf '%s' "$1" >/dev/fd/9; } 2>/dev/null
  exit 1
}
note() { printf 'deephpc: %s\n' "$1" >&2; }

locked() { # FILE COMMAND…; the lock goes with the process that holds it, wherever the file system knows flock(2)
  local file=$1 holder status
  shift
  if [ -e "$file" ] && [ ! -w "$file" ]; then # a colleague's: who may read it may lock it
    exec {holder}<"$file" || fail "cannot read $file"
  else
    exec {holder}>"$file" || fail "cannot write $file"
  fi
  flock -w 3600 "$holder" 2>/dev/null || note "no lock on $file; going on without"
  "$@"
  status=$?
  exec {holder}>&-
  return "$status"
}

exec {kept}<"$private" && flock -s -n "$kept" # the job script of a later job removes what nobody holds
binds=() gpu=''
# shellcheck source=/dev/null  # rendered for this run
. "$place/facts.sh"
# shellcheck source=/dev/null
. "$place/$engine_script"
command -v "$engine_command" >/dev/null 2>&1 ||
  fail "$engine_command is not on $(uname -n); choose another --engine, or let \`deephpc site probe --nodes\` look again"
mkdir -p "$private/tmp" "$private/var_tmp" "$private/home" "$private/deephpc/bin" ||
  fail "cannot write in $private"
chmod 1777 "$private/tmp" "$private/var_tmp"

if [ $# -eq 0 ] && [ -z "$verb" ]; then
  engine_set_up
  exit
fi

# shellcheck disable=SC2034  # events.sh reads them
job_id=${SLURM_ARRAY_JOB_ID:-${SLURM_JOB_ID:-${DEEPHPC_LOCAL_JOB_ID:-none}}}
host=${SLURMD_NODENAME:-${HOSTNAME:-unknown}}
# shellcheck disable=SC2034
attempt=${DEEPHPC_ATTEMPT:-1}
here=${DEEPHPC_OUTPUT_DIR%/output}
# shellcheck source=/dev/null
. "$place/events.sh"
# shellcheck source=/dev/null
. "$place/devices.sh"

# --- the environment inside: the image's, then the run's; nothing else of this node, and never on a command line --------
own_names=' UID EUID PPID GROUPS RANDOM SRANDOM SECONDS LINENO HISTCMD DIRSTACK FUNCNAME EPOCHSECONDS EPOCHREALTIME IFS OPTIND _ '
exported() { # NAME VALUE
  if ! [[ $1 =~ ^[A-Za-z_][A-Za-z0-9_]*$ ]] || [[ $own_names == *" $1 "* ]] || [[ $1 == BASH* ]] || [[ $1 == SHELLOPTS ]]; then
    [ -z "$1" ] || by_env+=("$1=$2") # no shell can set it: env(1) does
    return 0
  fi
  if [ "$1" = LD_LIBRARY_PATH ]; then # the engine's own folders of GPU libraries stay in front
    # shellcheck disable=SC2016  # read inside
    printf 'LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}'
  else
    printf '%s=' "$1"
  fi
  printf "'%s'\nexport %s\n" "${2//\'/\'\\\'\'}" "$1"
}

environment() {
  local pair name by_env=()
  exported LANG C.UTF-8
  for pair in ${image_environment[@]+"${image_environment[@]}"}; do
    exported "${pair%%=*}" "${pair#*=}"
    case $pair in HOME=/*) exported deephpc_image_home "${pair#*=}" ;; esac
  done
  exported HOME /deephpc/home
  exported TMPDIR /tmp
  while IFS= read -r name; do
    case $name in
      SLURM_JWT | DEEPHPC_PRIVATE) ;;
      DEEPHPC_* | SLURM_* | SLURMD_* | PMI_* | PMIX_* | PYTHONUNBUFFERED | OMP_NUM_THREADS | TZ) exported "$name" "${!name}" ;;
    esac
  done < <(compgen -e)
  for name in $(device_variables) ${variables[@]+"${variables[@]}"}; do
    [ -z "${!name+set}" ] || exported "$name" "${!name}"
  done
  [ ! -e "$run_folder/secrets/env.sh" ] || asked
  exported deephpc_workdir "$workdir"
  if [ ${#by_env[@]} -gt 0 ]; then
    # shellcheck disable=SC2016  # read inside, where `$@` are the words of the program
    printf 'case $deephpc_verb in run | rank) set -- env'
    for pair in "${by_env[@]}"; do printf " '%s'" "${pair//\'/\'\\\'\'}"; done
    # shellcheck disable=SC2016
    printf ' "$@" ;; esac\n'
  fi
}

asked() ( # --env is for the program: in a shell of its own, so that a PATH or LD_PRELOAD of that kind misses the engine
  # shellcheck source=/dev/null
  . "$run_folder/secrets/env.sh"
  for name in ${variables[@]+"${variables[@]}"}; do
    [ -z "${!name+set}" ] || exported "$name" "${!name}"
  done
)

# --- a module's image may be written everywhere, as in Docker, privately to the job ---------------------------------------
# `layer` says by what: a folder of this node's disk laid over the image (overlay), a tmpfs laid over it (tmpfs; its size is
# the site's, and counts as the job's memory) with copies of the module's own folders, or such copies alone (empty). What
# works here is found by trying, in this order; each rank has a layer of its own: no folder can be the upper one of two mounts.
layer=''
layer_place() { # the folder of this rank's layer
  printf '%s/layer%s' "$private" "${DEEPHPC_LOCAL_RANK:+-$DEEPHPC_LOCAL_RANK}"
}

layer_words() { # of Apptainer: adds to `words`; /tmp belongs to the layer, so that files may be moved between the two
  case $layer in
    overlay) mkdir -p "$(layer_place)" && words+=(--overlay "$(layer_place)") && return ;;
    tmpfs) words+=(--writable-tmpfs) ;;
  esac
  [ -n "${looks_at_tmp:-}" ] || words+=(--bind "$private/tmp:/tmp" --bind "$private/var_tmp:/var/tmp")
}

in_full() { # SRC[:DST][:ro] → SRC:DST[:ro]
  case $1 in
    *:/*) printf '%s' "$1" ;;
    *) printf '%s:%s' "${1%%:*}" "$1" ;;
  esac
}

make_private() {
  local script
  mkdir -p "$here/output" "$here/checkpoints" "$DEEPHPC_DATA_DIR"
  for script in "$place"/{inside,preflight}.sh "$place"/deepaas_*.py "$place"/launch_*.py "$place"/serve_*.sh; do
    [ ! -e "$script" ] || cp "$script" "$private/deephpc/bin/" || fail "cannot write in $private"
  done
  (umask 077 && environment >"$private/deephpc/env.sh") || fail "cannot write in $private"
}

stage_image() { # copy the image to this node's own disk, once for all its ranks, and use the copy
  local copy=$private/image source=$prepared
  if [ -d "$prepared" ]; then
    source=$private/image.tar copy=$private/image.tar.sent
    tar -C "$prepared" -cf "$source" . || fail "cannot pack $prepared for this node"
  fi
  if [ "${SLURM_JOB_NUM_NODES:-}" = 1 ] && command -v sbcast >/dev/null 2>&1; then
    sbcast --force "$source" "$copy" || fail "sbcast could not copy the image to $private on the nodes"
  else
    cp "$source" "$copy" || fail "cannot copy the image to $private"
  fi
  if [ -d "$prepared" ]; then
    { mkdir "$private/image" && tar -C "$private/image" -xf "$copy" && rm -f "$source" "$copy"; } || fail "cannot unpack the image in $private"
  fi
  prepared=$private/image
}

# --- a module's own folders, as /srv/NAME/{data,models}: writable, and with what the image has in them -----------------------
prepare_inside() { # one look around from inside, before anything is started; prints one line; in a shell of its own: `binds` is that one's
  local copied=no looks_at_tmp=yes # the engines show the image's own /tmp, the job's lies elsewhere
  if [ "$is_module" = yes ]; then
    if [ "$layer" = overlay ]; then copied=listed; else copied=${engine_links:+links}; fi
    copied=${copied:-yes}
  fi
  binds+=("$private/tmp:/deephpc/tmp" "$private/var_tmp:/deephpc/var_tmp")
  (engine_exec /bin/sh /deephpc/bin/inside.sh prepare "$gpus_wanted" "${gpu:-$gpu_vendor}" "$copied" "$models_draft" \
    ${module_folders[@]+"${module_folders[@]}"}) </dev/null 2>"$private/prepare.err" 9>&-
}

declare -A copies=()
show_data() { # FOLDER KEPT: binds the run's data into a module's own data folder, beside what the image has there
  local path pairs=() sources=()
  if [ -d "$module_data" ]; then
    if [ "$(find "$module_data/" -mindepth 1 -maxdepth 1 -printf . | wc -c)" -gt 100 ]; then # too many to bind one by one
      binds+=("$module_data:$1:ro")
      return
    fi
    for path in "$module_data"/* "$module_data"/.[!.]*; do [ ! -e "$path" ] || pairs+=("${path##*/}=$path"); done
  else
    pairs=("${data_sets[@]}")
  fi
  for path in ${pairs[@]+"${pairs[@]}"}; do
    case $path in
      *[:,$'\n']*) note "${path#*=} cannot be bound: it has a colon, a comma or a line break" ;;
      *) sources+=("${path#*=}") ;;
    esac
  done
  copy_settings ${sources[@]+"${sources[@]}"}
  for path in ${pairs[@]+"${pairs[@]}"}; do
    case $path in *[:,$'\n']*) continue ;; esac
    [ -n "${engine_links:-}" ] || [ -z "$2" ] || place_for_bind "${path#*=}" "$2/${path%%=*}"
    show_set "${path#*=}" "$1/${path%%=*}"
  done
}

show_set() { # SOURCE PATH
  local file
  if [ -n "${copies[$1]+x}" ]; then binds+=("${copies[$1]}:$2") && return; fi
  binds+=("$1:$2:ro")
  [ -d "$1" ] && [ -z "${engine_links:-}" ] || return 0
  copy_settings "$1"/*
  for file in "$1"/*; do [ -z "${copies[$file]+x}" ] || binds+=("${copies[$file]}:$2/${file##*/}"); done
}

copy_settings() { # FILE…: small ones beside data are settings or names, as data.yaml, which modules complete: `copies` are the job's own
  local file small=() place
  [ $# -gt 0 ] && [ $# -le 100 ] || return 0
  while IFS= read -r file; do small+=("$file"); done < <(find -L "$@" -maxdepth 0 -type f -size -129 -print 2>/dev/null)
  [ ${#small[@]} -le 20 ] || return 0 # these are the data
  for file in ${small[@]+"${small[@]}"}; do
    case $file in *[:,]*) continue ;; esac
    place=$private/sets/${#copies[@]}
    { mkdir -p "$private/sets" && cp -L -p "$file" "$place" && chmod u+w "$place"; } || fail "cannot write in $private"
    copies[$file]=$place
  done
}

place_for_bind() { # SOURCE PATH
  if [ -d "$1" ]; then
    [ -d "$2" ] || { rm -f "$2" && mkdir -p "$2"; }
  else
    [ -f "$2" ] || { rm -rf "$2" && : >>"$2"; }
  fi || fail "cannot write in ${2%/*}"
}

keep_folder() { # DRAFT KEPT: taken by whichever task or node comes first, and whole when it is seen
  if [ ! -d "$2" ] || [ -n "$(ls -A "$1")" ]; then
    mv -T "$1" "$2" 2>/dev/null # takes the place of an empty folder at once, and of no other
  fi
  rm -rf "$1" # another node may be binding what was kept: an empty draft leaves it as it is
  [ -d "$2" ] || fail "cannot write in ${2%/*}"
}

bind_folders() { # a module's data and models: what it writes there goes to the run, or is the job's own
  local role folder kept shown=''
  while read -r role folder; do
    kept=$private/deephpc/folders$folder
    case $role in
      models)
        if [ -n "$models" ]; then
          if ! is_asked "$folder"; then
            show_models
            show_asked "$folder" "$kept"
          fi
          continue
        elif [ "$keeps_folders" = yes ]; then
          if [ -d "$models_draft" ]; then
            [ -z "$(ls -A "$models_draft")" ] || ls -A "$models_draft" >"$here/shipped-models.txt" # what is not the training's
            keep_folder "$models_draft" "$here/output/models"
          fi
          kept=$here/output/models
          mkdir -p "$kept"
        elif [ "$layer" = overlay ]; then
          continue
        fi
        ;;
      data)
        if [ "$layer" = overlay ]; then
          kept=
        elif [ "$keeps_folders" = yes ] && { [ -z "$shown" ] || [ -z "$(ls -A "$kept" 2>/dev/null)" ]; }; then # one has what is kept
          [ -z "$(ls -A "$kept" 2>/dev/null)" ] || shown=$folder
          if [ ${#data_sets[@]} -gt 0 ]; then kept=$here/module-data; else kept=$DEEPHPC_DATA_DIR; fi
          [ -n "$(ls -A "$kept" 2>/dev/null)" ] || { cp -R -p "$private/deephpc/folders$folder" "$kept.$host.$$.part" && keep_folder "$kept.$host.$$.part" "$kept"; }
        fi
        ;;
    esac
    if is_asked "$folder"; then # the user's own lies there
      [ "$role:$keeps_folders" != models:yes ] || note "what is bound over $folder takes the models that are written there: they do not go to the run's output"
      continue
    fi
    [ -z "$kept" ] || binds+=("$kept:$folder")
    if [ "$role" = data ] && [ ${#data_sets[@]} -gt 0 ]; then show_data "$folder" "$kept"; fi
    show_asked "$folder" "$kept"
  done <"$private/deephpc/folders.list"
}

open_workdir() { # udocker P: what a module writes beside what its working folder has in the image is the job's own
  local place=$private/deephpc/folders$workdir seen entry bind path taken=' ' members=()
  case $engine:$workdir/ in
    *:/ | *:/tmp/* | *:/var/tmp/* | *:/deephpc/* | *:*/../*) return ;;
    udocker-p*) is_asked "$workdir" && return ;;
    *) return ;;
  esac
  seen=$(engine_folder "$workdir") && [ "$(find "$seen" -mindepth 1 -maxdepth 1 -printf . | wc -c)" -le 100 ] || return 0
  for bind in ${binds[@]+"${binds[@]}"}; do
    path=${bind#*:}
    path=${path%%:*}
    case $workdir/ in "$path"/*) return ;; esac # a folder of the job's already
    taken="$taken$path "
  done
  mkdir -p "$place" || fail "cannot write in $private"
  for entry in "$seen"/* "$seen"/.[!.]* "$seen"/..?*; do
    path=$workdir/${entry##*/}
    case $taken in *" $path "*) continue ;; esac
    if is_asked "$path"; then continue; fi
    if [ -L "$entry" ] || { [ -f "$entry" ] && [ -n "$(find "$entry" -size -8193)" ]; }; then
      cp -P -p "$entry" "$place/" || fail "cannot write in $private"
      [ -L "$entry" ] || chmod u+w "$place/${entry##*/}"
    elif [ -e "$entry" ]; then
      place_for_bind "$entry" "$place/${entry##*/}"
      members+=("$entry:$path")
    fi
  done
  binds=("$place:$workdir" ${members[@]+"${members[@]}"} ${binds[@]+"${binds[@]}"})
}

is_asked() { # FOLDER: is it, or one above it, bound by the user; or by the site, where a variable of the user's leads there
  local bind
  for bind in ${asked_binds[@]+"${asked_binds[@]}"}; do
    bind=${bind#*:}
    case $1/ in "${bind%%:*}"/*) return 0 ;; esac
  done
  case $1 in /srv/*) return 1 ;; esac
  for bind in ${usual_binds[@]+"${usual_binds[@]}"}; do
    [ -e "${bind%%:*}" ] || continue
    bind=$(in_full "$bind")
    bind=${bind#*:}
    case $1/ in "${bind%%:*}"/*) return 0 ;; esac
  done
  return 1
}

show_asked() { # FOLDER KEPT: what the user binds below a folder lies over what is bound there, and has a place in it
  local bind inside
  [ -n "$2" ] || return 0
  for bind in ${asked_binds[@]+"${asked_binds[@]}"}; do
    inside=${bind#*:}
    inside=${inside%%:*}
    case $inside in
      "$1"/?*)
        [ -z "${engine_links:-}" ] || fail "$engine shows nothing at $inside, below a folder that the module writes to"
        mkdir -p "$(dirname "$2${inside#"$1"}")" && place_for_bind "${bind%%:*}" "$2${inside#"$1"}"
        binds+=("$bind")
        ;;
    esac
  done
}

show_models() { # the models of a run stay as they are: what a module writes beside them is the job's own
  local view=$private/deephpc/folders$folder file target
  [ -z "${engine_links:-}" ] || view=$here/module-models # where links stand for binds, nothing below /tmp is found by its real path
  binds+=("$view:$folder")
  case $engine in # without name spaces nothing holds a program back from writing into what is bound
    udocker-p* | udocker-f)
      { rm -rf "$view" && mkdir -p "${view%/*}" && cp -R -L "$models" "$view"; } || fail "cannot copy $models to $private"
      chmod -R u+w "$view"
      return
      ;;
  esac
  { rm -rf "$view" && mkdir -p "$view"; } || fail "cannot write in $private"
  if [ "$(find -L "$models" -type f | head -n 101 | wc -l)" -gt 100 ]; then # too many to bind one by one
    cp -rs "$models/." "$view/" || fail "cannot write in $private"
    binds+=("$models:$models:ro")
    while IFS= read -r file; do # links out of the folder
      target=$(realpath "$models/$file") || continue
      case $target in "$models"/*) continue ;; esac
      ln -sfT "$target" "$view/$file" && binds+=("$target:$target:ro")
    done < <(cd "$models" && find . -type l -printf '%P\n')
    return
  fi
  while IFS= read -r file; do # each file where it is, in folders of the job's: modules check where a file really lies
    case $file in
      *[:,]*) mkdir -p "$(dirname "$view/$file")" && cp -L "$models/$file" "$view/$file" ;;
      *) mkdir -p "$(dirname "$view/$file")" && : >>"$view/$file" && binds+=("$models/$file:$folder/$file:ro") ;;
    esac || fail "cannot write in $private"
  done < <(cd "$models" && find -L . -type f | sed 's|^\./||')
  (cd "$models" && find -L . -type d) | while IFS= read -r file; do mkdir -p "$view/$file"; done
}

look_around() {
  local line status reason
  models_draft='' # where the image's own models go, before a training adds to them
  if [ "$keeps_folders" = yes ] && [ -z "$(ls -A "$here/output/models" 2>/dev/null)" ]; then models_draft=$here/output/.models.$host.$$.part; fi
  for layer in ${engine_layers:-} ''; do
    line=$(prepare_inside)
    status=$?
    case $status in 0 | 42 | 137) break ;; esac # it started, whatever is missing inside
  done
  [ "$is_module" != yes ] || line="$line layer=${layer:-none}"
  reason=$(tail -n 1 "$private/prepare.err")
  event container ",\"engine\":\"$(text "$engine")\",\"image\":\"$(text "$image_digest")\",\"sees\":\"$(text "$line")\",\"devices\":\"$(text "${gpu_facts:-}")\""
  [ "$status" -eq 0 ] || [ "$status" -eq 42 ] || cat "$private/prepare.err" >&2
  case $status in
    0) note "$engine: $line" && say_large ;;
    42) fail "$reason" ;; # preflight.sh says what is missing
    137) fail "the job's memory was used up while the image was made ready on $host: ask for more --mem" ;;
    *) fail "the image does not start in $engine on $host (it must have /bin/sh): ${reason:-exit code $status}" ;;
  esac
}

say_large() { # what the look around did not copy
  local size folder
  [ -s "$private/deephpc/large.list" ] || return 0
  while read -r size folder; do
    note "the image has $size MiB in its $folder, and a job gets a copy of up to 64 MiB: its $folder is empty; add what the program needs with --bind FILE:$folder/NAME"
  done <"$private/deephpc/large.list"
}

set_up() { # all that comes before the program
  local bind usual=()
  make_private
  [ "$stages_image" != yes ] || [ ! -e "$prepared" ] || stage_image
  engine_set_up
  [ "$stages_image" != yes ] || [ "$prepared" = "$private/image" ] || stage_image
  for bind in ${asked_binds[@]+"${asked_binds[@]}"}; do
    [ -e "${bind%%:*}" ] || fail "--bind ${bind%%:*}: there is no such file or folder on $host"
  done
  binds+=("$private/deephpc:/deephpc" "$private/home:/deephpc/home" "$run_folder:$run_folder")
  find_devices
  look_around # before the user's own are bound: nothing of theirs is looked at, or copied
  if [ "$is_module" = yes ]; then bind_folders && open_workdir; fi
  for bind in ${usual_binds[@]+"${usual_binds[@]}"}; do [ ! -e "${bind%%:*}" ] || usual+=("$(in_full "$bind")"); done
  binds=(${asked_binds[@]+"${asked_binds[@]}"} ${usual[@]+"${usual[@]}"} "${binds[@]}") # what is the run's lies over them
}

as_rank() { # WORDS…: the ranks of a node share all but what the scheduler tells each of them
  local file=env-$DEEPHPC_LOCAL_RANK.sh
  # shellcheck source=/dev/null
  . "$private/state.sh" || fail "$private was not made ready for its ranks"
  (umask 077 && environment >"$private/deephpc/$file") || fail "cannot write in $private"
  rm -f "$private/deephpc/env.sh"
  engine_exec /bin/sh /deephpc/bin/inside.sh rank "$DEEPHPC_LOCAL_RANK" "$@"
}

if [ "$verb" = rank ]; then
  as_rank "$@"
elif [ "$verb" = set-up ]; then
  [ "$DEEPHPC_NODE_RANK" = 0 ] || event() { :; } # one node speaks for all
  set_up
  declare -p binds gpu prepared device_files layer >"$private/state.sh"
else
  set_up
  { : >/dev/fd/9; } 2>/dev/null # from here on it is the program's end
  engine_exec /bin/sh /deephpc/bin/inside.sh run "$@" 9>&-
fi
