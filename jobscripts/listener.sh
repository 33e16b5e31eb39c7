# shellcheck shell=bash disable=SC2154  # noted_in and program are set where it is used
# Whom a signal is for: part of the job script, and sourced by launch_rank.sh. What was started as the program may be an
# engine, a shell that waits for another, or a starter of several: they have no handler, and would die of what those below them
# want to hear. So a process with a handler of its own is told, and none below it, since it may have handed it on.
own_process() { # the program's own process, which inside.sh notes in $noted_in, when it can be seen from here; else the engine's
  local noted parent
  read -r noted <"$noted_in" && parent=$noted
  while [ "${parent:-0}" -gt 1 ] && [ "$parent" != "$program" ]; do
    parent=$(sed 's/.*) [A-Za-z] //; s/ .*//' "/proc/$parent/stat") # field 4 of proc_pid_stat(5)
  done
  if [ "${parent:-0}" = "$program" ]; then printf '%d' "$noted"; else printf '%d' "$program"; fi
} 2>/dev/null

children_of() { cat "/proc/$1/task/"*/children; } 2>/dev/null

is_shell() { # PID
  case $(readlink "/proc/$1/exe") in */bash | */sh | */dash | */busybox | */ksh* | */zsh) ;; *) return 1 ;; esac
}

is_srun() { [ "$(cat "/proc/$1/comm")" = srun ]; } 2>/dev/null

has_handler() { # PID SIGNAL: proc_pid_status(5)
  local word mask caught=0
  while read -r word mask; do [ "$word" != SigCgt: ] || caught=$mask; done <"/proc/$1/status"
  ((0x$caught >> ($(kill -l "$2") - 1) & 1))
} 2>/dev/null

listens() { # PID SIGNAL: bash with a trap for its end catches SIGILL and all other signals that end it, to run that trap and die
  has_handler "$1" "$2" || return 1
  case $2:$(readlink "/proc/$1/exe") in USR1:*/node | USR1:*/nodejs) return 1 ;; esac # which would open itself to a debugger
  ! is_shell "$1" || ! has_handler "$1" ILL || names "$1" "$2"
}

names() { # PID SIGNAL: whether the words of a shell, or the script it runs, name the signal
  local word file found=1
  while [ "$found" -ne 0 ] && IFS= read -r -d '' word; do
    case $word in /*) file=/proc/$1/root$word ;; *) file=/proc/$1/cwd/$word ;; esac
    if [[ $word == *"$2"* ]] || { [ -f "$file" ] && grep -q -e "$2" "$file"; }; then found=0; fi
  done <"/proc/$1/cmdline"
  return "$found"
} 2>/dev/null

listeners() { # SIGNAL PID…: those of these processes and of all below them that listen
  local signal=$1 pid below found
  shift
  for pid; do
    below=$(children_of "$pid") found=''
    if is_srun "$pid"; then
      step_listeners "$signal" "$pid"
    elif listens "$pid" "$signal" && { [ -z "$below" ] || ! has_handler "$pid" PWR; }; then
      printf '%d ' "$pid"
    else # programs in Go, such as engines, catch every signal (SIGPWR too) and heed few: who listens below them comes first
      # shellcheck disable=SC2086  # numbers
      [ -z "$below" ] || found=$(listeners "$signal" $below)
      if [ -z "$found" ] && listens "$pid" "$signal"; then found="$pid "; fi
      printf '%s' "$found"
    fi
  done
}

step_listeners() { # SIGNAL PID: who listens among the tasks that srun has started; it hands a signal on to all on all nodes
  local file pid here='' deaf=
  [ "$1" != TERM ] || return 0 # Slurm has told the tasks of it itself, and srun would kill them
  for file in /proc/[0-9]*/environ; do
    if grep -qzx "SLURM_JOB_ID=${SLURM_JOB_ID:-}" "$file" && grep -qz '^SLURM_STEP_ID=' "$file"; then
      pid=${file//[!0-9]/}
      if listens "$pid" "$1"; then here+="$pid "; else deaf=yes; fi
    fi
  done 2>/dev/null
  if [ -z "$deaf" ] && [ -n "$here" ]; then printf '%d ' "$2"; else printf '%s' "$here"; fi
}

tell() { # SIGNAL: tell the program, wherever in its tree it listens; false where nobody does
  local told_pids
  told_pids=$(listeners "$1" "$(own_process)" | tr ' ' '\n' | sort -u)
  # shellcheck disable=SC2086  # numbers
  [ -n "$told_pids" ] && kill -s "$1" $told_pids 2>/dev/null
}

end_program() { # SIGTERM to who listens, else to what a shell waits for: a wrapper that died of it would take its exit code along
  local top pids
  top=$(own_process)
  pids=$(listeners TERM "$top")
  [ -n "$pids" ] || pids=$(working "$top")
  # shellcheck disable=SC2086  # numbers
  [ -z "$pids" ] || kill -TERM $pids 2>/dev/null
  [ "${pids% }" = "$top" ] || end_rest "$top" "$pids" </dev/null >/dev/null 2>&1 &
}

working() { # PID…: the processes themselves; of shells, those that they wait for; of srun's tasks none, Slurm has told them
  local pid below
  for pid; do
    below=
    ! is_shell "$pid" || below=$(children_of "$pid")
    # shellcheck disable=SC2086  # numbers
    if is_srun "$pid"; then :; elif [ -n "$below" ]; then working $below; else printf '%d ' "$pid"; fi
  done
}

end_rest() { # PID PIDS: once those that were told have ended, a shell has five seconds more, and starts nothing that goes on after them
  local pid pids
  for pid in $2; do while [ -d "/proc/$pid" ]; do sleep 0.5; done; done
  for _ in {1..10}; do
    sleep 0.5
    [ -d "/proc/$1" ] || return
  done
  while is_shell "$1" && pids=$(working "$1") && [ -n "$pids" ]; do
    # shellcheck disable=SC2086  # numbers
    kill -TERM "$1" $pids
    sleep 1
  done
}
