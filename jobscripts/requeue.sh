# shellcheck shell=bash disable=SC2154,SC2034  # set and read by the script it is part of
# How a run goes on over many attempts: part of the job script. A program that ends with exit code 75 (EX_TEMPFAIL of
# sysexits.h) asks to be continued: its job is queued again. It ends where two attempts in a row leave no newer
# checkpoint, or all requeues are used.
continue_code=75

begun() { # how many attempts this run, or this task of it, has begun
  local line last=0
  while IFS= read -r line; do
    if [[ $line =~ \"event\":\"started\",\"attempt\":([0-9]+), ]]; then last=${BASH_REMATCH[1]}; fi
  done <"$here/events.jsonl"
  printf '%d' "$last"
} 2>/dev/null

newest_checkpoint() { # when the newest file of the checkpoints was written, and its name; later ones sort behind it
  TZ=UTC0 find -L "$here/checkpoints" -type f -printf '%TY-%Tm-%Td %TH:%TM:%TS %P\n' 2>/dev/null | LC_ALL=C sort | tail -n 1
}

was_cancelled() { [ -e cancelled.json ] || [ -e "$here/cancelled.json" ]; }

continue_run() { # true when another attempt is on its way; else why_not is set, or the result is written
  local LC_ALL=C newest newer=true idle=$here/attempts/idle
  trap '' TERM INT USR1 # the next attempt's coming is what ends this job
  mkdir -p "$here/attempts"
  newest=$(newest_checkpoint)
  if [[ $newest > $checkpoint_before ]]; then
    rm -f "$idle"
  else
    newer=false
    if [ -e "$idle" ] && ! [[ $newest > $(cat "$idle") ]]; then
      why_not="two attempts in a row asked to continue (exit code $code) and left no newer checkpoint"
      return 1
    fi
    printf '%s\n' "$newest" >"$idle"
  fi
  if was_cancelled; then
    write_result CANCELLED "$code" null signal "cancelled when it was to be continued"
    exit "$code"
  elif [ "$attempt" -gt "$max_requeues" ]; then
    why_not="it asked to continue (exit code $code) at attempt $attempt, and $max_requeues requeues are allowed (--max-requeues)"
    return 1
  elif ! event continued ",\"exit_code\":$code,\"newer_checkpoint\":$newer,\"elapsed_s\":$SECONDS"; then
    why_not="it asked to continue (exit code $code), but the run folder cannot be written"
    return 1
  fi
  put_result "$here/attempts/result-$attempt.json" PENDING "$code" null program "to be continued"
  if ! hand_over; then
    rm -f "$here/attempts/result-$attempt.json"
    return 1
  fi
  printf -- '--- deephpc: %s%s, attempt %d ended with exit code %d, to be continued, %s\n' "$run_id" "${task:+ task $task}" "$attempt" "$code" "$(now)"
  result_written=yes
}

hand_over() {
  if [ -n "${DEEPHPC_LOCAL_REQUEUE:-}" ]; then
    : >"$DEEPHPC_LOCAL_REQUEUE" || { why_not="it asked to continue (exit code $code), but the local scheduler cannot be told" && return 1; }
  else
    requeue
  fi
}

requeue() { # a task of an array by its own name: the id of its last task is the whole array's
  local me=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID} said=''
  me=${me:-${SLURM_JOB_ID:-}}
  local tries
  for tries in {1..6}; do
    said=$(timeout 60 scontrol requeue "$me" 2>&1 </dev/null) && return
    case $said in *[Uu]'nable to contact'* | *'imed out'* | *onnect*) sleep $((tries * 5)) ;; *) break ;; esac
  done
  why_not="it asked to continue (exit code $code), but the cluster did not queue it again: ${said:-scontrol gave no answer}"
  return 1
}
