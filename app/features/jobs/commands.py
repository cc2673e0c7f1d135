"""The `app jobs` commands: jobs of a running service, and what webhooks are signed with."""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from app.console.ending import end_process
from app.console.options import (
    DEFAULT_URL,
    Json,
    Key,
    Url,
    connected,
    fail,
    show,
    show_json,
    with_database,
)

if TYPE_CHECKING:
    from app.console.client import Client

cli = typer.Typer(no_args_is_help=True, help="Follow jobs, and check their webhooks.")

FINAL = ("succeeded", "failed", "cancelled")
# A restart of the service takes seconds; the job goes on meanwhile.
RECONNECTS = 60
RECONNECT_S = 1.0
SHOWN_ERRORS = 5


@cli.command("watch", epilog="Example: app jobs watch job_9V1mXk2q0yWc3fT7uZb5RsLe")
def watch_job(
    job_id: Annotated[str, typer.Argument(help="As /embed-batch answered, or `app jobs list`.")],
    *,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Follow a job to its end, with its rate and the time left."""
    from app.console.client import EXIT_JOB_FAILED

    with connected(url, key) as client:
        changes = _follow(client, job_id)
        if as_json:
            job = _print_changes(changes)
        elif sys.stdout.isatty():
            job = _draw(changes)
        else:
            job = _print_progress(changes)
    if job["status"] != "succeeded":
        fail(_failure(job), EXIT_JOB_FAILED)


def _follow(client: "Client", job_id: str) -> Iterator[dict[str, Any]]:
    """Yield the job at each change until it is finished; reconnect when the connection breaks."""
    from app.console.client import EXIT_BUSY, EXIT_NO_SERVICE, ClientError

    path = f"/jobs/{quote(job_id, safe='', errors='replace')}/events"
    attempts = None
    while True:
        try:
            for job in client.events(path):
                attempts = 0
                yield job
                if job["status"] in FINAL:
                    return
        except ClientError as failure:
            is_away = failure.exit_status in {EXIT_NO_SERVICE, EXIT_BUSY}
            if not is_away or attempts is None or attempts == RECONNECTS:
                raise
        attempts = (attempts or 0) + 1
        time.sleep(RECONNECT_S)


def _print_changes(changes: Iterable[dict[str, Any]]) -> dict[str, Any]:
    job: dict[str, Any] = {}
    for job in changes:
        show_json(job)
    return job


def _print_progress(changes: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Print a line for each percent, for files and pipes."""
    job: dict[str, Any] = {}
    printed = ""
    for job in changes:
        progress = job["progress"]
        done, total = progress["done"] + progress["failed"], progress["total"]
        line = f"{job['status']} {100 * done // max(1, total)} %"
        if line != printed:
            show(f"{line} ({done} of {total})")
        printed = line
    return job


def _draw(changes: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Draw a progress bar."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    job: dict[str, Any] = {}
    rate = TextColumn("{task.fields[rate]}")
    left = TimeRemainingColumn(elapsed_when_finished=True)
    with Progress("{task.description}", BarColumn(), MofNCompleteColumn(), rate, left) as bar:
        task = None
        for job in changes:
            progress = job["progress"]
            done, total = progress["done"] + progress["failed"], progress["total"]
            if task is None:
                # Documents done before don't count for the rate.
                task = bar.add_task(job["status"], total=total, completed=done, rate="")
            bar.update(task, description=job["status"], total=total, completed=done)
            speed = bar.tasks[task].speed
            bar.update(task, rate=f"{speed:,.0f}/s" if speed else "")
    return job


def _failure(job: dict[str, Any]) -> str:
    """Describe why a job didn't succeed."""
    summary = f"the job was {job['status']}" if job["status"] == "cancelled" else "the job failed"
    if error := job.get("error"):
        summary += f": {error['detail']}"
    errors = (job.get("result") or {}).get("errors") or []
    named = [f"{failed['id']}: {failed['error']}" for failed in errors[:SHOWN_ERRORS]]
    return "\n  ".join([summary, *named])


@cli.command("list", epilog="Example: app jobs list --status running")
def list_jobs(
    *,
    status: Annotated[
        str | None, typer.Option(help="queued, running, succeeded, failed or cancelled.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="So many at most.")] = 20,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """List jobs, newest first."""
    query: dict[str, str | int] = {"limit": limit, **({"status": status} if status else {})}
    with connected(url, key) as client:
        jobs = client.get("/jobs", query)["jobs"]
    for job in jobs:
        if as_json:
            show_json(job)
            continue
        progress = job["progress"]
        done = f"{progress['done'] + progress['failed']}/{progress['total']}"
        moment = job["created_at"][:19].replace("T", " ")
        show(f"{job['id']:28} {job['status']:10} {done:>15} {moment} {job['model']}")


@cli.command("secret", epilog="Example: SECRET=$(app jobs secret --standard)")
def print_secret(
    *,
    standard: Annotated[
        bool,
        typer.Option("--standard", help="As `whsec_…`, which libraries of Standard Webhooks take."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Print what webhooks are signed with, of several the first; see docs/webhooks.md."""
    from app.features.jobs.settings import JobsSettings
    from app.features.jobs.webhooks.sender import stored_secret
    from app.features.jobs.webhooks.signature import standard_secret
    from app.settings import load_settings

    secrets = load_settings(JobsSettings).webhook_secrets
    secret = secrets[0] if secrets else with_database(stored_secret)
    if standard:
        secret = standard_secret(secret)
    if as_json:
        show_json({"secret": secret})
    else:
        print(secret)


def worker(
    nice: Annotated[int, typer.Option(min=0, max=19, help="Yield to others by so much.")] = 0,
) -> None:
    """Start a worker, which runs jobs; any number, anywhere that reaches SQL and REDIS_URL."""
    from app.core.logs import configure
    from app.features.jobs.settings import JobsSettings
    from app.features.jobs.worker import Worker, find_broker, require_support
    from app.settings import load_settings

    settings = load_settings(JobsSettings)
    configure(
        log_format=settings.log_format,
        level=settings.log_level,
        log_inputs=settings.log_inputs,
        bound=settings.log_bound,
    )
    os.nice(nice)
    require_support(settings)
    end_process(Worker(settings, redis_url=find_broker(settings)).run())


def add_to(app: typer.Typer) -> None:
    """Add `app jobs` and `app worker`."""
    app.add_typer(cli, name="jobs")
    app.command(epilog="Example: REDIS_URL=redis://broker:6379/0 app worker")(worker)
