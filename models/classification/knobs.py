"""What a search turns on a classifier and on how it is fitted."""

from models.classification.specs import ClassifierSpec
from models.knobs import Knob, learning_knobs, value_of
from models.specs import FitSpec


def usual_class_knobs(network: ClassifierSpec, fit: FitSpec) -> list[Knob]:
    """The few settings that matter most for a kind of classifier, around the values they have now."""
    if network.kind == "rocket":  # whose ridge regression finds its own strength
        low, high = max(84, network.features // 4), network.features * 2  # 84 is the fewest
        knobs = [Knob(name="network.features", low=low, high=high, log=True, whole=True)]
    else:
        own = {
            "residual": [
                Knob(name="network.channels", choices=(32, 64, 128)),
                Knob(name="network.depth", choices=(2, 3, 4)),
                Knob(name="network.augment", choices=(True, False)),
            ],
            "reference": [
                Knob(name="network.filters", choices=(32, 64, 128)),
                Knob(name="network.pool", choices=(4, 16, 64)),
            ],
        }  # fmt: skip
        batch, dropout = Knob(name="fit.batch_size", choices=(16, 32, 64)), Knob(name="network.dropout", low=0.0, high=0.5)
        decay = Knob(name="fit.weight_decay", choices=(0.0, 0.01, 0.05, 0.2))
        knobs = [*learning_knobs(fit), batch, decay, dropout, *own[network.kind]]
    return [knob.with_value(value_of(network, fit, knob.name)) for knob in knobs]
