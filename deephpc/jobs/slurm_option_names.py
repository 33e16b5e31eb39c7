"""Every option sbatch has had from 20.11 to 26.05: if it takes a value, its short form, and if deephpc sets it.

Sources: sbatch(1) of Slurm 22.05, 24.11 and 26.05; `sbatch --help` of 22.05.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Literal

SHORT: Mapping[str, str] = {
    "A": "account",
    "B": "extra-node-info",
    "C": "constraint",
    "D": "chdir",
    "F": "nodefile",
    "G": "gpus",
    "H": "hold",
    "J": "job-name",
    "L": "licenses",
    "M": "clusters",
    "N": "nodes",
    "O": "overcommit",
    "Q": "quiet",
    "S": "core-spec",
    "V": "version",
    "W": "wait",
    "a": "array",
    "b": "begin",
    "c": "cpus-per-task",
    "d": "dependency",
    "e": "error",
    "h": "help",
    "i": "input",
    "k": "no-kill",
    "m": "distribution",
    "n": "ntasks",
    "o": "output",
    "p": "partition",
    "q": "qos",
    "s": "oversubscribe",
    "t": "time",
    "v": "verbose",
    "w": "nodelist",
    "x": "exclude",
}

_WITH_VALUE = """
    account acctg-freq array batch bb bbf begin chdir cluster cluster-constraint clusters comment constraint
    container container-id container-type core-spec cores-per-socket cpu-freq cpus-per-gpu cpus-per-task deadline
    delay-boot dependency distribution error exclude export export-file extra extra-node-info gid gpu-bind gpu-freq
    gpus gpus-per-node gpus-per-socket gpus-per-task gres gres-flags hint input job-name kill-on-invalid-dep
    licenses mail-type mail-user mcs-label mem mem-bind mem-per-cpu mem-per-gpu mem-update mincpus network nodefile
    nodelist nodes ntasks ntasks-per-core ntasks-per-gpu ntasks-per-node ntasks-per-socket open-mode output
    partition power prefer priority profile qos reservation resources segment signal sockets-per-node switches
    thread-spec threads-per-core time time-min tmp tres-bind tres-per-task uid wait-all-nodes wckey wrap
"""
_WITHOUT_VALUE = """
    consolidate-segments contiguous help hold ignore-pbs no-requeue overcommit oversubscribe parsable quiet reboot
    requeue spread-job spread-segments stepmgr test-only usage use-min-nodes verbose version wait
"""
_WITH_EITHER = "exclusive get-user-env nice no-kill oom-kill-step propagate resv-ports"

VALUE_NEEDED: Mapping[str, Literal["yes", "no", "maybe"]] = {
    **dict.fromkeys(_WITH_VALUE.split(), "yes"),
    **dict.fromkeys(_WITHOUT_VALUE.split(), "no"),
    **dict.fromkeys(_WITH_EITHER.split(), "maybe"),
}

_LOG = "deephpc keeps the output in the run folder; read it with `deephpc logs`"
_GPUS = "use --gpus-per-node"
_MEMORY = "use --mem"
_RESTART = "use --max-requeues"
_ALONE = "leave it out: deephpc calls sbatch itself"
_ENVIRONMENT = "use --env or --env-file"
_PLACE = "leave it out: the job starts in the run folder, the program where deephpc was called"

#: Options deephpc sets, or that would change what it relies on, and what to do instead.
OURS_ALWAYS: Mapping[str, str] = {
    "account": "use --account",
    "array": "use --array",
    "chdir": _PLACE,
    "comment": "leave it out: deephpc finds its jobs by their comment",
    "constraint": "use --constraint",
    "container": "use --image",
    "container-id": "use --image",
    "container-type": "use --image",
    "cpus-per-task": "use --cpus-per-task",
    "dependency": "use --dependency",
    "error": _LOG,
    "exclusive": "use --exclusive",
    "export": _ENVIRONMENT,
    "export-file": _ENVIRONMENT,
    "get-user-env": _ENVIRONMENT,
    "gid": _ALONE,
    "gpus": _GPUS,
    "gpus-per-node": _GPUS,
    "gpus-per-socket": _GPUS,
    "gpus-per-task": _GPUS,
    "help": _ALONE,
    "ignore-pbs": _ALONE,
    "input": "give the program its input as an argument after --",
    "job-name": "use --name",
    "kill-on-invalid-dep": "use --dependency; a job whose dependency can never be met is always cancelled",
    "mail-type": "use --mail-type",
    "mail-user": "use --mail-user",
    "mem": _MEMORY,
    "mem-per-cpu": _MEMORY,
    "mem-per-gpu": _MEMORY,
    "no-requeue": _RESTART,
    "nodes": "use --nodes",
    "ntasks": "use --nodes and --tasks-per-node",
    "ntasks-per-node": "use --tasks-per-node",
    "open-mode": _LOG,
    "output": _LOG,
    "parsable": _ALONE,
    "partition": "use --partition",
    "qos": "use --qos",
    "quiet": _ALONE,
    "requeue": _RESTART,
    "signal": "use --grace: the program is told with SIGUSR1 before its time limit",
    "test-only": "use --dry-run",
    "time": "use --time",
    "uid": _ALONE,
    "usage": _ALONE,
    "verbose": _ALONE,
    "version": _ALONE,
    "wait": "use --wait",
    "wrap": "give the command after --",
}


def _names_gpus(value: str) -> bool:
    """Whether a list of generic resources has GPUs in it: `gpu`, `gpu:2`, `gres/gpu=2`, `lustre:1,gpu:a100:2`."""
    return re.search(r"(^|[,/])gpu($|[:=,])", value) is not None


#: Options that are the user's unless their value asks for GPUs.
OURS: Mapping[str, Callable[[str], bool]] = {"gres": _names_gpus, "tres-per-task": _names_gpus}


def nearest(name: str) -> str:
    """Return the hint for an option sbatch does not have."""
    longer = [known for known in VALUE_NEEDED if name and known.startswith(name)]
    close = (longer if len(longer) == 1 else []) or difflib.get_close_matches(name, VALUE_NEEDED, n=1, cutoff=0.6)
    return f"did you mean --{close[0]}?" if close else "`man sbatch` lists its options"
