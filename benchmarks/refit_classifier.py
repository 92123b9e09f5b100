"""What it is worth that a classifier goes on learning from the cases held out before it labels (`refit`).

Of each set training and test cases are pooled and drawn anew, as many of each class to train on as its makers chose. Of these a
fifth is held out, as a spec without `folds` has it; the blend of residual net and rocket is fitted on the rest, by
cross-validation within it. Then both go on to all cases to train on as `refit_classifier` has them go on, shares and
temperatures left as they are. Both label the test cases. Nothing is chosen on them.

How to read it: accuracy and log-loss of both, the mean over draws; behind them the mean difference, +- its standard error.

    python benchmarks/refit_classifier.py --data FOLDER [--draws 10] [--only GunPoint ...] [--processes 2]
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from classification import PARTS, Split, asked, drawn_anew, learned, prepare, read_split
from machine import introduce

from models.classification.bundle import ClassMember
from models.classification.choice import choose_members, parts_of
from models.classification.crossing import cross_validated
from models.classification.fit import Begun, fit_classifier
from models.classification.metrics import class_scores, decide
from models.classification.scaling import shape_of
from models.classification.specs import FORMS, ClassifierSpec
from models.networks import FitSettings
from tasks.refit_classifier import going_on

HELD_OUT = 5  # one part of so many
METRICS = ("accuracy", "log_loss")


def gone_on(spec: ClassifierSpec, early: Split, whole: Split, weights: dict, seed: int) -> dict:
    """The weights of a classifier once it has gone on to all cases to train on."""
    fit = going_on({}, ClassMember(network=spec, seeds=(seed,)), len(whole.train), FitSettings())
    begun = Begun(shape_of(early.train, early.num_classes), weights)
    return fit_classifier(spec, fit, whole.train, whole.num_classes, seed, begun=begun).weights


def run(path: Path, draw: int) -> list[list[float]]:
    """Accuracy and log-loss before and after."""
    whole = drawn_anew(read_split(path), draw)
    early = replace(whole, train=whole.train.pick(parts_of(whole.train.labels, HELD_OUT, draw) != 0))
    held, said = [], {"before": [], "after": []}
    for spec in FORMS:
        learn = partial(learned, spec, early, draw)
        weights = learn(early.train)
        held.append(cross_validated(spec, early.train, early.num_classes, PARTS, learn))
        said["before"].append(asked(spec, early, weights))
        said["after"].append(asked(spec, early, gone_on(spec, early, whole, weights, draw)))
    choice = choose_members(held, early.train.labels)
    found = [choice.blend.probabilities([own[at] for at in choice.chosen]) for own in said.values()]
    scores = [class_scores(one, whole.test.labels, decide(one)) for one in found]
    return [[own[metric] for metric in METRICS] for own in scores]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with a .parquet file a set")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--only", nargs="*", help="names of sets; all by default")
    parser.add_argument("--processes", type=int, default=1, help="draws at a time, each on one thread if more than one")
    options = parser.parse_args()
    introduce(f"refit of classifiers, draws 0 to {options.draws - 1}", "torch", "numpy", "pandas", "pyarrow")
    print(f"{'':20s}{'accuracy':>20s}{'':18s}{'log-loss':>20s}", flush=True)
    with ProcessPoolExecutor(options.processes, initializer=prepare, initargs=(options.processes,)) as pool:
        for path in sorted(options.data.glob("*.parquet")):
            if options.only and path.stem not in options.only:
                continue
            found = np.array(list(pool.map(partial(run, path), range(options.draws))))  # (draws, before and after, metrics)
            before, after = found.mean(0)
            change = found[:, 1] - found[:, 0]
            error = change.std(0, ddof=1) / np.sqrt(len(change)) if len(change) > 1 else np.zeros(len(METRICS))
            cells = [
                f"{first:>9.4f} -> {then:.4f} ({own:+.4f} +-{wide:.4f})"
                for first, then, own, wide in zip(before, after, change.mean(0), error, strict=True)
            ]
            print(f"{path.stem:20s}" + "  ".join(cells), flush=True)


if __name__ == "__main__":
    main()
