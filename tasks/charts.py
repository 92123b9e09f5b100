"""The figures of a report, drawn with matplotlib's object interface: no global state, no screen."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

INK, NEW, NAIVE, LIVE = "#1f2933", "#0b6e99", "#b0b7bf", "#d98324"
COLOURS = {"new model": NEW, "seasonal naive": NAIVE, "live model": LIVE}


def plain(axes: Axes) -> Axes:
    """Axes with no more lines than they need."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=9)
    return axes


def short_number(value: float) -> str:
    """A number as a reader would say it: three figures, never an exponent for large ones."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def draw_examples(examples: Sequence[dict], unit: str) -> Figure:
    """Truth, forecast and seasonal naive from a good, a median and the worst origin, one below the other."""
    figure = Figure(figsize=(10, 2.7 * len(examples)), layout="constrained")
    for axes, example in zip(np.atleast_1d(figure.subplots(len(examples), 1)), examples, strict=True):
        stamps = pd.DatetimeIndex([pd.Timestamp(stamp).tz_localize(None) for stamp in example["stamps"]])
        step = stamps[1] - stamps[0] if len(stamps) > 1 else pd.Timedelta(days=1)
        before = pd.DatetimeIndex([pd.Timestamp(stamp).tz_localize(None) for stamp in example["before_stamps"]])
        plain(axes)
        clock = "%a %d %b %Y %H:%M" if step < pd.Timedelta(days=1) else "%d %b %Y"
        truth = np.array([*example["before"], *example["truth"]], float)  # None, where masked, leaves a hole
        axes.plot([*before, *stamps], truth, color=INK, linewidth=1.3, label="truth")
        dot = "o" if len(stamps) == 1 else None
        axes.plot(stamps, example["naive"], color=NAIVE, linewidth=1.3, marker=dot, label="seasonal naive")
        for name, shade in zip(shown_intervals(example["intervals"]), (0.14, 0.28), strict=False):
            low, high = example["intervals"][name]
            wide = (stamps, low, high) if not dot else ([stamps[0] - step / 4, stamps[0] + step / 4], low * 2, high * 2)
            axes.fill_between(*wide, color=NEW, alpha=shade, linewidth=0, label=f"{name} %")
        axes.plot(stamps, example["forecast"], color=NEW, linewidth=2, marker=dot, label="forecast")
        axes.axvline(stamps[0] - step / 2, color=INK, linewidth=0.8, linestyle=":")
        titles = {"good": "A good one (better than 9 in 10)", "median": "A typical one", "worst": "The worst of all"}
        where = f"{example['series_id']}, from {stamps[0]:{clock}}, MAE {short_number(example['mae'])}"
        axes.set_title(f"{titles[example['name']]}: {where}", loc="left", fontsize=10, color=INK)
        axes.set_ylabel(unit, color=INK)
        locator = AutoDateLocator(maxticks=10)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        axes.margins(x=0.01)
    lines, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside upper right", frameon=False, fontsize=9, ncols=5)
    return figure


def draw_by_step(curves: dict[str, Sequence[float | None]], unit: str) -> Figure:
    """Mean absolute error at each step of the horizon, a line a model; a gap at one that was never observed."""
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = plain(figure.subplots())
    for name, curve in curves.items():
        marker = "o" if len(curve) == 1 else None
        steps = np.arange(1, len(curve) + 1)
        axes.plot(steps, np.array(curve, float), color=COLOURS[name], linewidth=2, label=name, marker=marker)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("step", color=INK)
    axes.set_ylabel(f"MAE, {unit}", color=INK)
    axes.legend(loc="lower right", frameon=False, fontsize=9)
    return figure


def shown_intervals(intervals: dict) -> list[str]:
    """The intervals that a figure has room for, by their nominal coverage in percent: the widest, and the one nearest to 80."""
    names = sorted(intervals, key=float, reverse=True)
    return names[:1] + sorted(names[1:], key=lambda name: abs(float(name) - 80))[:1]


def draw_intervals(intervals: dict[str, dict], unit: str) -> Figure:
    """Coverage and mean width of intervals at each step of the horizon, side by side; dotted, what they should cover."""
    figure = Figure(figsize=(10, 2.8), layout="constrained")
    left, right = (plain(axes) for axes in figure.subplots(1, 2))
    for name, colour in zip(shown_intervals(intervals), (INK, NEW), strict=False):
        own = intervals[name]
        steps = np.arange(1, len(own["width_by_step"]) + 1)
        marker = "o" if len(steps) == 1 else None
        percent = 100 * np.array(own["coverage_by_step"], float)
        left.plot(steps, percent, color=colour, linewidth=2, marker=marker, label=f"{name} % interval")
        left.axhline(float(name), color=colour, linewidth=1, linestyle=":")
        right.plot(steps, np.array(own["width_by_step"], float), color=colour, linewidth=2, marker=marker)
    left.set_ylim(top=101)
    right.set_ylim(bottom=0)
    left.set_ylabel("truth inside, %", color=INK)
    right.set_ylabel(f"mean width, {unit}", color=INK)
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlabel("step", color=INK)
    figure.legend(loc="outside upper right", frameon=False, fontsize=9, ncols=2)
    return figure


def draw_by_clock(rows: Sequence[dict], clock: str, unit: str) -> Figure:
    """Mean residual and mean absolute error of the new model by local hour, weekday or month of the forecast step."""
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = plain(figure.subplots())
    at = [row["at"] for row in rows]
    axes.bar(at, [row["mae"] for row in rows], color="#cfe3ec", label="MAE")
    axes.plot(at, [row["bias"] for row in rows], color=NEW, linewidth=2, marker="o", markersize=3, label="mean residual")
    axes.axhline(0, color=INK, linewidth=0.8)
    if clock == "day_of_week":
        axes.set_xticks(range(7), ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlabel(f"local {clock}", color=INK)
    axes.set_ylabel(f"forecast - truth, {unit}", color=INK)
    figure.legend(loc="outside upper right", frameon=False, fontsize=9, ncols=2)
    return figure


def draw_losses(curves: Sequence[dict]) -> Figure:
    """Training and validation loss by epoch, a pair of lines a seed, a panel a form; a dot marks the kept epoch."""
    forms = list(dict.fromkeys(curve["form"] for curve in curves))
    figure = Figure(figsize=(10, 2.8), layout="constrained")
    panels = dict(zip(forms, figure.subplots(1, len(forms), squeeze=False)[0], strict=True))
    for form, axes in panels.items():
        plain(axes)
        if len(forms) > 1:
            axes.set_title(form, loc="left", fontsize=10, color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlabel("epoch", color=INK)
    for curve in curves:
        axes, epochs = panels[curve["form"]], [entry["epoch"] for entry in curve["epochs"]]
        validation = [entry["validation"] for entry in curve["epochs"]]
        labels = (None, None, None) if axes.lines else ("training", "validation", "kept weights")
        line = {"linewidth": 1.5, "marker": "o" if len(epochs) == 1 else None, "markersize": 8}  # one epoch makes no line
        axes.plot(epochs, [entry["train"] for entry in curve["epochs"]], color=NAIVE, label=labels[0], **line)
        axes.plot(epochs, validation, color=NEW, label=labels[1], **line)
        best = curve["best_epoch"]
        axes.plot(best, validation[best - 1], "o", color=INK, markersize=5, label=labels[2])
    figure.axes[0].set_ylabel("loss, scaled", color=INK)
    figure.axes[-1].legend(loc="upper right", frameon=False, fontsize=9)
    return figure
