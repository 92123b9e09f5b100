"""Where windows start, and which fold they belong to.

A window is `lookback` rows that end at the origin, then `horizon` rows to forecast. A row holds the
target first, then the past covariates, then the future covariates.
"""

from pydantic import BaseModel, ConfigDict, Field

from models.errors import Fault

FOLDS = ("train", "validation", "test")


LONGEST = 3000  # steps that are looked back where nothing else is said; more is slow and seldom of use


class WindowSpec(BaseModel):
    """How windows are cut from a series."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lookback: int = Field(ge=1, description="steps seen, ending at the origin")
    horizon: int = Field(ge=1, description="steps forecast")
    stride: int = Field(1, ge=1, description="steps between origins")

    @property
    def span(self) -> int:
        return self.lookback + self.horizon


class WindowSettings(WindowSpec):
    """What a spec says of windows; the lookback may be left to be chosen by the data."""

    lookback: int | None = Field(None, ge=1, description="steps seen, ending at the origin; null: by season and length")

    def resolved(self, season: int, num_steps: int) -> WindowSpec:
        """The windows for series of about `num_steps` steps to train on."""
        lookback = self.lookback or usual_lookback(season, num_steps, self.horizon)
        return WindowSpec(lookback=lookback, horizon=self.horizon, stride=self.stride)


def usual_lookback(season: int, num_steps: int, horizon: int) -> int:
    """Steps to look back where nothing else is said: whole seasons, many of them where there are rows enough.

    Thirty seasons of up to 24 steps, fifteen of longer ones, never more than a quarter of the steps to train on, and two
    at least. Without a season, and where not even two of them lie within `LONGEST` steps, four horizons.
    """
    if season == 1 or 2 * season > LONGEST:
        return max(1, min(max(4 * horizon, 48), num_steps // 4))
    return season * min(30 if season <= 24 else 15, LONGEST // season, max(2, num_steps // 4 // season))


class FoldSpec(BaseModel):
    """Which steps validate and which test; the steps before them train."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    validation: int = Field(ge=1, description="steps, counted from the end, before the test steps")
    test: int = Field(ge=1, description="steps, counted from the end")


def fold_rows(num_rows: int, folds: FoldSpec, windows: WindowSpec, series_id: str) -> dict[str, range]:
    """The rows that the windows of each fold may touch, fold by fold.

    Training windows end where validation begins. A validation or test window may look back into
    the rows before its fold, but every row it is scored on lies inside it. All is no fold: it is what a model goes on
    to once it has been scored.

    Raises:
        Fault: a fold would be left without a single window.
    """
    first_test = num_rows - folds.test
    first_validation = first_test - folds.validation
    if num_rows < (needed := steps_needed(folds, windows)) or min(folds.validation, folds.test) < windows.horizon:
        raise Fault(
            f"{series_id} has {num_rows} steps; lookback {windows.lookback} + horizon {windows.horizon} to train on, "
            f"validation {folds.validation} and test {folds.test} (each at least one horizon) need {needed}. "
            "Shorten windows.lookback or windows.horizon, set other folds, or bring more rows."
        )
    return {
        "train": range(first_validation),
        "validation": range(first_validation - windows.lookback, first_test),
        "test": range(first_test - windows.lookback, num_rows),
        "all": range(num_rows),
    }


def fold_series(
    steps: dict[str, int], folds: FoldSpec, windows: WindowSpec
) -> tuple[dict[str, dict[str, range]], dict[str, int]]:
    """The rows of every series by fold, as `fold_rows` has them, and the steps of the series that are too short for it.

    Raises:
        Fault: all of them are.
    """
    needed = steps_needed(folds, windows)
    too_short = {name: count for name, count in steps.items() if count < needed}
    rows = {name: fold_rows(count, folds, windows, name) for name, count in steps.items() if name not in too_short}
    if not rows:
        longest = max(steps, key=steps.get)
        fold_rows(steps[longest], folds, windows, longest)  # says what is needed
    return rows, too_short


def steps_needed(folds: FoldSpec, windows: WindowSpec) -> int:
    """Steps of a series below which some fold would have no window."""
    return windows.span + max(folds.validation, windows.horizon) + max(folds.test, windows.horizon)


def num_apart(count: int, windows: WindowSpec) -> int:
    """About how many of so many neighbouring windows have no step of their horizons in common."""
    return min(count, max(1, round(count * windows.stride / windows.horizon)))


def window_starts(num_rows: int, windows: WindowSpec) -> range:
    """First rows of the windows that fit, oldest first, aligned so that the newest rows are never dropped."""
    last = num_rows - windows.span
    return range(last % windows.stride, last + 1, windows.stride) if last >= 0 else range(0)
