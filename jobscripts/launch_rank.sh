#!/bin/bash
# One rank of a run, on its node and outside the image: a task of the job step that launch.sh starts.
#
#   launch_rank.sh PRIVATE WORDS…
#
# The first rank of a node makes it ready for all (container.sh --set-up); then each starts its program, keeps what it
# says in ranks/RANK.log, passes signals on, and ends with its exit code. The last of a node removes what was private there.
# shellcheck disable=SC2329  # traps call functions
set -u
private=$1
shift
place=$(cd "${BASH_SOURCE[0]%/*}" && pwd) || exit 1
ranks=${DEEPHPC_OUTPUT_DIR%/output}/ranks
# shellcheck source=/dev/null
. "$place/launch_layout.sh"
# shellcheck source=/dev/null
. "$place/listener.sh"
# shellcheck source=/dev/null
. "$place/proot_said.sh"
find_place
host=${SLURMD_NODENAME:-${HOSTNAME:-unknown}}
is_over=

failed() { # KIND REASON CODE: the first to write it is the one that failed; the others only follow
  (set -o noclobber && printf '%s\t%s\t%d\t%s\t%s\n' "$DEEPHPC_RANK" "$host" "$3" "$1" "$2" >"$ranks/failed") 2>/dev/null
}

leave() { # CODE
  local left=("$private"/done-*)
  if [ -n "$private" ] && [ "$DEEPHPC_NODE_RANK" != 0 ]; then # the first node's is the job script's
    : >"$private/done-$DEEPHPC_LOCAL_RANK"
    left=("$private"/done-*)
    [ "${#left[@]}" -lt "$DEEPHPC_LOCAL_SIZE" ] || { chmod -R u+w "$private"; rm -rf "$private"; }
  fi 2>/dev/null
  exit "$1"
}

# --- output: all of it in a file of the rank's own; in the log of the run what rank 0 says, or what all say -------------
log=$ranks/$DEEPHPC_RANK.log
printf -- '--- deephpc: rank %s of %s, attempt %s, on %s\n' "$DEEPHPC_RANK" "$DEEPHPC_SIZE" "${DEEPHPC_ATTEMPT:-1}" "$host" >>"$log"
if [ "$DEEPHPC_RANK" = 0 ] || [ "$DEEPHPC_LAUNCHER" = srun ]; then
  exec > >(
    trap '' TERM INT HUP USR1 USR2
    exec tee -a "$log"
  ) 2>&1
else
  exec >>"$log" 2>&1
fi

# --- the node, made ready once ------------------------------------------------------------------------------------------
set_up_node() {
  local reason
  if [ "$DEEPHPC_NODE_RANK" != 0 ]; then
    mkdir -m 700 "$private" || { failed setup "no private folder can be made at $private on $host" 1; exit 1; }
  fi
  : >"$private/.reason"
  if /bin/bash "$place/container.sh" --set-up "$private" 9>"$private/.reason"; then
    : >"$private/.ready"
  else
    reason=$(cat "$private/.reason")
    failed setup "${reason:-the set-up on $host ended early}" 1
    leave 1
  fi
}

await_node() {
  local seconds=$((SECONDS + 7200))
  while [ ! -e "$private/.ready" ]; do
    [ "$SECONDS" -lt "$seconds" ] || { failed setup "$host was not made ready within two hours" 1; leave 1; }
    sleep 0.1
  done
}

trap 'leave 143' TERM
if [ -n "$private" ]; then
  if [ "$DEEPHPC_LOCAL_RANK" = 0 ]; then set_up_node; else await_node; fi
fi

# --- the program --------------------------------------------------------------------------------------------------------
start() { # WORDS…: becomes the program
  local shim=$place/launch_rendezvous.py words=("$@")
  trap - TERM
  [ -z "$private" ] || shim=/deephpc/bin/launch_rendezvous.py
  case $DEEPHPC_LAUNCHER in horovod | torchrun) words=(python3 "$shim" "$DEEPHPC_LAUNCHER" "$@") ;; esac
  if [ -n "$private" ]; then
    exec /bin/bash "$place/container.sh" --rank "$private" "${words[@]}"
  else
    exec "${words[@]}"
  fi
}

# shellcheck disable=SC2034  # listener.sh reads it
noted_in=$private/deephpc/pid-$DEEPHPC_LOCAL_RANK

pass_on() { # SIGNAL
  interrupted=yes
  if [ "$1" = TERM ]; then
    [ -z "$is_over" ] || return 0
    is_over=yes
    end_program
    [ ! -e "$ranks/failed" ] || end_soon &
  elif ! tell "$1" && [ "$1" = USR1 ]; then
    remind >/dev/null 2>&1 &
  fi
}

remind() { # a program that was still loading when its end came near is told as soon as it listens
  until sleep 2; [ ! -d "/proc/$program" ] || tell USR1; do :; done
}

end_soon() { # another rank has failed: there is nothing left to save
  trap - TERM
  sleep 3
  kill -KILL "$(own_process)" "$program" 2>/dev/null
}

start "$@" </dev/null &
program=$!
trap 'pass_on TERM' TERM INT
trap 'pass_on USR1' USR1
trap 'pass_on USR2' USR2
while :; do
  interrupted=
  wait "$program" 2>/dev/null # bash would say "Killed"
  code=$?
  [ -n "$interrupted" ] || break
done
trap '' TERM USR1 USR2
# 75 asks to be continued: as a failure it would end ranks that still write their checkpoint, and what befalls those
# that miss it afterwards is no failure of theirs
if [ "$code" -eq 75 ] && [ ! -e "$ranks/failed" ]; then : >"$ranks/continue"; fi
[ ! -e "$ranks/continue" ] || leave 0
if [ "$code" -ne 0 ] && [ -z "$is_over" ]; then
  [ -z "$private" ] || proot_said "$private"
  failed program '' "$code"
fi
leave "$code"
