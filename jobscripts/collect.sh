# shellcheck shell=bash disable=SC2154  # set by the script it is part of
# --- results leave while there is time; what does not is left to the next command on a login node ------------------------
collect_results() { # PYTHON CACHE_DIR
  local left_s reason
  trap '' TERM INT # it goes on until its time is over or the scheduler kills it; nothing half-sent counts as whole
  if [ -n "$told" ]; then
    left_s=$((25 - SECONDS + told_s)) # Slurm's KillWait is 30 s unless a site says otherwise
  else
    left_s=$(seconds_left)
    left_s=$((${left_s:-86405} - 5))
  fi
  if [ "$left_s" -lt 1 ]; then
    reason='the job had no time left'
  elif [ ! -x "$1" ]; then
    reason="$1 is not on $host"
  else
    event collect ",\"state\":\"started\",\"by\":\"job\",\"left_s\":$left_s"
    DEEPHPC_CACHE_DIR=$2 DEEPHPC_COLLECT_JOB=$job_id "$1" -I -m deephpc --quiet collect --in-job "$left_s" "$run_folder" \
      </dev/null >"$here/.collect.log" 2>&1 && { rm -f "$here/.collect.log"; return; }
    reason=$(tail -n 1 "$here/.collect.log")
  fi
  event collect ",\"state\":\"failed\",\"by\":\"job\",\"reason\":\"$(text "$reason")\""
}
