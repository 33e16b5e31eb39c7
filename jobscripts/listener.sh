# shellcheck shell=bash disable=SC2154  # noted_in and program are set where it is used
listener() { # the program's own process, which inside.sh notes in $noted_in, when it can be seen from here; else the engine's
  local noted parent
  read -r noted <"$noted_in" && parent=$noted
  while [ "${parent:-0}" -gt 1 ] && [ "$parent" != "$program" ]; do
    parent=$(sed 's/.*) [A-Za-z] //; s/ .*//' "/proc/$parent/stat") # field 4 of proc_pid_stat(5)
  done
  if [ "${parent:-0}" = "$program" ]; then printf '%d' "$noted"; else printf '%d' "$program"; fi
} 2>/dev/null
