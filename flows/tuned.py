"""What a search found: a table to read, and a spec to train with."""

import hashlib
import io
import os
import shlex
from pathlib import Path

import click
from ruamel.yaml import YAML

from flows.class_console import METRICS
from flows.console import command, print_facts
from flows.spec import check_spec, resolved
from flows.tuning import Tuned, shown
from models.classification.difference import flipped
from models.classification.metrics import HIGHER
from models.errors import Fault, counted
from tasks.storage import speaking_of, write_atomically
from tasks.study import Tried

MARK = "# Written by convcast tune, "
ENOUGH = 2  # standard errors, below which a difference is as well chance
LISTED = 5  # trials shown on the command line
KEPT = 20  # trials shown in the file


def place_for(spec: Path, output: Path | None) -> Path:
    """The file that a search will write.

    Raises:
        Fault: a file is there that is not as a search wrote it.
    """
    path = output or spec.with_name(f"{spec.stem}.tuned{spec.suffix}")
    if path.exists() and not is_ours(path):
        raise Fault(
            f"{path} is there and is no file that convcast tune wrote, or was changed since. It is left as it is: "
            "move it, or name another with --output."
        )
    return path


def is_ours(path: Path) -> bool:
    """Whether a file still is what a search wrote."""
    try:
        first, _, rest = path.read_text(encoding="utf-8").partition("\n")
    except (OSError, UnicodeDecodeError):
        return False
    return first == mark_of(rest)


def mark_of(rest: str) -> str:
    return f"{MARK}{hashlib.sha256(rest.encode()).hexdigest()[:12]}. Changed by hand, it is not replaced any more."


def write_tuned(tuned: Tuned, spec: Path, path: Path) -> None:
    """Write the user's own spec with the settings of the best trial, and the table above it."""
    round_trip = YAML()
    round_trip.preserve_quotes, round_trip.width = True, 4096
    document = round_trip.load(without_header(spec.read_text(encoding="utf-8")))
    if path.resolve().parent != spec.resolve().parent:
        absolute_paths(document, spec.resolve().parent)
    set_best(document, tuned)
    text = io.StringIO()
    round_trip.dump(document, text)
    rest = "".join(f"# {line}".rstrip() + "\n" for line in header(tuned, spec)) + "\n" + text.getvalue()
    check_spec(resolved(YAML(typ="safe").load(rest), path.resolve().parent), str(path))
    with speaking_of(path):
        write_atomically(path, f"{mark_of(rest)}\n{rest}".encode())


def without_header(text: str) -> str:
    """A spec without the table that an earlier search put above it."""
    return text.partition("\n\n")[2] if text.startswith(MARK) else text


def absolute_paths(document: dict, folder: Path) -> None:
    """Make the paths of a spec hold from any folder."""
    found = resolved(document, folder)
    document["store"] = found["store"]
    for key in ("uri", "static_uri"):
        if document["source"].get(key) is not None:
            document["source"][key] = found["source"][key]
    if (document.get("forecast") or {}).get("uri") is not None:
        document["forecast"]["uri"] = found["forecast"]["uri"]


def set_best(document: dict, tuned: Tuned) -> None:
    """Put the settings of the best trial into the document, and leave all else as it is."""
    if tuned.network is None:
        return
    if isinstance(document.get("network"), str):
        document["network"] = {"kind": document["network"]}
    if document.get("network", {}).get("kind", "auto") == "auto":
        document["network"] = tuned.network
    for name, value in tuned.best.settings.items():
        section, _, key = name.partition(".")
        if key in ("epochs", "max_steps"):
            document.get("fit", {}).pop({"epochs": "max_steps", "max_steps": "epochs"}[key], None)
        if section not in document:
            document[section] = {}
        document[section][key] = value


def header(tuned: Tuned, spec: Path) -> list[str]:
    """What was tried and how good it was, as comments above the spec."""
    return [*summary(tuned, spec.name), "", *table(tuned, KEPT), ""]


def summary(tuned: Tuned, name: str) -> list[str]:
    """Sentences on how much was tried, what was best, and what that is worth."""
    start = start_of(tuned)
    states = [one.state for one in tuned.trials]
    out = [f"{counted(states.count(state), 'trials')} {said}" for state, said in ENDS.items() if state in states]
    done = 1 + max(one.trial for one in tuned.trials)
    cut = f" of {tuned.wanted:,}" if done < tuned.wanted else ""
    lines = [
        f"{done:,}{cut} {'trial' if max(done, tuned.wanted) == 1 else 'trials'} of {name}, seed {tuned.seed}"
        + (f" ({', '.join(out)})" if out else "")
        + ".",
        f"{measured(tuned.metric)}; the test fold was not looked at.",
    ]
    best, before = flipped(tuned.best.error, tuned.metric), flipped(start.error, tuned.metric)
    if tuned.best == start:
        return [*lines, f"Nothing was better than the spec as it stood ({before:.4g})."]
    if tuned.metric in HIGHER:
        better = f"{best - before:.4f} higher than the spec as it stood"
    else:
        better = f"{100 * (1 - best / before):.1f} % lower than the spec as it stood"
    apart = tuned.best.standard_errors
    sure = "" if apart is None else f", {apart:.1f} standard errors of the difference"
    sure += ": validation can hardly tell the two apart" if apart is not None and apart < ENOUGH else ""
    return [
        *lines,
        f"Trial {tuned.best.trial} is the best: {best:.4g} against {before:.4g}, {better}{sure}.",
        "The best of many on one fold flatters itself: expect less of it on new data.",
    ]


ENDS = {"stopped": "stopped early", "diverged": "whose loss became no number"}
UNITS = {"mae": "MAE", "rmse": "RMSE", "mase": "MAE"}  # in scaled space seasonal naive's own error cancels out
MEASURES = {
    "log_loss": "Log-loss", "accuracy": "Accuracy", "balanced_accuracy": "Balanced accuracy", "macro_f1": "Macro F1",
}  # fmt: skip


def measured(metric: str) -> str:
    """What the figures of a search are."""
    if metric in UNITS:
        return f"{UNITS[metric]} over the horizon on the validation fold, in standard deviations of each series"
    better = "higher" if metric in HIGHER else "lower"
    return f"{MEASURES[metric]}, the {better} the better, of cases that a model had not learned from"


def start_of(tuned: Tuned) -> Tried:
    return next(one for one in tuned.trials if one.trial == 0 and not one.form)


def table(tuned: Tuned, many: int) -> list[str]:
    """The best trials, and the start, in lines."""
    start = start_of(tuned)
    ranked = sorted((one for one in tuned.trials if one.error is not None), key=lambda one: (one.error, one.trial))
    rows = ranked[:many] if start in ranked[:many] else [*ranked[:many], start]
    lines = [f"{'trial':>5}  {METRICS.get(tuned.metric, 'error'):<9}{'to start':<10}settings"]
    for one in rows:
        figure = flipped(one.error, tuned.metric)
        lines.append(f"{one.trial:>5}  {figure:<9.4g}{change(one, start, tuned.metric):<10}{settings_of(one, tuned)}")
    if len(ranked) > len(rows):
        lines.append(f"{'':>5}  and {len(ranked) - len(rows):,} more")
    return lines


def change(one: Tried, start: Tried, metric: str) -> str:
    """How far a trial is from the start."""
    if one is start:
        return "-"
    return f"{start.error - one.error:+.4f}" if metric in HIGHER else f"{100 * (one.error / start.error - 1):+.1f} %"


def settings_of(one: Tried, tuned: Tuned) -> str:
    """What sets a trial apart, as a spec would say it."""
    if one.trial == 0:
        return f"{one.form} of it alone" if one.form else "the spec as it stood"
    kind = f"{one.kind}: " if len({other.kind for other in tuned.trials}) > 1 else ""
    return kind + (", ".join(f"{name} {shown(value)}" for name, value in one.settings.items()) or "as it stood")


def go_on(tuned: Tuned, spec: Path, path: Path) -> str:
    """What to type next: train with what was found, or search on where nothing was."""
    if tuned.network is not None:
        return f"{command()} train {shlex.quote(str(path))}"
    return f"{command()} tune {shlex.quote(str(spec))} --trials {2 * tuned.wanted}   (goes on from here)"


def print_tuned(tuned: Tuned, spec: Path, path: Path, replaced: bool) -> None:
    """The best few, what they are worth, and where to go from here."""
    click.echo("")
    for line in table(tuned, LISTED):
        click.echo(line)
    click.echo("")
    for line in summary(tuned, spec.name):
        click.echo(line)
    again = " (in place of what an earlier search wrote)" if replaced else ""
    print_facts(
        {
            "written": f"{os.path.relpath(path) if path.is_absolute() else path}{again}",
            "took": f"{tuned.seconds:.1f} s",
            "next": go_on(tuned, spec, path),
        }
    )
