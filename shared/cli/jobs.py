"""``refdesk jobs``: what is being done, how far it is, and its end."""

import time
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TextColumn
from rich.table import Table

from shared.cli.console import notes, one_line, output, progress, say_line
from shared.cli.failures import CliError
from shared.cli.http import Api
from shared.cli.patience import patiently
from shared.settings import load_settings

_LOOK_S = 0.5
_SHOWN_FAILURES = 20
_OVER = ("succeeded", "failed", "cancelled")
_VERDICTS = ("created", "replaced", "unchanged", "deleted", "failed")
_FIELDS = ("id", "state", "stage", "progress", "verdicts")

app = typer.Typer(help="See, watch and cancel jobs.", invoke_without_command=True)

JobId = Annotated[str, typer.Argument(metavar="ID", help="The job.", show_default=False)]
Address = Annotated[str, typer.Option(help="Address of the retrieve service.")]
AsJson = Annotated[bool, typer.Option("--json", help="As it came, as JSON.")]


@app.callback()
def _list_by_default(context: typer.Context) -> None:
    """See, watch and cancel jobs. Without a command: list them."""
    if context.invoked_subcommand is None:
        list_jobs()


@app.command("list")
def list_jobs(
    corpus: Annotated[str, typer.Option(help="Only of this corpus.")] = "",
    state: Annotated[
        str, typer.Option(help="Only queued, running, succeeded, failed or cancelled ones.")
    ] = "",
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=1000)] = 20,
    as_json: AsJson = False,
    url: Address = "",
) -> None:
    """List jobs, the newest first."""
    wanted = {"corpus": corpus, "state": state, "limit": str(limit)}
    query = str(httpx.QueryParams({name: value for name, value in wanted.items() if value}))
    with Api("retrieve", load_settings(), url) as api:
        answer = api.get(f"/jobs?{query}", "jobs")
    if as_json:
        _print_json(answer)
    elif answer["jobs"]:
        table = Table("job", "kind", "corpus", "state", "documents", "failed", "sent", box=None)
        for job in answer["jobs"]:
            table.add_row(
                *(escape(job[name]) for name in ("id", "kind", "corpus", "state")),
                _share(job, "documents"),
                str(job["verdicts"]["failed"]),
                job["created_at"][:19].replace("T", " "),
            )
        output().print(table)
    else:
        notes().print("there are no such jobs")


@app.command()
def show(job_id: JobId, as_json: AsJson = False, url: Address = "") -> None:
    """Show a job with what came of it, and the documents that failed with the reason."""
    with Api("retrieve", load_settings(), url) as api:
        job = _get(api, job_id)
        if as_json:
            _print_json(job)
            return
        failures = _failures(api, job)
    table = Table("", "", box=None, show_header=False)
    for name in ("id", "kind", "corpus", "state", "stage", "attempt", "created_at"):
        table.add_row(name, escape(one_line(str(job[name]))))
    for name in ("started_at", "finished_at"):
        table.add_row(name, job[name] or "")
    for name in ("documents", "chunks", "bytes"):
        table.add_row(name, _share(job, name))
    for name in _VERDICTS:
        table.add_row(name, str(job["verdicts"][name]))
    if job["result"]:
        table.add_row("result", escape(one_line(orjson.dumps(job["result"]).decode())))
    if job["error"]:
        table.add_row("error", escape(one_line(job["error"]["message"])))
    console = output()
    console.print(table)
    _print_failures(console, job, failures)


@app.command()
def watch(job_id: JobId, url: Address = "") -> None:
    """Watch a job until it is over. The exit code is 1 if it does not succeed."""
    console = notes()
    with Api("retrieve", load_settings(), url) as api:
        report_job(api, watch_job(api, job_id, console), console)


@app.command()
def cancel(job_id: JobId, url: Address = "") -> None:
    """Cancel a job. What it has stored until then stays."""
    with Api("retrieve", load_settings(), url) as api:
        job = api.post(f"{_path(job_id)}/cancel", {}, *_FIELDS)
    if job["state"] == "cancelled":
        notes().print(f"cancelled job {job['id']}", markup=False)
    else:  # it was faster, or its worker does not answer
        notes().print(f"job {job['id']} is {job['stage']}", markup=False)


def watch_job(api: Api, job_id: str, console: Console) -> dict[str, Any]:
    """Show a job's progress until it is over; the job as it then is.

    It waits for a service that is being started again, and says so. Ctrl-C ends the watching, not
    the job. Raises CliError as `Api.get`.
    """
    columns = [
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[told]}", markup=False),
    ]
    try:
        with progress(console, *columns) as bar:
            task = bar.add_task("", total=None, told="")
            while True:
                job = patiently(partial(_get, api, job_id), partial(say_line, console))
                done, total = _bar(job)
                bar.update(
                    task,
                    description=one_line(f"{job['kind']} {job['corpus']}: {job['stage']}"),
                    completed=done,
                    total=total,
                    told=_told(job),
                )
                if job["state"] in _OVER:
                    return job
                time.sleep(_LOOK_S)
    except KeyboardInterrupt:
        console.print(f"the job goes on: refdesk jobs watch {job_id}", markup=False)
        raise


def report_job(api: Api, job: Mapping[str, Any], console: Console) -> None:
    """Say what came of a job that is over. Raises CliError where it did not succeed.

    It waits for a service that is being started again.
    """
    failures = patiently(partial(_failures, api, job), partial(say_line, console))
    table = Table(*_VERDICTS, "chunks", box=None)
    table.add_row(
        *(str(job["verdicts"][name]) for name in _VERDICTS), str(job["progress"]["chunks"])
    )
    console.print(table)
    _print_failures(console, job, failures)
    if job["state"] == "failed":
        raise CliError(f"job {job['id']} failed: {job['error']['message']}")
    if job["state"] == "cancelled":
        raise CliError(f"job {job['id']} was cancelled; what it had stored until then stays")


def _path(job_id: str) -> str:
    try:
        return f"/jobs/{quote(job_id, safe='')}"
    except UnicodeEncodeError:
        raise CliError("the id of a job must be UTF-8") from None


def _get(api: Api, job_id: str) -> dict[str, Any]:
    job: dict[str, Any] = api.get(_path(job_id), *_FIELDS)
    return job


def _failures(api: Api, job: Mapping[str, Any]) -> list[dict[str, Any]]:
    if not job["verdicts"]["failed"]:
        return []
    path = f"{_path(job['id'])}/verdicts?status=failed&limit={_SHOWN_FAILURES}"
    found: list[dict[str, Any]] = api.get(path, "verdicts")["verdicts"]
    return found


def _print_failures(
    console: Console, job: Mapping[str, Any], failures: list[dict[str, Any]]
) -> None:
    for one in failures:
        say_line(console, f"failed: {one['id']}: {one['reason']}")
    more = job["verdicts"]["failed"] - len(failures)
    if more > 0:
        console.print(f"failed: {more} more; GET /jobs/{job['id']}/verdicts lists them")


def _share(job: Mapping[str, Any], name: str) -> str:
    total = job["progress"].get(f"total_{name}")
    done = job["progress"][name]
    return str(done) if total is None else f"{done} of {total}"


def _bar(job: Mapping[str, Any]) -> tuple[float, float | None]:
    """What of the bar is done: by bytes where their total is known, else by documents."""
    told = job["progress"]
    for name in ("bytes", "documents"):
        if told[f"total_{name}"]:
            return told[name], told[f"total_{name}"]
    return (1, 1) if job["state"] in _OVER else (0, None)


def _told(job: Mapping[str, Any]) -> str:
    told = job["progress"]
    parts = [f"{_share(job, 'documents')} documents"]
    if told["documents_per_s"]:
        parts.append(f"{told['documents_per_s']:.1f}/s")
    if told["seconds_left"] is not None:
        minutes, seconds = divmod(round(told["seconds_left"]), 60)
        parts.append(f"{minutes}:{seconds:02} left")
    if job["verdicts"]["failed"]:
        parts.append(f"{job['verdicts']['failed']} failed")
    return ", ".join(parts)


def _print_json(answer: Mapping[str, Any]) -> None:
    print(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode())
