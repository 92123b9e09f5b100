"""Let the model that is to forecast, a new one or the one that stays live, go on learning from all rows there are."""

from dataclasses import replace

from models.bundle import Bundle, Description, dump_bundle
from models.networks import FitSettings, form_name, recipe
from models.scaling import Scaler
from models.specs import FitSpec
from models.windows import FoldSpec
from tasks.checkpoints import forget
from tasks.ingest.timeline import local_stamp, parse_timezone
from tasks.normalise import Normalised, read_scaler
from tasks.policy import step, this_call
from tasks.storage import Store
from tasks.train import Model, learn, read_bundle
from tasks.windows.folds import WindowSet, open_windows
from tasks.windows.task import Windows

SHARE, RATE = 0.5, 0.3  # of the steps after which it was best, and of the learning rate, with which it goes on


@step(libraries=("numpy", "pyarrow", "safetensors", "torch"))
def refit(
    model: Model,
    windows: list[Windows],
    normalised: list[Normalised],
    folds: FoldSpec,
    where: FitSettings,
    store: Store,
) -> Model:
    """Store the same networks once they have gone on from where they were best, a little way, on the rows of all folds.

    Each goes on as it was fitted, whatever a spec says by now, so that no setting reaches a forecast that was not scored.

    Nothing is left to say how good they are, so they do not begin anew but stay near those that were scored. Quantiles stay
    those that the held-out rows have told: errors on rows that were learned from would tell too little.

    Args:
        windows: of all rows there are now, in the form that the model takes; of one that has been live for a while they are
            more than it was scored on.
        where: on which device, and on how many; nothing else of it counts.
    """
    call, bundle = this_call(), read_bundle(store, model)
    now, _ = read_scaler(normalised, windows[0].columns, store)
    scaler = scaled_as_before(bundle.description.scaler, now, len(windows[0].columns.static))
    cut, history = open_windows(windows, scaler, folds, store), store.read_json(model, "history.json")
    checkpoints, weights, curves = store.folder("checkpoints", call.key), [], []
    for number, member in enumerate(bundle.description.members):
        before = {curve["seed"]: curve for curve in history["curves"] if curve["form"] == form_name(member.network)}
        further = going_on([before[seed] for seed in member.seeds], recipe(member.network, FitSettings()), where)
        own, about = alone(bundle, number), bundle.description.series
        fitted = learn(cut, about, member.network, further, checkpoints / str(number), own, "all")
        weights.append([one.weights for one in fitted])
        for seed, one in zip(member.seeds, fitted, strict=True):
            curves.append(before[seed] | {"best_epoch": one.best_epoch, "epochs": one.history})
    refitted = Bundle(holding_nothing_out(bundle.description), weights, bundle.spread_weights)
    with store.draft(call) as draft:
        for name, content in dump_bundle(refitted).items():
            draft.write_bytes(name, content)
        draft.write_json("history.json", history | {"curves": curves})
        facts = model.model_dump(exclude={"step", "key", "digest", "through"})
        found = draft.commit(Model, **facts, through=newest(cut))
    forget(checkpoints)
    return found


def scaled_as_before(before: Scaler, now: Scaler, num_static: int) -> Scaler:
    """The series that there are now, scaled as a model scales them; one that it never saw is scaled by its own history."""
    series = {
        name: before.series[name].model_copy(update={"steps": scale.steps})
        if name in before.series
        else before.adopted(scale, num_static)
        for name, scale in now.series.items()
    }
    return now.model_copy(update={"series": series})


def going_on(curves: list[dict], usual: FitSpec, where: FitSettings) -> FitSpec:
    """How a network goes on that learned as these loss curves, a seed each, say; `usual` where they do not say how."""
    fit = FitSpec.model_validate(curves[0]["fit"]) if "fit" in curves[0] else usual
    best = sum(curve["epochs"][curve["best_epoch"] - 1]["step"] for curve in curves) / len(curves)
    length = {"epochs": None, "max_steps": max(1, round(SHARE * best)), "steps_per_epoch": curves[0]["epochs"][0]["step"]}
    pace = {"learning_rate": RATE * fit.learning_rate, "schedule": "one_cycle", "keep": "last"}
    same = {"init": "live", "seeds": tuple(curve["seed"] for curve in curves)}
    return fit.model_copy(update=length | pace | same | {"device": where.device or "auto", "devices": where.devices or 1})


def alone(bundle: Bundle, number: int) -> Bundle:
    """One member of a bundle, so that none of the same form is taken for it."""
    members = (bundle.description.members[number],)
    return replace(
        bundle, description=bundle.description.model_copy(update={"members": members}), weights=[bundle.weights[number]]
    )


def holding_nothing_out(about: Description) -> Description:
    """What a model is, but that no rows are left which it has not learned from."""
    calibration = about.calibration and about.calibration.model_copy(update={"held_out": 0})
    return about.model_copy(update={"calibration": calibration})


def newest(cut: WindowSet) -> int:
    """The stamp of the newest row of all series, microseconds UTC."""
    blocks = cut.fold("all")
    return max(int(blocks.timestamps(number)[-1]) for number in range(len(blocks.cuts)))


def through(model: Model) -> str:
    """The newest row that a model has learned from which went on to all of them, on the local clock; empty of others."""
    return "" if model.through is None else local_stamp(model.through, parse_timezone(model.facts.timezone))
