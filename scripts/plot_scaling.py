"""Draws what a sweep and its fits left behind: scaling.png and scaling.svg.

    .venv/bin/python scripts/plot_scaling.py --sweep sweep.jsonl ... --fits fits.jsonl --out FOLDER

Loss against parameters and against compute, by group, with the fitted L = a C^-b + c and its bootstrap interval; loss against parameters at equal
FLOPs where the sweep has budgets; the Pareto fronts of loss against throughput and memory. --sweep takes records of `tandem sweep`, --fits what
`tandem eval scaling --out` wrote. --loss train and --parameters all must be those of the fits. What a file does not hold is left out.
"""

import argparse
import collections
import math
import pathlib

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter  # noqa: E402

from plot import COLOURS, INK, new_figure  # noqa: E402
from report_common import read_lines  # noqa: E402

MARKERS = "osD^vP"  # groups differ in shape as well as in colour


def by_group(runs):
    groups = collections.defaultdict(list)
    for run in runs:
        groups[run.get("group", "all")].append(run)
    return dict(groups)


class Styles:
    """Colour and marker of a group, the same in every panel."""

    def __init__(self, groups):
        self.of = {group: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, group in enumerate(groups)}

    def __getitem__(self, group):
        return self.of[group]


def scale_axis(axis, unit):
    """By logarithms, but where the numbers are so near each other that a power of ten would be the only tick."""
    least, greatest = axis.dataLim.intervalx
    if greatest >= 3 * least:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
        axis.xaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_major_formatter(EngFormatter(sep="") if unit == "" else EngFormatter(unit=unit, sep=" "))
    axis.tick_params(axis="x", labelrotation=30)


def finish(axis, title, x_label):
    axis.set_title(title)
    axis.set_xlabel(x_label)
    axis.set_ylabel("loss (nats per token)")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axis.legend(fontsize=8)


def n_label(options):
    return "parameters" if options.parameters == "all" else "parameters beside embeddings"


def draw_parameters(axis, groups, styles, options):
    for group, runs in groups.items():
        colour, marker = styles[group]
        by_tokens = collections.defaultdict(list)
        for run in runs:
            by_tokens[run["tokens"]].append(run)
        joined = len(by_tokens) == 1  # sizes of one number of tokens make a curve
        points = sorted((run[options.n_key], run[options.loss_key]) for run in runs)
        axis.plot(*zip(*points), color=colour, marker=marker, markersize=5, linewidth=1.6 if joined else 0, label=group)
    scale_axis(axis, "")
    finish(axis, "Loss by size", n_label(options))


def draw_runs(axis, groups, styles, options):
    """Runs of nearly one size, such as an ablation's, by name: a curve of size or compute would say nothing."""
    runs = sorted((run for runs in groups.values() for run in runs), key=lambda run: run[options.loss_key], reverse=True)
    for group in groups:
        colour, marker = styles[group]
        places = [i for i, run in enumerate(runs) if run.get("group", "all") == group]
        axis.plot([runs[i][options.loss_key] for i in places], places, color=colour, marker=marker, markersize=6, linewidth=0)
    axis.set_yticks(range(len(runs)), [run["run"] for run in runs])
    axis.set_title("Loss by run")
    axis.set_xlabel("loss (nats per token)")


def of_one_size(groups, options):
    sizes = [run[options.n_key] for runs in groups.values() for run in runs]
    return max(sizes) < 1.5 * min(sizes)  # eval scaling fits no law below that either


def compute_label(fit):
    if not fit["separated"]:
        return f"{fit['group']}: exponent not separated"
    low, high = fit["intervals"]["b"]
    return f"{fit['group']}: {fit['a']:.3g} C^{-fit['b']:.2f} [{-high:.2f}, {-low:.2f}] + {fit['c']:.2f}"


def around(values):
    """Limits that the points decide: fits may leave them far behind."""
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or 0.1
    return low - 2 * margin, high + 3 * margin  # room for the legend


def draw_compute(axis, groups, fits, styles, options):
    of_group = {fit["group"]: fit for fit in fits if fit["fit"] == "loss_of_compute" and fit["fitted"]}
    for group, runs in groups.items():
        colour, marker = styles[group]
        points = sorted((run["compute"], run[options.loss_key]) for run in runs)
        fit = of_group.get(group)
        axis.plot(*zip(*points), color=colour, marker=marker, markersize=5, linewidth=0, label=None if fit else group)
        if not fit:
            continue
        curve = fit["curve"]
        x = [point["compute"] for point in curve]
        axis.plot(x, [point["loss"] for point in curve], color=colour, linewidth=1.6, linestyle="-" if fit["separated"] else "--", label=compute_label(fit))
        if "interval" in curve[0] and fit["separated"]:
            low, high = zip(*([math.nan if edge is None else edge for edge in point["interval"]] for point in curve))
            axis.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    scale_axis(axis, "")
    axis.set_ylim(*around([run[options.loss_key] for runs in groups.values() for run in runs]))
    if of_group:
        level = next(iter(of_group.values()))["level"]
        finish(axis, f"Loss by compute, fits with {100 * level:g} % intervals", "training FLOPs")
    else:
        finish(axis, "Loss by compute", "training FLOPs")


def draw_iso_flop(axis, fits, styles, options):
    for fit in fits:
        colour, marker = styles[fit["group"]]
        for i, budget in enumerate(fit["budgets"]):
            alpha = 0.35 + 0.65 * (i + 1) / len(fit["budgets"])
            label = f"{fit['group']}, {budget['flops']:.2g} FLOPs"
            axis.plot(budget["parameters"], budget["losses"], color=colour, marker=marker, markersize=5, linewidth=0, alpha=alpha)
            least, greatest = min(budget["parameters"]), max(budget["parameters"])
            x = [least * (greatest / least) ** (k / 60) for k in range(61)]
            axis.plot(x, [parabola_at(budget["parabola"], n) for n in x], color=colour, linewidth=1.5, alpha=alpha,
                      linestyle=["-", "--", ":", "-."][i % 4], label=label)
            if budget["best_parameters"] is not None and budget["within_sizes"]:
                axis.plot([budget["best_parameters"]], [budget["best_loss"]], color=INK, marker="*", markersize=11, linewidth=0)
                if budget["interval"]:
                    axis.plot(budget["interval"], [budget["best_loss"]] * 2, color=INK, linewidth=1)
    scale_axis(axis, "")
    finish(axis, "Equal FLOPs (star: best size and its interval)", n_label(options))


def parabola_at(parabola, n):
    x = math.log(n) - parabola["middle"]
    return parabola["c0"] + parabola["c1"] * x + parabola["c2"] * x * x


def draw_front(axis, record, styles, key, front, unit, x_label, named):
    points = record["points"]
    for group in dict.fromkeys(point["group"] for point in points):
        colour, marker = styles[group]
        for on_front in (False, True):
            chosen = [p for p in points if p["group"] == group and p[front] == on_front]
            if chosen:
                axis.plot([p[key] for p in chosen], [p["loss"] for p in chosen], color=colour, marker=marker, linewidth=0, markersize=8 if on_front else 5,
                          markerfacecolor=colour if on_front else "none", label=group if on_front else f"{group}, off the front")
    line = sorted((p[key], p["loss"]) for p in points if p[front])
    axis.plot(*zip(*line), color="#999999", linewidth=1, zorder=0, drawstyle="steps-pre" if key == "tokens_per_second" else "steps-post")
    if named:
        for p in points:
            axis.annotate(p["run"], (p[key], p["loss"]), xytext=(5, 4), textcoords="offset points", fontsize=8)
        axis.margins(x=0.25)
    scale_axis(axis, unit)
    finish(axis, f"Pareto front: {record['case']}", x_label)


def draw(groups, fits, options):
    iso_flop = [fit for fit in fits if fit["fit"] == "iso_flop" and fit["budgets"]]
    pareto = [fit for fit in fits if fit["fit"] == "pareto"]
    one_size = of_one_size(groups, options)
    if one_size:
        panels = [lambda axis: draw_runs(axis, groups, styles, options)]
    else:
        panels = [lambda axis: draw_parameters(axis, groups, styles, options), lambda axis: draw_compute(axis, groups, fits, styles, options)]
    if iso_flop:
        panels.append(lambda axis: draw_iso_flop(axis, iso_flop, styles, options))
    for record in pareto:
        panels.append(lambda axis, r=record: draw_front(axis, r, styles, "tokens_per_second", "on_throughput_front", "",
                                                        "tokens generated per second" if r["case"] != "training" else "tokens trained per second", one_size))
        panels.append(lambda axis, r=record: draw_front(axis, r, styles, "bytes_per_row", "on_memory_front", "B", "memory of a sequence", one_size))
    styles = Styles(groups)
    n_rows = (len(panels) + 1) // 2
    figure, axes = new_figure(n_rows, 2, width=12, height=4.4 * n_rows)
    flat = list(axes.flat)
    for axis, panel in zip(flat, panels):
        panel(axis)
    for axis in flat[len(panels):]:
        axis.set_axis_off()
    for suffix in ("png", "svg"):
        figure.savefig(pathlib.Path(options.out) / f"scaling.{suffix}", dpi=150)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", nargs="+", required=True)
    parser.add_argument("--fits")
    parser.add_argument("--out", required=True)
    parser.add_argument("--loss", choices=["validation", "train"], default="validation")
    parser.add_argument("--parameters", choices=["non_embedding", "all"], default="non_embedding")
    options = parser.parse_args()
    options.loss_key = f"{options.loss}_loss"
    options.n_key = "parameters" if options.parameters == "all" else "non_embedding_parameters"
    runs = [run for path in options.sweep for run in read_lines(path)]
    fits = read_lines(options.fits) if options.fits else []
    # Appended to, so that the newest of a kind counts.
    newest = {(fit["fit"], fit.get("group"), fit.get("case")): fit for fit in fits if fit.get("evaluation") == "scaling"}
    pathlib.Path(options.out).mkdir(parents=True, exist_ok=True)
    draw(by_group(runs), list(newest.values()), options)


if __name__ == "__main__":
    main()
