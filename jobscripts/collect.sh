# shellcheck shell=bash disable=SC2154  # set by the script it is part of
# --- results leave while there is time; what does not is left to the next command on a login node ------------------------
collect_results() { # PYTHON CACHE_DIR
  local end=${SLURM_JOB_END_TIME:-${DEEPHPC_LOCAL_END_TIME:-}} left_s=86400 now reason
  trap '' TERM INT # it goes on until its time is over or the scheduler kills it; nothing half-sent counts as whole
  printf -v now '%(%s)T' -1
  [ -z "$end" ] || left_s=$((end - now - 5))
  [ -z "$told" ] || left_s=$((25 - SECONDS + told_s)) # Slurm's KillWait is 30 s unless a site says otherwise
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
