#!/bin/sh
# The first process of ours inside an image. POSIX sh and nothing else is assumed there.
#
#   inside.sh run WORDS…                     become the program, with the environment and the folder of the run
#   inside.sh rank N WORDS…                  the same as one rank of several on this node, each with an environment of its own
#   inside.sh prepare GPUS VENDOR IS_MODULE  print one line about what can be seen from here (preflight.sh); of a module,
#                                            copy what it ships in the folders that will be writable
# shellcheck disable=SC2154  # set by env.sh
verb=$1 number=
shift
if [ "$verb" = rank ]; then number=-$1 && shift; fi
# shellcheck source=/dev/null
. "/deephpc/env$number.sh"
# shellcheck source=/dev/null
[ ! -r /deephpc/fabric.env ] || . /deephpc/fabric.env # preflight.sh: the image has no verbs of its own, the node's fit
[ "$verb" = prepare ] || rm -f "/deephpc/env$number.sh" # what is secret in it lives no longer than needed
[ ! -d /deephpc/nvidia/bin ] || PATH=$PATH:/deephpc/nvidia/bin # where udocker.sh puts the node's nvidia-smi

is_bound() { # FOLDER: is it, or one above it, something that the user asked to see there
  while IFS= read -r place; do
    case $1/ in "$place"/*) return 0 ;; esac
  done </deephpc/folders.bound
  return 1
}

copy_folders() { # modules of the catalogue lie in /srv/NAME and write to data and models there, or where this variable says
  : >/deephpc/folders.list
  seen=
  for module in /srv/*/ "${APP_INPUT_OUTPUT_BASE_DIR:-}"; do
    module=${module%/} is_one=
    case "$seen " in *" $module "*) continue ;; esac
    [ -n "$module" ] || continue
    seen="$seen $module"
    [ "$module" != "${APP_INPUT_OUTPUT_BASE_DIR:-}" ] || is_one=yes
    for sign in setup.py setup.cfg pyproject.toml data models; do [ ! -e "$module/$sign" ] || is_one=yes; done
    [ -n "$is_one" ] || continue
    for folder in "$module/data" "$module/models"; do
      ! is_bound "$folder" || continue # the user's own lies there
      mkdir -p "/deephpc/folders$folder"
      if [ -d "$folder" ]; then
        cp -R -p "$folder/." "/deephpc/folders$folder/" || { printf '%s cannot be copied\n' "$folder" >&2; exit 1; }
        chmod -R u+w "/deephpc/folders$folder"
      fi
      printf '%s\n' "$folder" >>/deephpc/folders.list
    done
  done
}

show_home() { # weights and the like that the image has in its home, below .cache say, are found in ours
  [ -r "$1" ] && [ "$1" != /deephpc/home ] || return 0
  for entry in "$1"/.[!.]*; do
    name=${entry##*/}
    [ -r "$entry" ] && [ ! -e "/deephpc/home/$name" ] || continue
    if [ ! -d "$entry" ] || [ "$(find "$entry" | head -n 301 | wc -l)" -gt 300 ]; then
      ln -s "$entry" "/deephpc/home/$name"
      continue
    fi
    (cd "$1" && find "$name") | while IFS= read -r path; do # folders are ours: caches are written to, beside what is there
      if [ -d "$1/$path" ] && [ ! -L "$1/$path" ]; then mkdir "/deephpc/home/$path"; else ln -s "$1/$path" "/deephpc/home/$path"; fi
    done
  done
}

if [ "$verb" = prepare ]; then
  for home in "${deephpc_image_home:-/root}" /root; do show_home "$home"; done 2>/dev/null
  [ "$3" != yes ] || copy_folders
  exec /bin/sh /deephpc/bin/preflight.sh "$1" "$2"
fi

printf '%d\n' "$$" >"/deephpc/pid$number" # the job script passes signals on to it
cd "$deephpc_workdir" || exit 125
unset deephpc_workdir deephpc_image_home verb number
exec "$@"
