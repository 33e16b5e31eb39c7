"""What sbatch answers, and the environment Slurm's commands are called in."""

import re
from collections.abc import Mapping
from typing import Literal

from deephpc.jobs.scheduler import JobId
from deephpc.jobs.slurm_controller import CONTROLLER_VARIABLES, without_clusters
from deephpc.jobs.slurm_ids import parse_slurm_id
from deephpc.shell import Completed

_SUBMITTED = re.compile(r"Submitted batch job ([0-9]+)(?: on cluster ([A-Za-z0-9_.-]+))?")

#: The controller may have the job although sbatch failed. Source: slurm_errno.c of Slurm 22.05.
_NO_CLEAR_ANSWER = re.compile(
    r"timed out|unable to contact|communication|connection|connect failure|send failure|receive failure"
    r"|shutdown failure|authentication|credential"
    r"|zero bytes|zero length message|message length|entire message|missing socket|endpoint|not responding"
    r"|unexpected message|temporarily un|try again|standby|broken pipe|internal error|slurm_receive|slurm_send"
    r"|sleeping and retrying",
    re.IGNORECASE,
)
#: The controller said no. Source: slurm_errno.c of Slurm 22.05 and 24.11.
_SAID_NO = re.compile(
    r"invalid|not available|not permitted|not allowed|denied|disabled|violates|cannot be satisfied|can not be satisfied"
    r"|unsupported|not supported|duplicate|exceed|too long|too large|limit|dependency|no partition specified"
    r"|not in this partition|not usable|in use|out of range|needs to be provided|unspecified error|missing"
    r"|only batch jobs|more (processors|tasks|ports)|insufficient|required|job script not specified|circular",
    re.IGNORECASE,
)
#: sbatch stopped before it sent anything.
_NEVER_SENT = re.compile(
    r"invalid directive|unrecognized option|invalid option|requires an argument|ambiguous|Unable to open file"
    r"|sbatch --help|This does not look like a batch script|Batch script is empty|Batch script contains"
    r"|invalid .*specification|invalid numeric value|Pathname|unable to resolve|Unable to process configuration",
    re.IGNORECASE,
)
#: How sbatch ends by itself: whatever goes wrong once it has sent the job, it says in the sentence below.
#: Source: src/sbatch/sbatch.c of Slurm 22.05 and 24.11, where only that sentence comes after slurm_submit_batch_job().
_OWN_END = re.compile(r"sbatch: (error|fatal): ")
_FAILED = "batch job submission failed:"
#: From here to 254 an exit status is a shell's or a wrapper's word (a deadline, a signal), not sbatch's (1 and 255).
_NOT_SBATCHS = range(124, 255)
#: What sbatch puts before each line; the whole line where it only tells how it goes about it (SLURM_DEBUG).
_PROGRAM = re.compile(r"^sbatch: (debug.*)?")
#: Lines of a site's that are kept.
_MOST_WORDS = 20
#: What says nothing beside what was said before it.
_EMPTY_WORDS = (
    "Unspecified error",
    "cli_filter plugin terminated with error",
    'Try "sbatch --help" for more information',
)


def parse_sbatch_id(stdout: str) -> JobId:
    """Return the job id from what `sbatch --parsable` printed, whatever a site's wrapper printed around it.

    Raises
    ------
    ValueError
        No line is an id.
    """
    for line in reversed(stdout.splitlines()):
        word = line.strip()
        match = _SUBMITTED.fullmatch(word)
        if match is not None:
            word = f"{match[1]};{match[2]}" if match[2] else match[1]
        try:
            slurm_id = parse_slurm_id(word)
        except ValueError:
            continue
        if slurm_id.task is None and slurm_id.het is None and slurm_id.step is None:
            return slurm_id.job_id
    raise ValueError("sbatch printed no job id")


def classify_sbatch_failure(completed: Completed) -> Literal["refused", "ambiguous"]:
    """Tell whether nothing is queued for certain, or the job must be looked up before anything is tried again.

    Whatever is not surely a refusal is ambiguous: a deadline, a signal, words about the connection, words never heard
    of, and any failure after an id was printed. A look-up too many costs a moment, a second job costs an allocation.

    An error of sbatch's own, as its last word and not about the submission, came before it sent anything: options that
    exclude each other, a cluster that is not known, the site's cli_filter.
    """
    if completed.returncode is None or completed.returncode <= 0 or _has_id(completed.stdout):
        return "ambiguous"
    text = completed.stderr
    if _NO_CLEAR_ANSWER.search(text):
        return "ambiguous"
    if _FAILED not in text.lower():
        return "refused" if _NEVER_SENT.search(text) or _ends_by_itself(completed) else "ambiguous"
    reason = text.lower().rpartition(_FAILED)[2]
    return "refused" if _SAID_NO.search(reason) else "ambiguous"


def refusal_reason(stderr: str) -> str:
    """Return why sbatch refused, in one line: what the site's own filter said, then Slurm's words."""
    lines = [re.sub(r"^sbatch: (error: |fatal: )?", "", line).strip() for line in stderr.splitlines()]
    said = [re.sub(r"^(Batch job submission failed|allocation failure): ", "", line) for line in lines if line]
    said = [line for line in dict.fromkeys(said) if line not in _EMPTY_WORDS or len(said) == 1]
    return "; ".join(said[-3:])


def said_beside_id(completed: Completed) -> tuple[str, ...]:
    """Return what an sbatch that took a job printed beside its id, a line each: the site's words, and its wrapper's."""
    lines = (line for text in (completed.stdout, completed.stderr) for line in text.splitlines() if not _has_id(line))
    said = (_PROGRAM.sub("", line.strip()) for line in lines)
    return tuple(dict.fromkeys(line for line in said if line))[:_MOST_WORDS]


def outside_of_any_job(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without what an enclosing job put there, which would shape jobs submitted from it.

    Outside of a job nothing is dropped: a user's own SLURM_… variables are meant for srun.
    """
    if "SLURM_JOB_ID" not in environ and "SLURM_JOBID" not in environ:
        return dict(environ)
    return {
        name: value
        for name, value in environ.items()
        if name in CONTROLLER_VARIABLES or not name.startswith(("SLURM_", "SLURMD_"))
    }


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment to call squeue, sacct and scancel in: nothing in it changes whom they ask or their output.

    Clusters are an option of each command.
    Times come as seconds since 1970 (SLURM_TIME_FORMAT is a strftime format, squeue(1) of 22.05), lists of array tasks
    in full (SLURM_BITSTR_LEN=0). TZ is UTC for what sacct is told, and for a Slurm that ignores the time format.
    """
    foreign = ("SQUEUE_", "SACCT_", "SCANCEL_", "SLURM_", "SLURMD_")
    kept = {
        name: value for name, value in environ.items() if name in CONTROLLER_VARIABLES or not name.startswith(foreign)
    }
    return {**without_clusters(kept), "SLURM_TIME_FORMAT": "%s", "SLURM_BITSTR_LEN": "0", "TZ": "UTC"}


def _ends_by_itself(completed: Completed) -> bool:
    lines = [line for line in completed.stderr.splitlines() if line.strip()]
    return bool(lines) and _OWN_END.match(lines[-1]) is not None and completed.returncode not in _NOT_SBATCHS


def _has_id(stdout: str) -> bool:
    try:
        return bool(parse_sbatch_id(stdout))
    except ValueError:
        return False
