"""YOCO's inference tables out of the records of `tandem eval profile`: what report.py prints and report_html.py shows.

A number that was not measured has "~" before it: known from the shapes, extrapolated from a shorter case, or the least that a device needs.
"""

import collections

from report_common import name_of

NOTE = ("~ not measured: known from the model's shapes, extrapolated from a shorter case that was measured, or (roofline) the least that a device "
        "of the given peaks needs")


def shown(quantity, form, scale=1.0):
    if quantity["value"] is None:
        return "n/a"
    return ("" if quantity["measured"] else "~") + form(quantity["value"] * scale)


def significant(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def gib(quantity):
    return shown(quantity, lambda value: f"{value:,.3f}" if value < 10 else f"{value:,.1f}", 2.0**-30)


def number(quantity):
    return shown(quantity, significant)


def percent(quantity):
    return shown(quantity, lambda value: f"{value:.3g} %", 100)


def how(record):
    basis = record["prefill_ms"]["basis"] or "shapes alone"
    return basis + (f" from {record['from_length']:,}" if record["from_length"] else "") + ("" if record["fits"] else ", does not fit")


def by_length(records):
    """(header, rows): one row a case."""
    header = ["model", "tokens", "rows", "weights, GiB", "cache, GiB", "rest, GiB", "total, GiB", "prefill, ms", "decode, ms/token",
              "throughput, tokens/s", "decode MFU", "times"]
    rows = []
    for record in records:
        memory = record["memory_bytes"]
        rows.append([name_of(record["model"]), f"{record['length']:,}", f"{record['rows']:,}", *(gib(memory[part]) for part in ("weights", "cache", "rest", "total")),
                     number(record["prefill_ms"]), number(record["decode_ms_per_token"]), number(record["throughput_tokens_per_s"]),
                     percent(record["decode_mfu"]), how(record)])
    return header, rows


def kv_by_size(records):
    """(header, rows): one row a model; beside a YOCO how many times its bytes the Transformer of as many layers and its width keeps."""
    models = {}
    for record in records:
        models[record["model"], record["dtype"], record["cache_dtype"]] = record

    def transformer_of(key):
        name = name_of(key[0]).replace("yoco", "transformer", 1)
        found = [record for other, record in models.items() if name_of(other[0]) == name and other[1:] == key[1:] and record["family"] == "transformer"]
        return found[0] if found else None
    rows = []
    for key, record in sorted(models.items(), key=lambda item: (item[1]["parameters"], item[0])):
        other = transformer_of(key) if record["family"] == "yoco" else None
        ratio = f"{other['kv_bytes_per_token']['value'] / record['kv_bytes_per_token']['value']:.0f}x" if other else ""
        rows.append([name_of(record["model"]), f"{record['parameters'] / 1e9:.3g}B", f"{record['layers']}", record["cache_dtype"],
                     number(record["kv_bytes_per_token"]), number(record["tokens_per_gib"]), ratio])
    return ["model", "parameters", "layers", "cache", "KV bytes a token", "tokens a GiB", "Transformer / YOCO"], rows


def case_of(record):
    return tuple(record[key] for key in ("length", "batch", "dtype", "cache_dtype", "prefill_chunk", "decode_length", "device_name", "threads",
                                         "peak_tflops", "bandwidth", "memory", "measure"))


def over(record, other, get):
    one, reference = get(record), get(other)
    if one["value"] is None or reference["value"] is None or one["value"] == 0:
        return ""
    mark = "" if one["measured"] and reference["measured"] else "~"
    return f"{mark}{reference['value'] / one['value']:.2f}x"


def prefill_of_row(record):
    quantity = record["prefill_ms"]
    return quantity if quantity["value"] is None else {**quantity, "value": quantity["value"] / record["rows"]}


def against_transformer(records, paper_ratios):
    """(header, rows): a YOCO's cases against the Transformer of the same case whose name differs in the family alone; times of
    a row, where batches differ."""
    transformers = collections.defaultdict(dict)
    for record in records:
        if record["family"] == "transformer":
            transformers[case_of(record)][name_of(record["model"])] = record
    rows = []
    for record in records:
        if record["family"] != "yoco":
            continue
        other = transformers[case_of(record)].get(name_of(record["model"]).removesuffix("_swa").replace("yoco", "transformer", 1))
        if not other:
            continue
        paper = paper_ratios.get(record["length"], {})
        rows.append([name_of(record["model"]), f"{record['length']:,}",
                     f"{record['rows']:,}" if record["rows"] == other["rows"] else f"{record['rows']:,} / {other['rows']:,}",
                     over(record, other, lambda r: r["memory_bytes"]["total"]) if record["rows"] == other["rows"] else "",  # else both fill it
                     over(record, other, prefill_of_row),
                     over(other, record, lambda r: r["throughput_tokens_per_s"]),
                     *(f"{paper[key]}x" if key in paper else "" for key in ("memory", "prefill", "throughput"))])
    return ["model", "tokens", "rows: YOCO / Transformer", "memory", "prefill", "throughput", "paper: memory", "paper: prefill", "paper: throughput"], rows
