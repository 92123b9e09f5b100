"""The figures of a classifier's report, drawn with matplotlib's object interface."""

from collections.abc import Sequence

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm
from matplotlib.figure import Figure

from tasks.charts import INK, LIVE, NAIVE, NEW, plain

SHADES = LinearSegmentedColormap.from_list("shades", ["#ffffff", NEW])
FOR_AND_AGAINST = LinearSegmentedColormap.from_list("for and against", [LIVE, "#c9ced4", NEW])
NUMBERED = 20  # classes up to which a matrix has its numbers written in
MOST_CHANNELS = 3  # of a case that are drawn


def draw_confusion(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> Figure:
    """How often each class, a row, was taken for each, a column; shaded by the share of its row."""
    matrix = np.array(counts, float)
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    size = min(10.0, 2.2 + 0.42 * len(classes))
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, cmap=SHADES, vmin=0, vmax=1)
    step = 1 if len(classes) <= 2 * NUMBERED else len(classes) // NUMBERED
    names = [name if len(name) <= 14 else name[:13] + "…" for name in classes]
    axes.set_xticks(range(0, len(classes), step), names[::step], rotation=90 if max(map(len, names)) > 2 else 0, fontsize=8)
    axes.set_yticks(range(0, len(classes), step), names[::step], fontsize=8)
    axes.set_xlabel("taken for", color=INK)
    axes.set_ylabel("is", color=INK)
    axes.spines[:].set_color("#e4e7eb")
    if len(classes) <= NUMBERED:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            colour = "white" if share[row, column] > 0.6 else INK
            axes.text(column, row, f"{matrix[row, column]:,.0f}", ha="center", va="center", fontsize=8, color=colour)
    return figure


def draw_reliability(bins: Sequence[dict]) -> Figure:
    """How often the most probable class was right, by how probable it was said to be; the larger a dot, the more cases."""
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes = plain(figure.subplots())
    axes.plot([0, 1], [0, 1], color=NAIVE, linewidth=1.2, linestyle=":", label="as sure as it should be")
    total = sum(one["cases"] for one in bins)
    sure, right = [one["confidence"] for one in bins], [one["accuracy"] for one in bins]
    axes.plot(sure, right, color=NEW, linewidth=1.5)
    axes.scatter(sure, right, s=[20 + 300 * one["cases"] / total for one in bins], color=NEW, label="new model, test fold")
    axes.set_xlim(0, 1.03)
    axes.set_ylim(0, 1.05)
    axes.set_xlabel("probability it gave", color=INK)
    axes.set_ylabel("share that was right", color=INK)
    axes.legend(loc="upper left", frameon=False, fontsize=9)
    return figure


def draw_cases(cases: Sequence[dict], channels: Sequence[str]) -> Figure:
    """A few cases one below the other, coloured by how much each stretch spoke for what the model said."""
    figure = Figure(figsize=(10, 1.9 * len(cases)), layout="constrained")
    for axes, case in zip(np.atleast_1d(figure.subplots(len(cases), 1)), cases, strict=True):
        plain(axes)
        weight = np.array(case["weight"])
        largest = max(np.abs(weight).max(), 1e-3)
        for values in case["values"][:MOST_CHANNELS]:
            points = np.column_stack([np.arange(len(values)), np.array(values, float)])
            lines = np.stack([points[:-1], points[1:]], 1) if len(points) > 1 else points[None]
            drawn = LineCollection(lines, cmap=FOR_AND_AGAINST, norm=TwoSlopeNorm(0, -largest, largest), linewidths=1.8)
            drawn.set_array((weight[:-1] + weight[1:]) / 2 if len(weight) > 1 else weight)
            axes.add_collection(drawn)
        axes.autoscale_view()
        verdict = "right" if case["label"] == case["said"] else f"wrong, it is {case['label']}"
        name = case["id"] if len(case["id"]) <= 40 else case["id"][:39] + "…"
        title = f"{name}: {case['said']} ({100 * case['probability']:.0f} %), {verdict}"
        axes.set_title(title, loc="left", fontsize=10, color=INK)
        axes.margins(x=0.01)
    shown = ", ".join(channels[:MOST_CHANNELS]) + (" and others" if len(channels) > MOST_CHANNELS else "")
    figure.axes[-1].set_xlabel(f"step ({shown})", color=INK)
    return figure


def draw_training(curves: Sequence[dict]) -> Figure | None:
    """Training loss by epoch, a line a seed; None where nothing was learned step by step."""
    learned = [curve for curve in curves if len(curve["epochs"]) > 1]
    if not learned:
        return None
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes = plain(figure.subplots())
    for curve in learned:
        epochs = [entry["epoch"] for entry in curve["epochs"]]
        axes.plot(
            epochs, [entry["train"] for entry in curve["epochs"]], linewidth=1.5, label=f"{curve['form']}, seed {curve['seed']}"
        )
    axes.set_xlabel("epoch", color=INK)
    axes.set_ylabel("training loss", color=INK)
    axes.legend(loc="upper right", frameon=False, fontsize=9)
    return figure
