"""How good classifiers are on labelled series, and how long they take, each set on the split its makers gave it.

A set is a Parquet file in long form: split, case, step, label and channels dim_*. For each seed the residual net and the
rocket are fitted on all training cases and cross-validated within them; the cross-validation alone says by which shares they
are blended, and sets the temperatures. That is what `kind: auto` does. Test cases are asked once, in the end, and
decide nothing. The reference net is fitted beside them and takes no part in the choice.

With --resamples, training and test cases are pooled and drawn anew that often, as many of each class to train on as the
makers chose (Bagnall et al. 2017, section 3); seed and draw have the same number.

With --speed, one epoch of the residual net is timed on a set against a plain loop in PyTorch: a fully convolutional net
(Wang et al. 2017: 128, 256 and 128 channels, kernels 8, 5 and 3) fed by a DataLoader.

How to read it: means over seeds, +- one standard deviation. log-loss: as trained, then with the temperature and
the doubt that cross-validation set. seconds: all that a seed takes, cross-validation included; "chosen" is the blend, whose
seconds are the sum of both, and behind it the shares.

    python benchmarks/classification.py --data FOLDER [--seeds 5] [--resamples 30] [--only ArrowHead ...] [--processes 2]
"""

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from machine import introduce, spread
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from models.classification.bundle import log_softmax
from models.classification.cases import Cases
from models.classification.choice import Blend, choose_members
from models.classification.crossing import cross_validated
from models.classification.fit import CLASSES, cases_a_step, fit_classifier, fit_of_part, num_steps, predict, shuffled
from models.classification.metrics import class_scores, decide
from models.classification.networks import build_classifier
from models.classification.scaling import shape_of
from models.classification.specs import FORMS, ClassifierSpec, ReferenceClassifierSpec, ResidualClassifierSpec, recipe
from models.networks import FitSettings
from models.training import Training

PARTS = 3  # as folds.parts
KINDS = ("reference", *(form.kind for form in FORMS), "chosen")
SPEED_SET, ROUNDS = "OSULeaf", 5


@dataclass(frozen=True)
class Split:
    """The cases of a set to train on and to test on."""

    train: Cases
    test: Cases
    num_classes: int


@dataclass(frozen=True)
class Score:
    """What one kind of classifier came to on the test cases of one split."""

    accuracy: float
    macro_f1: float
    plain_loss: float  # log-loss as trained
    log_loss: float  # with the temperature that cross-validation set
    seconds: float
    made_of: tuple[float, ...] = ()  # of what was chosen, the share of each form


def read_split(path: Path) -> Split:
    """A set on the split its makers gave it."""
    table = pd.read_parquet(path)
    classes = sorted(table["label"].unique())
    folds = []
    for fold in ("train", "test"):
        rows = table[table["split"] == fold].sort_values(["case", "step"], kind="stable")
        cases = rows.groupby("case", sort=False)
        lengths = cases.size().to_numpy(np.int64)
        labels = cases["label"].first().map(classes.index).to_numpy(np.int64)
        values = rows[[name for name in table if name.startswith("dim_")]].to_numpy(np.float32)
        folds.append(Cases(values, np.cumsum(lengths) - lengths, lengths, labels))
    return Split(*folds, len(classes))


def drawn_anew(split: Split, draw: int) -> Split:
    """The same cases, others to train on, as many of each class."""
    shift = len(split.train.rows)
    pooled = Cases(
        np.concatenate([split.train.rows, split.test.rows]),
        *(np.concatenate([getattr(split.train, name), getattr(split.test, name) + more])
          for name, more in (("starts", shift), ("lengths", 0), ("labels", 0))),
    )  # fmt: skip
    chance, training = np.random.default_rng(draw), np.zeros(len(pooled), bool)
    for label in range(split.num_classes):
        members = np.flatnonzero(pooled.labels == label)
        training[chance.permutation(members)[: int((split.train.labels == label).sum())]] = True
    return Split(pooled.pick(training), pooled.pick(~training), split.num_classes)


def learned(spec: ClassifierSpec, split: Split, seed: int, cases: Cases, name: str = "") -> dict[str, torch.Tensor]:
    """The weights that a kind of classifier learns from the cases to train on, or from a part of them."""
    fit = fit_of_part(recipe(spec, FitSettings()), len(split.train), len(cases))
    return fit_classifier(spec, fit, cases, split.num_classes, seed).weights


def asked(spec: ClassifierSpec, split: Split, weights: dict[str, torch.Tensor]) -> np.ndarray:
    """Log-probabilities of the test cases."""
    module = build_classifier(spec, shape_of(split.train, split.num_classes))
    module.load_state_dict(weights)
    return log_softmax(predict(module.eval(), split.test))


def score(said: list[np.ndarray], blend: Blend, labels: np.ndarray, seconds: float, made_of: tuple[float, ...] = ()) -> Score:
    plain = blend.model_copy(update={"temperatures": (1.0,) * len(said), "temperature": 1.0, "doubt": 0.0})
    after, before = (
        class_scores(probabilities, labels, decide(probabilities))
        for probabilities in (blend.probabilities(said), plain.probabilities(said))
    )
    return Score(after["accuracy"], after["macro_f1"], before["log_loss"], after["log_loss"], seconds, made_of)


def compare(split: Split, seed: int) -> dict[str, Score]:
    """The score of every kind, and of what cross-validation chose."""
    found, held, said, labels = {}, [], [], split.test.labels
    for spec in (ReferenceClassifierSpec(), *FORMS):
        began = time.perf_counter()
        learn = partial(learned, spec, split, seed)
        own = asked(spec, split, learn(split.train))
        if spec in FORMS:
            said.append(own)
            held.append(cross_validated(spec, split.train, split.num_classes, PARTS, learn))
            blend = choose_members(held[-1:], split.train.labels).blend
        else:
            blend = Blend(weights=(1.0,), temperatures=(1.0,), temperature=1.0, doubt=0.0)
        found[spec.kind] = score([own], blend, labels, time.perf_counter() - began)
    choice = choose_members(held, split.train.labels)
    seconds = sum(found[spec.kind].seconds for spec in FORMS)
    shares = dict(zip(choice.chosen, choice.blend.weights, strict=True))
    made_of = tuple(shares.get(at, 0.0) for at in range(len(FORMS)))
    found["chosen"] = score([said[at] for at in choice.chosen], choice.blend, labels, seconds, made_of)
    return found


def compare_one(path: Path, seed: int, anew: bool) -> dict[str, Score]:
    split = read_split(path)
    return compare(drawn_anew(split, seed) if anew else split, seed)


def prepare(processes: int) -> None:
    if processes > 1:
        torch.set_num_threads(1)


def show(title: str, runs: list[dict[str, Score]]) -> None:
    print(title)
    for kind in KINDS:
        scores = [run[kind] for run in runs]
        shares = np.mean([one.made_of for one in scores], 0) if kind == "chosen" else []
        mixed = ", ".join(f"{100 * share:.0f} % {form.kind}" for form, share in zip(FORMS, shares, strict=False))
        if kind == "reference":
            loss = f"{np.mean([one.plain_loss for one in scores]):.3f}"
        else:
            loss = " -> ".join(f"{np.mean([getattr(one, name) for one in scores]):.3f}" for name in ("plain_loss", "log_loss"))
        print(
            f"  {kind:10s} accuracy {cell([one.accuracy for one in scores])}  macro F1 {cell([one.macro_f1 for one in scores])}"
            f"  log-loss {loss:14s}  {np.mean([one.seconds for one in scores]):6.1f} s  {mixed}".rstrip(),
            flush=True,
        )


def cell(values: list[float]) -> str:
    return f"{np.mean(values):.4f} +-{np.std(values, ddof=1) if len(values) > 1 else 0:.4f}"


class Plain(nn.Sequential):
    """The fully convolutional net, as most programs write it."""

    def __init__(self, num_channels: int, num_classes: int):
        sizes = [(num_channels, 128, 8), (128, 256, 5), (256, 128, 3)]
        layers = [
            layer
            for before, after, kernel in sizes
            for layer in (nn.Conv1d(before, after, kernel, padding=kernel // 2), nn.BatchNorm1d(after), nn.ReLU())
        ]
        super().__init__(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(128, num_classes))


def plain_epoch(cases: Cases, num_classes: int):
    """A function that trains the plain net for an epoch."""
    batch = cases.batch(np.arange(len(cases)))
    loader = DataLoader(TensorDataset(batch.values, batch.labels), batch_size=32, shuffle=True, drop_last=True)
    network = Plain(cases.num_channels, num_classes)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)

    def epoch() -> int:
        count = 0
        for values, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(network(values), labels).backward()
            optimizer.step()
            count += len(values)
        return count

    return epoch


def residual_epoch(cases: Cases, num_classes: int):
    """A function that trains the residual net for a pass over the cases, augmentation and all."""
    spec = ResidualClassifierSpec()
    fit = recipe(spec, FitSettings())
    network = build_classifier(spec, shape_of(cases, num_classes))
    network.learn_scale(cases)
    network.train()
    total, _ = num_steps(fit, len(cases))
    run = Training(network, fit, total, torch.device("cpu"), objective=CLASSES)
    batches = shuffled(cases, cases_a_step(fit, len(cases)), 0, 0, run.device)

    def epoch() -> int:
        steps = len(cases) // cases_a_step(fit, len(cases))
        return sum(len(batch) for batch in islice(batches, steps) if run.learn(batch) is not None)

    return epoch


def compare_speed(split: Split) -> None:
    """Print the cases a second that both nets learn from, in turns."""
    rates: dict[str, list[float]] = {"residual": [], "plain": []}
    epochs = {"residual": residual_epoch(split.train, split.num_classes), "plain": plain_epoch(split.train, split.num_classes)}
    for at in range(ROUNDS + 1):
        for name, epoch in epochs.items():
            began = time.perf_counter()
            count = epoch()
            if at:  # the first round warms up
                rates[name].append(count / (time.perf_counter() - began))
    ratios = [own / plain for own, plain in zip(rates["residual"], rates["plain"], strict=True)]
    print(f"speed of training on {SPEED_SET}, cases a second, median and range of {ROUNDS} epochs in turns")
    for name, said in rates.items():
        print(f"  {name:10s} {spread(said, 0)}")
    print(f"  ratio      {spread(ratios)}\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with a .parquet file a set")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--resamples", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="names of sets; all by default")
    parser.add_argument("--processes", type=int, default=1, help="seeds at a time, each on one thread if more than one")
    parser.add_argument("--speed", action="store_true", help="time an epoch as well")
    options = parser.parse_args()
    paths = [path for path in sorted(options.data.glob("*.parquet")) if not options.only or path.stem in options.only]
    introduce(f"classifiers, seeds 0 to {options.seeds - 1}", "torch", "numpy", "pandas", "pyarrow")
    if options.speed:
        compare_speed(read_split(options.data / f"{SPEED_SET}.parquet"))
    with ProcessPoolExecutor(options.processes, initializer=prepare, initargs=(options.processes,)) as pool:
        for path in paths:
            split = read_split(path)
            counts = f"{len(split.train):,} cases to train on, {len(split.test):,} to test, {split.num_classes} classes"
            for anew, count in ((False, options.seeds), (True, options.resamples)):
                how = f"{count} draws anew" if anew else counts
                if count:
                    show(f"{path.stem}: {how}", list(pool.map(partial(compare_one, path, anew=anew), range(count))))
            print()


if __name__ == "__main__":
    main()
