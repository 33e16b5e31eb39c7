# shellcheck shell=bash disable=SC2154,SC2034  # set and read by the script it is part of
# How a run goes on over many attempts: part of the job script. A program that ends with exit code 75 (EX_TEMPFAIL of
# sysexits.h) asks to be continued: its job is queued again or, with --chain, a successor of the job is submitted, which
# finds the same run folder. It ends where two attempts in a row leave no newer checkpoint. After an attempt that left a newer
# one, and worked until its end was near or for a minute and more, the next start is free, whoever asked for it; any other
# start again is one of the requeues that are allowed.
continue_code=75
least_work_s=60

begun() { # how many attempts this run, or this task of it, has begun
  local line last=0
  while IFS= read -r line; do
    if [[ $line =~ \"event\":\"started\",\"attempt\":([0-9]+), ]]; then last=${BASH_REMATCH[1]}; fi
  done <"$here/events.jsonl"
  printf '%d' "$last"
} 2>/dev/null

used_requeues() {
  local line used=$((attempt - 1))
  while IFS= read -r line; do
    [[ $line != *'"event":"started"'*'"free":true'* ]] || ((--used))
  done <"$here/events.jsonl"
  printf '%d' "$used"
} 2>/dev/null

is_free() { # NEWEST CHECKPOINT: whether this start costs no requeue, by what the attempt before it did
  local LC_ALL=C line began='' found='' told='' earned=''
  while IFS= read -r line; do
    if [[ $line =~ ^\{\"at\":\"([^\"]*)\",\"event\":\"started\" ]]; then
      began=${BASH_REMATCH[1]} found='' told='' earned=''
      [[ ! $line =~ \"checkpoint\":\"([^\"]*)\" ]] || found=${BASH_REMATCH[1]}
    elif [[ $line == *'"event":"continued"'*'"earned":true'* ]]; then
      earned=yes
    elif [[ $line == *'"event":"grace"'* ]]; then
      told=yes
    fi
  done <"$here/events.jsonl"
  [ -z "$earned" ] || return 0
  [ -n "$began" ] && [[ $1 > $found ]] && { [ -n "$told" ] || [ $(($(TZ=UTC0 date -d "$1" +%s) - $(date -d "$began" +%s))) -ge "$least_work_s" ]; }
} 2>/dev/null

claim_file() { # a run that was handed on to a successor has a claim of its own for each: who is first takes the next one
  local line links=0
  while IFS= read -r line; do
    [[ $line != *'"event":"continued"'*'"by":"chain"'* ]] || ((++links))
  done <events.jsonl
  if [ "$links" -gt 0 ]; then printf 'attempts/claim-%d' "$links"; else printf 'claim'; fi
} 2>/dev/null

newest_checkpoint() { # when the newest file of the checkpoints was written, and its name; later ones sort behind it
  TZ=UTC0 find -L "$here/checkpoints" -type f -printf '%TY-%Tm-%Td %TH:%TM:%TS %P\n' 2>/dev/null | LC_ALL=C sort | tail -n 1
}

makes_room() { # whether this job is being ended for one of higher priority: a line of slurmstepd's in its log tells
  local line told=
  while IFS= read -r line; do
    case $line in
      '--- deephpc: '*', attempt '*) told= ;; # what stands before it was an earlier attempt
      'slurmstepd'*' DUE TO PREEMPTION '*) told=yes ;;
    esac
  done < <(tail -c 1000 "job${task:+-$task}.log" 2>/dev/null)
  [ -n "$told" ] && [ -n "${SLURM_JOB_ID:-}" ]
}

is_to_make_room() { # whether Slurm has begun to end this job so; steps are told when the grace period begins, this shell is not
  [[ $(facts_now) =~ PreemptTime=[0-9] ]]
}

own_name() { # what Slurm calls this job; a task of an array by its own name: the id of its last task is the whole array's
  printf '%s' "${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}"
  [ -n "${SLURM_ARRAY_JOB_ID:-}" ] || printf '%s' "${SLURM_JOB_ID:-none}"
}

facts_now() { outside_of_any_job timeout 10 scontrol --oneliner show job "$(own_name)" 2>/dev/null </dev/null; }

seconds_of() { # [DAYS-]HOURS:MINUTES:SECONDS
  [[ $1 =~ ^(([0-9]+)-)?([0-9]+):([0-9]+):([0-9]+)$ ]] || return 1
  printf '%d' $((((10#${BASH_REMATCH[2]:-0} * 24 + 10#${BASH_REMATCH[3]}) * 60 + 10#${BASH_REMATCH[4]}) * 60 + 10#${BASH_REMATCH[5]}))
}

seconds_left() { # until the time limit as it is now, which may have been changed since the start; nothing where none is known
  local facts='' limit ran end=${SLURM_JOB_END_TIME:-${DEEPHPC_LOCAL_END_TIME:-}}
  [ -z "${SLURM_JOB_ID:-}" ] || facts=$(facts_now)
  if [[ $facts =~ [[:space:]]RunTime=([0-9:-]+)[[:space:]]+TimeLimit=([^[:space:]]+) ]]; then # not EndTime: a job that is cancelled has now
    ran=${BASH_REMATCH[1]} limit=${BASH_REMATCH[2]}
    limit=$(seconds_of "$limit") && printf '%d' $((limit - $(seconds_of "$ran")))
  elif [ -n "$end" ]; then
    printf '%d' $((end - $(TZ=UTC0 printf '%(%s)T' -1)))
  elif [ "$walltime_s" -gt 0 ]; then
    printf '%d' $((walltime_s - SECONDS))
  fi
}

is_over() { # whether this job's time is over
  local left
  left=$(seconds_left)
  [ -n "$left" ] && [ "$left" -le 1 ]
}

asks_to_continue() { # as do ranks that ended because they were told that their job is to make room
  [ -z "$failed_setup" ] && { [ -z "$told" ] || { [ -n "$at_limit" ] && [ -z "$preempted" ]; }; } || return 1
  [ "$code" -ne "$continue_code" ] || return 0
  [ "$code" -ne 0 ] && [ -z "$told" ] && [ -n "${DEEPHPC_LAUNCHER:-}" ] && [ "$max_requeues" -gt 0 ] && is_to_make_room
}

was_cancelled() { [ -e cancelled.json ] || [ -e "$here/cancelled.json" ]; }

continue_run() { # true when another attempt is on its way; else why_not is set, or the result is written
  local LC_ALL=C newest newer=true earned=false idle=$here/attempts/idle
  asked="it asked to continue (exit code $code)"
  [ "$code" -eq "$continue_code" ] || asked="it had to make room for another job (exit code $code)"
  trap '' TERM INT USR1 # the next attempt's coming is what ends this job
  mkdir -p "$here/attempts"
  newest=$(newest_checkpoint)
  [[ $newest > $checkpoint_before ]] || newer=false
  if [ "$newer" = true ]; then
    rm -f "$idle"
    if [ "$code" -eq "$continue_code" ] && { [ -n "$warned$told" ] || [ "$SECONDS" -ge "$least_work_s" ]; }; then earned=true; fi
  elif [ "$code" -eq "$continue_code" ]; then
    if [ -e "$idle" ] && ! [[ $newest > $(cat "$idle") ]]; then
      why_not="two attempts in a row asked to continue (exit code $code) and left no newer checkpoint"
      return 1
    fi
    printf '%s\n' "$newest" >"$idle"
  fi
  if was_cancelled; then
    write_result CANCELLED "$code" null signal "cancelled when it was to be continued"
    exit "$code"
  elif [ "$max_requeues" -eq 0 ] || { [ "$earned" = false ] && [ "$(used_requeues)" -ge "$max_requeues" ]; }; then
    why_not="$asked at attempt $attempt, and $max_requeues requeues are allowed (--max-requeues)"
    return 1
  elif ! event continued ",\"exit_code\":$code,\"by\":\"$continue_by\",\"newer_checkpoint\":$newer,\"earned\":$earned,\"elapsed_s\":$SECONDS"; then
    why_not="$asked, but the run folder cannot be written"
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
    : >"$DEEPHPC_LOCAL_REQUEUE" || { why_not="$asked, but the local scheduler cannot be told" && return 1; }
  elif [ "$continue_by" = chain ]; then
    submit_successor
  else
    requeue
  fi
}

requeue() {
  local said='' tries
  for tries in {1..6}; do
    said=$(outside_of_any_job timeout 60 scontrol requeue "$(own_name)" 2>&1 </dev/null) && return
    case $said in *[Uu]'nable to contact'* | *'imed out'* | *onnect*) sleep $((tries * 5)) ;; *) break ;; esac
  done
  why_not="$asked, but the cluster did not queue it again: ${said:-scontrol gave no answer}"
  return 1
}

submit_successor() { # it carries this job's name; where it cannot be sent from here, a command on the login node sends it
  local said='' successor tries line
  for tries in {1..4}; do
    said=$(outside_of_any_job timeout 60 sbatch --parsable job.sh 2>&1 </dev/null)
    successor=$(queued_as "$said" || find_successor) && break
    case $said in *[Uu]'nable to contact'* | *'imed out'* | *onnect* | '') sleep $((tries * 5)) ;; *) break ;; esac
  done
  if [ -n "$successor" ]; then
    event chained ",\"successor\":\"$(text "$successor")\""
  else
    event unplaced ",\"reason\":\"$(text "$said")\""
    printf 'deephpc: this node cannot submit the next job: %s\n' "$said"
  fi
  return 0
}

outside_of_any_job() { # WORDS…: run them on this job's own cluster, without what this job put into its environment
  (
    for name in $(compgen -e); do
      [[ " $controller_variables " != *" $name "* ]] || continue
      case $name in
        SLURM_* | SLURMD_* | SQUEUE_* | SBATCH_CLUSTERS | DEEPHPC_* | *_VISIBLE_DEVICES | GPU_DEVICE_ORDINAL | TMPDIR | HOSTNAME) unset -v "$name" ;;
      esac
    done
    exec "$@"
  )
}

queued_as() { # WHAT SBATCH SAID: the id in it, whatever a site's wrapper says around it
  local line found=
  while IFS= read -r line; do
    if [[ $line =~ ^[0-9]+(\;[A-Za-z0-9_.-]+)?$ ]]; then found=$line; fi
  done <<<"$1"
  [ -n "$found" ] && printf '%s' "$found"
}

find_successor() { # another job of this run in the queue, whose submission got no answer
  outside_of_any_job timeout 30 squeue --noheader --user="$(id -un)" --name="$SLURM_JOB_NAME" --states=PENDING,RUNNING --format=%i 2>/dev/null |
    grep -E -x '[0-9]+(;[A-Za-z0-9_.-]+)?' | grep -v -x -m 1 "$SLURM_JOB_ID" # a site's wrapper may say more
}
