#!/bin/bash
# Starts the ranks of a run on the nodes of its job, and ends them all when one fails: on the first node, as the program
# of the job script.
#
#   launch.sh PRIVATE WORDS…      PRIVATE as for container.sh, and empty for a native run
#
# Every rank is a task of one job step (or, where there is no Slurm, a process here) and runs launch_rank.sh, which keeps
# its output in ranks/RANK.log and, of the first that fails, what happened in ranks/failed. Descriptor 9 takes the reason
# when something fails before the program starts. Bash 4.2 and coreutils are all it needs.
set -u
private=$1
shift
place=$(cd "${BASH_SOURCE[0]%/*}" && pwd) || exit 1
ranks=${DEEPHPC_OUTPUT_DIR%/output}/ranks
mkdir -p "$ranks" || exit 1 # the run folder above is nobody else's
rm -f "$ranks/failed" "$ranks/reason" "$ranks/said"
DEEPHPC_LAUNCH_KEY=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
export DEEPHPC_LAUNCH_KEY
: >/dev/fd/9

start_step() { # WORDS…: becomes srun; what it says itself goes to ranks/said as well
  local words=(--ntasks-per-node="$DEEPHPC_TASKS_PER_NODE" --distribution=block --kill-on-bad-exit=1 --export=ALL)
  [ -z "${SLURM_JOB_NUM_NODES:-}" ] || words+=(--nodes="$SLURM_JOB_NUM_NODES")
  [ -z "${SLURM_CPUS_PER_TASK:-}" ] || words+=(--cpus-per-task="$SLURM_CPUS_PER_TASK") # not inherited since 22.05
  [ -z "${DEEPHPC_MPI:-}" ] || words+=(--mpi="$DEEPHPC_MPI")
  # each task sees all GPUs of its node and takes the one of its local rank: peers on a node reach each other so
  [ "${DEEPHPC_GPUS_PER_NODE:-0}" = 0 ] || words+=(--gpu-bind=none)
  exec srun "${words[@]}" /bin/bash "$place/launch_rank.sh" "$private" "$@" 9>&- 2> >(
    trap '' TERM INT HUP USR1 USR2
    exec tee "$ranks/said" >&2
  )
}

start_processes() { # WORDS…: all ranks on this machine, one after the other; ends as they do, with the code of the first that fails
  local rank size=$((DEEPHPC_TASKS_PER_NODE * ${DEEPHPC_NODES:-1})) pids=() left
  trap 'stopped=yes; kill -TERM "${pids[@]}" 2>/dev/null' TERM
  trap 'kill -USR1 "${pids[@]}" 2>/dev/null' USR1
  export DEEPHPC_SIZE=$size DEEPHPC_LOCAL_SIZE=$size DEEPHPC_NODE_RANK=0 DEEPHPC_TASKS=$size
  for ((rank = 0; rank < size; rank++)); do
    DEEPHPC_RANK=$rank DEEPHPC_LOCAL_RANK=$rank /bin/bash "$place/launch_rank.sh" "$private" "$@" 9>&- &
    pids+=("$!")
  done
  stopped=
  while :; do
    left=0
    for rank in "${pids[@]}"; do kill -0 "$rank" 2>/dev/null && left=$((left + 1)); done
    [ "$left" -gt 0 ] || break
    if [ -z "$stopped" ] && [ -e "$ranks/failed" ]; then stopped=yes && kill -TERM "${pids[@]}" 2>/dev/null; fi
    sleep 0.1 & wait "$!"
  done
  for rank in "${pids[@]}"; do wait "$rank" || left=$?; done
  exit "$left"
}

if [ -n "${SLURM_JOB_ID:-}" ]; then start_step "$@" & else start_processes "$@" & fi
step=$!
trap 'interrupted=yes told=yes; kill -TERM "$step" 2>/dev/null' TERM INT
trap 'interrupted=yes; kill -USR1 "$step" 2>/dev/null' USR1
told=
while :; do
  interrupted=
  wait "$step"
  code=$?
  [ -n "$interrupted" ] || break
done
trap '' USR1

# --- which rank failed first, and what it said ------------------------------------------------------------------------
noticed() { # of a rank that could not say it itself, or of a node: what srun says of it
  local line
  while IFS= read -r line; do
    if [[ $line =~ (srun|slurmstepd).*error:\ .*([Nn]ode\ failure\ on|Aborting,.*)\ ?([^ ]*)$ ]]; then
      printf 'node %s failed' "${BASH_REMATCH[3]}"
      return
    elif [[ $line =~ error:\ ([^ :]+):\ tasks?\ ([0-9]+)[^:]*:\ (.*)$ ]]; then
      printf 'rank %s on %s ended first: %s' "${BASH_REMATCH[2]}" "${BASH_REMATCH[1]}" "${BASH_REMATCH[3]}"
      return
    fi
  done <"$ranks/said"
  return 1
} 2>/dev/null

conclude() { # sets code, and writes the reason and the last lines of the rank that failed
  local rank host ended kind reason
  if IFS=$'\t' read -r rank host ended kind reason <"$ranks/failed"; then
    code=$ended
    if [ "$kind" = setup ]; then
      printf '%s' "$reason" >/dev/fd/9
      return
    fi
    reason="rank $rank on $host ended first, with exit code $code"
    [ "$code" -le 128 ] || reason="rank $rank on $host ended first, by signal $((code - 128)) ($(kill -l $((code - 128)) 2>/dev/null))"
  elif ! reason=$(noticed); then
    return
  fi 2>/dev/null
  printf '%s' "$reason" >"$ranks/reason"
  printf -- '--- deephpc: %s' "$reason"
  if [ -n "${rank:-}" ] && [ -s "$ranks/$rank.log" ]; then
    printf '; the last lines of its output (ranks/%s.log):\n' "$rank"
    tail -n 12 "$ranks/$rank.log" | grep -a -v '^--- deephpc: '
  else
    printf '\n'
  fi
}

[ -n "$told" ] || conclude
if [ "$code" -ne 0 ] && [ -n "$private" ] && [ -z "$told" ] && [ "${SLURM_JOB_NUM_NODES:-1}" -gt 1 ]; then # ranks that were killed left it
  timeout 20 srun --ntasks-per-node=1 --nodes="$SLURM_JOB_NUM_NODES" --mpi=none rm -rf "$private" 9>&- 2>/dev/null
fi
exit "$code"
