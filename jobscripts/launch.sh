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
rm -f "$ranks/failed" "$ranks/reason" "$ranks/said" "$ranks/continue"
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

start_processes() { # WORDS…: all ranks on this machine; ends when all have, with the code of the first that failed
  local rank size=$((DEEPHPC_TASKS_PER_NODE * ${DEEPHPC_NODES:-1})) pids=() status code=0
  tell() { kill -s "$1" ${pids[@]+"${pids[@]}"} 2>/dev/null; }
  trap 'tell TERM' TERM
  trap 'tell USR1' USR1
  export DEEPHPC_SIZE=$size DEEPHPC_LOCAL_SIZE=$size DEEPHPC_NODE_RANK=0 DEEPHPC_TASKS=$size
  for ((rank = 0; rank < size; rank++)); do
    DEEPHPC_RANK=$rank DEEPHPC_LOCAL_RANK=$rank /bin/bash "$place/launch_rank.sh" "$private" "$@" 9>&- &
    pids+=("$!")
  done
  while [ "${#pids[@]}" -gt 0 ]; do
    for rank in "${!pids[@]}"; do
      ! kill -0 "${pids[rank]}" 2>/dev/null || continue
      wait "${pids[rank]}"
      status=$?
      unset "pids[rank]"
      if [ "$status" -ne 0 ] && [ "$code" -eq 0 ]; then code=$status && tell TERM; fi
    done
    sleep 0.1 &
    wait "$!"
  done
  exit "$code"
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
lost_node() { # a node that failed under the step, as srun tells
  local line
  while IFS= read -r line; do
    if [[ $line =~ [Nn]ode\ failure\ on\ ([^ ,]+) ]]; then
      printf 'node %s failed' "${BASH_REMATCH[1]}"
      return
    fi
  done <"$ranks/said"
  return 1
} 2>/dev/null

fallen_rank() { # a rank that could not say itself how it ended
  local line
  while IFS= read -r line; do
    if [[ $line =~ error:\ ([^ :]+):\ tasks?\ ([0-9]+)[^:]*:\ (.*)$ ]]; then
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
  elif ! reason=$(lost_node || fallen_rank); then
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

came_first() { [ -e "$1" ] && { [ ! -e "$2" ] || [ "$1" -ot "$2" ]; }; }

if came_first "$ranks/continue" "$ranks/failed" && ! lost_node >/dev/null; then
  code=75 # one rank has asked for it before any failed
elif [ -z "$told" ]; then
  conclude
elif reason=$(lost_node); then
  printf '%s' "$reason" >"$ranks/reason"
  printf -- '--- deephpc: %s\n' "$reason"
fi
if [ "$code" -ne 0 ] && [ -n "$private" ] && [ -z "$told" ] && [ "${SLURM_JOB_NUM_NODES:-1}" -gt 1 ]; then # ranks that were killed left it
  # shellcheck disable=SC2016  # for the shell there
  timeout 20 srun --ntasks-per-node=1 --nodes="$SLURM_JOB_NUM_NODES" --mpi=none \
    /bin/bash -c 'chmod -R u+w "$1"; rm -rf "$1"' bash "$private" </dev/null 9>&- 2>/dev/null
fi
exit "$code"
