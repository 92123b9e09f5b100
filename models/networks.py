"""Every network there is: what a spec can say of it, the recipe it is fitted with, and how it is built."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator

from models.series import Columns
from models.specs import FitSpec, Inputs, LinearSpec, PeriodicSpec, PyramidSpec, ReferenceSpec, RegressionSpec, ResidualSpec
from models.windows import WindowSpec

NetworkSpec = Annotated[
    ReferenceSpec | ResidualSpec | PeriodicSpec | PyramidSpec | RegressionSpec | LinearSpec, Field(discriminator="kind")
]
FORMS = (
    LinearSpec(), PeriodicSpec(branch="none"), PeriodicSpec(), PyramidSpec(), RegressionSpec(), ResidualSpec(),
    ResidualSpec(embedding=4),
)  # fmt: skip
FEW = 2_000  # windows of all folds up to which a regression is worth a try: of more, a residual net learns what it does


class AutoSpec(BaseModel):
    """Several networks are trained; the mean of those that forecast best on validation is the model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["auto"] = "auto"
    forms: tuple[NetworkSpec, ...] = Field(FORMS, min_length=2, max_length=8, description="the networks to choose from")
    inputs: Inputs = "all"

    @field_validator("forms")
    @classmethod
    def _distinct(cls, forms):
        if len(set(forms)) < len(forms):
            raise ValueError("a form is named twice; it would only be trained twice")
        if any(form.inputs != "all" for form in forms):
            raise ValueError("all forms see the same inputs; say inputs beside forms")
        return forms


KINDS = {
    spec.model_fields["kind"].default: spec
    for spec in (AutoSpec, ReferenceSpec, ResidualSpec, PeriodicSpec, PyramidSpec, RegressionSpec, LinearSpec)
}

RECIPES = {
    "reference": {
        "epochs": 50,
        "steps_per_epoch": 50,
        "batch_size": 168,
        "learning_rate": 1e-3,
        "optimizer": "rmsprop",
        "loss": "mse",
        "keep": "last",
    },
    "residual": {
        "max_steps": 2400,
        "steps_per_epoch": 100,
        "batch_size": 64,
        "learning_rate": 4e-3,
        "schedule": "plateau",
        "optimizer": "adamw",
        "weight_decay": 0.1,
        "loss": "mae",
        "clip_norm": 1.0,
        "average": 0.99,
        "keep": "best",
    },
    "periodic": {
        "max_steps": 600,
        "steps_per_epoch": 50,
        "batch_size": 1024,
        "learning_rate": 4e-3,
        "schedule": "one_cycle",
        "loss": "mae",
        "keep": "best",
    },
    "pyramid": {
        "max_steps": 2400,
        "steps_per_epoch": 100,
        "batch_size": 128,
        "learning_rate": 2e-3,
        "schedule": "one_cycle",
        "weight_decay": 0.1,
        "loss": "mae",
        "keep": "best",
    },
    "regression": {
        "max_steps": 600,
        "steps_per_epoch": 50,
        "batch_size": 128,
        "learning_rate": 4e-3,
        "schedule": "one_cycle",
        "loss": "mae",
        "keep": "best",
    },
    "linear": {
        "max_steps": 400,
        "steps_per_epoch": 50,
        "batch_size": 1024,
        "learning_rate": 2e-3,
        "schedule": "one_cycle",
        "loss": "mae",
        "keep": "best",
    },
}

# What a spec may say of `fit`; what it leaves out, or says null of, comes from the recipe of the network.
FitSettings = create_model(
    "FitSettings",
    __config__=FitSpec.model_config,
    **{
        name: (Annotated[field.annotation | None, *field.metadata, Field(description=field.description)], None)
        for name, field in FitSpec.model_fields.items()
    },
)


def recipe(network: NetworkSpec, settings: FitSettings) -> FitSpec:
    """How a network is fitted: its recipe, but for what the settings say."""
    return filled_in(RECIPES[network.kind], settings)


def filled_in(own: dict, settings: FitSettings) -> FitSpec:
    """A recipe, but for what the settings say."""
    said = settings.model_dump(exclude_none=True)
    if "epochs" in said or "max_steps" in said:
        own = {name: value for name, value in own.items() if name not in ("epochs", "max_steps")}
    return FitSpec.model_validate(own | said)


def forms_of(network: AutoSpec | NetworkSpec) -> tuple[NetworkSpec, ...]:
    """The networks that are trained, on whatever inputs the windows have."""
    return network.forms if isinstance(network, AutoSpec) else (network.model_copy(update={"inputs": "all"}),)


def tells_apart(network: NetworkSpec) -> bool:
    """Whether a network learns something of each series, which is of no use for a single one."""
    return getattr(network, "embedding", 0) > 0


def needs_known(network: NetworkSpec) -> bool:
    """Whether a network is nothing without covariates known ahead."""
    return network.kind == "regression"


def is_worth_trying(
    network: NetworkSpec, listed: bool, num_series: int | None, num_known: int | None, num_windows: int | None
) -> bool:
    """Whether one of several forms can be any better than the others on such data; what is None is not known yet.

    Args:
        listed: the spec names the forms itself; then it is no matter how many windows there are.
        num_known: channels known over the horizon.
        num_windows: of all folds together.
    """
    if needs_known(network):
        return num_known != 0 and (listed or num_windows is None or num_windows <= FEW)
    return num_series != 1 or not tells_apart(network)


def form_name(network: NetworkSpec) -> str:
    """Its kind, and what is set otherwise than usual: `periodic-none`, `residual-embedding4`."""
    usual = type(network)()
    unusual = [(name, value) for name, value in network if value != getattr(usual, name)]
    return "-".join([network.kind, *(value if isinstance(value, str) else f"{name}{value}" for name, value in unusual)])


def build_network(spec: NetworkSpec, columns: Columns, windows: WindowSpec, season: int, num_series: int = 1):
    """A freshly initialised network for these columns and windows, an `nn.Module`; `num_series` counts those it tells apart.

    Torch is imported here, so that specs are read without it.

    Raises:
        Fault: the network does not fit the windows or the columns.
    """
    from models.conv1d import ReferenceNet, ResidualNet, check_receptive_field
    from models.periodic import LinearNet, PeriodicNet
    from models.pyramid import PyramidNet
    from models.regression import RegressionNet

    if spec.kind == "reference":
        return ReferenceNet(spec, columns, windows)
    if spec.kind == "residual":
        check_receptive_field(spec, windows, season)
        return ResidualNet(spec, columns, windows, season, num_series)
    nets = {"periodic": PeriodicNet, "pyramid": PyramidNet, "regression": RegressionNet, "linear": LinearNet}
    return nets[spec.kind](spec, columns, windows, season)
