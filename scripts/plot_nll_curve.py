"""Draws cumulative loss against position with the fitted power law: OUT.png and OUT.svg.

    .venv/bin/python scripts/plot_nll_curve.py nll.jsonl --out results/nll_curve

Everything comes from the records of `tandem eval nll --out`: a line for the mean loss of the targets up to each position, with --fit
the law nll = a n^-b + c as a dashed one, dotted where b cannot be separated (of the buckets: beside their loss as open squares), and for
a record of --last the loss of these targets as a bar over their positions.
"""

import argparse
import pathlib

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from plot import COLOURS, INK, new_figure
from report_common import name_of, read_lines

CURVE_POINTS = 200


def text_of(n):
    for unit, size in (("M", 2**20), ("K", 2**10)):
        if n >= size and n % size == 0:
            return f"{n // size}{unit}"
    return f"{n:,g}"


def label_of(record, records):
    """The model, and what tells its record from the others."""
    label = name_of(record["model"])
    same = [other for other in records if other["model"] == record["model"]]
    if len({str(other["data"]) for other in same}) > 1:
        label += f", {name_of(record['data'])}"
    if len({other["window"] for other in same}) > 1:
        label += f", {record['unit']} of {text_of(record['window'])}"
    if record["last"]:
        label += f", last {text_of(record['last'])} targets"
    return label


def law_text(fit):
    text = f"{fit['a']:.3g} n^{-fit['b']:.3g} {fit['c']:+.3g}"
    interval = fit["interval"]["b"]
    if interval and None not in interval:
        text += f", b in [{interval[0]:.3g}, {interval[1]:.3g}]"
    return text if fit["separated"] else f"{text}; b {fit['why_not']}"


def plot_law(axes, fit, begin, end, colour):
    if fit["a"] is None or fit["b"] is None or fit["c"] is None or end <= begin:
        return  # too few points, or linear in log n
    ratio = (end / begin) ** (1 / CURVE_POINTS)
    n = [begin * ratio**i for i in range(CURVE_POINTS + 1)]
    axes.plot(n, [fit["a"] * x ** -fit["b"] + fit["c"] for x in n], color=colour, linewidth=1.4,
              linestyle="--" if fit["separated"] else ":", label=law_text(fit))


def plot_record(axes, record, label, colour):
    """Returns the losses that were drawn."""
    if record["last"]:
        end = max(point["end"] for point in record["nll_cumulative"])
        axes.plot([max(1, end - record["last"]), end], [record["nll"]] * 2, color=colour, linewidth=2, marker="|", markersize=9,
                  markeredgewidth=2, label=label)
        return [record["nll"]]
    curve = record["nll_cumulative"]
    axes.plot([point["end"] for point in curve], [point["nll"] for point in curve], color=colour, linewidth=1.8, marker="o", markersize=4,
              label=label)
    drawn = [point["nll"] for point in curve]
    fit = record.get("power_law")
    if not fit:
        return drawn
    if fit["curve"] == "cumulative":
        plot_law(axes, fit, curve[0]["end"], curve[-1]["end"], colour)
        return drawn
    middles = [(bucket["begin"] + bucket["end"] + 1) / 2 for bucket in record["nll_by_position"]]
    losses = [bucket["nll"] for bucket in record["nll_by_position"]]
    axes.plot(middles, losses, color=colour, linestyle="none", marker="s", markersize=5, markerfacecolor="none", label="by bucket")
    plot_law(axes, fit, middles[0], middles[-1], colour)
    return drawn + losses


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=pathlib.Path, help="records of tandem eval nll")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="path of the picture without its ending")
    arguments = parser.parse_args()
    records = [record for record in read_lines(arguments.records) if record["evaluation"] == "nll" and "nll_cumulative" in record]
    if not records:
        parser.error(f"{arguments.records} holds no record of tandem eval nll with a cumulative curve")
    figure, axes = new_figure(height=5)
    drawn = []
    for i, record in enumerate(records):
        drawn += plot_record(axes, record, label_of(record, records), COLOURS[i % len(COLOURS)])
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: text_of(round(n))))
    axes.set_yscale("log")
    axes.set_ylim(min(drawn) / 1.05, max(drawn) * 1.05)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 6, 7, 8)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_title("Mean loss of the targets up to a position", color=INK)
    axes.set_xlabel("position (tokens)")
    axes.set_ylabel("nats per token")
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.12))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for ending in (".png", ".svg"):
        figure.savefig(f"{arguments.out}{ending}", dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
