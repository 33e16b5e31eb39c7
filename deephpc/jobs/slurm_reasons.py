"""Slurm's reasons in words, each with the next step: why a job waits, how it ended, why it was refused.

Sources: squeue(1), JOB REASON CODES, and sacct(1), JOB STATE CODES, of Slurm 22.05 and 24.11; resource_limits.html;
slurm_errno.c of Slurm 22.05.
"""

import re
from dataclasses import dataclass, replace

from deephpc.jobs.slurm_units import render_memory
from deephpc.jobs.state import JobState
from deephpc.shell import signal_name

_WAIT = "nothing to do but wait"
_ASK = "ask the cluster's support"
_RERUN = "`deephpc jobs rerun RUN`"
_LOGS = "see `deephpc logs RUN` for why; `deephpc jobs cancel RUN` stops it from starting again"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is the matter, in one sentence, and what to do next: there RUN and JOBID stand for the job's own ids."""

    text: str
    next_step: str

    def naming(self, run_id: str, job_id: str | None) -> "Explanation":
        """Return it with the job's own ids in the next step, and its cluster where the id names one."""
        number, _, cluster = (job_id or "JOBID").partition(";")
        ids = {"RUN": run_id, "JOBID": number}
        there = rf"`\1 --clusters={cluster} \2JOBID" if cluster else r"`\1 \2JOBID"
        next_step = re.sub(r"`(scontrol|scancel) ([^`]*)JOBID", there, self.next_step)
        named = re.sub(r"(?<![\w./-])(RUN|JOBID)(?![\w./-])", lambda found: ids[found[0]], next_step)
        return replace(self, next_step=named)


_PENDING = {
    "AccountNotAllowed": (
        "the partition does not take jobs of this account",
        "choose another --account or --partition",
    ),
    "AccountingPolicy": (
        "a limit of the site's accounting holds it",
        f"see which with `scontrol show job JOBID`, or {_ASK}",
    ),
    "BadConstraints": ("no node has what the job asks for", "cancel it and ask for less, or another --constraint"),
    "BeginTime": ("the job may not start before a set time, or was just requeued", _WAIT),
    "BlockFreeAction": ("its nodes are being freed", _WAIT),
    "BlockMaxError": ("its nodes could not be set up", _ASK),
    "BurstBufferOperation": ("the burst buffer failed to bring or store its files", _ASK),
    "BurstBufferResources": ("the burst buffer has no room yet", _WAIT),
    "BurstBufferStageIn": ("the burst buffer is being filled", _WAIT),
    "Cleaning": ("the job was requeued and its previous attempt is still being cleaned up", _WAIT),
    "Constraints": ("no node has what the job asks for", "cancel it and ask for less, or another --constraint"),
    "Deadline": (
        "the job can no longer end before its deadline",
        "cancel it, then `deephpc jobs rerun RUN --time …` with less",
    ),
    "DeadLine": (
        "the job can no longer end before its deadline",
        "cancel it, then `deephpc jobs rerun RUN --time …` with less",
    ),
    "Dependency": ("another job must end first", "`deephpc jobs show RUN` names it"),
    "DependencyNeverSatisfied": (
        "the job it depends on ended in a way that never lets this one start",
        "`deephpc jobs cancel RUN`, mend and rerun the first, then submit this one again",
    ),
    "FedJobLock": ("the job waits for the clusters of the federation to agree", _WAIT),
    "FrontEndDown": ("no front-end node can start the job", _ASK),
    "InactiveLimit": ("its previous attempt stood still for too long", _LOGS),
    "InvalidAccount": ("the account is not, or no longer, valid", "choose another --account"),
    "InvalidQOS": ("the quality of service is not, or no longer, valid", "choose another --qos"),
    "JobArrayTaskLimit": ("as many tasks of the array run as were allowed at once", _WAIT),
    "JobHeldAdmin": ("an administrator, or Slurm after failed starts, holds the job", _ASK),
    "JobHeldUser": ("the job is held by you", "let it go with `scontrol release JOBID`"),
    "JobHoldMaxRequeue": (
        "the job was requeued too often and is now held",
        "see `deephpc logs RUN` for why it kept failing",
    ),
    "JobLaunchFailure": ("the job could not be started on its nodes", f"{_RERUN}; if it happens again, {_ASK}"),
    "Licenses": ("all licences it needs are in use", _WAIT),
    "MaxMemPerLimit": ("the job asks for more memory than the partition allows", "ask for less --mem"),
    "MaxPoweredUpNodes": ("as many nodes are switched on as the site allows", _WAIT),
    "MpiPortsBusy": ("the network ports that its nodes keep for MPI are all in use", _WAIT),
    "None": ("the scheduler has not looked at the job yet", _WAIT),
    "NonZeroExitCode": ("its previous attempt ended with an exit code other than 0", _LOGS),
    "NodeDown": ("a node it needs is down", "wait, or ask for other nodes"),
    "OutOfMemory": (
        "its previous attempt used more memory than it was given",
        "cancel it, then `deephpc jobs rerun RUN --mem …` with more",
    ),
    "PartitionDown": ("the partition is closed", "choose another --partition, or wait until it opens"),
    "PartitionInactive": ("the partition starts no jobs at present", "choose another --partition, or wait"),
    "PartitionConfig": (
        "the job does not fit the partition's limits on nodes or time, or the partition is closed",
        "ask for fewer --nodes or less --time, or another --partition",
    ),
    "PartitionNodeLimit": (
        "the partition does not give that many nodes",
        "ask for fewer --nodes or another --partition",
    ),
    "PartitionTimeLimit": ("the partition does not give that much time", "ask for less --time or another --partition"),
    "PowerNotAvail": ("the machine has no electric power to spare for it yet", _WAIT),
    "PowerReserved": ("the electric power it needs is kept for a reservation", _WAIT),
    "Priority": ("jobs of higher priority stand before it", "wait; less --time or fewer nodes may start sooner"),
    "Prolog": ("the node is being prepared for the job", _WAIT),
    "QOSNotAllowed": ("the partition does not take this quality of service", "choose another --qos or --partition"),
    "QOSUsageThreshold": ("the account has used too much for this quality of service", "choose another --qos"),
    "RaisedSignal": ("its previous attempt was ended by a signal", _LOGS),
    "ReservationDeleted": (
        "the reservation it was to run in was deleted",
        "cancel it and submit it without --sbatch --reservation",
    ),
    "ReservationInvalid": (
        "the reservation it was to run in is not, or no longer, valid",
        "cancel it and submit it without --sbatch --reservation",
    ),
    "Reservation": ("its reservation has not begun", _WAIT),
    "ReqNodeNotAvail": (
        "nodes it needs are down, drained, or kept for maintenance that would begin before the job ends",
        "wait, or ask for less --time so that it ends before the maintenance",
    ),
    "Resources": ("it is next, and waits for enough free nodes, cores, memory or GPUs", _WAIT),
    "SchedDefer": ("the scheduler puts off starting jobs at once", _WAIT),
    "SystemFailure": ("Slurm, a file system or the network failed", _ASK),
    "TimeLimit": ("the job used up its time limit", "`deephpc jobs rerun RUN --time …` with more"),
    "WaitingForScheduling": ("the scheduler has not looked at the job yet", _WAIT),
}

#: Reasons that come as sentences or families; the first that matches counts.
#: Sources: job_state_reason.c of Slurm 22.05 and 24.11 for the names; resource_limits.html, sacctmgr(1) for the limits.
_PENDING_PATTERNS = (
    (
        r"(Association|QOS)JobLimit|(Assoc|QOS)?Max(Submit)?Jobs?(PerUser|PerAccount)?(Limit)?",
        "as many of your jobs run or wait as the site allows",
        "wait for your other jobs to end",
    ),
    (
        r"(Assoc|QOS)Grp(Submit)?JobsLimit",
        "as many jobs of your group run or wait as the site allows",
        "wait for others of the group to end",
    ),
    (
        r"\w*RunMin(ute)?s\w*",
        "with this job, running jobs would still have to run for more (minutes times cores, memory or GPUs) than the "
        "site allows at once",
        "wait, or ask for less --time",
    ),
    (
        r"(Assoc|QOS)Grp(\w*Minutes\w*|WallLimit)",
        "your account's budget is used up, or would be by this job",
        "choose another --account or --qos, ask for less, or ask who manages the account",
    ),
    (
        r"(Assoc|QOS)Grp\w+|AssociationResourceLimit|QOSResourceLimit",
        "your group's running jobs together use as much as the site allows",
        "wait for others of the group to end",
    ),
    (
        r"(Assoc|QOS)Max\w*(Per(User|Account|Acct)\w*|PU|PA)(Limit)?|MaxTRESPerAccount|Max\w+PerAccount",
        "your running jobs together use as much as the site allows one user or account",
        "wait for your other jobs to end, or ask for less",
    ),
    (
        r"(Assoc|QOS)(Max|Min)\w*|AssociationTimeLimit|QOSTimeLimit",
        "the job asks for more (or less) than the site allows one job of this account or quality of service",
        "cancel it and ask for another amount, --qos or --account",
    ),
    (
        r"Nodes required for job are DOWN, DRAINED.* or reserved.*",
        "nodes it needs are down, drained, or kept for jobs of higher priority partitions",
        "wait, or choose another --partition",
    ),
    (
        r".*launch fail(ed|ure limit exceeded) requeued held.*|.*user env retrieval failed.*",
        "the job could not be started on its node, was put back and is now held",
        "let it go with `scontrol release JOBID`; if it happens again, ask the cluster's support",
    ),
    (
        r".*requeued in held state.*",
        "the job was put back and is held, by you or an administrator",
        "let it go with `scontrol release JOBID`",
    ),
    (
        r"Job's account not permitted.*",
        "the partition does not take jobs of this account",
        "choose another --account or --partition",
    ),
    (
        r"Job's QOS not permitted.*",
        "the partition does not take this quality of service",
        "choose another --qos or --partition",
    ),
    (r"Job's requested licenses.*", "the site has no such licences", "cancel it and check the licence's name"),
    (
        r".*special exit state.*",
        "the site put the job back and holds it",
        "see `deephpc logs RUN`, then ask the cluster's support",
    ),
    (
        r".*Reservation.*(not usable|invalid).*",
        "its reservation cannot be used",
        "check the reservation's name and users",
    ),
)

#: States in which a program stands still; Slurm counts them as running, as we do.
_UNASKED_MEMORY = "it used more memory than the site gives a job that asks for none"
_STANDSTILLS = {
    "SUSPENDED": Explanation(
        "it is suspended: its program stands still and keeps its memory",
        f"whoever suspended it resumes it: an administrator, or Slurm where jobs take turns; if it lasts, {_ASK}",
    ),
    "STOPPED": Explanation(
        "its program was stopped by SIGSTOP and keeps its cores", "let it go on with `scancel --signal=CONT JOBID`"
    ),
}

_BY_ITSELF = "a run made with --max-requeues starts again by itself"
_ENDS = {
    JobState.COMPLETED: ("it ended well", "its results lie in the run folder; `deephpc jobs show RUN` names it"),
    JobState.CANCELLED: ("it was cancelled by you or an administrator", f"{_RERUN} when wanted"),
    JobState.TIMEOUT: ("it reached its time limit", "`deephpc jobs rerun RUN --time …` with more"),
    JobState.OUT_OF_MEMORY: (
        "it used more memory than it had asked for",
        "`deephpc jobs rerun RUN --mem …` with more, or make its batches smaller",
    ),
    JobState.NODE_FAIL: ("a node it ran on failed", f"{_RERUN}; {_BY_ITSELF}"),
    JobState.PREEMPTED: (
        "a job of higher priority took its nodes",
        f"{_RERUN}; {_BY_ITSELF}",
    ),
    JobState.DEADLINE: ("it could not end before its deadline", "`deephpc jobs rerun RUN --time …` with less"),
    JobState.BOOT_FAIL: ("its node did not start up", f"{_RERUN}; if it happens again, {_ASK}"),
    JobState.LOST: (
        "no source knows what became of it",
        f"look at `deephpc logs RUN` and the run folder, then {_RERUN}",
    ),
}

_EXIT_CODES = {
    75: (
        "the program asked to be continued",
        "mend what the reason says: save checkpoints, allow more --max-requeues, or --chain where none is queued again",
    ),
    126: ("a file that was to be run is not executable", "make it so with chmod +x, or run it with its interpreter"),
    127: ("a command was not found", "check its spelling, and what the node, the venv, the modules or the image have"),
    134: ("the program aborted (SIGABRT)", "see the end of `deephpc logs RUN`"),
    137: ("the program was killed (SIGKILL), often for want of memory", "`deephpc jobs rerun RUN --mem …` with more"),
    139: ("the program crashed (segmentation fault)", "see the end of `deephpc logs RUN`; try with smaller data"),
}

_GIVEN_TWICE = "those given to --sbatch, and SBATCH_… variables of your shell (`env | grep SBATCH_`)"
_REFUSALS = (
    (
        r"mutually exclusive|incompatible with|can not have|cannot specify both|inconsistent values|validate job spec"
        r"|requires --|not permitted with",
        f"these options do not go together; look at {_GIVEN_TWICE}",
    ),
    (
        r"no cluster '|can't be reached now",
        "check SBATCH_CLUSTERS and SLURM_CLUSTERS in your shell; `sacctmgr show cluster` lists the clusters",
    ),
    (r"\b(lua|cli_filter): ", "the site asks for that: follow its words, with --sbatch where deephpc has no option"),
    (r"invalid partition", "`deephpc site show` lists the partitions; choose one with --partition"),
    (r"no partition specified", "choose one with --partition; `deephpc site show` lists them"),
    (r"not permitted to use this partition", "choose another --partition"),
    (r"not in this partition", "ask for nodes of that partition, or another --partition"),
    (r"partition configuration not available|partition not available", "ask for less, or choose another --partition"),
    (
        r"node configuration is not available",
        "ask for less per node (--cpus-per-task, --mem, --gpus-per-node); `deephpc site probe` shows what there is",
    ),
    (r"node count specification|more processors", "ask for fewer --nodes or tasks; `deephpc site show` has the limits"),
    (r"cpu count specification|task count specification", "ask for fewer --cpus-per-task or --tasks-per-node"),
    (r"invalid account", "choose one of yours with --account; `sacctmgr show associations user=$USER` lists them"),
    (r"invalid qos", "choose another --qos, or leave it out"),
    (r"time limit is invalid", "give --time within the partition's limit; `deephpc site show` has it"),
    (r"memory (specification|required)", "ask for less --mem"),
    (r"submit job|submitjob|job submit limit|violates accounting", "wait for your other jobs to end, or ask for less"),
    (r"gres|generic resource|tres", "check the GPU type and number; `deephpc site show` lists what each partition has"),
    (r"invalid feature|active features", "check --constraint; `deephpc site show` lists the features"),
    (r"array specification", "use fewer or smaller --array numbers (`scontrol show config` has MaxArraySize)"),
    (r"dependency", "check the ids given to --dependency"),
    (r"reservation", "check the reservation's name, users and times"),
    (r"license", "check the licence's name"),
    (
        r"dos line breaks|batch script|null character|unable to open file|script arguments",
        "this is a fault of deephpc's: please report it with the job script",
    ),
    (r"configuration", "Slurm is not set up on this machine: run deephpc on a login node"),
    (r"invalid user|user id", "the cluster does not know you: ask its support for access"),
    (r"wckey", "give a valid one with --sbatch --wckey=NAME"),
    (r"node (name|list)", "check the names of the nodes given to --sbatch; `sinfo -N` lists them"),
    (
        r"option|directive|argument|specification|numeric value|--[a-z]|maximum node count|opening file"
        r"|environment file",
        f"check the options against `man sbatch`: {_GIVEN_TWICE}",
    ),
)


def explain_pending(reason: str) -> Explanation:
    """Explain why a job waits; a reason never heard of is given back as it is.

    Parameters
    ----------
    reason
        As squeue's %r gives it: one word, or a word and details, or a sentence.
    """
    said = reason.strip().strip("()")
    first = re.split(r"[ ,:(]", said, maxsplit=1)[0]
    known = _PENDING.get(first or "None")
    if known is not None:
        details = said[len(first) :].strip(" ,:()")
        return Explanation(f"{known[0]} ({details})" if details else known[0], known[1])
    for pattern, text, next_step in _PENDING_PATTERNS:
        if re.fullmatch(pattern, said):
            return Explanation(f"{text} ({said})", next_step)
    return Explanation(f"Slurm says: {said}", "see JOB REASON CODES in `man squeue`")


def explain_running(raw_state: str) -> Explanation:
    """Explain what a job that has started does, by Slurm's word for it."""
    return _STANDSTILLS.get(raw_state) or Explanation("it runs", "`deephpc logs -f RUN` shows its output as it comes")


def explain_end(
    state: JobState,
    exit_code: int | None = None,
    signal: int | None = None,
    memory_mib: int | None = None,
    given_mib: int | None = None,
) -> Explanation:
    """Explain how a job ended.

    Parameters
    ----------
    memory_mib
        Memory it had asked for on each node, for a job that ran out of it; None where it had asked for none.
    given_mib
        Memory it was given on each node, where that is known.
    """
    if state is JobState.OUT_OF_MEMORY:
        text, next_step = _ENDS[state]
        if memory_mib:
            return Explanation(f"{text} ({render_memory(memory_mib)} on each node)", next_step)
        if given_mib:
            return Explanation(
                f"it used more memory than it was given ({render_memory(given_mib)} on each node)", next_step
            )
        return Explanation(_UNASKED_MEMORY, next_step)
    if state is JobState.FAILED:
        return _explain_failure(exit_code, signal)
    text, next_step = _ENDS.get(state, (f"it is {state.value}", "look again in a moment with `deephpc jobs show RUN`"))
    return Explanation(text, next_step)


def explain_refusal(message: str) -> str:
    """Return the hint for sbatch's refusal; a general one for words never heard of."""
    for pattern, hint in _REFUSALS:
        if re.search(pattern, message, re.IGNORECASE):
            return hint
    return "nothing was queued; `deephpc doctor` checks the site, `--dry-run` shows what is sent"


def _explain_failure(exit_code: int | None, signal: int | None) -> Explanation:
    if signal:
        return Explanation(f"it was ended by signal {signal_name(signal)}", "see the end of `deephpc logs RUN`")
    if not exit_code:
        return Explanation("it failed, or could not start", "see the end of `deephpc logs RUN`")
    known = _EXIT_CODES.get(exit_code)
    if known is not None:
        return Explanation(f"it ended with exit code {exit_code}: {known[0]}", known[1])
    if 128 < exit_code <= 128 + 64:
        text = f"it ended with exit code {exit_code}: the program was ended by signal {signal_name(exit_code - 128)}"
        return Explanation(text, "see the end of `deephpc logs RUN`")
    return Explanation(
        f"the program ended with exit code {exit_code}", "see the end of `deephpc logs RUN` for its own words"
    )
