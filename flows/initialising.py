"""Look at data that nobody described, and write a commented spec that runs."""

import os
import re
import shlex
import textwrap
from pathlib import Path
from typing import Any

import click
import yaml
from pydantic import BaseModel, ConfigDict

from flows.console import command, print_facts
from flows.spec import check_spec, resolved
from models.errors import Fault, counted
from tasks.ingest.files import SourceFile
from tasks.ingest.listing import list_local
from tasks.ingest.sources import is_url
from tasks.sniffing.archive import guess_archive, has_case_a_row, with_other_fold
from tasks.sniffing.forecasts import guess_forecast
from tasks.sniffing.grouping import Kinds, sort_columns
from tasks.sniffing.labelled import doubts_of, guess_labels
from tasks.sniffing.roles import unfit
from tasks.sniffing.sample import Sample, look_at, take_sample
from tasks.sniffing.settings import Guess, Setting
from tasks.sniffing.stamping import find_stamps, no_stamps
from tasks.storage import speaking_of, write_atomically

WIDE, COLUMN = 120, 34  # characters of a line, and where comments begin
NAMED = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "blanks"}


class Initialised(BaseModel):
    """What was guessed, and where it was written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    spec: str
    facts: dict[str, str]
    doubts: tuple[str, ...]


def initialising(uris: list[str], output: Path | None, force: bool) -> Initialised:
    """Guess what files hold, and write a spec for them.

    Raises:
        Fault: there is nothing to learn from in them, or a spec is there already.
    """
    if urls := [uri for uri in uris if is_url(uri)]:
        raise Fault(f"{urls[0]} lies elsewhere; init looks at files on this machine. Fetch a part of it, and name that.")
    path = output or Path(f"{name_of(uris)}.yaml")
    check_place(path, force)
    files, partitions = list_files(uris)
    if has_case_a_row(files[0]):
        uris = with_other_fold(uris)
        files, partitions = list_files(uris)
        guess = guess_archive(files)
    else:
        guess = guess_table(files, partitions)
    text = render(guess, path, uris)
    check_spec(resolved(yaml.safe_load(text), path.resolve().parent), str(path))
    with speaking_of(path):
        write_atomically(path, text.encode())
    return Initialised(task=guess.task, spec=str(path), facts=guess.facts, doubts=tuple(guess.doubts))


def name_of(uris: list[str]) -> str:
    """What a line of models is called, after its data."""
    stems = [Path(uri.rstrip("/*?")).name.split(".")[0] for uri in uris]
    stem = re.sub(r"(?i)_train$", "", stems[0])
    if len(stems) > 1:  # what they have in common, or their folder
        alike = os.path.commonprefix(stems)  # noqa: RUF071, letter by letter is what is meant
        stem = alike.rstrip("0123456789_-. ") or Path(uris[0]).absolute().parent.name
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", stem).strip("._-")[:100]
    return plain or "series"


def check_place(path: Path, force: bool) -> None:
    """Raises a Fault where a spec can not be written."""
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise Fault(f"--output is {path}; a spec ends in .yaml. Name such a file.")
    if not path.resolve().parent.is_dir():
        raise Fault(f"--output is {path}, and there is no folder {path.parent}. Make it first.")
    if path.exists() and not force:
        raise Fault(f"{path} is there already and is left as it is. Give --force to replace it, or name another with --output.")


def list_files(uris: list[str]) -> tuple[list[SourceFile], list[dict[str, str]]]:
    """Every file, and the columns that its folders name."""
    found = [one for uri in uris for one in list_local(str(Path(uri).expanduser()))]
    return [look_at(name, path) for name, path, _ in found], [dict(pairs) for _, _, pairs in found]


def guess_table(files: list[SourceFile], partitions: list[dict[str, str]]) -> Guess:
    """What files with a header hold."""
    name = files[0].name
    sample = take_sample(files, partitions)
    stamps = find_stamps(sample)
    kinds = sort_columns(sample, stamps.columns if stamps else ())
    guess = guess_labels(sample, stamps, kinds)
    if guess is None and stamps is None:
        raise no_stamps(name, sample)
    guess = guess or guess_forecast(name, sample, stamps, kinds)
    guess.source = dialect_settings(sample, kinds) + guess.source
    if guess.task != "classification":
        guess.doubts += doubts_of(kinds, guess.named("target", "series_id"))
    for column, count in ((name, count) for name, count in kinds.infinite.items() if not unfit(kinds.numbers[name], name)):
        guess.doubts.append(f"{column!r} holds {counted(count, 'infinite values')}; training refuses them and names the line")
    if sample.ragged:
        guess.doubts.append(
            f"{counted(sample.ragged, 'rows')} with more or fewer fields than the header; training refuses them"
        )
    guess.facts = {"data": describe(files, sample)} | guess.facts
    return guess


def dialect_settings(sample: Sample, kinds: Kinds) -> list[Setting]:
    """The lines on how a CSV is written, where that is not as usual."""
    if sample.dialect is None:
        return []
    dialect, found = sample.dialect, []
    if dialect.delimiter != ",":
        found.append(Setting("delimiter", dialect.delimiter, f"fields are parted by {NAMED[dialect.delimiter]}"))
    if dialect.decimal != ".":
        found.append(Setting("decimal", dialect.decimal, "numbers are written as 1,5"))
    if dialect.encoding != "utf-8":
        found.append(Setting("encoding", dialect.encoding, "it is no UTF-8"))
    if kinds.markers:
        where = ", ".join(f"{mark!r} in {name!r}" for mark, name in kinds.markers.items())
        found.append(Setting("missing_markers", list(kinds.markers), f"stand for no value: {where}"))
    return found


def describe(files: list[SourceFile], sample: Sample) -> str:
    """How much there is, and how it is written."""
    many = f"{counted(len(files), 'files')}, " if len(files) > 1 else ""
    rows = f"{sample.num_rows:,} rows" if sample.whole else f"about {sample.num_rows:,} rows, {len(sample):,} of them looked at"
    marks = ""
    if sample.dialect is not None:
        marks = f", parted by {NAMED[sample.dialect.delimiter]}"
        marks += ", numbers as 1,5" if sample.dialect.decimal == "," else ""
        marks += f", {sample.dialect.encoding}" if sample.dialect.encoding != "utf-8" else ""
    return f"{many}{rows}, {counted(len(sample.columns), 'columns')}{marks}"


def render(guess: Guess, path: Path, uris: list[str]) -> str:
    """The spec as YAML, a reason behind each line."""
    places = [relative(uri, path.resolve().parent) for uri in uris]
    top = [
        Setting("name", name_of(uris), "of this line of models"),
        Setting("store", "store", "folder for everything that is made, relative to this file"),
    ]
    if guess.task != "forecasting":
        top.append(Setting("task", guess.task, "to tell classes apart"))
    said = "" if any(Path(place).is_absolute() for place in places) else "relative to this file"
    uri = Setting("uri", places[0] if len(places) == 1 else places, said)
    lines = ["# Written by convcast init: guesses, and why. Change what is not so.", *lines_of(top, "")]
    for section, settings in (("source", [uri, *guess.source]), ("folds", guess.folds), ("windows", guess.windows)):
        if settings:
            lines += [f"{section}:", *lines_of(settings, "  ")]
    lines += [f"# {line}" for doubt in guess.doubts for line in textwrap.wrap(printable(f"Look: {doubt}."), WIDE - 2)]
    return "\n".join(lines) + "\n"


def lines_of(settings: list[Setting], indent: str) -> list[str]:
    """A line for each setting, with its reason behind it where it fits, and above it where it does not."""
    lines = []
    for one in settings:
        code = f"{indent}{'# ' if one.off else ''}{one.key}: {dumped(one.value)}"
        why = printable(one.why)
        line = f"{code:<{COLUMN - 1}} # {why}" if why else code
        if len(line) > WIDE:
            lines += textwrap.wrap(why, WIDE, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
            line = code
        lines.append(line)
    return lines


def printable(text: str) -> str:
    """Text that a comment can hold: names may have any character."""
    return "".join(one if one.isprintable() else "?" for one in text)


def dumped(value: Any) -> str:
    """A value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), allow_unicode=True)
    return text.removesuffix("...\n").strip()


def relative(uri: str, folder: Path) -> str:
    """A path as seen from a folder, whole where it lies far from it."""
    whole = str(Path(uri).expanduser().absolute())
    near = os.path.relpath(whole, folder)
    return whole if near.startswith(os.path.join("..", "..", "..")) else near


def print_initialised(made: Initialised) -> None:
    """What was guessed, in lines, and what to do next."""
    print_facts({"task": made.task, **made.facts})
    for doubt in made.doubts:
        click.echo(f"{'look at':<18}{doubt}")
    spec = shlex.quote(made.spec)
    print_facts({"written": made.spec, "next": f"{command()} check {spec}, then {command()} train {spec}"})
