"""Backtest a model, or seasonal naive, from every origin of the validation and test folds."""

from pydantic import BaseModel, ConfigDict

from models.bundle import Bundle, Description
from models.errors import Fault
from models.windows import FoldSpec
from tasks.backtest import Backtest
from tasks.normalise import Normalised, read_scaler
from tasks.policy import step, this_call
from tasks.storage import Receipt, Store
from tasks.train import Model, read_bundle
from tasks.windows.folds import WindowSet, open_windows
from tasks.windows.task import Windows

SCORED_FOLDS = ("validation", "test")
NEW_LINE = "Give the spec another name to start a new line of models."


class Interval(BaseModel):
    """How a central interval did over all steps of a fold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    coverage: float  # share of the truth that lay inside
    width: float  # mean, in the target's unit


class Scores(Receipt):
    """Scores by fold and number of steps, and `backtest.json` with the errors behind them."""

    model: str | None  # digest; None is seasonal naive
    scores: dict[str, dict[str, dict[str, float | None]]]  # fold -> steps -> mae, rmse, mase, crps, wql
    num_origins: dict[str, int]
    intervals: dict[str, dict[str, Interval]]  # fold -> nominal coverage in percent; empty for a model without quantiles


@step(libraries=("numpy", "pandas", "pyarrow", "torch", "tzdata"))
def validate(
    model: Model | None, windows: list[Windows], normalised: list[Normalised], folds: FoldSpec, store: Store
) -> Scores:
    """Score one model, or seasonal naive where `model` is None, on the folds of these windows."""
    scaler, _ = read_scaler(normalised, windows[0].columns, store)
    cut = open_windows(windows, scaler, folds, store)
    bundle = read_bundle(store, model) if model else None
    if bundle:
        check_same_task(bundle.description, windows[0])
    backtests = run_backtests(cut, windows[0], bundle)
    with store.draft(this_call()) as draft:
        draft.write_json("backtest.json", {fold: result["detail"] for fold, result in backtests.items()})
        return draft.commit(
            Scores,
            model=model.digest if model else None,
            scores={fold: result["scores"] for fold, result in backtests.items()},
            num_origins={fold: result["num_origins"] for fold, result in backtests.items()},
            intervals={fold: over_all_steps(result["detail"]["intervals"]) for fold, result in backtests.items()},
        )


def run_backtests(cut: WindowSet, about: Windows, bundle: Bundle | None) -> dict[str, dict]:
    """The backtest of each fold, one after the other in time, so that quantiles go on as they do in a forecast."""
    found, before = {}, {}
    for fold in SCORED_FOLDS:
        backtest = Backtest(cut, fold, about, bundle, before)
        found[fold], before = backtest.run(example_picks(bundle, fold)), backtest.settled()
    return found


def over_all_steps(intervals: dict[str, dict]) -> dict[str, Interval]:
    return {name: Interval(coverage=own["coverage"], width=own["width"]) for name, own in intervals.items()}


def example_picks(model: Bundle | None, fold: str) -> dict[str, float]:
    """The origins a report shows, as quantiles of their error: only a model's, only on the test fold."""
    return {"good": 0.1, "median": 0.5, "worst": 1.0} if model and fold == "test" else {}


def check_same_task(made_for: Description, windows: Windows) -> None:
    """Raises a Fault where a model can not be held against these windows."""
    pairs = {
        "columns": (made_for.series.columns.names, windows.columns.names),
        "frequency": (made_for.series.frequency, windows.frequency),
        "lookback": (made_for.windows.lookback, windows.windows.lookback),
        "horizon": (made_for.windows.horizon, windows.windows.horizon),
    }
    for what, (own, found) in pairs.items():
        if own != found:
            raise Fault(f"The live model was made for {what} {own}, this run has {found}. {NEW_LINE}")
