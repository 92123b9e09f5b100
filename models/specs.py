"""What a user says of one network, of how it is trained, and of when it goes live: plain values, read without torch."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

# What a spec says of `inputs` holds for all networks of a run; it is resolved before one is built.
Inputs = Annotated[
    Literal["all", "auto"] | tuple[str, ...],
    Field(description="covariates that are seen; auto: those that tell something of the target; or their names"),
]


class ReferenceSpec(BaseModel):
    """The net this project began with: one convolution, one step ahead, forecast recursively."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["reference"] = "reference"
    filters: int = Field(64, ge=1)
    kernel: int = Field(4, ge=1, description="steps")
    pool: int = Field(4, ge=1, description="steps")
    hidden: int = Field(216, ge=1)
    dropout: float = Field(0.2, ge=0, lt=1)
    inputs: Inputs = "all"


class ResidualSpec(BaseModel):
    """Dilated residual convolutions that forecast all steps at once."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["residual"] = "residual"
    channels: int = Field(32, ge=1)
    depth: int | None = Field(None, ge=1, le=20, description="blocks; null: as many as it takes to see every row")
    kernel: int = Field(3, ge=1, description="steps; odd, so that a row sits in the middle of what it sees")
    dropout: float = Field(0.2, ge=0, lt=1)
    noise: float = Field(0.1, ge=0, description="jitter of the inputs while training, in standard deviations")
    lookback: int | None = Field(None, ge=1, description="newest steps that it uses; null: nine seasons")
    embedding: int = Field(0, ge=0, le=256, description="numbers learned for each series; 0: all series share everything")
    inputs: Inputs = "all"


class PeriodicSpec(BaseModel):
    """A smoothed, periodic linear map, and a small convolutional branch for what it misses."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["periodic"] = "periodic"
    branch: Literal["none", "recent", "all"] = Field("recent", description="what the branch sees: two periods, or the lookback")
    channels: int = Field(16, ge=1, description="of the branch")
    dropout: float = Field(0.2, ge=0, lt=1, description="within the branch")
    head_dropout: float = Field(0.5, ge=0, lt=1, description="before the last map of the branch")
    rescale: bool = Field(True, description="divide each window by its own standard deviation, not by the series' alone")
    noise: float = Field(0.5, ge=0, description="jitter of the inputs while training, in the size of a window's own steps")
    inputs: Inputs = "all"


class RegressionSpec(BaseModel):
    """A regression on what is known ahead, and a periodic linear map of what it leaves: little to learn, so few rows do."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["regression"] = "regression"
    width: int = Field(32, ge=1, description="of the layer that the covariates of a step go through")
    noise: float = Field(0.5, ge=0, description="jitter of the target while training, in the size of a window's own steps")
    inputs: Inputs = "all"


class PyramidSpec(BaseModel):
    """Two dense layers of the past at several resolutions, the newest steps one by one and older ones in ever coarser means."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["pyramid"] = "pyramid"
    detail: int = Field(8, ge=1, description="steps, or means, of each resolution")
    width: int = Field(128, ge=1, description="of the dense layers")
    dropout: float = Field(0.4, ge=0, lt=1)
    noise: float = Field(0.0, ge=0, description="jitter of the target while training, in the size of a window's own steps")
    inputs: Inputs = "all"


class LinearSpec(BaseModel):
    """One linear map of how far each step of the lookback lies from its last value."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["linear"] = "linear"
    lookback: int | None = Field(None, ge=1, description="newest steps that it uses; null: all")
    noise: float = Field(0.0, ge=0, description="jitter of the inputs while training, in standard deviations")
    inputs: Inputs = "all"


class FitSpec(BaseModel):
    """How a network is trained; `models.networks.RECIPES` has what suits each kind."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int | None = Field(None, ge=1, description="passes, or rounds of steps_per_epoch; else give max_steps")
    max_steps: int | None = Field(None, ge=1, description="optimiser steps in all; else give epochs")
    steps_per_epoch: int | None = Field(None, ge=1, description="optimiser steps; null: one pass over the windows")
    batch_size: int = Field(64, ge=1, description="windows")
    learning_rate: float = Field(4e-3, gt=0)
    schedule: Literal["constant", "one_cycle", "plateau"] = Field(
        "constant", description="plateau: half the rate after each epoch that does not improve, and an end after six"
    )
    optimizer: Literal["adamw", "rmsprop"] = "adamw"
    weight_decay: float = Field(0.0, ge=0)
    loss: Literal["mse", "mae", "huber", "quantile"] = "mse"
    level: float | None = Field(None, gt=0, lt=1, description="the quantile to forecast; for loss 'quantile' only")
    clip_norm: float | None = Field(None, gt=0, description="largest norm of a step's gradient; null: as it comes")
    average: float = Field(0.0, ge=0, lt=1, description="decay of the running mean of weights; 0: the weights as they are")
    keep: Literal["best", "last"] = Field("best", description="which epoch's weights, by validation loss")
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = Field(
        (0,), min_length=1, description="one network each; their forecasts are averaged"
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = Field(1, ge=1, description="processes that share every batch, each with a CUDA device or cores of its own")
    precision: Literal["float32", "tf32", "bfloat16", "auto"] = Field(
        "float32",
        description="of products; tf32: float32 whose factors a GPU rounds to ten bits, elsewhere float32; "
        "auto: bfloat16 where the processor multiplies it by itself, elsewhere float32",
    )
    init: Literal["fresh", "live"] = Field(
        "fresh", description="live: begin with the live model's weights, form by form and seed by seed"
    )

    @model_validator(mode="after")
    def _one_length(self):
        if (self.epochs is None) == (self.max_steps is None):
            raise ValueError("give either fit.epochs or fit.max_steps, and not both")
        if (self.loss == "quantile") != (self.level is not None):
            found = f"fit.loss is {self.loss!r}, fit.level {self.level}"
            raise ValueError(f"{found}; loss 'quantile' needs a level, such as 0.9, and no other loss takes one")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"fit.seeds {list(self.seeds)} repeats a seed; its network would only be trained twice")
        if self.batch_size < self.devices:
            raise ValueError(
                f"fit.batch_size {self.batch_size} leaves some of fit.devices {self.devices} without a window; use a larger "
                "batch or fewer devices"
            )
        return self


class QuantileSpec(BaseModel):
    """How sure a forecast says it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    levels: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (0.025, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.975), max_length=99, description="[]: no quantiles"
    )
    rolling: bool = Field(True, description="follow the newest errors, so that quantiles hold when a series drifts")

    @field_validator("levels")
    @classmethod
    def _ascending(cls, levels):
        if len(levels) == 1:
            raise ValueError("a single level tells of no spread; give two or more, or [] for none")
        if list(levels) != sorted(set(levels)):
            raise ValueError(f"levels {list(levels)} do not ascend; they would be {sorted(set(levels))}")
        return levels


class GateSpec(BaseModel):
    """What a new model has to be better at than the live model and seasonal naive."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: Literal["mae", "rmse", "mase"] = "mae"
    steps: int | None = Field(None, ge=1, description="scored over the first so many steps; null: the horizon")
    fold: Literal["validation", "test"] = Field("validation", description="the test fold is best left for the last word")
