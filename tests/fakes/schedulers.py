"""A scheduler that does as it is told, satisfying the Protocol."""

from collections.abc import Callable, Iterable, Sequence

from deephpc.jobs.scheduler import Accepted, Ambiguous, JobId, Observation, Question, Refused, Sighting, Submission
from deephpc.jobs.slurm_granted import Granted
from deephpc.jobs.slurm_outlook import Outlook
from deephpc.jobs.slurm_usage import Accounted
from deephpc.jobs.state import JobState

Answer = JobId | Accepted | Refused | Ambiguous


def sighting(job_id: str, state: JobState, *, task: int | None = None, **facts: object) -> Sighting:
    """Return what the queue saw of a job."""
    known: dict[str, object] = {"raw_state": state.value, "source": "squeue", **facts}
    return Sighting(job_id=job_id, task=task, state=state, **known)  # type: ignore[arg-type]


def seen(*sightings: Sighting) -> dict[JobId, tuple[Sighting, ...]]:
    """Return one source's answer."""
    found: dict[JobId, tuple[Sighting, ...]] = {}
    for one in sightings:
        found[one.job_id] = (*found.get(one.job_id, ()), one)
    return found


NOTHING = Observation(queue={}, accounting={})
SILENCE = Observation(queue=None, accounting=None, troubles=("squeue gave no answer within 5 s",))


class ScriptedScheduler:
    """Gives prepared answers, in order; the last one again and again. Notes every call."""

    name = "slurm"

    def __init__(
        self,
        answers: Sequence[Answer] = ("4711",),
        observations: Sequence[Observation] = (NOTHING,),
        on_submit: Callable[[Submission], None] = lambda _: None,
        accounted: Sequence[Accounted] = (),
        granted: Sequence[Granted] = (),
        expected: Outlook | None = None,
    ) -> None:
        self.answers = list(answers)
        self.observations = list(observations)
        self.on_submit = on_submit
        self.accounted = accounted
        self.grants = granted
        self.expected = expected
        self.foreseen: list[tuple[JobId, Submission | None]] = []
        self.submitted: list[Submission] = []
        self.questions: list[Question] = []
        self.cancelled: list[str] = []

    def submit(self, submission: Submission) -> Accepted:
        """Give the next answer."""
        self.submitted.append(submission)
        self.on_submit(submission)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Accepted) else Accepted(answer)

    def observe(self, question: Question) -> Observation:
        """Give the next observation."""
        self.questions.append(question)
        return self.observations.pop(0) if len(self.observations) > 1 else self.observations[0]

    def cancel(self, job_ids: Iterable[str]) -> None:
        """Note whom."""
        self.cancelled += job_ids

    def used(self, job_id: str) -> Sequence[Accounted]:
        """Give the prepared rows, whatever job is asked for."""
        return self.accounted

    def granted(self, job_id: str) -> Sequence[Granted]:
        """Give the prepared rows, whatever job is asked for."""
        return self.grants

    def outlook(self, job_id: JobId, submission: Submission | None = None) -> Outlook | None:
        """Give the prepared outlook; without a submission its estimate alone. Note what was asked."""
        self.foreseen.append((job_id, submission))
        if self.expected is None or submission is not None:
            return self.expected
        return Outlook(partition=self.expected.partition, starts_at=self.expected.starts_at)
