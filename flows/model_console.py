"""What a person sees of a stored model on the command line."""

import click

from flows.console import is_classifier, print_facts
from models.errors import counted, shortlist
from models.floors import stopping


def print_model(shown) -> None:
    """What a model is, a line for each thing that one asks of it."""
    if is_classifier(shown):
        print_classifier(shown)
        return
    facts, windows = shown.facts, shown.windows
    season = f"season of {facts.season} steps" if facts.season > 1 else "no season"
    rows = f", all rows to {shown.through}" if shown.through else ""
    rows += f"; scored before as {shown.scored[:8]}" if shown.scored else ""
    stops = f"; {stopping(shown.num_floored, shown.num_series)}" if shown.num_floored else ""
    click.echo(f"{shown.digest[:12]}, {is_live(shown, 'rows')}, bundle format {shown.format}")
    print_facts(
        {
            "forecasts": f"{facts.target}, {counted(windows.horizon, 'steps')} ahead, a step every {facts.frequency}{stops}",
            "sees": f"{counted(windows.lookback, 'steps')} up to the origin, {season}, clock {facts.timezone}",
            "known ahead": ", ".join(facts.columns.known) or "nothing",
            "past only": ", ".join(facts.columns.past_only) or "nothing",
            "trained on": f"{counted(shown.num_series, 'series')}, windows {shown.trained_on[:12]}{rows}",
            "made with": ", ".join(f"{name} {version}" for name, version in sorted(shown.versions.items())),
            "lies in": shown.folder,
        }
    )
    for part in shown.members:
        seeds = f"{counted(len(part.seeds), 'seeds')} ({', '.join(map(str, part.seeds))})"
        click.echo(f"{'network':<18}{part.form}, {part.num_parameters:,} weights, {seeds}")


def is_live(shown, what: str) -> str:
    """Whether a model is live, or another that went on from it to all there is."""
    if shown.gone_on_as:
        return f"live as {shown.gone_on_as[:8]}, which has gone on from it to all {what}"
    return "live" if shown.live else "not live"


def print_converted(converted) -> None:
    """Where a graph lies, and what goes in and comes out of it."""
    click.echo(f"{converted.digest[:12]} written to {converted.path}, {converted.size / 1e6:.1f} MB")
    names = "classes, channels" if converted.task == "classification" else "scales and names"
    facts = {"inputs": ", ".join(converted.inputs), "outputs": ", ".join(converted.outputs)}
    if converted.task != "classification":
        facts["all scaled"] = "(raw - mean) / std of the series and channel; README says how"
    print_facts(facts | {names: "metadata_props['convcast'], JSON"})


def cases_of(shown) -> str:
    """How many cases, or windows, a classifier learned from."""
    learned = counted(shown.num_cases, "windows" if shown.windows else "cases")
    if shown.scored:
        return f"{learned}, all that have a label; scored before as {shown.scored[:8]}"
    return f"{learned}, {shown.trained_on[:12]}"


def print_classifier(shown) -> None:
    """What a classifier is, a line for each thing that one asks of it."""
    click.echo(f"{shown.digest[:12]}, {is_live(shown, 'cases')}, classifier format {shown.format}")
    windows = shown.windows
    sees = "whole cases" if windows is None else f"windows of {counted(windows.lookback, 'steps')}, labelled by {windows.label}"
    print_facts(
        {
            "tells apart": shortlist(shown.classes, 20),
            "sees": f"{sees}; channels {shortlist(shown.channels, 12)}",
            "trained on": cases_of(shown),
            "made with": ", ".join(f"{name} {version}" for name, version in sorted(shown.versions.items())),
            "lies in": shown.folder,
        }
    )
    for part, weight in zip(shown.members, shown.weights, strict=True):
        seeds = f"{counted(len(part.seeds), 'seeds')} ({', '.join(map(str, part.seeds))})"
        click.echo(
            f"{'classifier':<18}{part.form}, {part.num_parameters:,} weights, {seeds}, {100 * weight:.0f} % of the blend"
        )
