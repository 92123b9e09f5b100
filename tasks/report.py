"""One self-contained HTML page on a trained model: verdict, scores, forecasts against truth, errors, losses, spec."""

import base64
import io
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import BaseModel, ConfigDict

from tasks.charts import draw_by_clock, draw_by_step, draw_examples, draw_losses, short_number
from tasks.ingest.task import Series
from tasks.policy import step, this_call
from tasks.promote import GateSpec, judge, short
from tasks.storage import Receipt, Store
from tasks.train import Model
from tasks.validate import Scores, clock_unit
from tasks.windows import Windows

PAGE = "report.html"


class Page(Receipt):
    """`report.html`."""


class Subject(BaseModel):
    """What a report is about, besides what the receipts say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    file: str  # name of the source, without its folder
    spec: dict  # without the places that differ from machine to machine
    template: str  # digest of the page's own template


@step(libraries=("jinja2", "matplotlib", "numpy", "pandas", "pyyaml"))
def report(
    subject: Subject,
    series: Series,
    windows: Windows,
    model: Model,
    new: Scores,
    rivals: dict[str, Scores],
    gate: GateSpec,
    store: Store,
) -> Page:
    """Write the page."""
    backtests = {"new model": store.read_json(new, "backtest.json")}
    backtests |= {name: store.read_json(scores, "backtest.json") for name, scores in rivals.items()}
    history = store.read_json(model, "history.json")
    charts = draw_charts(series, backtests, history)
    facts = page_facts(subject, series, windows, model, new, rivals, gate, history)
    with store.draft(this_call()) as draft:
        draft.write_bytes(PAGE, render(charts, facts).encode())
        return draft.commit(Page)


def draw_charts(series: Series, backtests: dict[str, dict], history: list[dict]) -> dict[str, str]:
    """The page's figures as data URIs."""
    unit = series.facts.target
    test = {name: folds["test"] for name, folds in backtests.items()}
    figures = {
        "examples": draw_examples(test["new model"]["examples"], unit),
        "by_step": draw_by_step({name: fold["mae_by_step"] for name, fold in test.items()}, unit),
        "by_clock": draw_by_clock(test["new model"]["by_clock"], test["new model"]["clock"], unit),
        "losses": draw_losses(history),
    }
    return {name: to_data_uri(figure) for name, figure in figures.items()}


def to_data_uri(figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def page_facts(subject, series, windows, model, new, rivals, gate, history) -> dict:
    """Everything the template prints."""
    horizon = str(model.windows.horizon)
    naive = rivals["seasonal naive"]
    own, other = (scores.scores["test"][horizon]["mae"] for scores in (new, naive))
    verdict = judge(model, new, rivals, gate)
    return {
        "name": subject.name,
        "file": subject.file,
        "target": series.facts.target,
        "model": short(model),
        "clock": {"hour": "hour of day", "day_of_week": "weekday", "month": "month"}[clock_unit(series.facts.frequency)],
        "kind": subject.spec["network"]["kind"],
        "mae": own,
        "naive_mae": other,
        "gain": 100 * (1 - own / other) if other else None,
        "horizon": model.windows.horizon,
        "frequency": series.facts.frequency,
        "promoted": verdict.promoted,
        "reason": verdict.reason,
        "series": series,
        "windows": windows,
        "parameters": model.num_parameters,
        "history": history,
        "rows": score_rows({"new model": new, **rivals}),
        "folds": [("test", new.num_origins["test"]), ("validation", new.num_origins["validation"])],
        "spec": yaml.safe_dump(subject.spec, sort_keys=False, allow_unicode=True),
    }


def score_rows(scores: dict[str, Scores]) -> dict[str, list[dict]]:
    """The score table, fold by fold: a row for each number of steps and model, the best of a number marked."""
    table: dict[str, list[dict]] = {}
    for fold in ("test", "validation"):
        for steps in next(iter(scores.values())).scores[fold]:
            best = min(own.scores[fold][steps]["mae"] for own in scores.values())
            for name, own in scores.items():
                values = own.scores[fold][steps]
                row = {"steps": steps, "model": name, "best": values["mae"] == best, **values}
                table.setdefault(fold, []).append(row)
    return table


def template_folder() -> Path:
    return Path(__file__).parent


def render(charts: dict[str, str], facts: dict) -> str:
    environment = Environment(loader=FileSystemLoader(template_folder()), autoescape=True, undefined=StrictUndefined)
    environment.filters["short"] = short_number
    return environment.get_template("report.html.jinja").render(charts=charts, **facts)


def publish_report(name: str, page: Page, store: Store) -> Path:
    """Put a page where a reader finds the newest one of a pipeline."""
    return store.put_file(store.file(page, PAGE).read_bytes(), "reports", f"{name}.html")
