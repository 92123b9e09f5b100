"""What a person, or a script, sees of a run on the command line."""

import json
import logging
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from flows.server import ensure_server
from models.errors import Fault, counted

METRICS = ("mae", "rmse", "mase")
MODELS = {"new": "new model", "live": "live model", "naive": "seasonal naive"}


@contextmanager
def follow(path: Path, origin: str | None = None) -> Iterator[Any]:
    """The checked spec, with a Prefect server at hand and every step told on stderr as it ends."""
    # Prefect prints every exception with its traceback; what a user needs of it is said at the end.
    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    from flows.spec import load_spec

    spec = load_spec(path)
    if origin is not None and spec.task == "classification" and not spec.source.is_stream:
        raise Fault("--origin is of a stream, and this spec has cases, which are labelled whole. Leave it out.")
    if origin is not None:
        spec = spec.model_copy(update={"forecast": spec.forecast.model_copy(update={"origin": parse_origin(origin)})})
    url = use_server(tell)
    tell(f"Prefect UI: {url.removesuffix('/api')}")
    from tasks.journal import Journal, journal

    token = journal.set(Journal(lambda entry: tell(step_line(entry))))
    try:
        with run_log_on_stderr():
            yield spec
    finally:
        journal.reset(token)


def step_line(entry) -> str:
    """How a step ended, and of many parts how many came from the cache."""
    parts = f"   {entry.cached} of {entry.calls} parts from the cache" if entry.calls > 1 else ""
    return f"  {entry.step:<25} {entry.state:<11} {entry.seconds:>8.1f} s{parts}" + (f"   {entry.note}" if entry.note else "")


def use_server(tell: Callable[[str], None]) -> str:
    """The URL of a server at hand, with Prefect told of it.

    A wrong spec is refused before a server is started for it, so Prefect is imported, and has read its settings, by now.
    """
    url = ensure_server(tell)
    from prefect.context import refresh_global_settings_context

    refresh_global_settings_context()
    return url


def tell(line: str) -> None:
    click.echo(line, err=True)


def command() -> str:
    """What to type for this program: its name where the shell finds it, else the path it was started by."""
    program = Path(sys.argv[0])
    found = shutil.which("convcast")
    return "convcast" if found and Path(found).resolve() == program.resolve() else shlex.quote(str(program))


def parse_origin(text: str) -> datetime:
    try:
        origin = datetime.fromisoformat(text)
    except ValueError as error:
        raise Fault(f"--origin {text!r} is no ISO 8601 stamp; write it as 2014-12-30T23:30+10:00.") from error
    if origin.tzinfo is None:
        raise Fault(
            f"--origin {text!r} has no offset; write it as {origin.isoformat()}+00:00, or with the offset of your clock."
        )
    return origin


class OwnLines(logging.Filter):
    """Lets through what the steps say and what Prefect warns of, but for states and tracebacks."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if getattr(record, "task_run_name", "").startswith("trial "):  # of many trainings a line each is told
            return False
        if record.exc_info or text.startswith(("Finished in state", "Encountered exception", "Crash detected")):
            return "Retry" in text
        return record.levelno >= logging.WARNING or record.name == "prefect.task_runs"


@contextmanager
def run_log_on_stderr() -> Iterator[None]:
    """Show the lines of the run's own log on stderr; on a terminal progress bars stand in for them."""
    import prefect.main  # noqa: F401, it sets logging up, and in doing so takes away the handlers that are there

    handler = logging.StreamHandler()
    handler.addFilter(OwnLines())
    handler.setFormatter(logging.Formatter("  %(message)s"))
    handler.setLevel(logging.WARNING if sys.stderr.isatty() else logging.INFO)
    loggers = [logging.getLogger(name) for name in ("prefect.task_runs", "prefect.flow_runs")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


def show(outcome, path: Path, as_json: bool, to_a_person: Callable) -> None:
    """Print what a run did: one JSON object for scripts, or lines for people."""
    if as_json:
        click.echo(json.dumps(to_object(outcome)))
    else:
        to_a_person(outcome, path)


def to_object(outcome) -> dict:
    """The outcome of a flow as one JSON object, with the same keys for every flow."""
    document = {"promoted": None, "reason": None, "scores": None, "report": None, "rows_written": 0}
    document |= outcome.model_dump(mode="json")
    document["tasks"] = {entry["step"]: entry["state"] for entry in document["tasks"]}
    document["model_digest"] = document.pop("model", None)
    return document


def last_trained(spec):
    """What the last training run of a pipeline did.

    Raises:
        Fault: there was none in this store.
    """
    from pydantic import ValidationError

    from flows.classifying import TrainedClassifier
    from flows.training import Trained
    from tasks.storage import Store

    document = Store(spec.store).document("runs", f"{spec.name}.json")
    if document is None:
        raise Fault(f"{spec.name!r} has not been trained in {spec.store}. Run convcast train first.")
    try:
        return (TrainedClassifier if spec.task == "classification" else Trained).model_validate(document)
    except ValidationError as error:
        raise Fault(f"The record of the last run in {spec.store} can not be read. Run convcast train again.") from error


def print_run(run_id: str, path: Path) -> None:
    """What a training run that a worker did came to, where its store is here."""
    from flows.spec import load_spec

    with suppress(Fault):
        trained = last_trained(load_spec(path))
        if trained.run_id == run_id:
            print_trained(trained, path)


def is_classifier(outcome) -> bool:
    """Whether what a flow did was about classes."""
    return getattr(outcome, "task", "forecasting") == "classification"


def print_trained(trained, path: Path) -> None:
    """Scores, verdict, and where everything is."""
    if is_classifier(trained):
        from flows.class_console import print_trained_classifier

        print_trained_classifier(trained, path)
        return
    click.echo(f"\n{trained.reason}\n")
    for line in score_table(trained.scores, "test"):
        click.echo(line)
    print_intervals(trained.intervals)
    print_too_short(trained.too_short, trained.short_series, "left out")
    print_set_aside(trained.set_aside, trained.faults)
    facts = {"season": trained.season}
    if trained.refitted:
        whose = "the live model " if any(entry.step == "refit_live" for entry in trained.tasks) else ""
        facts["refit"] = f"{whose}on all rows to {trained.through}, as {trained.refitted[:8]}, which is to forecast"
    print_end(trained, path, facts, "forecast table")


def print_end(trained, path: Path, facts: dict, table: str) -> None:
    """Where everything is after a training run, and what to do next; `table` is what its forecasts go to."""
    facts |= {"report": trained.report, "took": f"{trained.seconds:.1f} s, {cached_steps(trained.tasks)}"}
    if trained.promoted or trained.scores["live"]:  # else there is nothing to forecast with
        facts |= {table: trained.forecast_table, "next": f"{command()} forecast {shlex.quote(str(path))}"}
    print_facts(facts)


def print_intervals(intervals: dict) -> None:
    """How often the truth lay in the widest interval, and in the one nearest to 80 %."""
    shown = [f"{100 * own.coverage:.1f} % in the {name} % interval" for name, own in two_of(intervals).items()]
    if shown:
        click.echo(f"{'truth inside':<18}{', '.join(shown)}")


def two_of(intervals: dict) -> dict:
    names = sorted(intervals, key=float)
    chosen = {min(names, key=lambda name: abs(float(name) - 80)), names[-1]} if names else ()
    return {name: intervals[name] for name in sorted(chosen, key=float)}


def print_checked(checked, path: Path) -> None:
    """What a source holds, what was repaired, what was set aside."""
    if is_classifier(checked):
        from flows.class_console import print_checked_cases

        print_checked_cases(checked, path)
        return
    inferred = " (inferred)" if checked.inferred else ""
    click.echo(f"\n{counted(checked.rows_read, 'rows')} of {checked.num_series:,} series, every {checked.frequency}{inferred}")
    click.echo(f"from {checked.first} to {checked.last}")
    click.echo(f"season: {checked.season}")
    for what, count in checked.repairs.items():
        click.echo(counted(count, what))
    if not checked.repairs:
        click.echo("nothing to repair")
    if ahead := checked.rows - checked.steps:
        as_what = "its series, taken for a step that is" if ahead == 1 else "their series, taken for steps that are"
        click.echo(f"{counted(ahead, 'rows')} after the last target of {as_what} yet to come")
    print_too_short(checked.too_short, checked.short_series, "left out of training")
    print_set_aside(checked.set_aside, checked.faults)
    shards = counted(len(checked.folders), "shards")
    print_facts({"canonical": f"{Path(checked.folders[0]).parent} ({shards})", "took": f"{checked.seconds:.1f} s"})


def print_too_short(count: int, names, done: str) -> None:
    """How many series have too few steps for the folds, the first few by name, and what is done with them."""
    if count:
        more = f" and {count - len(names):,} more" if count > len(names) else ""
        verb = "is too short for the folds and is" if count == 1 else "are too short for the folds and are"
        click.echo(f"{count:,} series {verb} {done}: {', '.join(names)}{more}")


def print_set_aside(count: int, faults) -> None:
    """The series that were left out, and why."""
    if not count:
        return
    click.echo(f"{count:,} series set aside:")
    for line in faults:
        click.echo(f"  {line}")


def score_table(scores: dict, fold: str) -> list[str]:
    """Lines of a table: a row a model, MAE, RMSE and MASE under each number of steps."""
    steps = list(scores["new"][fold])
    cells = {
        who: [scores[who][fold][n][metric] for n in steps for metric in METRICS] for who in MODELS if scores[who] is not None
    }
    said = {who: ["-" if one is None else format(one, ".4g") for one in own] for who, own in cells.items()}
    width = max(9, 2 + max(len(one) for own in said.values() for one in own))
    group = len(METRICS) * width
    head = f"{fold + ' fold':<18}" + "".join(f"{n + (' step' if n == '1' else ' steps'):<{group}}" for n in steps)
    units = " " * 18 + "".join(f"{metric.upper():<{width}}" for _ in steps for metric in METRICS)
    rows = [head.rstrip(), units.rstrip()]
    for who, name in MODELS.items():
        shown = "".join(f"{one:<{width}}" for one in said[who]).rstrip() if who in said else "none yet"
        rows.append(f"{name:<18}{shown}")
    return rows


def cached_steps(tasks: list) -> str:
    cached = sum(entry.state == "Cached" for entry in tasks)
    return f"{cached} of {len(tasks)} steps from the cache"


def print_forecasted(forecasted, path: Path) -> None:
    """What was written, where, and how to read it."""
    if is_classifier(forecasted):
        from flows.class_console import print_labelled

        print_labelled(forecasted, path)
        return
    origins = forecasted.origins[0] if len(forecasted.origins) == 1 else f"{forecasted.origins[0]} to {forecasted.origins[-1]}"
    click.echo(f"\n{counted(forecasted.rows_written, 'rows')} for {forecasted.num_series:,} series, origin {origins}")
    if forecasted.new_series:
        scaled = "it is scaled by its" if forecasted.new_series == 1 else "they are scaled by their"
        click.echo(f"{forecasted.new_series:,} of them the model was not trained on; {scaled} own history")
    print_set_aside(forecasted.set_aside, forecasted.faults)
    if forecasted.known:
        click.echo(f"The truth is known for {forecasted.known:,} of them: MAE {forecasted.mae:.4g}")
    scored = ", as it was scored: what is live has learned from rows after this origin" if forecasted.as_scored else ""
    print_facts(
        {
            "forecast table": f"{forecasted.forecast_table} (Delta Lake, version {forecasted.table_version})",
            "model": forecasted.model[:12] + scored,
            "read it": f"in Python, deltalake.DeltaTable({forecasted.forecast_table!r}).to_pandas()",
            "next": f"{command()} up {shlex.quote(str(path))}   (retrain and forecast on a schedule)",
        }
    )


def print_facts(facts: dict[str, str]) -> None:
    click.echo("")
    for name, value in facts.items():
        click.echo(f"{name:<18}{value}")
