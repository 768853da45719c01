"""What report_html.py shows of each kind of record."""

import collections
import json
import statistics

import report_html_plots as plots
import report_profile
from report import PAPER_RATIOS
from report_common import name_of
from report_html import read_records


def text_of(value):
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "n/a"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.5g}"
    if isinstance(value, dict) and {"value", "measured"} <= value.keys():
        return report_profile.shown(value, report_profile.significant)
    if isinstance(value, dict) and "median" in value:
        return text_of(value["median"])
    if isinstance(value, (dict, list)):
        text = json.dumps(value)
        return text if len(text) <= 120 else text[:117] + "..."
    return str(value)


def add_generic(page, records):
    """All fields; those that all records share stand apart."""
    keys = list(dict.fromkeys(key for record in records for key in record))
    same = [key for key in keys if len(records) > 1 and all(key in record and record[key] == records[0][key] for record in records)]
    if same:
        page.table(["the same in all", "value"], [[key, text_of(records[0][key])] for key in same])
    rest = [key for key in keys if key not in same]
    if len(records) == 1:
        page.table(["field", "value"], [[key, text_of(records[0][key])] for key in rest])
    else:
        page.table(rest, [[text_of(record.get(key)) if key in record else "" for key in rest] for record in records])


def label_of(record, *keys):
    """The model's name, and what else tells records apart."""
    return ", ".join([name_of(record.get("model", "")), *(str(record[key]) for key in keys if record.get(key) is not None)])


# ---- a run


def add_run(page, folder):
    lines = read_records(folder / "metrics.jsonl")
    steps = [line for line in lines if "lr" in line and "tokens" in line]
    taken = [line for line in steps if line.get("loss") is not None]  # null: a step that was skipped
    valid = [line for line in lines if "validation_loss" in line]
    facts = []
    if (folder / "run.json").is_file():
        run = read_records(folder / "run.json")[0]
        facts += [[key, text_of(value)] for key, value in run.items() if key != "starts"]
        facts += [[f"last start: {key}", text_of(value)] for key, value in (run.get("starts") or [{}])[-1].items()]
    if taken:
        seconds = sum(line["seconds"] for line in steps)
        facts += [["steps", f"{steps[-1]['step']:,}"], ["steps that were skipped", f"{len(steps) - len(taken):,}"], ["tokens", f"{steps[-1]['tokens']:,}"],
                  ["last training loss, smoothed", f"{plots.smooth([line['loss'] for line in taken])[-1]:.4f}"], ["seconds in steps", f"{seconds:,.1f}"]]
    if valid:
        best = min(valid, key=lambda line: line["validation_loss"])
        facts += [["last held-out loss", f"{valid[-1]['validation_loss']:.4f}"], ["best held-out loss", f"{best['validation_loss']:.4f} at step {best['step']:,}"]]
    page.table(["run", ""], facts)
    tokens_at = {line["step"]: line["tokens"] / 1e6 for line in steps}
    millions = [line["tokens"] / 1e6 for line in taken]
    # The first steps would flatten the rest.
    begin = len(taken) // 20
    page.picture(plots.lines([("training, smoothed", millions[begin:], plots.smooth([line["loss"] for line in taken])[begin:], "faint"),
                              ("held out", [tokens_at.get(line["step"]) for line in valid], [line["validation_loss"] for line in valid], "line")],
                             "training tokens (millions)", "nats per token"), "Loss")
    if valid and valid[-1].get("nll_by_position"):
        by_position = valid[-1]["nll_by_position"]
        page.picture(plots.lines([("held out", list(range(len(by_position))), by_position, "faint")], "position (tokens)", "nats per token"),
                     "Loss by position at the last validation")
    speeds = speeds_of(taken)
    if speeds:
        page.picture(plots.lines([("speed", [at for at, _ in speeds], plots.smooth([speed for _, speed in speeds]), "faint")], "training tokens (millions)",
                                 "tokens per second"), f"Speed, smoothed; median {statistics.median(speed for _, speed in speeds):,.0f} tokens per second")
    page.picture(plots.lines([("gradient norm", millions, [line.get("grad_norm") for line in taken], "faint")], "training tokens (millions)", "gradient norm",
                             y_log=True), "Gradient norm")
    page.picture(plots.lines([("lr", millions, [line["lr"] for line in taken], "faint")], "training tokens (millions)", "learning rate"), "Learning rate")
    if (folder / "config.yaml").is_file():
        page.folded("config.yaml", (folder / "config.yaml").read_text(encoding="utf-8"))


def speeds_of(steps):
    """(millions of tokens, tokens per second) of each step after the first; a restart counts its tokens from where it began."""
    speeds = []
    for before, line in zip(steps, steps[1:]):
        new = line["tokens"] - before["tokens"]
        if line["step"] == before["step"] + 1 and new > 0 and line["seconds"] > 0:
            speeds.append((line["tokens"] / 1e6, new / line["seconds"]))
    return speeds


# ---- evaluations


def add_nll(page, records):
    page.table(["model", "step", "data", "window", "stride", "tokens scored", "nll", "ppl", "bits per byte"],
               [[name_of(r["model"]), text_of(r.get("step")), r.get("data", ""), text_of(r.get("window")), text_of(r.get("stride")),
                 text_of(r.get("tokens_scored")), *(f"{r[key]:.4f}" if isinstance(r.get(key), float) else "n/a" for key in ("nll", "ppl", "bpb"))]
                for r in records])
    series = []
    for record in records:
        buckets = record.get("nll_by_position") or []
        if record["model"] != "unigram" and buckets and isinstance(buckets[0], dict):
            series.append((name_of(record["model"]), [(b["begin"] + b["end"]) / 2 for b in buckets], [b["nll"] for b in buckets], "line"))
    page.picture(plots.lines(series, "position (tokens)", "nats per token", x_log=bool(series) and max(s[1][-1] for s in series) > 4096),
                 "Loss by position in the context")
    cumulative = [(name_of(r["model"]), [point["end"] for point in r["nll_cumulative"]], [point["nll"] for point in r["nll_cumulative"]], "line")
                  for r in records if r.get("nll_cumulative")]
    page.picture(plots.lines(cumulative, "context (tokens)", "nats per token", x_log=True), "Mean loss of all tokens up to a length")
    laws = [(r, r["power_law"]) for r in records if isinstance(r.get("power_law"), dict)]
    page.table(["model", "law", "curve", "points", "a", "b", "c", "interval of b"],
               [[name_of(r["model"]), law.get("law", ""), law.get("curve", ""), text_of(law.get("points")), *(text_of(law.get(key)) for key in "abc"),
                 text_of((law.get("interval") or {}).get("b"))] for r, law in laws])
    page.table(["model", "by recall"], [[name_of(r["model"]), text_of(r["nll_by_recall"])] for r in records if r.get("nll_by_recall")])
    inside = [(name_of(r["model"]), list(range(len(r["nll_by_block_position"]))), r["nll_by_block_position"], "line")
              for r in records if r.get("nll_by_block_position")]
    page.picture(plots.lines(inside, "place in the block", "nats per token"), "Loss inside the block")


def score_of(record):
    """A needle's score, and what it is called."""
    for key in ("score", "accuracy", "substring", "exact", "acc"):
        if isinstance(record.get(key), (int, float)) and not isinstance(record[key], bool):
            return key, float(record[key])
    return "", None


NEEDLE_GROUP = ("protocol", "task", "needles", "remove_needle", "haystack", "prompt")


def add_needle(page, records):
    groups = collections.defaultdict(list)
    for record in records:
        groups[tuple([record.get("model", "")] + [str(record.get(key)) for key in NEEDLE_GROUP])].append(record)
    for group in groups.values():
        first = group[0]
        page.heading(3, label_of(first, "protocol", "task") + (f", {first['needles']} needles" if first.get("needles", 1) != 1 else "") +
                     (", needle removed" if first.get("remove_needle") else ""))
        cells, by_length = collections.defaultdict(list), collections.defaultdict(list)
        name = ""
        for record in group:
            name, score = score_of(record)
            if score is None or "length" not in record:
                continue
            cells[record["length"], record.get("depth") or 0.0].append(score)
            by_length[record["length"]].append(score)
        if not cells:
            add_generic(page, group)
            continue
        page.picture(plots.heat_map({key: statistics.mean(values) for key, values in cells.items()}, "length (tokens)", "depth (%)", name))
        page.table(["length", "cells", f"mean {name}", "least"],
                   [[f"{length:,}", len(values), f"{statistics.mean(values):.3f}", f"{min(values):.3f}"] for length, values in sorted(by_length.items())])
    page.heading(3, "All cells")
    add_generic(page, records)


def add_tasks(page, records):
    rows = []
    for record in records:
        for metric, value in (record.get("metrics") or {}).items():
            error = value.get("stderr")
            rows.append([name_of(record["model"]), record.get("task", ""), text_of(record.get("num_fewshot")), text_of(record.get("n")), metric,
                         f"{value['value']:.4f}" if value.get("value") is not None else "n/a", f"{error:.4f}" if error is not None else ""])
    page.table(["model", "task", "shots", "documents", "metric", "value", "standard error"], rows)
    if not rows:
        add_generic(page, records)


def add_profile(page, records):
    page.note(report_profile.NOTE)
    page.heading(3, "Memory and time by length")
    page.table(*report_profile.by_length(records))
    ratios = report_profile.against_transformer(records, PAPER_RATIOS)
    if ratios[1]:
        page.heading(3, "The Transformer's memory and prompt time over YOCO's, YOCO's throughput over the Transformer's")
        page.table(*ratios)
    page.heading(3, "Keys and values by model size")
    page.table(*report_profile.kv_by_size(records))
    for get, unit, title in ((lambda r: r["memory_bytes"]["total"], "bytes", "Memory"), (lambda r: r["prefill_ms"], "milliseconds", "Prefill"),
                             (lambda r: r["throughput_tokens_per_s"], "tokens per second", "Throughput")):
        series = collections.defaultdict(list)
        for record in sorted(records, key=lambda r: r["length"]):
            rows = "the most rows" if record["batch"] == 0 else f"{record['rows']} row{'s' if record['rows'] > 1 else ''}"
            label = f"{name_of(record['model'])}, {rows}, {record['dtype']}, {'measured' if record['measure'] else record['prefill_ms']['basis'] or 'shapes'}"
            quantity = get(record)
            series[label].append((record["length"], quantity["value"], quantity["measured"]))
        several = [(label, *zip(*points)) for label, points in series.items() if len(points) > 1]
        page.picture(plots.by_length(several[:6], unit, title))


def interval_of(record, key):
    low_high = (record.get("intervals") or {}).get(key)
    if not low_high:
        return ""
    return " ({} – {})".format(*("?" if edge is None else f"{edge:.4g}" for edge in low_high))  # ?: beyond all numbers


def add_scaling(page, records):
    fits = [record for record in records if record.get("formula")]
    known = ("E", "A", "alpha", "B", "beta", "a", "b", "c")
    keys = [key for key in known if any(isinstance(record.get(key), (int, float)) for record in fits)]
    page.table(["fit", "group", "formula", "runs", *keys, "doubts"],
               [[record.get("fit", ""), record.get("group", ""), record["formula"], text_of(record.get("runs")),
                 *(f"{record[key]:.4g}{interval_of(record, key)}" if isinstance(record.get(key), (int, float)) else "" for key in keys),
                 "; ".join(record.get("doubts") or []) or "none"] for record in fits])
    curves = [(str(record.get("group", "all")), [p["compute"] for p in record["curve"]], [p["loss"] for p in record["curve"]], "dashed")
              for record in fits if record.get("curve")]
    page.picture(plots.lines(curves, "training FLOP", "nats per token", x_log=True), "Fitted loss against compute")
    for record in records:
        if record.get("budgets"):
            page.heading(3, f"Equal FLOPs, {record.get('group', 'all')}")
            page.picture(plots.lines([(f"{b['flops']:.3g} FLOP", b["parameters"], b["losses"], "line") for b in record["budgets"]], "parameters", "nats per token",
                                     x_log=True))
            page.table(["FLOP", "runs", "best parameters", "interval", "within the sizes"],
                       [[f"{b['flops']:.3g}", b["runs"], text_of(b.get("best_parameters")), text_of(b.get("interval")), text_of(b.get("within_sizes"))]
                        for b in record["budgets"]])
        elif isinstance(record.get("points"), list) and record["points"] and isinstance(record["points"][0], dict):
            page.heading(3, "Loss against throughput and memory")
            page.table(list(record["points"][0]), [[text_of(value) for value in point.values()] for point in record["points"]])
            groups = collections.defaultdict(list)
            for point in record["points"]:
                groups[str(point.get("group", "all"))].append(point)
            page.picture(plots.lines([(group, [p["tokens_per_second"] for p in some], [p["loss"] for p in some], "marks") for group, some in groups.items()],
                                     "tokens per second", "nats per token", x_log=True), "Loss against measured throughput")
    others = [record for record in records if not record.get("formula") and not record.get("budgets") and not isinstance(record.get("points"), list)]
    if others:
        add_generic(page, others)


def add_sweep(page, records):
    groups = collections.defaultdict(list)
    for record in records:
        groups[str(record.get("group", "all"))].append(record)
    for key, label in (("parameters", "parameters"), ("compute", "training FLOP")):
        series = [(group, [r.get(key) for r in runs], [r.get("validation_loss") or r.get("train_loss") for r in runs], "marks") for group, runs in groups.items()]
        page.picture(plots.lines(series, label, "nats per token", x_log=True), f"Loss against {label} (held out where there is a validation)")
    add_generic(page, records)


def add_inference(page, records):
    page.table(["model", "protocol", "batch", "prompt", "generated", "state, MiB", "prefill, ms", "decode, ms/token", "tokens/s"],
               [[name_of(r["model"]), r.get("case", r["protocol"]), text_of(r["batch"]), text_of(r["prompt_length"]), text_of(r["decode_length"]),
                 f"{r['state_bytes'] / 2**20:,.1f}", text_of(r["prefill_ms"]), text_of(r["decode_ms_per_token"]),
                 text_of(r.get("throughput_tokens_per_s", r.get("decode_tokens_per_s")))] for r in records])
    for key, unit in (("prefill_ms", "milliseconds"), ("decode_ms_per_token", "milliseconds per token")):
        series = collections.defaultdict(list)
        for record in records:
            series[f"{name_of(record['model'])}, batch {record['batch']}, {record.get('cache_dtype', '')}"].append(record)
        curves = [(label, [r["length"] for r in rows], [r[key]["median"] for r in rows], "line") for label, rows in series.items() if len(rows) > 1]
        page.picture(plots.lines(curves[:6], "tokens", unit, x_log=True, y_log=True), key.replace("_", " "))


SECTIONS = {"nll": add_nll, "needle": add_needle, "tasks": add_tasks, "profile": add_profile, "scaling": add_scaling, "sweep": add_sweep, "inference": add_inference}
