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
