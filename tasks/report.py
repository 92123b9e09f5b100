"""One self-contained HTML page on a trained model: verdict, scores, forecasts against truth, errors, losses, spec."""

import base64
import hashlib
import io
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.text import Text
from pydantic import BaseModel, ConfigDict

from models.errors import shortlist
from models.floors import stopping
from models.specs import GateSpec
from models.windows import num_apart
from tasks.backtest import clock_unit
from tasks.calibrate import FEW
from tasks.charts import draw_by_clock, draw_by_step, draw_examples, draw_intervals, draw_losses, short_number
from tasks.ingest.shards import Overview
from tasks.ingest.task import Series
from tasks.ingest.timeline import local_stamp, parse_timezone
from tasks.policy import step, this_call
from tasks.promote import judge, short
from tasks.select import Selection
from tasks.storage import Receipt, Store
from tasks.train import Model
from tasks.validate import Scores

PAGE = "report.html"


class Page(Receipt):
    """`report.html`."""


class Subject(BaseModel):
    """What a report is about, besides what the receipts say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    file: str  # name of the source, without its folder
    season: str  # in words
    spec: dict  # without the places that differ from machine to machine
    template: str  # digest of the page's own template


class SetAside(BaseModel):
    """The series that were left out for their faults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    series: int
    faults: tuple[str, ...]  # a line for each kind of each series, the first few


@step(libraries=("jinja2", "matplotlib", "numpy", "pandas", "pyyaml", "tzdata"))
def report(
    subject: Subject,
    overview: Overview,
    series: list[Series],
    aside: SetAside,
    model: Model,
    new: Scores,
    rivals: dict[str, Scores],
    gate: GateSpec,
    selection: Selection | None,
    store: Store,
) -> Page:
    """Write the page."""
    backtests = {"new model": store.read_json(new, "backtest.json")}
    backtests |= {name: store.read_json(scores, "backtest.json") for name, scores in rivals.items()}
    history = store.read_json(model, "history.json")
    charts = draw_charts(model, backtests, history["curves"])
    facts = page_facts(subject, model, new, rivals, gate) | source_facts(overview, series, aside, model, store)
    facts |= {
        "num_seeds": len({curve["seed"] for curve in history["curves"]}),
        "too_short": shortlist(history["too_short"], 20),
    }
    facts |= {"selection": selection}
    facts |= {"worst_series": backtests["new model"]["test"]["worst_series"] if model.num_series > 1 else []}
    with store.draft(this_call()) as draft:
        draft.write_bytes(PAGE, render(charts, facts).encode())
        return draft.commit(Page)


def draw_charts(model: Model, backtests: dict[str, dict], history: list[dict]) -> dict[str, str]:
    """The page's figures as data URIs."""
    unit = model.facts.target
    test = {name: folds["test"] for name, folds in backtests.items()}
    figures = {
        "examples": draw_examples(test["new model"]["examples"], unit),
        "by_step": draw_by_step({name: fold["mae_by_step"] for name, fold in test.items()}, unit),
        "by_clock": draw_by_clock(test["new model"]["by_clock"], test["new model"]["clock"], unit),
        "losses": draw_losses(history),
    }
    if intervals := test["new model"]["intervals"]:
        figures["intervals"] = draw_intervals(intervals, unit)
    return {name: to_data_uri(figure) for name, figure in figures.items()}


def to_data_uri(figure) -> str:
    buffer = io.BytesIO()
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a name may hold dollar signs
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def page_facts(subject, model, new, rivals, gate) -> dict:
    """Everything the template prints."""
    horizon = str(model.windows.horizon)
    naive = rivals["seasonal naive"]
    own, other = (scores.scores["test"][horizon]["mae"] for scores in (new, naive))
    verdict = judge(model, new, rivals, gate)
    return {
        "name": subject.name,
        "file": subject.file,
        "season": subject.season,
        "target": model.facts.target,
        "model": short(model),
        "clock": {"hour": "hour of day", "day_of_week": "weekday", "month": "month"}[clock_unit(model.facts.frequency)],
        "kind": " and ".join(form.name for form in model.forms if form.chosen) or subject.spec["network"]["kind"],
        "forms": sorted(model.forms, key=lambda form: form.error),
        "gate_metric": gate.metric,
        "mae": own,
        "naive_mae": other,
        "gain": 100 * (1 - own / other) if other else None,
        "horizon": model.windows.horizon,
        "frequency": model.facts.frequency,
        "promoted": verdict.promoted,
        "refit": subject.spec["refit"],
        "has_live": "live model" in rivals,
        "reason": verdict.reason,
        "facts": model.facts,
        "windows": model.windows,
        "num_windows": model.num_windows,
        "num_series": model.num_series,
        "stops": stopping(model.num_floored, model.num_series) if model.num_floored else None,
        "parameters": model.num_parameters,
        "rows": score_rows({"new model": new, **rivals}),
        "intervals": dict(sorted(new.intervals["test"].items(), key=lambda pair: -float(pair[0]))),
        "apart": (apart := num_apart(model.num_windows["validation"], model.windows)),
        "few": apart < FEW,
        "rolling": subject.spec["quantiles"]["rolling"],
        "folds": [("test", new.num_origins["test"]), ("validation", new.num_origins["validation"])],
        "spec": yaml.safe_dump(subject.spec, sort_keys=False, allow_unicode=True),
    }


def source_facts(overview: Overview, series: list[Series], aside: SetAside, model: Model, store: Store) -> dict:
    """What the template prints of the data: its extent, its repairs, and the series left out."""
    repairs: dict[str, list[tuple[int, str]]] = {}
    for one in series:
        if one.repairs:
            for note in store.read_json(one, "index.json")["repairs"]:
                repairs.setdefault(note["what"], []).append((note["count"], note["series_id"]))
    rows = [
        {
            "what": what,
            "count": sum(count for count, _ in each),
            "series": len(each),
            "most": shortlist(f"{name} {count:,}" for count, name in sorted(each, reverse=True)),
        }
        for what, each in sorted(repairs.items())
    ]
    zone = parse_timezone(model.facts.timezone)
    first, last = min(one.first for one in series if one.num_series), max(one.last for one in series)
    return {
        "steps": sum(one.steps for one in series),
        "all_series": overview.num_series,
        "inferred": overview.inferred,
        "first": local_stamp(first, zone),
        "last": local_stamp(last, zone),
        "repairs": rows,
        "aside": aside,
    }


def score_rows(scores: dict[str, Scores]) -> dict[str, list[dict]]:
    """The score table, fold by fold: a row for each number of steps and model, the best of a number marked."""
    table: dict[str, list[dict]] = {}
    for fold in ("test", "validation"):
        for steps in next(iter(scores.values())).scores[fold]:
            known = [own.scores[fold][steps]["mae"] for own in scores.values()]
            best = min(known) if None not in known else None  # None: none of these steps was observed
            for name, own in scores.items():
                values = own.scores[fold][steps]
                row = {"steps": steps, "model": name, "best": best is not None and values["mae"] == best, **values}
                table.setdefault(fold, []).append(row)
    return table


def template_folder() -> Path:
    return Path(__file__).parent


def template_digest() -> str:
    """Over every template, since they are made of one another."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(template_folder().glob("*.jinja")))).hexdigest()


def render(charts: dict[str, str], facts: dict, template: str = "report.html.jinja") -> str:
    environment = Environment(loader=FileSystemLoader(template_folder()), autoescape=True, undefined=StrictUndefined)
    environment.filters["short"] = short_number
    return environment.get_template(template).render(charts=charts, **facts)


def publish_report(name: str, page: Page, store: Store) -> Path:
    """Put a page where a reader finds the newest one of a pipeline."""
    return store.put_file(store.file(page, PAGE).read_bytes(), "reports", f"{name}.html")
