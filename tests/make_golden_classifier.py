"""Make the golden bundles of classifiers of the present format: `python tests/make_golden_classifier.py`, once for each format.

Each is a folder `tests/golden/classifier-<n>/<kind>/` with the two files of a small bundle, and `case.json` with cases and what
the bundle said of them when its format was new. A folder that is there already is left as it is, for ever.
"""

import json
import sys
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from models.classification.bundle import FORMAT, ClassDescription, Classifier, ClassMember, dump_classifier
from models.classification.cases import Cases
from models.classification.choice import Blend
from models.classification.fit import fit_classifier
from models.classification.scaling import shape_of
from models.classification.specs import ReferenceClassifierSpec, ResidualClassifierSpec, RocketSpec, recipe
from models.classification.windows import LabelWindows
from models.networks import FitSettings

GOLDEN = Path(__file__).resolve().parent / "golden"
REFERENCE, RESIDUAL = ReferenceClassifierSpec(filters=2, pool=3, hidden=4), ResidualClassifierSpec(channels=2, depth=2)
ROCKET = RocketSpec(features=84)
KINDS = {
    "reference": (REFERENCE,),
    "residual": (RESIDUAL,),
    "residual-masked": (RESIDUAL,),
    "residual-long": (RESIDUAL,),
    "residual-smooth": (RESIDUAL,),  # made when bundles did not say yet how many steps are taken at a time
    "residual-strides": (RESIDUAL,),
    "rocket": (ROCKET,),
    "blend": (RESIDUAL, ROCKET, REFERENCE),
}


def small_cases(kind: str, num_cases: int = 8) -> Cases:
    """Cases of unequal length, two channels, two classes; some values missing, or more steps than a net looks at at once."""
    draw, more = np.random.default_rng(0), {"residual-long": 600, "residual-smooth": 765, "residual-strides": 765}
    lengths = draw.integers(6, 12, num_cases) + more.get(kind, 0)
    labels = np.arange(num_cases) % 2
    rows = draw.normal(np.repeat(labels, lengths)[:, None] * 1.5, 1, (lengths.sum(), 2)).astype(np.float32)
    if kind in ("residual-smooth", "residual-strides"):
        rows = np.sin(np.cumsum(rows, 0) / 40).astype(np.float32)
    if kind == "residual-masked":
        rows[2::7, 0] = np.nan
    return Cases(rows, np.cumsum(lengths) - lengths, lengths, labels)


def small_classifier(kind: str) -> Classifier:
    networks, cases, fit = KINDS[kind], small_cases(kind), FitSettings(epochs=1, precision="float32")
    weights = [[fit_classifier(one, recipe(one, fit), cases, 2, seed).weights for seed in (0, 7)] for one in networks]
    share = (1 / len(networks),) * len(networks)
    about = ClassDescription(
        format=FORMAT, members=tuple(ClassMember(network=one, seeds=(0, 7)) for one in networks), shape=shape_of(cases, 2),
        classes=("no", "yes"), shares=(0.5, 0.5), channels=("x", "y"), trained_on="0" * 64, versions={},
        windows=LabelWindows(lookback=9) if kind == "rocket" else None,
        blend=Blend(weights=share, temperatures=tuple(0.5 + at for at in range(len(networks))), temperature=1.2, doubt=0.1),
    )  # fmt: skip
    return Classifier(about, weights)


def asked(document: dict) -> Cases:
    """The cases that a `case.json` holds."""
    rows = np.array([[np.nan if value is None else value for value in row] for row in document["rows"]], np.float32)
    lengths = np.array(document["lengths"])
    return Cases(rows, np.cumsum(lengths) - lengths, lengths, np.zeros(len(lengths), np.int64))


def main() -> None:
    for kind in KINDS:
        folder = GOLDEN / f"classifier-{FORMAT}" / kind
        if folder.exists():
            continue
        folder.mkdir(parents=True)
        model, cases = small_classifier(kind), small_cases(kind).pick(np.arange(3))
        rows = np.concatenate([cases.values(at) for at in range(3)])
        case = {"rows": [[None if np.isnan(value) else round(float(value), 4) for value in row] for row in rows]}
        case["lengths"] = cases.lengths.tolist()
        case["probabilities"] = model.probabilities(asked(case)).round(7).tolist()
        for name, content in dump_classifier(model).items():
            (folder / name).write_bytes(content)
        (folder / "case.json").write_text(json.dumps(case) + "\n")


if __name__ == "__main__":
    main()
