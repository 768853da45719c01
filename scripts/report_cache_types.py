"""What a narrower cache of keys and values costs and saves: a table out of what scripts/cache_types.sh measured, which report.py prints."""

import pathlib

from report_common import name_of, print_table, read_lines

WIDEST = "float32"


def nll_of(folder):
    """{(model, type): nll}"""
    return {(name_of(record["model"]), record["cache_dtype"]): record["nll"] for record in read_lines(folder / "nll.jsonl")}


def needles_of(folder):
    """{(model, type): (found, asked)} over all lengths and depths."""
    found = {}
    path = folder / "needle.jsonl"
    for record in read_lines(path) if path.exists() else []:
        key = name_of(record["model"]), record["cache_dtype"]
        right, asked = found.get(key, (0, 0))
        found[key] = right + round(record["exact"] * record["samples"]), asked + record["samples"]
    return found


def times_of(folder):
    """{(model, type): record of the longest case}"""
    longest = {}
    for record in read_lines(folder / "bench.jsonl"):
        key = name_of(record["model"]), record["cache_dtype"]
        if key not in longest or record["length"] > longest[key]["length"]:
            longest[key] = record
    return longest


def print_cache_types(folder):
    folder = pathlib.Path(folder)
    nll, times = nll_of(folder), times_of(folder)
    rows = []
    for (model, kind), loss in nll.items():
        bench, widest = times[model, kind], times[model, WIDEST]
        decode = bench["decode_ms_per_token"]
        rows.append([model, kind, f"{loss:.5f}", f"{loss - nll[model, WIDEST]:+.5f}", f"{bench['length']:,}", f"{bench['state_bytes'] / 2**20:,.1f} MiB",
                     f"{widest['state_bytes'] / bench['state_bytes']:.2f}x", f"{decode['median']:.2f} ms ({decode['min']:.2f}–{decode['max']:.2f})",
                     f"{decode['median'] / widest['decode_ms_per_token']['median']:.2f}"])
    print_table(["model", "cache", "held-out nll", f"less {WIDEST}'s", "tokens", "state of a row", "smaller", "decode, per token", f"of {WIDEST}'s time"], rows)
    needles = needles_of(folder)
    if needles:
        print_table(["model", "cache", "needles found"], [[model, kind, f"{right} of {asked}"] for (model, kind), (right, asked) in needles.items()])
