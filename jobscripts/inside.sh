#!/bin/sh
# The first process of ours inside an image. POSIX sh and nothing else is assumed there.
#
#   inside.sh run WORDS…                     become the program, with the environment and the folder of the run
#   inside.sh rank N WORDS…                  the same as one rank of several on this node, each with an environment of its own
#   inside.sh prepare GPUS VENDOR FOLDERS MODELS [ROLE PATH]…
#     print one line about what can be seen from here (preflight.sh); of a module (FOLDERS is not `no`) list its folders
#     of data and models (`data PATH`, `models PATH`: such as it named when it was asked), copy what it ships there where
#     nothing else makes it writable (`yes`; its own folder too, but not with `links`), and its models to MODELS; the image's
#     own /tmp and /var/tmp are seen here, the job's at /deephpc/tmp and /deephpc/var_tmp, into which small contents of the
#     former are copied
# shellcheck disable=SC2154  # set by env.sh
deephpc_verb=$1 deephpc_number=
shift
if [ "$deephpc_verb" = rank ]; then deephpc_number=-$1 && shift; fi
# shellcheck source=/dev/null
. "/deephpc/env$deephpc_number.sh"
# shellcheck source=/dev/null
[ ! -r /deephpc/fabric.env ] || . /deephpc/fabric.env # preflight.sh: the image has no verbs of its own, the node's fit
[ "$deephpc_verb" = prepare ] || rm -f "/deephpc/env$deephpc_number.sh" # what is secret in it lives no longer than needed
[ ! -d /deephpc/nvidia/bin ] || PATH=$PATH:/deephpc/nvidia/bin # where udocker.sh puts the node's nvidia-smi

# Modules of the catalogue lie in /srv/NAME, or /srv, and write to data and models there, or where these variables say (the
# templates of AI4OS: api/config.py of ai4os-hub/ai4os-yolov8-torch, mods/config.py of ai4os-hub/mods).
list_folders() { # FOLDERS MODELS [ROLE PATH]…
  how=$1 draft=$2
  shift 2
  : >/deephpc/folders.list
  seen='' listed=''
  for module in /srv /srv/*/ "${APP_INPUT_OUTPUT_BASE_DIR:-}"; do
    module=${module%/} is_one=
    case "$seen " in *" $module "*) continue ;; esac
    [ -n "$module" ] && [ ! -L "$module" ] || continue # a link names a module again
    seen="$seen $module"
    [ "$module" != "${APP_INPUT_OUTPUT_BASE_DIR:-}" ] || is_one=yes
    [ "$module" = /srv ] || for sign in setup.py setup.cfg pyproject.toml; do [ ! -e "$module/$sign" ] || is_one=yes; done
    for sign in data models; do [ ! -d "$module/$sign" ] || is_one=yes; done
    [ -n "$is_one" ] || continue
    [ "$how" != yes ] || [ "$module" = /srv ] || copy_home "$module"
    for role in data models; do
      [ "$module" != /srv ] || [ -d "/srv/$role" ] || continue
      list_folder "$role" "$module/$role" "$how" "$draft"
    done
  done
  list_folder data "${DATA_PATH:-}" "$how" "$draft"
  list_folder models "${MODELS_PATH:-}" "$how" "$draft"
  for named; do
    if lies_apart "${named#* }"; then list_folder "${named%% *}" "${named#* }" "$how" "$draft"; fi
  done
}

lies_apart() { # FOLDER: neither in one that is listed, nor around it
  while read -r role folder; do
    [ "$role" != home ] || continue
    case $1/ in "$folder"/*) return 1 ;; esac
    case $folder/ in "${1%/}"/*) return 1 ;; esac
  done </deephpc/folders.list
}

list_folder() { # ROLE FOLDER FOLDERS MODELS
  case $2 in / | /deephpc/* | */../* | */..) return 0 ;; /*) ;; *) return 0 ;; esac
  case "$listed" in *"|$1 ${2%/}|"*) return 0 ;; esac
  listed="$listed|$1 ${2%/}|"
  printf '%s %s\n' "$1" "${2%/}" >>/deephpc/folders.list
  if [ "$1" = models ] && [ -n "$4" ]; then
    copy_folder "$2" "$4"
  elif [ "$3" != listed ]; then
    copy_folder "$2" "/deephpc/folders${2%/}"
  fi
}

copy_home() { # FOLDER: a module's own, all but data and models, where its copy costs little
  [ "$(find "$1" -name .git -prune -o -path "$1/data" -prune -o -path "$1/models" -prune -o -type f -print | head -n 2001 | wc -l)" -le 2000 ] || return 0
  [ -z "$(find "$1" -name .git -prune -o -path "$1/data" -prune -o -path "$1/models" -prune -o -type f -size +8192 -print | head -n 1)" ] || return 0
  mkdir -p "/deephpc/folders$1"
  for entry in "$1"/* "$1"/.[!.]*; do
    case ${entry##*/} in
      .git | data | models) [ ! -d "$entry" ] || mkdir -p "/deephpc/folders$entry" ;;
      *) [ ! -e "$entry" ] || cp -R -p "$entry" "/deephpc/folders$1/" || return 0 ;;
    esac
  done
  chmod -R u+w "/deephpc/folders$1"
  printf 'home %s\n' "$1" >>/deephpc/folders.list
}

copy_folder() { # FOLDER PLACE
  mkdir -p "$2"
  [ -d "$1" ] || return 0
  copy_content "$1" "$2" || { printf '%s cannot be copied\n' "$1" >&2; exit 1; }
  chmod -R u+w "$2"
}

copy_content() { # FOLDER PLACE; both may be links in udocker F, where `/.` does not lead through them
  place=$(cd "$2" && pwd -P) && (cd "$1" && cp -R -p . "$place/")
}

show_home() { # settings, weights and the like that the image has in its home, below .cache say, are found in ours
  [ -r "$1" ] && [ "$1" != /deephpc/home ] || return 0
  for entry in "$1"/.[!.]*; do
    name=${entry##*/}
    [ -r "$entry" ] && [ ! -e "/deephpc/home/$name" ] || continue
    if [ ! -L "$entry" ] && is_small "$entry"; then # a copy: programs change their settings
      if cp -R -p "$entry" /deephpc/home/; then chmod -R u+w "/deephpc/home/$name" && continue; fi
      rm -rf "/deephpc/home/$name"
    fi
    if [ ! -d "$entry" ] || has_many "$entry"; then
      ln -s "$entry" "/deephpc/home/$name"
      continue
    fi
    (cd "$1" && find "$name") | while IFS= read -r path; do # folders are ours: caches are written to, beside what is there
      if [ -d "$1/$path" ] && [ ! -L "$1/$path" ]; then mkdir "/deephpc/home/$path"; else ln -s "$1/$path" "/deephpc/home/$path"; fi
    done
  done
}

has_many() { # FOLDER
  [ "$(find "$1" | head -n 301 | wc -l)" -gt 300 ]
}

is_small() { # PATH
  size=$(du -sk "$1") && [ "${size%%[!0-9]*}" -le 4096 ] && ! has_many "$1" && [ -z "$(find "$1" -type l | head -n 1)" ] # a link may lead out of it
}

# What an image has in its folders for temporary files (weights, folders of sockets) is found there in a job too, whose own lie
# over them.
show_tmp() { # FOLDER PLACE
  case ${DEEPHPC_OUTPUT_DIR:-}/ in "$1"/*) return 0 ;; esac # the run itself is bound there
  has_members "$1" || return 0
  size=$(cd "$1" && du -sk .)
  size=${size%%[!0-9]*}
  if [ "${size:-0}" -gt 65536 ]; then
    printf '%d %s\n' "$((size / 1024))" "$1" >>/deephpc/large.list
    return 0
  fi
  copy_content "$1" "$2" # all but what may not be read
  (cd "$2" && chmod -R u+rwX . && chmod 1777 .)
}

has_members() { # FOLDER
  for entry in "$1"/* "$1"/.[!.]* "$1"/..?*; do
    if [ -e "$entry" ] || [ -L "$entry" ]; then return 0; fi
  done
  return 1
}

if [ "$deephpc_verb" = prepare ]; then
  TMPDIR=/deephpc/tmp # the image's own may be closed to writing
  export TMPDIR
  if [ "$3" != listed ]; then # the image is not written to
    : >/deephpc/large.list
    show_tmp /tmp /deephpc/tmp
    show_tmp /var/tmp /deephpc/var_tmp
  fi 2>/dev/null
  for home in "${deephpc_image_home:-/root}" /root; do show_home "$home"; done 2>/dev/null
  gpus=$1 vendor=$2
  shift 2
  [ "$1" = no ] || list_folders "$@"
  exec /bin/sh /deephpc/bin/preflight.sh "$gpus" "$vendor"
fi

printf '%d\n' "$$" >"/deephpc/pid$deephpc_number" # the job script passes signals on to it
if ! cd "$deephpc_workdir" 2>/dev/null && ! { mkdir -p "$deephpc_workdir" && cd "$deephpc_workdir"; } 2>/dev/null; then
  printf 'deephpc: the image has no folder %s, its WORKDIR: starting in an empty one\n' "$deephpc_workdir" >&2
  cd /deephpc/home || exit 125
fi
unset deephpc_workdir deephpc_image_home deephpc_verb deephpc_number
exec "$@"
