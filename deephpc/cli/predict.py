"""`deephpc predict`."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deephpc.cli.ask import ask_server, check_no_job_options, names_server
from deephpc.cli.completion import complete_run_id
from deephpc.cli.context import Context, context
from deephpc.cli.homecoming import bring_table
from deephpc.cli.options import JobOptionWords, load_options, takes_job_options
from deephpc.cli.streams import write_answer
from deephpc.cli.submitting import (
    DryRun,
    Models,
    ReadyBatch,
    Wait,
    enclose,
    fit_to_module,
    stay,
    submit,
    with_surroundings_as_trained,
)
from deephpc.errors import InputError

if TYPE_CHECKING:
    from deephpc.jobs.job import Job
    from deephpc.workflows.batch_predict import BatchPlan
    from deephpc.workflows.batch_request import BatchWords
    from deephpc.workflows.in_image import Enclosed
    from deephpc.workflows.request import JobRequest

#: The target is the image, and the inputs make the array.
_OPTIONS = tuple(f.name for f in fields(JobOptionWords) if f.name not in ("array", "image"))

_Target = Annotated[
    str | None,
    typer.Argument(
        help="A module, an image with one in it, or a server that runs.",
        metavar="[TARGET|SERVER]",
        show_default=False,
    ),
]
_Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        help="Argument and what it is given, one after the other: a quoted pattern, a folder, or @FILE with a "
        "list; repeatable.",
        metavar="NAME=FILES",
        show_default=False,
    ),
]
_Arguments = Annotated[
    list[str] | None,
    typer.Option(help="Argument that is the same for all inputs; repeatable.", metavar="K=V", show_default=False),
]
_Accept = Annotated[
    str | None, typer.Option(help="Form of the answers, such as text/csv.", metavar="TYPE", show_default=False)
]
_Output = Annotated[
    Path | None,
    typer.Option(
        help="Of a server: file for the answer, folder for many; stdout otherwise.",
        metavar="FILE|DIR",
        show_default=False,
    ),
]
_Tasks = Annotated[
    int | None,
    typer.Option(
        help="Tasks that share the inputs (one for every eight inputs, ten at most, if not said).",
        min=1,
        max=100_000,
        show_default=False,
    ),
]
_AtOnce = Annotated[
    int | None,
    typer.Option(help="How many tasks may run, or a server is asked for, at the same time.", min=1, show_default=False),
]
_Resume = Annotated[
    str | None,
    typer.Option(
        help="Go on with this run: predict what has no result there.",
        metavar="RUN",
        autocompletion=complete_run_id,
        show_default=False,
    ),
]
_Results = Annotated[
    str | None,
    typer.Option(
        help="Make the table of this run from what there is, and say how it stands.",
        metavar="RUN",
        autocompletion=complete_run_id,
        show_default=False,
    ),
]


@dataclass(frozen=True)
class _Draft:
    """A batch before its inputs are known."""

    request: "JobRequest"
    variables: dict[str, str]
    before: "Job | None"


def predict(
    *,
    ctx: typer.Context,
    words: JobOptionWords,
    target: _Target = None,
    inputs: _Inputs = None,
    arg: _Arguments = None,
    accept: _Accept = None,
    output: _Output = None,
    tasks: _Tasks = None,
    at_once: _AtOnce = None,
    models: Models = None,
    resume: _Resume = None,
    results: _Results = None,
    dry_run: DryRun = False,
    wait: Wait = False,
) -> None:
    """Apply a module to many inputs, as an array of batch jobs, or ask a server that runs.

    A batch prints its run's id; --results RUN makes one table of all results, --resume RUN predicts what has none. A
    server's answers go to stdout or --output. Example: deephpc predict plankton --input 'image=data/*.png' --time 30
    --wait; deephpc predict serve-plankton-91c2 --input image=cell.png --arg top=3
    """
    from deephpc.workflows.batch_request import BatchWords

    here = context(ctx)
    if target is not None and names_server(here, target):
        check_no_job_options(
            words, {"tasks": tasks, "models": models, "resume": resume, "results": results, "wait": wait}
        )
        from deephpc.workflows.ask_server import AskWords

        asking = AskWords(tuple(inputs or ()), tuple(arg or ()), accept, output, at_once)
        ask_server(here, target, asking, dry_run=dry_run)
        return
    if output is not None:
        raise InputError("--output is for servers; a batch has its results in its run folder", "leave it out")
    if results is not None:
        _tell_results(here, results)
        return
    draft = _load_draft(here, words, target, resume)
    if models is not None:
        request, variables = with_surroundings_as_trained(
            here, _with_models(here, draft.request, models), draft.variables
        )
        draft = replace(draft, request=request, variables=variables)
    asked = BatchWords(draft.request.target, tuple(inputs or ()), tuple(arg or ()), accept, tasks, at_once)
    _submit(here, draft, asked, dry_run=dry_run, wait=wait)


predict = takes_job_options(predict, only=_OPTIONS)


def _load_draft(here: Context, words: JobOptionWords, target: str | None, resume: str | None) -> _Draft:
    """Return what is to be run, all but the inputs: as said here, or as in the run that is gone on with."""
    from deephpc.workflows.keep import load_rerun
    from deephpc.workflows.request import load_module_request

    options, variables = load_options(words, here.environ, Path.cwd(), here.settings.pass_env)
    before = _ended_run(here, resume) if resume is not None else None
    if target is not None:
        _check_no_run(here, target)
        request = load_module_request("predict", target, ("predict",), Path.cwd(), options)
        return _Draft(fit_to_module(here, request, "inference"), variables, before)
    if before is None:
        raise InputError("there is nothing to predict with", "name a module, or an image: deephpc predict plankton …")
    request, kept = load_rerun(before)
    return _Draft(request.changed(options), {**kept, **variables}, before)


def _check_no_run(here: Context, target: str) -> None:
    with here.open_record_if_any() as record:
        if record is not None and record.has(target):
            raise InputError(
                f"{target} is a run; predictions need its module or image as well",
                f"deephpc predict MODULE --models {target} --input …; `deephpc serve start {target}` needs no more",
            )


def _with_models(here: Context, request: "JobRequest", models: str) -> "JobRequest":
    """Return the request with the models of a training run, or of a folder."""
    from deephpc.workflows.trained import find_models, with_models

    with here.open_record() as record:
        return with_models(request, find_models(models, record, Path.cwd()))


def _ended_run(here: Context, run: str) -> "Job":
    """Return the run to go on with; two runs must not predict the same inputs."""
    from deephpc.workflows.watch import refresh

    with here.open_record() as record:
        job, _ = record.resolve(run)
        refresh(record, here.schedulers, here.clock())
        job = record.get(job.run_id)
    if not job.state.is_final:
        raise InputError(
            f"run {job.run_id} is {job.state.value}: its inputs are still to be predicted there",
            f"wait for it (`deephpc jobs wait {job.run_id}`), or end it (`deephpc jobs cancel {job.run_id}`)",
        )
    return job


def _submit(here: Context, draft: _Draft, asked: "BatchWords", *, dry_run: bool, wait: bool) -> None:
    from deephpc.workflows.batch_inputs import check_inputs
    from deephpc.workflows.batch_request import load_batch_plan
    from deephpc.workflows.trained import choose_answering

    if asked.inputs or draft.before is None:
        check_inputs(asked.inputs, Path.cwd())
    enclosed, description = enclose(here, draft.request, dry_run=dry_run)
    before = draft.before.files if draft.before else None
    plan = load_batch_plan(asked, description, Path.cwd(), before)
    if not plan.todo and draft.before is not None:
        here.say(f"note: run {draft.before.run_id} has a result for every input; nothing is submitted")
        _tell_results(here, draft.before.run_id)
        return
    answering = choose_answering(draft.request.options.image.models, description)
    if answering.note:
        here.say(f"note: {answering.note}")
    if enclosed is not None:
        enclosed = _showing_inputs(enclosed, plan, here.home)
    number = plan.batch.tasks
    here.say(f"{len(plan.todo)} of {plan.batch.count} inputs to predict, in {number} task{'s' if number > 1 else ''}")
    request = _whole_request(draft.request, plan, answering.words)
    if enclosed is not None:
        enclosed = replace(enclosed, words=request.command)
    batch = ReadyBatch(plan.render_files(), enclosed)
    job = submit(here, request, draft.variables, dry_run=dry_run, wait=False, batch=batch)
    if job is not None and wait:
        _stay(here, job)


def _showing_inputs(enclosed: "Enclosed", plan: "BatchPlan", home: Path) -> "Enclosed":
    """Return the image of a run with the folders of its inputs bound.

    Raises
    ------
    InputError
        One of them has a path that cannot be bound.
    """
    from deephpc.containers.container import check_path

    paths = plan.binds(home, home.resolve())
    for path in paths:
        check_path(str(path), "--input")
    container = enclosed.container
    if container is None:
        return enclosed
    return replace(enclosed, container=container.with_binds(f"{path}:{path}:ro" for path in paths))


def _whole_request(draft: "JobRequest", plan: "BatchPlan", more: tuple[str, ...]) -> "JobRequest":
    """Return the request with what follows from its inputs."""
    from deephpc.containers.container import MODULE_PROGRAM
    from deephpc.workflows.batch_request import predict_words
    from deephpc.workflows.request import selecting_words

    options = draft.options.model_copy(update={"array": plan.array})
    words = (*predict_words(plan.batch), *selecting_words(draft.target, options.image), *more)
    command = ("python3", MODULE_PROGRAM, *words)
    return draft.model_copy(update={"options": options, "command": command, "batch": plan.digest})


def _stay(here: Context, job: "Job") -> None:
    """Stay until the run ends; make its table then, also when some of it failed."""
    from deephpc.render.predict import render_batch
    from deephpc.workflows.batch_results import merge_results

    try:
        with here.open_record() as record:
            stay(here, record, job)
    finally:
        with here.open_record() as record:
            job = record.get(job.run_id)
        here.say(render_batch(merge_results(job.files), has_ended=job.state.is_final, as_json=False))
        bring_table(here, job.run_id)


def _tell_results(here: Context, run: str) -> None:
    from deephpc.render.predict import render_batch
    from deephpc.workflows.batch_results import merge_results

    with here.open_record() as record:
        job, _ = record.resolve(run)
    write_answer(render_batch(merge_results(job.files), has_ended=job.state.is_final, as_json=here.json))
    bring_table(here, job.run_id)
