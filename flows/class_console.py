"""What a person sees of a classifier on the command line."""

import shlex
from pathlib import Path

import click

from flows.console import command, print_end, print_facts
from models.errors import counted, shortlist

METRICS = {"accuracy": "accuracy", "balanced_accuracy": "balanced", "macro_f1": "macro F1", "log_loss": "log-loss"}
NAMES = {"new": "new model", "live": "live model", "majority": "majority class"}


def print_trained_classifier(trained, path: Path) -> None:
    """Scores, verdict, and where everything is."""
    click.echo(f"\n{trained.reason}\n")
    for fold in ("test", "validation"):
        for line in score_lines(trained, fold):
            click.echo(line)
        click.echo("")
    if trained.left_out:
        click.echo(f"{counted(trained.left_out, trained.what)} without a label left out")
    classes = shortlist((f"{name} {count:,}" for name, count in trained.classes.items()), 12)
    facts = {"classes": classes}
    if trained.refitted:
        whose = "the live model " if any(entry.step == "refit_live" for entry in trained.tasks) else ""
        cases = counted(trained.num_refitted, trained.what)
        facts["refit"] = f"{whose}on all {cases} with a label, as {trained.refitted[:8]}, which is to label"
    print_end(trained, path, facts, "table of labels")


def score_lines(trained, fold: str) -> list[str]:
    """Lines of a table: a row a model."""
    fold_name = "cross-validation" if fold == "validation" and trained.cross_validated else f"{fold} fold"
    width = max(18, 2 + max(len(NAMES.get(who, who)) for who in trained.scores))
    rows = [f"{fold_name:<{width}}" + "".join(f"{name:<11}" for name in METRICS.values()).rstrip()]
    for who, scores in trained.scores.items():
        name = NAMES.get(who, who)
        cells = "none yet" if scores is None else "".join(f"{scores[fold][metric]:<11.4f}" for metric in METRICS).rstrip()
        rows.append(f"{name:<{width}}{cells}")
    return rows


def print_labelled(labelling, path: Path) -> None:
    """What was written, where, and how to read it."""
    counts = shortlist((f"{name} {count:,}" for name, count in labelling.counts.items()), 12)
    click.echo(f"\n{counted(labelling.rows_written, 'rows')}: {counts}")
    if labelling.known:
        click.echo(f"The label is known for {labelling.known:,} of them: {100 * labelling.accuracy:.1f} % are right")
    print_facts(
        {
            "table of labels": f"{labelling.forecast_table} (Delta Lake, version {labelling.table_version})",
            "model": model_of(labelling),
            "read it": f"in Python, deltalake.DeltaTable({labelling.forecast_table!r}).to_pandas()",
            "next": f"{command()} up {shlex.quote(str(path))}   (retrain and label on a schedule)",
        }
    )


def model_of(labelling) -> str:
    """What labelled, and, where some labels were known and it has learned from these, what labelled those."""
    scored = f"{labelling.scored[:12]}, as it was scored"
    if labelling.model == labelling.scored or not labelling.known:
        return labelling.model[:12]
    if labelling.known == labelling.rows_written:
        return f"{scored}: what is live may have learned from these labels"
    return f"{labelling.model[:12]}; where the label is known {scored}, as what is live may have learned from it"


def print_checked_cases(checked, path: Path) -> None:
    """What a source of labelled data holds."""
    click.echo(f"\n{checked.described}")
    for name, count in checked.classes.items():
        click.echo(f"  {name:<24}{count:,}")
    folds = ", ".join(f"{count:,} {fold}" for fold, count in checked.num_cases.items() if count)
    click.echo(f"folds: {folds}" + (", as the source says" if checked.has_splits else ""))
    for line in checked.absent:
        click.echo(line)
    for what, count in checked.notes.items():
        if count and what != "windows in all":
            click.echo(f"{what}: {count:,}")
    if checked.num_unlabelled:
        click.echo(f"{counted(checked.num_unlabelled, checked.what)} without a label")
    print_facts({"cases": checked.folder, "took": f"{checked.seconds:.1f} s"})
