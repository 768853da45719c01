"""Pictures of report_html.py: each is an SVG string that stands inside the page and refers to nothing outside it."""

import io
import math
import re

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

from plot import COLOURS, INK, length_axis, new_figure, smoothed  # noqa: E402

_count = 0


def svg(figure, label):
    """The figure as an element of an HTML page. Its ids get a number of their own, as those of two pictures would be the same."""
    global _count
    _count += 1
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "tandem"})
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    plt.close(figure)
    body = text.getvalue()
    body = body[body.index("<svg"):]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", body)
    body = body.replace("xlink:href", "href")
    prefix = f"f{_count}-"
    body = re.sub(r'\bid="', f'id="{prefix}', body)
    body = re.sub(r'href="#', f'href="#{prefix}', body)
    body = body.replace("url(#", f"url(#{prefix}")
    label = label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return body.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def lines(series, x_label, y_label, *, title="", x_log=False, y_log=False, width=7.2):
    """`series`: (label, xs, ys, style) with style "line", "faint", "marks" or "dashed"; a label of two series gives them one colour. Points that are
    not finite are left out; None where nothing is left."""
    figure, axes = new_figure(width=width, height=3.8)
    colours, drawn = {}, 0
    for label, xs, ys, style in series:
        points = [(x, y) for x, y in zip(xs, ys) if x is not None and y is not None and math.isfinite(x) and math.isfinite(y)
                  and (x > 0 or not x_log) and (y > 0 or not y_log)]
        if not points:
            continue
        colour = colours.setdefault(label, COLOURS[len(colours) % len(COLOURS)])
        options = {"line": {"linewidth": 1.8, "marker": "o", "markersize": 4}, "faint": {"linewidth": 1.2, "alpha": 0.45},
                   "marks": {"linestyle": "none", "marker": "o", "markersize": 5}, "dashed": {"linestyle": "--", "linewidth": 1.5}}[style]
        named = label not in axes.get_legend_handles_labels()[1]
        axes.plot(*zip(*points), color=colour, label=label if named else None, **options)
        drawn += len(points)
    if not drawn:
        plt.close(figure)
        return None
    if x_log:
        axes.set_xscale("log")
    if y_log:
        axes.set_yscale("log")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if len(colours) > 1:
        axes.legend(fontsize=8)
    return svg(figure, title or f"{y_label} against {x_label}")


def by_length(series, y_label, title):
    """`series`: (label, lengths, values, measured or not); computed points are hollow."""
    series = [(label, [(x, y, m) for x, y, m in zip(*values) if y]) for label, *values in series]
    series = [(label, points) for label, points in series if points]
    if not series:
        return None
    figure, axes = new_figure(height=3.8)
    for i, (label, points) in enumerate(series):
        colour = COLOURS[i % len(COLOURS)]
        axes.plot([x for x, _, _ in points], [y for _, y, _ in points], color=colour, linewidth=1.5, label=label)
        for measured in (True, False):
            some = [(x, y) for x, y, m in points if m == measured]
            if some:
                axes.plot(*zip(*some), color=colour, linestyle="none", marker="o", markersize=5, markerfacecolor=colour if measured else "white")
    length_axis(axes, sorted({x for _, points in series for x, _, _ in points}), "tokens of a row (hollow: computed)")
    axes.set_yscale("log")
    axes.set_ylabel(y_label)
    axes.set_title(title)
    axes.legend(fontsize=8)
    return svg(figure, title)


def heat_map(cells, x_label, y_label, title):
    """`cells`: {(length, depth): score between 0 and 1}."""
    lengths, depths = sorted({key[0] for key in cells}), sorted({key[1] for key in cells})
    values = [[cells.get((length, depth), math.nan) for length in lengths] for depth in depths]
    figure, axes = new_figure(width=max(4.5, 1.2 + 0.55 * len(lengths)), height=max(2.4, 1.3 + 0.24 * len(depths)))
    axes.grid(False)
    # Cells as shapes, and not as a bitmap, as all of the page is.
    mesh = axes.pcolormesh(range(len(lengths)), range(len(depths)), values, vmin=0, vmax=1, cmap="cividis", shading="nearest")
    axes.invert_yaxis()
    axes.set_xticks(range(len(lengths)), ["1M" if n == 2**20 else f"{n // 1024}K" if n % 1024 == 0 else f"{n:,}" for n in lengths], rotation=45)
    axes.set_yticks(range(len(depths)), [f"{100 * depth:g}" for depth in depths])
    if len(lengths) * len(depths) <= 200:
        for row, of_depth in enumerate(values):
            for column, value in enumerate(of_depth):
                if math.isfinite(value):
                    axes.text(column, row, f"{value:.2g}", ha="center", va="center", fontsize=7, color="white" if value < 0.6 else INK)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_title(title)
    figure.colorbar(mesh, ax=axes).solids.set_rasterized(False)
    return svg(figure, title)


def smooth(values, share=50):
    return smoothed(values, max(1, len(values) // share))
