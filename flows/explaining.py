"""What a training run would do, step by step, without doing it."""

from datetime import UTC, datetime

from flows.classifying import classifier_steps
from flows.running import Run
from flows.spec import AnySpec, check_networks
from flows.training import training_steps
from tasks.journal import Journal
from tasks.planning import Planned, plan
from tasks.storage import Store


def explaining(spec: AnySpec) -> list[Planned]:
    """Each step of a training run with this spec: cached, or what makes it run."""
    check_networks(spec)
    planned: list[Planned] = []
    token = plan.set(planned)
    try:
        steps = classifier_steps if spec.task == "classification" else training_steps
        steps(spec, Store(spec.store), Run(id="plan", now=datetime.now(UTC), journal=Journal()))
    finally:
        plan.reset(token)
    return planned
