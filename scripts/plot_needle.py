"""Heat maps of `tandem eval needle`: length by depth, one panel a model.

    .venv/bin/python scripts/plot_needle.py needle.jsonl ... --out FOLDER [--score exact]

Draws needle_PROTOCOL_TASK[_xN][_removed].png and .svg for each task, number of needles and control that the files hold. Scores are
exact (the number was read), substring (the published rule) and decoy_accuracy. Where a cell was measured twice the later record counts.
"""

import argparse
import collections
import json
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

SCORES = {"exact": "answers with the exact number", "substring": "answers that contain the number (published rule)",
          "decoy_accuracy": "answers likelier than every decoy"}
INK = "#333333"
MOST_ANNOTATED = 150  # cells of a panel; in more the numbers cannot be read


def length_text(tokens):
    """256, 1K, 1M."""
    for unit, size in [("M", 2**20), ("K", 2**10)]:
        if tokens % size == 0:
            return f"{tokens // size}{unit}"
    return f"{tokens:,}"


def read_records(paths):
    """By figure and model: {(protocol, task, needles, removed): {model: {(length, depth): record}}}."""
    figures = collections.defaultdict(lambda: collections.defaultdict(dict))
    for path in paths:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                sys.exit(f"{path}:{number}: {error}")
            if record.get("evaluation") != "needle":
                continue
            figure = record["protocol"], record["task"], record["needles"], record["remove_needle"]
            figures[figure][record["model"]][record["length"], record["depth"]] = record
    return figures


def figure_name(protocol, task, needles, removed):
    return "_".join(["needle", protocol, task, *([f"x{needles}"] if needles > 1 else []), *(["removed"] if removed else [])])


def figure_title(protocol, task, needles, removed):
    words = f"{protocol} {task}".replace("_", " ")
    return words + (f", {needles} needles" if needles > 1 else "") + (", needle removed" if removed else "")


def draw_panel(axes, cells, score, model):
    """Lengths along x, depths down y, each an equal step."""
    lengths = sorted({length for length, _ in cells})
    depths = sorted({depth for _, depth in cells})
    values = [[cells.get((length, depth), {}).get(score) for length in lengths] for depth in depths]
    numbers = [[float("nan") if value is None else value for value in row] for row in values]
    image = axes.imshow(numbers, cmap="cividis", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.set_xticks(range(len(lengths)), [length_text(length) for length in lengths])
    axes.set_yticks(range(len(depths)), [f"{100 * depth:.0f}" for depth in depths])
    axes.tick_params(length=0)
    axes.set_xlabel("length (tokens)")
    axes.set_title(pathlib.Path(model).name, loc="left", fontsize=10, color=INK)
    if len(lengths) * len(depths) <= MOST_ANNOTATED:
        for y, row in enumerate(values):
            for x, value in enumerate(row):
                if value is not None:
                    axes.text(x, y, f"{100 * value:.0f}", ha="center", va="center", fontsize=7,
                              color="#222222" if value > 0.55 else "#eeeeee")
    return image


def draw(models, score, title, path):
    rows = max(len({depth for _, depth in cells}) for cells in models.values())
    columns = [len({length for length, _ in cells}) for cells in models.values()]
    width = 1.6 + sum(max(2.2, 0.42 * n + 0.8) for n in columns)
    plt.rcParams.update({"font.size": 9, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "svg.hashsalt": "tandem"})
    figure, panels = plt.subplots(1, len(models), figsize=(width, max(2.4, 0.26 * rows + 1.3)), squeeze=False, constrained_layout=True,
                                  width_ratios=[max(2.2, 0.42 * n + 0.8) for n in columns])
    for axes, (model, cells) in zip(panels[0], models.items()):
        for side in axes.spines.values():
            side.set_visible(False)
        image = draw_panel(axes, cells, score, model)
    panels[0][0].set_ylabel("depth of the needle (% of the text)")
    bar = figure.colorbar(image, ax=panels[0].tolist(), pad=0.02, ticks=[0, 0.25, 0.5, 0.75, 1])
    bar.ax.set_yticklabels(["0", "25", "50", "75", "100"])
    bar.set_label(f"% of {SCORES[score].split(' (')[0]}", fontsize=8)
    bar.outline.set_visible(False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=INK)
    for ending in ["png", "svg"]:
        figure.savefig(path.with_name(f"{path.name}.{ending}"), dpi=150, metadata={"Date": None} if ending == "svg" else None)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=pathlib.Path, help="files of tandem eval needle --out")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the pictures")
    parser.add_argument("--score", choices=SCORES, default="exact")
    options = parser.parse_args()
    for path in options.results:
        if not path.is_file():
            sys.exit(f"{path}: no such file")
    figures = read_records(options.results)
    if not figures:
        sys.exit(f"{options.results[0]}: holds no record of tandem eval needle")
    options.out.mkdir(parents=True, exist_ok=True)
    for key, models in figures.items():
        path = options.out / figure_name(*key)
        draw(models, options.score, figure_title(*key), path)
        print(f"{path}.png")


if __name__ == "__main__":
    main()
