"""The Slurm scheduler, through its command-line tools: sbatch, squeue, sacct, scancel."""

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from deephpc.errors import SiteError
from deephpc.jobs.scheduler import (
    Accepted,
    Ambiguous,
    JobId,
    Observation,
    Question,
    Refused,
    Sighting,
    Submission,
    cluster_of,
)
from deephpc.jobs.slurm_answers import (
    classify_sbatch_failure,
    clean_environment,
    outside_of_any_job,
    parse_sbatch_id,
    refusal_reason,
    said_beside_id,
)
from deephpc.jobs.slurm_controller import ALL_CLUSTERS, on_clusters, without_clusters
from deephpc.jobs.slurm_environment import environment_for_sbatch
from deephpc.jobs.slurm_ids import parse_slurm_id
from deephpc.jobs.slurm_reports import Report, parse_sacct, parse_squeue, sacct_argv, sacct_by_name_argv, squeue_argv
from deephpc.jobs.slurm_usage import Accounted, parse_usage, usage_argv
from deephpc.jobs.state import JobState
from deephpc.shell import CommandNotFound, Completed, run

if TYPE_CHECKING:
    from deephpc.jobs.slurm_granted import Granted
    from deephpc.jobs.slurm_outlook import Outlook

#: How long a frozen accounting is left alone.
_SILENCE_S = 60.0
_LIVE = frozenset({JobState.PENDING, JobState.RUNNING, JobState.COMPLETING})
_NO_ACCOUNTING = re.compile(r"accounting storage is disabled|accounting_storage/none|not configured", re.IGNORECASE)
#: sacct's words when its database is away, whatever status it ends with.
_NO_DATABASE = re.compile(r"problem talking to the database|persistent connection|unable to connect", re.IGNORECASE)
_ALREADY_GONE = re.compile(
    r"invalid job id|already completing|already finished|already done|job/step already|not pending"
)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long each command may take, in seconds."""

    submit: float = 30.0
    queue: float = 5.0
    accounting: float = 5.0
    cancel: float = 15.0
    outlook: float = 3.0
    """How long each question about a job's start may take."""
    head_start: float = 0.5
    """How long squeue may take alone before sacct is started beside it: it may well make sacct needless."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one source said, on one cluster or on all that were asked: None for nothing; the troubles there were."""

    report: Report | None
    troubles: tuple[str, ...] = ()
    timed_out: bool = False
    silent: frozenset[str] = frozenset()
    """The clusters that did not answer."""


@dataclass(frozen=True, slots=True)
class _Call:
    """One command, the cluster it asks ("" for the one we are on), and how its output is read."""

    cluster: str
    argv: list[str]
    parse: Callable[[str, str], Report]


class SlurmScheduler:
    """Slurm on this login node.

    Parameters
    ----------
    environ
        The environment squeue, sacct and scancel are called in, cleaned of what changes their output.
    user
        Whose jobs these are: the name of the account deephpc runs under.
    silence
        File whose age tells for how long accounting has not answered: after a time-out it is not asked again for a
        minute, by any process that shares the file. None asks every time.
    """

    name = "slurm"

    def __init__(
        self,
        environ: Mapping[str, str],
        user: str,
        *,
        timeouts: Timeouts | None = None,
        silence: Path | None = None,
    ) -> None:
        self._environ = clean_environment(environ)
        self._user = user
        self._timeouts = timeouts or Timeouts()
        self._silence = silence

    def submit(self, submission: Submission) -> Accepted:
        """Send a job from inside its run folder.

        Raises
        ------
        Refused
            It said no: nothing is queued.
        Ambiguous
            No clear answer: look the job up before trying again.
        CommandNotFound
            There is no sbatch here: nothing is queued.
        """
        completed = run(
            ["sbatch", "--parsable", *on_clusters(submission.clusters), submission.script.name],
            timeout_s=self._timeouts.submit,
            cwd=submission.script.parent,
            env=without_clusters(environment_for_sbatch(outside_of_any_job(submission.environment))),
            dies_with_us=True,
        )
        if completed.timed_out:
            raise Ambiguous(f"sbatch gave no answer within {self._timeouts.submit:g} s")
        if not completed.ok:
            if classify_sbatch_failure(completed) == "refused":
                raise Refused(refusal_reason(completed.stderr))
            raise Ambiguous(completed.last_words() or f"sbatch ended with status {completed.returncode}")
        try:
            job_id = parse_sbatch_id(completed.stdout)
        except ValueError as error:
            raise Ambiguous(f"sbatch printed no job id but {completed.last_words()!r}") from error
        if len(submission.clusters) == 1 and not cluster_of(job_id) and ALL_CLUSTERS not in submission.clusters:
            job_id = f"{job_id};{submission.clusters[0]}"  # a site's wrapper may leave it out
        return Accepted(job_id, said_beside_id(completed))

    def observe(self, question: Question) -> Observation:
        """Ask squeue, and beside it sacct where squeue alone does not settle the question.

        Live jobs that are no arrays are settled by squeue; then accounting is None. A site that keeps no accounting
        answers with an empty mapping. A job neither source lists is left out. Names beside ids cost one more sacct,
        since asked by name it forgets jobs that never became eligible. Each cluster that ids name (`4711;big`) costs a
        call to each source; one that does not answer is silent about its own jobs alone.
        """
        if question.is_empty:
            return Observation(queue={}, accounting={})
        question = replace(question, name_clusters=self._each_of(question.name_clusters))
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="squeue") as pool:
            asking = pool.submit(self._ask_queue, question)
            done, _ = wait([asking], timeout=self._timeouts.head_start)
            if done and _settles(asking.result().report, question):
                return Observation(queue=asking.result().report, accounting=None, silent_queues=asking.result().silent)
            accounting = self._ask_accounting(question)
            queue = asking.result()
        return Observation(
            queue=queue.report,
            accounting=accounting.report,
            troubles=(*queue.troubles, *accounting.troubles),
            silent_queues=queue.silent,
            silent_accounts=accounting.silent,
        )

    def cancel(self, job_ids: Iterable[str]) -> None:
        """Ask for jobs (`4711`) or array tasks (`4711_3`) to end; ids already gone are not an error.

        Raises
        ------
        SiteError
            Slurm did not answer, or refused.
        """
        for cluster, ids in _by_cluster(job_ids).items():
            argv = ["scancel", "--quiet", *on_clusters([cluster]), *ids]
            completed = run(argv, timeout_s=self._timeouts.cancel, env=self._environ)
            if completed.timed_out:
                raise SiteError(
                    f"scancel gave no answer within {self._timeouts.cancel:g} s",
                    "try again in a moment",
                    transient=True,
                )
            complaints = [line for line in completed.stderr.splitlines() if line.strip()]
            if not completed.ok and not (complaints and all(_ALREADY_GONE.search(line.lower()) for line in complaints)):
                raise SiteError(
                    f"scancel could not cancel {', '.join(ids[:5])}: {completed.last_words()}",
                    "`deephpc jobs` shows what still runs; `deephpc doctor` checks the controller",
                    transient=True,
                )

    def used(self, job_id: str) -> Sequence[Accounted]:
        """Return what a job (`4711`) or array task (`4711_3`) was given and used, one row per attempt or task.

        Empty where there is no accounting, or it does not answer.
        """
        return parse_usage(self._accounts_say(usage_argv([job_id], self._user)))

    def granted(self, job_id: str) -> Sequence["Granted"]:
        """Return what a job (`4711`) or array task (`4711_3`) was granted, one row per task.

        Where it still waits, it is what it waits with. Empty where nobody who answers knows the job.
        """
        from deephpc.jobs.slurm_granted import accounts_argv, parse_accounts, parse_queue, queue_argv  # start-up time

        try:
            queue = run(queue_argv(job_id, self._user), timeout_s=self._timeouts.queue, env=self._environ)
        except CommandNotFound:
            return ()
        return parse_queue(queue.stdout) or parse_accounts(self._accounts_say(accounts_argv(job_id, self._user)))

    def outlook(self, job_id: JobId, submission: Submission | None = None) -> "Outlook | None":
        """Return when a waiting job may start; None where it does not wait, or Slurm does not tell in a few seconds."""
        from deephpc.jobs.slurm_outlook import Desk, foresee  # start-up time

        return foresee(job_id, self._user, Desk(self._environ, self._timeouts.outlook), submission)

    def _accounts_say(self, argv: list[str]) -> str:
        """Return sacct's answer, empty where there is none; a silent one is left alone."""
        if self._is_silent():
            return ""
        try:
            completed = run(argv, timeout_s=self._timeouts.accounting, env=self._environ)
        except CommandNotFound:
            return ""
        self._note_silence(_Answer(None, timed_out=completed.timed_out))
        return completed.stdout if completed.ok else ""

    def _each_of(self, clusters: tuple[str, ...]) -> tuple[str, ...]:
        """Return the clusters by their names; `all` stays beside them, and alone where they cannot be told."""
        if ALL_CLUSTERS not in clusters:
            return clusters
        argv = ["sacctmgr", "--noheader", "--parsable2", "show", "clusters", "format=cluster"]
        try:
            completed = run(argv, timeout_s=self._timeouts.accounting, env=self._environ)
        except CommandNotFound:
            return clusters
        return (*clusters, *completed.stdout.split()) if completed.ok else clusters

    def _ask_queue(self, question: Question) -> _Answer:
        ids = _by_cluster((*question.job_ids, *question.ended_ids))
        names = question.name_clusters if question.job_names or question.lost_names else ()
        clusters = dict.fromkeys((*ids, *names))
        calls = [_Call(cluster, squeue_argv(self._user, cluster), parse_squeue) for cluster in clusters]
        return self._ask(question, calls, self._timeouts.queue)

    def _ask_accounting(self, question: Question) -> _Answer:
        if self._is_silent():
            return _Answer(None, ("sacct did not answer a moment ago; it is asked again in a minute",))
        calls = [
            _Call(cluster, sacct_argv(ids, self._user, cluster), parse_sacct)
            for cluster, ids in _by_cluster(question.job_ids).items()
        ]
        if question.job_names:
            calls += [
                _Call(
                    cluster,
                    sacct_by_name_argv(question.job_names, user=self._user, since=question.since, cluster=cluster),
                    parse_sacct,
                )
                for cluster in question.name_clusters
            ]
        answer = self._ask(question, calls, self._timeouts.accounting)
        self._note_silence(answer)
        return answer

    def _ask(self, question: Question, calls: Sequence[_Call], timeout_s: float) -> _Answer:
        """Make the calls to one source, all at once, and keep of its answers what was asked for."""
        real = [call for call in calls if call.cluster != ALL_CLUSTERS]
        if len(real) == 1:
            answers = [self._call(real[0], timeout_s)]
        else:
            with ThreadPoolExecutor(max_workers=len(real) or 1, thread_name_prefix="slurm") as pool:
                answers = list(pool.map(lambda call: self._call(call, timeout_s), real))
        silent = {call.cluster for call, answer in zip(real, answers, strict=True) if answer.report is None}
        troubles = [trouble for answer in answers for trouble in answer.troubles]
        if len(real) < len(calls) and (silent or not real):
            silent.add(ALL_CLUSTERS)
            troubles += [] if real else ["sacctmgr does not tell which clusters there are"]
        found: dict[JobId, tuple[Sighting, ...]] = {}
        for answer in answers:
            found.update(answer.report or {})
        is_void = bool(silent) and silent >= {call.cluster for call in calls}
        return _Answer(
            None if is_void else _only_asked(found, question),
            tuple(dict.fromkeys(troubles)),
            timed_out=any(answer.timed_out for answer in answers),
            silent=frozenset(silent),
        )

    def _call(self, call: _Call, timeout_s: float) -> _Answer:
        try:
            completed = run(call.argv, timeout_s=timeout_s, env=self._environ)
        except CommandNotFound as error:
            return _Answer(None, (error.message,))
        trouble = _trouble(completed, timeout_s)
        if trouble:
            return _Answer(None, (_where(trouble, call.cluster),), timed_out=completed.timed_out)
        return _Answer(call.parse(completed.stdout, call.cluster) if completed.ok else {})

    def _is_silent(self) -> bool:
        if self._silence is None:
            return False
        try:
            return 0 <= time.time() - self._silence.stat().st_mtime < _SILENCE_S
        except OSError:
            return False

    def _note_silence(self, answer: _Answer) -> None:
        """Remember that accounting hangs, or that it no longer does. Only a help: an unwritable file is no error."""
        if self._silence is None:
            return
        try:
            if answer.timed_out:
                self._silence.touch(mode=0o600)
            elif self._silence.exists():
                self._silence.unlink(missing_ok=True)
        except OSError:
            return


def _where(trouble: str, cluster: str) -> str:
    return f"{trouble} (cluster {cluster})" if cluster else trouble


def _trouble(completed: Completed, timeout_s: float) -> str:
    """Return what went wrong in one line, or nothing; a site without accounting is no trouble: it lists no jobs."""
    program = completed.argv[0]
    if completed.timed_out:
        return f"{program} gave no answer within {timeout_s:g} s"
    if program == "sacct" and _NO_ACCOUNTING.search(completed.stderr):
        return ""
    if not completed.ok or (program == "sacct" and _NO_DATABASE.search(completed.stderr)):
        return f"{program} failed: {completed.last_words() or f'status {completed.returncode}'}"
    return ""


def _settles(report: Report | None, question: Question) -> bool:
    """Whether squeue knows all as alive; of an array, as many tasks as are not known to have ended."""
    if report is None or question.job_names:
        return False
    return all(_lives(report.get(job_id, ()), question.live_tasks.get(job_id)) for job_id in question.job_ids)


def _lives(sightings: Sequence[Sighting], live_tasks: int | None) -> bool:
    alive = [one for one in sightings if one.state in _LIVE]
    if live_tasks is None:
        return len(alive) == len(sightings) == 1 and alive[0].task is None
    return len(alive) == live_tasks


def _only_asked(found: Report, question: Question) -> Report:
    ids = frozenset((*question.job_ids, *question.ended_ids))
    names = frozenset((*question.job_names, *question.lost_names))
    return {
        job_id: sightings
        for job_id, sightings in found.items()
        if job_id in ids or any(one.name in names for one in sightings)
    }


def _by_cluster(job_ids: Iterable[str]) -> dict[str, list[str]]:
    """Group ids by the cluster they name ("" for none), without its name. Ids that are none of Slurm's are left out."""
    groups: dict[str, list[str]] = {}
    for job_id in job_ids:
        try:
            parsed = parse_slurm_id(job_id)
        except ValueError:
            continue
        groups.setdefault(parsed.cluster or "", []).append(job_id.partition(";")[0])
    return groups
