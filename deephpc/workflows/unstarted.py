"""Explains a job whose script stopped before the program: it had no run folder there, or could not use it."""

import re
from pathlib import Path

from deephpc.jobs.evidence import load_attempts, load_result
from deephpc.jobs.job import Job
from deephpc.jobs.run_folder import TaskFolder
from deephpc.jobs.slurm_reasons import Explanation
from deephpc.workflows.logs import read_tail

#: With which the job script stops there (`stop` in job.sh.jinja; EX_CANTCREAT of sysexits.h).
STOPPED = 73
_SHARED = (
    "set work_dir (DEEPHPC_WORK_DIR, or `work_dir` in config.toml) to a folder that the nodes share with this machine; "
    "`deephpc doctor --nodes` checks it"
)
_ROOM = "make room there, or set work_dir (DEEPHPC_WORK_DIR) to another file system; then `deephpc jobs rerun RUN`"
#: What the script, or mkdir in it, says → what that is, with {folder} and {node}; what to do.
_SAID = (
    (r"cannot enter ", "{node} has no run folder {folder}", _SHARED),
    (
        r"\S.* is somebody else's folder",
        "the run folder {folder} belonged to another account, so nothing in it was run",
        "set work_dir (DEEPHPC_WORK_DIR) to a folder that only you can write, and submit it again",
    ),
    (
        r"\S.* was removed or emptied",
        "the run folder {folder} was removed or emptied while the job waited",
        "submit it again from its own command, with a work_dir that no purge empties",
    ),
    (
        r"cannot write in |cannot create directory",
        "the run folder {folder} cannot be written on {node} ({said})",
        _ROOM,
    ),
    (
        r"no private folder can be made in ",
        "no folder can be made on {node} ({said})",
        "set `node_scratch` in the site's profile to a folder of the nodes' own that you may write",
    ),
)


def explain_stop(one: Job, files: TaskFolder) -> Explanation | None:
    """Explain a job that its own script stopped before the program; None for every other end."""
    if one.exit_code != STOPPED or load_result(files) is not None:
        return None
    attempts = load_attempts(files)
    if attempts and attempts[-1].ended_at is not None:
        return None
    facts = {"folder": one.folder, "node": one.nodes or "its node"}
    for said in reversed(_own_words(files.log)):
        for pattern, text, next_step in _SAID:
            if re.match(pattern, said):
                return Explanation(f"the program never started: {text.format(said=said, **facts)}", next_step)
    if attempts:
        return None
    if not one.folder.exists():
        text = "it ended with exit code 73, the job script's where it finds no run folder that it can use"
        return Explanation(text, "submit it again from its own command, with a work_dir that no purge empties")
    text = "the program never started: {node} has no run folder {folder}, or cannot write there"
    return Explanation(text.format(**facts), _SHARED)


def _own_words(log: Path) -> list[str]:
    """Return what the job script itself said at the end of a log, without its name."""
    if not log.is_file():
        return []
    lines = read_tail(log, 15).decode(errors="replace").splitlines()
    return [line.partition(": ")[2] for line in lines if line.startswith(("deephpc: ", "mkdir: "))]
