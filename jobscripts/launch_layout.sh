# shellcheck shell=bash
# Where a task of a job step stands among the others, from Slurm's own variables; sourced by launch_rank.sh.
# Images and many nodes have no scontrol that could be asked. Sources: srun(1) of Slurm 24.11, "output environment
# variables"; scontrol(1), `show hostnames`.

expand_counts() { # `4,2(x3),1` → `4,2,2,2,1`: tasks on each node
  local part counts=() times
  local IFS=,
  for part in $1; do
    times=1
    case $part in *'(x'*) times=${part##*'(x'} times=${times%')'} ;; esac
    while [ $((times--)) -gt 0 ]; do counts+=("${part%%'('*}"); done
  done
  printf '%s' "${counts[*]}"
}

edge_hosts() { # `gpu[01-03,7],r[1-2]n[3-4]-ib` → its first and its last name, in two lines
  local rest=$1 first='' last='' group is_first=yes
  while [ -n "$rest" ]; do
    case $rest in
      ,*) last='' is_first='' rest=${rest#,} ;;
      '['*)
        group=${rest#'['} rest=${rest#*']'}
        group=${group%%']'*}
        last=$last${group##*[,-]}
        group=${group%%,*}
        [ -z "$is_first" ] || first=$first${group%%-*}
        ;;
      *)
        group=${rest%%[[,]*} rest=${rest#"${rest%%[[,]*}"}
        last=$last$group
        [ -z "$is_first" ] || first=$first$group
        ;;
    esac
  done
  printf '%s\n' "$first" "$last"
}

address_of() { # HOST: its IPv4 address in the eyes of this node; where it has none of that name, that of the first node
  local address
  address=$(getent ahostsv4 "$1" 2>/dev/null | { read -r address _ && printf '%s' "$address"; })
  printf '%s' "${address:-${SLURM_LAUNCH_NODE_IPADDR:-$1}}" # launch.sh starts the step from there
}

find_place() { # exports DEEPHPC_{RANK,SIZE,LOCAL_RANK,LOCAL_SIZE,NODE_RANK,TASKS,ADDRESS,PEER}
  local tasks hosts
  [ -n "${SLURM_PROCID:-}" ] || return 0 # launch.sh has set it: ranks without Slurm
  tasks=$(expand_counts "${SLURM_STEP_TASKS_PER_NODE:-${SLURM_TASKS_PER_NODE:-1}}") # what belongs to the step goes before the job's
  mapfile -t hosts < <(edge_hosts "${SLURM_STEP_NODELIST:-${SLURM_JOB_NODELIST:-localhost}}")
  export DEEPHPC_RANK=$SLURM_PROCID DEEPHPC_SIZE=${SLURM_STEP_NUM_TASKS:-$SLURM_NTASKS}
  export DEEPHPC_LOCAL_RANK=$SLURM_LOCALID DEEPHPC_NODE_RANK=$SLURM_NODEID DEEPHPC_TASKS=$tasks
  IFS=, read -r -a tasks <<<"$tasks"
  export DEEPHPC_LOCAL_SIZE=${tasks[SLURM_NODEID]:-1}
  if [ "${#tasks[@]}" -gt 1 ]; then # names of nodes mean nothing in an image
    DEEPHPC_ADDRESS=$(address_of "${hosts[0]}") # of rank 0
    DEEPHPC_PEER=$DEEPHPC_ADDRESS               # of another node
    [ "$SLURM_NODEID" != 0 ] || DEEPHPC_PEER=$(address_of "${hosts[1]}")
    export DEEPHPC_ADDRESS DEEPHPC_PEER
  fi
}
