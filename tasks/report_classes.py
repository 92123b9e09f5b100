"""One self-contained HTML page on a trained classifier: how often it is right, where it is not, and what it looked at."""

import yaml
from pydantic import BaseModel, ConfigDict

from models.classification.specs import ClassGateSpec
from tasks.class_charts import draw_cases, draw_confusion, draw_reliability, draw_training
from tasks.gather.task import Labelled
from tasks.policy import step, this_call
from tasks.promote import judge_classes, short
from tasks.report import PAGE, Page, render, to_data_uri
from tasks.storage import Store
from tasks.train_classifier import ClassModel
from tasks.validate_classifier import ClassScores

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "calibration_error")
RARE = 10  # times fewer cases than the commonest class has


class ClassSubject(BaseModel):
    """What the page is about, as the spec says it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    file: str  # name of the source, without its folder
    spec: dict  # without the places that differ from machine to machine
    template: str  # digest of the page's own template


@step(libraries=("jinja2", "matplotlib", "numpy", "pyyaml"))
def report_classes(
    subject: ClassSubject,
    labelled: Labelled,
    model: ClassModel,
    new: ClassScores,
    rivals: dict[str, ClassScores],
    beside: dict[str, ClassScores],
    gate: ClassGateSpec,
    store: Store,
) -> Page:
    """Write the page; `beside` are models that the new one is shown with, and need not beat."""
    detail = store.read_json(new, "detail.json")
    figures = {
        "confusion": draw_confusion(detail["test"]["confusion"], model.classes),
        "reliability": draw_reliability(detail["test"]["reliability"]),
        "cases": draw_cases(detail["examples"], model.channels),
        "losses": draw_training(store.read_json(model, "history.json")["curves"]),
    }
    charts = {name: to_data_uri(figure) for name, figure in figures.items() if figure}
    facts = class_facts(subject, labelled, model, new, rivals, beside, gate) | {"rows": detail["test"]["classes"]}
    with store.draft(this_call()) as draft:
        draft.write_bytes(PAGE, render(charts, facts, "classes.html.jinja").encode())
        return draft.commit(Page)


def class_facts(subject, labelled, model, new, rivals, beside, gate) -> dict:
    """Everything the template prints."""
    verdict = judge_classes(model, new, rivals, gate)
    counts = labelled.classes
    most = max(counts.values())
    return {
        "name": subject.name,
        "file": subject.file,
        "model": short(model),
        "what": "windows" if labelled.stream else "cases",
        "labelled": labelled,
        "facts": model,
        "test": new.scores["test"],
        "majority": rivals["majority class"].scores["test"],
        "tables": [
            (fold, score_rows({"new model": new, **rivals, **beside}, fold), new.num_cases[fold])
            for fold in ("test", "validation")
        ],
        "promoted": verdict.promoted,
        "refit": subject.spec["refit"],
        "has_live": "live model" in rivals,
        "reason": verdict.reason,
        "rare": [name for name, count in counts.items() if count * RARE < most],
        "notes": {what: count for what, count in labelled.notes.items() if count and what != "windows in all"},
        "spec": yaml.safe_dump(subject.spec, sort_keys=False, allow_unicode=True),
    }


def score_rows(scores: dict[str, ClassScores], fold: str) -> list[dict]:
    """A row for each model, the one with the lowest log-loss marked."""
    best = min(own.scores[fold]["log_loss"] for own in scores.values())
    return [
        {"model": name, "best": own.scores[fold]["log_loss"] == best} | {metric: own.scores[fold][metric] for metric in METRICS}
        for name, own in scores.items()
    ]
