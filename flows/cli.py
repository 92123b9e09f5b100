"""The `convcast` command. Prefect and torch are imported inside the commands, so that `--help` is instant."""

import json
import os
import sys
from pathlib import Path

import click

from models.errors import Fault

# Threads that wait for work by spinning stop a second training on the same cores almost dead; threads that never spin make
# one training slower by a third, as they have to be woken for every small product. GNU's library has a number of turns for
# that: 2,000 take some microseconds. OpenMP reads both at import, and a worker started from here inherits them.
POLITE = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "2000"}
SPEC = click.argument("spec", type=click.Path(path_type=Path))
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")


def main() -> None:
    """Run a command; a user's mistake ends in one sentence and exit code 2."""
    if not POLITE.keys() & os.environ.keys():
        os.environ.update(POLITE)
    try:
        commands(standalone_mode=False)
    except Fault as fault:
        fail(str(fault))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("Interrupted. What was finished stays cached; run the same command to go on.", err=True)
        sys.exit(130)


def fail(message: str) -> None:
    if "--json" in sys.argv:
        click.echo(json.dumps({"error": message}))
    click.echo(message, err=True)
    sys.exit(2)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="convcast", message="%(package)s %(version)s")
def commands() -> None:
    """Train Conv1d nets on your time series, and keep forecasting with the best of them."""


@commands.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="YAML file to write; default: named after FILE."
)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@AS_JSON
def init(files: tuple[str, ...], output: Path | None, force: bool, as_json: bool) -> None:
    """Look at data and write a spec for it, with a comment behind each guess.

    FILE is a CSV, Parquet or .ts file, or several, a folder or a glob. Of a large one a part is looked at.
    """
    from flows.initialising import initialising, print_initialised

    made = initialising(list(files), output, force)
    if as_json:
        click.echo(made.model_dump_json())
    else:
        print_initialised(made)


@commands.command()
@SPEC
@AS_JSON
def train(spec: Path, as_json: bool) -> None:
    """Train a model and make it live if it is better.

    SPEC is a YAML file, as deployments/demo.yaml. Steps whose inputs have not changed come from the cache.
    """
    from flows.console import follow, print_trained, show

    with follow(spec) as loaded:
        from flows.training import training

        trained = training(loaded)
    show(trained, spec, as_json, print_trained)


@commands.command()
@SPEC
@click.option("--trials", default=20, show_default=True, help="How many in all; the first is SPEC as it stands.")
@click.option("--seed", default=0, show_default=True, help="Of what is tried; the same seed tries the same.")
@click.option(
    "--over",
    multiple=True,
    metavar="KEY=VALUES",
    help="What to try for a setting, as fit.learning_rate=1e-4..1e-1 or network.channels=16,32,64; can be given again.",
)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="YAML file to write; default: SPEC.tuned.yaml.")
@AS_JSON
def tune(spec: Path, trials: int, seed: int, over: tuple[str, ...], output: Path | None, as_json: bool) -> None:
    """Search for settings that are better on validation, and write them as a spec of its own.

    SPEC is left as it is. A search that was interrupted goes on where it was; more --trials go on from there.
    """
    if trials < 1 or seed < 0:
        what, found, least = ("--trials", trials, 1) if trials < 1 else ("--seed", seed, 0)
        raise Fault(f"{what} is {found}; it takes {least} or more.")
    from flows.console import follow, show

    with follow(spec) as loaded:
        from flows.tuned import place_for, print_tuned, write_tuned
        from flows.tuning import SearchSpec, tuning

        path = place_for(spec, output)
        replaced = path.exists()
        tuned = tuning(loaded, SearchSpec(trials=trials, seed=seed, over=over))
        write_tuned(tuned, spec, path)
    show(tuned, spec, as_json, lambda found, whose: print_tuned(found, whose, path, replaced))
    if tuned.interrupted:
        raise KeyboardInterrupt


@commands.command()
@SPEC
@click.option(
    "--origin", help="Last stamp the forecast may see, as 2014-12-30T23:30+10:00; default: the last row with a target."
)
@AS_JSON
def forecast(spec: Path, origin: str | None, as_json: bool) -> None:
    """Forecast, or label, with the live model, into a table."""
    from flows.console import follow, print_forecasted, show

    with follow(spec, origin) as loaded:
        from flows.forecasting import forecasting

        forecasted = forecasting(loaded)
    show(forecasted, spec, as_json, print_forecasted)


@commands.command()
@SPEC
@AS_JSON
def check(spec: Path, as_json: bool) -> None:
    """Read a source without training on it: what it holds, what is repaired, and every fault."""
    from flows.console import follow, print_checked, show

    with follow(spec) as loaded:
        from flows.checking import checking

        checked = checking(loaded)
    show(checked, spec, as_json, print_checked)


@commands.command()
@SPEC
@AS_JSON
def explain(spec: Path, as_json: bool) -> None:
    """Say, step by step, what `train` would do, and why."""
    from flows.explaining import explaining
    from flows.spec import load_spec

    planned = explaining(load_spec(spec))
    if as_json:
        click.echo(json.dumps({"steps": [one.model_dump() for one in planned]}))
        return
    for one in planned:
        click.echo(f"{one.step:<25} " + ("cached" if one.cached else f"will run, because {one.because}"))


@commands.command()
@SPEC
@click.option("--open", "in_browser", is_flag=True, help="Open the page in a browser.")
@AS_JSON
def report(spec: Path, in_browser: bool, as_json: bool) -> None:
    """Show the scores of the last training run, and where its report is."""
    from flows.console import last_trained, print_trained, show
    from flows.spec import load_spec

    trained = last_trained(load_spec(spec))
    show(trained, spec, as_json, print_trained)
    if in_browser:
        click.launch(trained.report)


@commands.group()
def model() -> None:
    """Look at a trained model, or hand it to other programs."""


@model.command("show")
@SPEC
@click.argument("digest", required=False)
@AS_JSON
def show_model(spec: Path, digest: str | None, as_json: bool) -> None:
    """Say what a model forecasts, what it sees, and of which networks it is made.

    DIGEST is the beginning of a model's digest; without it, the live model.
    """
    from flows.model_console import print_model
    from flows.showing import showing
    from flows.spec import load_spec

    shown = showing(load_spec(spec), digest)
    if as_json:
        click.echo(json.dumps(shown.model_dump(mode="json")))
    else:
        print_model(shown)


@model.command("export")
@SPEC
@click.argument("digest", required=False)
@click.option("--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="ONNX file to write.")
@AS_JSON
def export_model(spec: Path, digest: str | None, output: Path, as_json: bool) -> None:
    """Write a model as one ONNX file, for programs without torch; it takes pip install 'convcast[onnx]'.

    DIGEST is the beginning of a model's digest; without it, the live model.
    """
    from flows.converting import converting
    from flows.model_console import print_converted
    from flows.spec import load_spec

    converted = converting(load_spec(spec), digest, output)
    if as_json:
        click.echo(json.dumps(converted.model_dump(mode="json")))
    else:
        print_converted(converted)


@commands.group()
def windows() -> None:
    """Look at the windows that a model is trained on."""


@windows.command()
@SPEC
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Parquet file to write.")
@click.option("--fold", type=click.Choice(["train", "validation", "test"]), default="train", show_default=True)
def export(spec: Path, out: Path, fold: str) -> None:
    """Write a fold's windows or cases as a table, a row each, in the units of your data."""
    from flows.console import follow
    from models.errors import counted

    with follow(spec) as loaded:
        from flows.exporting import exporting

        exported = exporting(loaded, fold, str(out.absolute()))
    click.echo(f"{counted(exported.rows, exported.what)} written to {exported.path}")


@commands.command()
@click.argument("spec", type=click.Path(path_type=Path), required=False)
def up(spec: Path | None) -> None:
    """Start what scheduled runs need: server, process pool, deployments, worker.

    SPEC is the pipeline to schedule; without it, the one in deployments/prefect.yaml.
    """
    from flows.deploying import bring_up

    bring_up(spec, lambda line: click.echo(line))


@commands.command()
@click.argument("flow", type=click.Choice(["training", "forecasting"]))
@SPEC
@click.option("--watch", is_flag=True, help="Wait for the run to end, and say how it goes.")
@AS_JSON
def run(flow: str, spec: Path, watch: bool, as_json: bool) -> None:
    """Have the worker run a flow now, through Prefect's API."""
    from flows.console import print_run
    from flows.deploying import run_now

    outcome = run_now(flow, spec, watch, lambda line: click.echo(line, err=as_json))
    if as_json:
        click.echo(json.dumps(outcome))
    elif watch and flow == "training" and outcome["state"] == "Completed":
        print_run(outcome["run_id"], spec)
    if outcome["state"] in ("Failed", "Crashed", "Cancelled", "TimedOut"):
        sys.exit(2 if "Fault: " in (outcome["message"] or "") else 1)


@commands.command()
def down() -> None:
    """Stop the worker and the server that convcast started."""
    from flows.server import stop

    for role in ("worker", "server"):
        click.echo(f"{role} stopped" if stop(role) else f"no {role} of convcast's was running")


if __name__ == "__main__":
    main()
