#!/bin/bash
#SBATCH --job-name=serve-digits-91c2.01234567
#SBATCH --comment=deephpc:serve-digits-91c2:0123456789abcdef0123456789abcdef
#SBATCH --output=job.log
#SBATCH --open-mode=append
#SBATCH --no-requeue
#
# Run serve-digits-91c2, written by deephpc VERSION. Submit it from its run folder.
# Bash 4.2 and coreutils are all it needs; python3 on the node adds samples of CPU and memory use.
# shellcheck disable=SC1003,SC2016,SC2329  # quoted words of the user's stay as they are; traps call functions

run_id=serve-digits-91c2
run_folder=/scratch/runs/serve-digits-91c2
walltime_s=0        # 0: the site decides
max_requeues=0
continue_by=requeue        # requeue: in this job; chain: in a successor of it
controller_variables='SLURM_CONF SLURM_CONF_SERVER SLURM_JWT SLURM_SACK_JWKS SLURM_SACK_KEY' # how Slurm's commands find their controller
unset -v SLURM_JWT                # sbatch's proof of who one is, which runs out; a node has its own
command=(
  python3
  /deephpc/bin/deepaas_serve.py
)

# --- who am I: Slurm's variables, or the local scheduler's -----------------------------------------------------------
job_id=${SLURM_ARRAY_JOB_ID:-${SLURM_JOB_ID:-${DEEPHPC_LOCAL_JOB_ID:-none}}}
task=${SLURM_ARRAY_TASK_ID:-${DEEPHPC_LOCAL_TASK_ID:-}}
host=${SLURMD_NODENAME:-${HOSTNAME:-unknown}}
nodes=${SLURM_JOB_NODELIST:-$host}
here=${task:+tasks/$task}
here=${here:-.}                   # this script works in the run folder itself, by relative names

# --- the record this job leaves: every line is synced, every file renamed into place ---------------------------------
# shellcheck shell=bash disable=SC2154  # set by the script it is part of
# What a job writes down of itself while it runs: part of the job script, and sourced by container.sh in the run folder.
# Expects attempt, job_id, host, and here: the folder of this job or task.
now() { TZ=UTC0 printf '%(%Y-%m-%dT%H:%M:%SZ)T' -1; }
unsafe='[^A-Za-z0-9 ._:,;/=+@()!#$%&*<>?^`{|}~\[\]'\''-]'               # between JSON's quotes
text() { printf '%s' "${1//$unsafe/?}"; }
synced() { sync "$1" 2>/dev/null || sync; }

event() { # NAME [, MORE JSON MEMBERS]
  printf '{"at":"%s","event":"%s","attempt":%d,"job_id":"%s","host":"%s"%s}\n' \
    "$(now)" "$1" "$attempt" "$(text "$job_id")" "$(text "$host")" "${2:-}" >>"$here/events.jsonl" && synced "$here/events.jsonl"
}

put_result() { # FILE STATE EXIT_CODE SIGNAL ENDED_BY REASON
  local file=$1 part=$here/.result.json.part
  shift
  printf '{"schema":"deephpc.result/1","run_id":"%s","job_id":"%s","task":%s,"attempt":%d,"state":"%s","exit_code":%s,"signal":%s,"ended_by":"%s","reason":"%s","host":"%s","nodes":"%s","cpus":%s,"started_at":"%s","ended_at":"%s","elapsed_s":%d,"cpu_s":%s}\n' \
    "$run_id" "$(text "$job_id")" "${task:-null}" "$attempt" "$1" "$2" "$3" "$4" "$(text "$5")" "$(text "$host")" "$(text "$nodes")" \
    "$(cpus)" "$started_at" "$(now)" "$SECONDS" "$(cpu_s)" >"$part" && synced "$part" && mv -f "$part" "$file"
}

result_written=
write_result() { # STATE EXIT_CODE SIGNAL ENDED_BY REASON
  [ -z "$result_written" ] || return 0
  result_written=yes
  put_result "$here/result.json" "$@"
  event finished ",\"state\":\"$1\",\"exit_code\":$2,\"signal\":$3,\"ended_by\":\"$4\",\"elapsed_s\":$SECONDS"
}

cpu_s() { # CPU seconds of everything this script has waited for: fields 16 and 17 of /proc/PID/stat, proc(5)
  local stat ticks
  read -r stat <"/proc/$$/stat"
  read -r -a stat <<<"${stat##*) }"
  ticks=$(((stat[13] + stat[14]) * 100 / $(getconf CLK_TCK)))
  printf '%d.%02d' $((ticks / 100)) $((ticks % 100))
}

memory_mib() { # what the scheduler gave on each node, where it says
  if [ -n "${SLURM_MEM_PER_NODE:-}" ]; then printf '%d' "$SLURM_MEM_PER_NODE"
  elif [ -n "${SLURM_MEM_PER_CPU:-}" ]; then printf '%d' $((SLURM_MEM_PER_CPU * $(cpus)))
  else printf null; fi
}
cpus() { local n=${SLURM_CPUS_ON_NODE:-}; [ -n "$n" ] || n=1; printf '%d' "$n"; }

# --- sbatch brings the soft limits of the login shell along; those that would end a program on a node are lifted --------
if [ -n "${SLURM_JOB_ID:-}" ]; then
  for limit in t f d v u; do ulimit -S "-$limit" "$(ulimit -H "-$limit")" 2>/dev/null; done # CPU time, file size, memory, processes
fi

# --- one attempt after the other ---------------------------------------------------------------------------------------
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

# --- exactly once: the first job to start here owns the run, whatever the queue holds ---------------------------------
stop() { printf 'deephpc: %s\n' "$1" >&2; exit 73; }

claim() {
  local owner='' tries file
  file=$(claim_file)
  (set -o noclobber; exec 3>"$file" || exit 1; printf '%s\n' "$job_id" >&3 || { rm -f "$file"; exit 1; }) 2>/dev/null && return
  for tries in {1..50}; do          # another task of this array may be writing it
    owner=$(cat "$file" 2>/dev/null)
    [ -z "$owner" ] || break
    sleep 0.1
  done
  [ "$owner" != "$job_id" ] || return 0
  if [ -n "$owner" ]; then
    printf 'deephpc: run %s belongs to job %s; this duplicate (job %s) ends without doing anything\n' "$run_id" "$owner" "$job_id" >&2
    exit 0
  fi
  stop "cannot write in $run_folder after $tries tries"
}

cd "$run_folder" || stop "cannot enter $run_folder on $host"
[ -O . ] || stop "$run_folder is somebody else's folder now; nothing in it is run"
[ -f plan.json ] || stop "$run_folder was removed or emptied while the job waited"
claim
mkdir -p "$here/output" "$here/checkpoints" data || exit 73
started_at=$(now)
attempt=$(($(begun) + 1))
printf -- '--- deephpc: %s%s, attempt %d, job %s on %s, %s\n' "$run_id" "${task:+ task $task}" "$attempt" "$job_id" "$nodes" "$started_at"
if [ -e "$here/result.json" ]; then # an earlier attempt was told to end and the job was queued again
  mkdir -p "$here/attempts" && mv -f "$here/result.json" "$here/attempts/result-$((attempt - 1)).json"
fi
checkpoint_before=$(newest_checkpoint)
read -r day clock _ <<<"$checkpoint_before"
free=false
[ "$attempt" -eq 1 ] || ! is_free "$day $clock" || free=true
event started ",\"nodes\":\"$(text "$nodes")\",\"cpus\":$(cpus),\"memory_mib\":$(memory_mib),\"checkpoint\":\"$day $clock\",\"free\":$free"
sha256sum --check code.sha256 2>/dev/null | sed -n 's/: FAILED$//p' | while IFS= read -r file; do
  event edited ",\"file\":\"$(text "$file")\""
  printf 'deephpc: %s was edited after this run was submitted; it runs as it is now\n' "$file"
done
scratch="$LOCAL_SCRATCH"
private=$(mktemp -d "$scratch/deephpc-$host-$run_id.XXXXXX") || stop "no private folder can be made in $scratch on $host"
exec {kept}<"$private" && flock -s -n "$kept" # held until the last process of this job ends
find "$scratch" -maxdepth 1 -type d -name "deephpc-$host-*" -user "$(id -u)" -mmin +2 2>/dev/null | while IFS= read -r left; do
  if flock -n "$left" true 2>/dev/null; then chmod -R u+w "$left" 2>/dev/null; rm -rf "$left"; fi # of jobs that were killed
done
leave() { write_result FAILED 1 null script "the job script ended early"; chmod -R u+w "$private" 2>/dev/null; rm -rf "$private"; }
trap leave EXIT
trap 'write_result CANCELLED 143 15 signal "told to end before the program started"; exit 143' TERM INT
trap : USR1 # nobody listens yet, and its default would end this script
if [ "$attempt" -gt 1 ] && was_cancelled; then
  write_result CANCELLED 143 15 signal "cancelled between two attempts"
  exit 143
elif [ "$(used_requeues)" -gt "$max_requeues" ]; then
  write_result FAILED 1 null setup "started $attempt times, only $max_requeues requeues are allowed (--max-requeues)"
  exit 1
fi

# --- the program, in a shell of its own: nothing that is set up for it can reach this script ----------------------------
absolute=$run_folder${task:+/tasks/$task}
export DEEPHPC_RUN_ID=$run_id DEEPHPC_ATTEMPT=$attempt DEEPHPC_TASK_ID=$task
export DEEPHPC_OUTPUT_DIR=$absolute/output DEEPHPC_CHECKPOINT_DIR=$absolute/checkpoints DEEPHPC_DATA_DIR=$run_folder/data
export DEEPHPC_METRICS=$absolute/metrics.jsonl PYTHONUNBUFFERED=1
export DEEPHPC_PRIVATE=$private

# --- the program is a server: our gateway stands before it, starts it and ends it ----------------------------------------
export DEEPHPC_SOCKET=/deephpc/s # short: a socket's path has 107 bytes
ends_at=$(seconds_left)
ends_at=${ends_at:+$(($(TZ=UTC0 printf '%(%s)T' -1) + ends_at))}
gateway=('/home/me/my env/bin/python' -I -m deephpc.node.gateway "$run_folder" --host "$host" --job-id "$job_id" --attempt "$attempt"
  --socket "$private/deephpc/s" ${ends_at:+--ends-at "$ends_at"} --log "$run_folder/job.log" --set-up 9 --
  /bin/bash /scratch/runs/serve-digits-91c2/container/container.sh "$private")

deephpc_fail() { printf 'deephpc: %s\n' "$1" >&2; printf '%s' "$1" >/dev/fd/9; exit 1; }

# shellcheck disable=SC2120  # called with the program's words
become_program() { # WORDS...; whatever names are set below, the words are safe as positional parameters
  trap : USR1 # until the program is there: bash catches it anyhow, and would die of it
  [ -z "$alarm_clock" ] || exec {alarm_clock}>&- # the alarm ends with the job script, whatever lives on
  unset -v command run_id run_folder private gateway ends_at walltime_s max_requeues job_id task attempt host nodes here absolute started_at told oom_before
  [ -x "$1" ] || deephpc_fail "deephpc is not on this node: there is no $1"
  printf 'deephpc is not on this node: %s cannot run it' "$1" >/dev/fd/9
  exec "$@"
}

# --- run it, pass signals on, keep its status ---------------------------------------------------------------------------
oom_kills() { # how many processes of this job the kernel killed for memory: cgroup v2 memory.events, v1 memory.oom_control
  local line path file word count total=0
  while IFS= read -r line; do
    case $line in
      0::*) path=/sys/fs/cgroup${line#0::} file=memory.events ;;
      *:memory:*) path=/sys/fs/cgroup/memory${line##*:memory:} file=memory.oom_control ;;
      *) continue ;;
    esac
    while [[ $path == *job_* ]]; do
      [ -r "$path/$file" ] && while read -r word count; do
        [ "$word" != oom_kill ] || [ "$count" -le "$total" ] || total=$count
      done <"$path/$file"
      path=${path%/*}
    done
  done </proc/self/cgroup
  printf '%d' "$total"
}

noted_in=
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


program=
missed= # signals that came before there was a program to tell
warned=
told=
at_limit= # whether it was told to end because its time is over
preempted=
warn() { # tell the program that its end is near, if it listens
  [ -n "$program" ] && [ ! -s "$here/.setup" ] && tell USR1 # while the set-up goes on, nothing listens
}
on_grace() { # the time limit is near
  local is_told=true
  interrupted=yes warned=yes
  if ! warn; then
    is_told=false
    if [ -n "$program" ]; then remind </dev/null >/dev/null 2>&1 & else missed+=' USR1'; fi
    printf 'deephpc: the end of this job is near, and nothing in the program listens for SIGUSR1 yet: what is not saved by itself is lost\n'
  fi
  event grace ",\"told\":$is_told,\"elapsed_s\":$SECONDS"
}
remind() { # a program that was still loading when its end came near is told as soon as it listens
  while sleep 2 && [ -d "/proc/$program" ]; do
    if warn; then
      event grace ",\"told\":true,\"elapsed_s\":$SECONDS"
      return
    fi
  done
}
on_term() {
  interrupted=yes told=yes
  ! makes_room || preempted=yes
  if [ -z "$program" ]; then missed+=' TERM'; elif [ -z "$preempted" ] || ! warn; then end_program; fi
  ! is_over || at_limit=yes # asked after the program was told: a controller that is silent takes none of its time
  event terminated ",\"at_limit\":$([ -n "$at_limit" ] && echo true || echo false),\"elapsed_s\":$SECONDS"
}

oom_before=$(oom_kills)
trap on_grace USR1
trap on_term TERM INT
alarm() { # Slurm's own signal may come a minute early, for which a short limit has no room, and needs a limit that was asked for
  local left wait_s=0 grace_s=60 silent_s=60
  while :; do
    if [ "$wait_s" -gt 0 ]; then
      read -r -t "$wait_s"
      [ $? -gt 128 ] || return # this script has ended
    fi
    left=$(seconds_left)
    if [ -z "$left" ]; then # there is no limit, or the controller is silent
      wait_s=$silent_s silent_s=$((silent_s < 3600 ? 2 * silent_s : silent_s))
      continue
    fi
    if [ "$wait_s" -eq 0 ] && [ "$grace_s" -gt $((left / 2)) ]; then grace_s=$((left / 2)); fi # no limit was asked for
    wait_s=$((left - grace_s))
    [ "$wait_s" -gt 0 ] || break
  done
  kill -USR1 $$
}
alarm_clock=
if [ -n "${SLURM_JOB_ID:-}" ]; then exec {alarm_clock}> >(alarm >/dev/null 2>&1); fi
SECONDS=0
rm -f endpoint.json certificate.pem .reason # an earlier attempt had no time for it
printf 'the set-up of the job ended early' >"$here/.setup"
become_program "${gateway[@]}" "${command[@]}" </dev/null 9>>"$here/.setup" &
program=$!
case $missed in *TERM*) end_program ;; *USR1*) remind </dev/null >/dev/null 2>&1 & ;; esac
sampler=
if command -v python3 >/dev/null 2>&1 && [ -r sample_usage.py ]; then
  python3 sample_usage.py "$program" "$here/usage.jsonl" </dev/null >/dev/null 2>&1 &
  sampler=$!
fi
while :; do
  interrupted=
  wait "$program"
  code=$?
  [ -n "$interrupted" ] || break
done
trap '' USR1
rm -f endpoint.json certificate.pem # the gateway withdraws them itself, unless it was killed
[ -z "$sampler" ] || { kill "$sampler" && wait "$sampler"; } 2>/dev/null
[ -z "$alarm_clock" ] || exec {alarm_clock}>&-

failed_setup=$(cat "$here/.setup" 2>/dev/null)
rm -f "$here/.setup"

# shellcheck shell=bash
proot_said() { # PRIVATE: what proot said of itself (udocker.sh), where it or its program failed: its stderr is no program's
  local file
  for file in "$1"/engine.*/proot.log; do
    [ ! -s "$file" ] || tail -n 2 "$file" | sed 's/^/deephpc: /' >&2
  done
}

if [ "$code" -ne 0 ] && [ -z "$told" ]; then proot_said "$private"; fi

signal=null why_not=
if asks_to_continue && continue_run; then exit "$code"; fi
if [ "$code" -gt 128 ] && [ "$code" -le 192 ]; then signal=$((code - 128)); fi
if [ -n "$told" ]; then
  if [ -n "$preempted" ]; then write_result PREEMPTED "$code" "$signal" signal "had to make room for another job"
  elif [ -n "$at_limit" ]; then write_result TIMEOUT "$code" "$signal" signal "${why_not:-ended at its time limit}"; else write_result CANCELLED "$code" "$signal" signal "told to end (SIGTERM)"; fi
elif [ -n "$failed_setup" ]; then
  write_result FAILED "$code" null setup "$failed_setup"
elif [ "$code" -eq 0 ]; then
  write_result COMPLETED 0 null program "$(cat .reason 2>/dev/null)"
elif [ "$(oom_kills)" -gt "$oom_before" ]; then
  write_result OUT_OF_MEMORY "$code" "$signal" program "the kernel killed a process for memory"
else
  write_result FAILED "$code" "$signal" program "${why_not:-$(cat .reason 2>/dev/null)}"
fi
exit "$code"
