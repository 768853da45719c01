"""Draws what runs and evaluations left behind: loss.png, loss_by_position.png and inference.png.

    .venv/bin/python scripts/plot.py --nll nll.jsonl --bench bench.jsonl --out FOLDER RUN ...
    .venv/bin/python scripts/plot.py --uptrain FOLDER --out FOLDER

Curves come from RUN/metrics.jsonl, loss by position and the unigram line from `tandem eval nll --out`, the last picture from
`tandem bench inference --out`; --ratios adds to it how the YOCOs compare with the Transformer, beside the paper's figures. A picture whose
file is not given is left out. --uptrain draws loss.png of the runs of scripts/uptrain.sh instead.
"""

import argparse
import pathlib

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter  # noqa: E402

from report import PAPER_RATIOS, against_transformer, read_benchmarks  # noqa: E402
from report_common import name_of, read_lines  # noqa: E402

# Okabe and Ito's colours: told apart with any kind of colour vision.
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9"]
DASHES = ["-", "--", ":", "-."]
INK = "#333333"


def new_figure(n_rows=1, n_columns=1, width=7.2, height=4.2):
    plt.rcParams.update({
        "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#999999",
        "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.titlelocation": "left",
        "axes.titlesize": 11, "axes.grid": True, "grid.color": "#e6e6e6", "grid.linewidth": 0.8, "legend.frameon": False,
    })
    figure, axes = plt.subplots(n_rows, n_columns, figsize=(width, height), constrained_layout=True)
    return figure, axes


def save(figure, path):
    figure.savefig(path, dpi=150)
    plt.close(figure)


def smoothed(values, width):
    """Mean over a window of `width` values that ends at each value."""
    means, total = [], 0.0
    for i, value in enumerate(values):
        total += value - (values[i - width] if i >= width else 0.0)
        means.append(total / min(i + 1, width))
    return means


def bytes_text(n):
    for unit in ["B", "KiB", "MiB", "GiB"]:
        if n < 1024 or unit == "GiB":
            return f"{n:g} {unit}"
        n /= 1024


def readable_log_axis(axis, values, unit):
    """A logarithmic y axis with labels at 1, 2, 5, 10, ... or, for bytes, at powers of two."""
    if unit == "bytes":
        axis.set_yscale("log", base=2)
        axis.yaxis.set_major_formatter(FuncFormatter(lambda n, _: bytes_text(n)))
    else:
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set_ylim(min(values) / 1.5, max(values) * 1.5)


def loss_curves(run):
    """Of metrics.jsonl: (tokens, loss) of the steps, smoothed, and (tokens, loss) of the validations, both in millions of tokens."""
    lines = read_lines(pathlib.Path(run) / "metrics.jsonl")
    train = [line for line in lines if line.get("loss") is not None]  # null: a step that was skipped
    valid = [line for line in lines if "validation_loss" in line]
    tokens_at = {line["step"]: line["tokens"] / 1e6 for line in lines if "tokens" in line}
    losses = smoothed([line["loss"] for line in train], max(1, len(train) // 50))
    return (([line["tokens"] / 1e6 for line in train], losses),
            ([tokens_at[line["step"]] for line in valid], [line["validation_loss"] for line in valid]))


def label_loss(axes, title, seen):
    span = max(seen) - min(seen)
    axes.set_ylim(min(seen) - 0.05 * span, max(seen) + 0.05 * span)
    axes.set_title(title)
    axes.set_xlabel("training tokens (millions)")
    axes.set_ylabel("nats per token")
    axes.legend()


def plot_loss(runs, unigram, path):
    figure, axes = new_figure()
    seen = []
    for colour, run in zip(COLOURS, runs):
        (tokens, losses), (valid_tokens, valid) = loss_curves(run)
        axes.plot(tokens, losses, color=colour, linewidth=1.2, alpha=0.45)
        seen += losses[len(losses) // 20:] + valid  # the first steps would flatten the rest
        label = name_of(run)
        if valid:
            label += f"  {valid[-1]:.3f} held out"
        axes.plot(valid_tokens, valid, color=colour, linewidth=1.8, marker="o", markersize=4, label=label)
    if unigram:
        axes.axhline(unigram["nll"], color="#999999", linewidth=1.2, linestyle="--", label=f"unigram  {unigram['nll']:.3f} held out")
    label_loss(axes, "Loss: training (faint, smoothed) and held out", seen)
    save(figure, path)


def plot_uptraining(folder, path):
    """Runs uptrained and random of `folder`; uptrained_start and random_start were validated with the weights that these began with."""
    figure, axes = new_figure()
    seen = []
    for colour, name in zip(COLOURS, ["uptrained", "random"]):
        (tokens, losses), (valid_tokens, valid) = loss_curves(folder / name)
        start = loss_curves(folder / f"{name}_start")[1][1][-1]
        axes.plot(tokens, losses, color=colour, linewidth=1.2, alpha=0.45)
        axes.plot([0, *valid_tokens], [start, *valid], color=colour, linewidth=1.8, marker="o", markersize=4,
                  label=f"{name}  {start:.3f} at the start, {valid[-1]:.3f} at the end")
        seen += [start, *valid]
    axes.axhline(valid[-1], color="#999999", linewidth=1.2, linestyle="--", label="random at the end")
    axes.axvline(tokens[-1] / 10, color="#999999", linewidth=1.2, linestyle=":", label="a tenth of the steps")
    label_loss(axes, "A Block Transformer out of a Transformer: training (faint, smoothed) and held out", seen)
    save(figure, path)


def plot_by_position(records, path):
    figure, axes = new_figure()
    for colour, record in zip(COLOURS, [r for r in records if r["model"] != "unigram"]):
        buckets = record["nll_by_position"]
        middles = [(bucket["begin"] + bucket["end"]) / 2 for bucket in buckets]
        axes.plot(middles, [bucket["nll"] for bucket in buckets], color=colour, linewidth=1.8, marker="o", markersize=4,
                  label=name_of(record["model"]))
    axes.set_title("Held-out loss by position in the context")
    axes.set_xlabel("position (tokens)")
    axes.set_ylabel("nats per token")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=5)
    save(figure, path)


def tokens_text(n):
    return f"{n // 1024}K" if n % 1024 == 0 else f"{n:,}"


def length_axis(axis, lengths, label):
    axis.set_xscale("log", base=2)
    axis.set_xticks(lengths, ["1M" if length == 2**20 else tokens_text(length) for length in lengths])
    axis.minorticks_off()
    axis.set_xlabel(label)


def plot_inference(records, with_ratios, path):
    """One batch size: the first. A colour for each model, a dash for each further kind of cache."""
    def median(record, key):
        return record[key] if key == "state_bytes" else record[key]["median"]
    records = [record for record in records if record["batch"] == records[0]["batch"]]
    models, caches = (list(dict.fromkeys(record[key] for record in records)) for key in ("model", "cache_dtype"))
    panels = [("state_bytes", "State at the end of the prompt", "bytes"),
              ("prefill_ms", "Prefill, early exit where there is one", "milliseconds"),
              ("decode_ms_per_token", "Decoding after the prompt", "milliseconds per token")]
    figure, axes = new_figure(2, 2, 11, 8) if with_ratios else new_figure(1, 3, 12)
    length_label = "prompt (tokens)" if records[0]["protocol"] == "prompt" else "prompt and generated tokens"
    for axis, (key, title, unit) in zip(axes.flat, panels):
        for colour, model in zip(COLOURS, models):
            for dash, cache in zip(DASHES, caches):
                rows = [record for record in records if (record["model"], record["cache_dtype"]) == (model, cache)]
                axis.plot([row["length"] for row in rows], [median(row, key) for row in rows], color=colour, linestyle=dash, linewidth=1.8,
                          marker="o", markersize=4, label=name_of(model) + (f", cache {cache}" if len(caches) > 1 else ""))
        readable_log_axis(axis, [median(record, key) for record in records], unit)
        length_axis(axis, sorted({record["length"] for record in records}), length_label)
        axis.set_title(title)
        axis.set_ylabel(unit if unit != "bytes" else "")
    lines, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=3, handlelength=3.5)
    if with_ratios:
        plot_ratios(axes.flat[3], [record for record in records if record["cache_dtype"] == caches[0]], caches[0])
    save(figure, path)


def plot_ratios(axis, records, cache):
    """A colour for each quantity, a dash for each model; the paper's figures as open diamonds."""
    compared = [(record, ratio) for record, ratio in against_transformer(records) if record["family"] == "yoco"]
    models = list(dict.fromkeys(record["model"] for record, _ in compared))
    colours = dict(zip(["state", "prefill", "decode", "throughput"], COLOURS))
    papers_name = {"state": "memory", "prefill": "prefill", "throughput": "throughput"}
    drawn = [1]
    for quantity, colour in colours.items():
        for dash, model in zip(DASHES, models):
            points = [(record["length"], ratio[quantity]) for record, ratio in compared if record["model"] == model]
            axis.plot(*zip(*points), color=colour, linestyle=dash, linewidth=1.8, marker="o", markersize=4)
            drawn += [ratio for _, ratio in points]
        if quantity in papers_name:
            name = papers_name[quantity]
            points = [(length, of_length[name]) for length, of_length in PAPER_RATIOS.items() if name in of_length]
            axis.plot(*zip(*points), color=colour, linestyle="none", marker="D", markersize=6, markerfacecolor="none", markeredgewidth=1.5)
            drawn += [ratio for _, ratio in points]
    axis.axhline(1, color="#999999", linewidth=1.2)
    readable_log_axis(axis, drawn, "times")
    length_axis(axis, sorted({record["length"] for record, _ in compared} | set(PAPER_RATIOS)), "prompt and generated tokens")
    axis.set_title("Transformer / YOCO; of throughput YOCO / Transformer")
    axis.set_ylabel(f"times (cache {cache})")
    keys = [Line2D([], [], color=colour, linewidth=1.8, label=quantity) for quantity, colour in colours.items()]
    keys += [Line2D([], [], color=INK, linestyle=dash, label=name_of(model)) for dash, model in zip(DASHES, models)]
    keys += [Line2D([], [], color=INK, linestyle="none", marker="D", markersize=6, markerfacecolor="none",
                    label="paper: 3B, H100,\ntotal memory")]
    axis.legend(handles=keys, fontsize=9, handlelength=3)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*")
    parser.add_argument("--nll", help="records of tandem eval nll")
    parser.add_argument("--bench", help="records of tandem bench inference")
    parser.add_argument("--ratios", action="store_true", help="to the picture of --bench, the Transformer's ratios to the YOCOs")
    parser.add_argument("--uptrain", type=pathlib.Path, help="the folder of runs of scripts/uptrain.sh")
    parser.add_argument("--out", required=True, type=pathlib.Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    records = read_lines(arguments.nll) if arguments.nll else []
    unigram = next((record for record in records if record["model"] == "unigram"), None)
    if arguments.uptrain:
        plot_uptraining(arguments.uptrain, arguments.out / "loss.png")
    if arguments.runs:
        plot_loss(arguments.runs, unigram, arguments.out / "loss.png")
    if records:
        plot_by_position(records, arguments.out / "loss_by_position.png")
    if arguments.bench:
        plot_inference(read_benchmarks([arguments.bench]), arguments.ratios, arguments.out / "inference.png")


if __name__ == "__main__":
    main()
