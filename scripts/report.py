"""Tables in Markdown out of what evaluations, benchmarks and runs left behind.

    .venv/bin/python scripts/report.py compare nll.jsonl                mean and spread over seeds of runs named MODEL-seedN
    .venv/bin/python scripts/report.py inference bench.jsonl ...        times and bytes by length, and ratios with the paper's
    .venv/bin/python scripts/report.py memory bench.jsonl ...           what a prompt takes beyond the state
    .venv/bin/python scripts/report.py block-transformer bench.jsonl    decoding and the paper's protocol against the vanilla model
    .venv/bin/python scripts/report.py checkpoint-cost --out F RUN ...  stalls and slow-down of runs named MODE-roundN
    .venv/bin/python scripts/report.py tokenizers tokenizers.json       MB/s against other libraries
    .venv/bin/python scripts/report.py data tokenize.json loader.json   speed by threads, memory by size, and waiting for rows
    .venv/bin/python scripts/report.py profile profile.jsonl ...        YOCO's inference tables: measured, and computed where marked
    .venv/bin/python scripts/report.py cache-types FOLDER               loss, needles, state and time by the type of the cache
    .venv/bin/python scripts/report.py html PATH ... --out report.html  one page of runs, evaluations, sweeps; needs no network
"""

import argparse
import collections
import json
import math
import pathlib
import re
import statistics
import sys

from report_common import name_of, print_table, read_lines


def read_paper_ratios(path):
    """{tokens: {"memory", "prefill", "throughput" where the paper has it}}, from the table that the program is built with."""
    rows = re.findall(r"^\{(\d+), ([\d.]+), ([\d.]+), ([\d.]+|\{\})\},$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {int(tokens): {name: float(value) for name, value in zip(("memory", "prefill", "throughput"), values) if value != "{}"}
            for tokens, *values in rows}


PAPER_RATIOS = read_paper_ratios(pathlib.Path(__file__).parent.parent / "cli/yoco_paper_ratios.inc")
PAPER_NOTE = "paper: 3B, H100, total memory (weights and the rest too); 1,024 tokens generated, batch sizes not stated"


def read_benchmarks(paths):
    return [record for path in paths for record in read_lines(path) if record["benchmark"] == "inference"]


def spread(values):
    """Sample standard deviation; nan for one value."""
    return statistics.stdev(values) if len(values) > 1 else math.nan


def compare(path):
    """One line a model; differences are between runs of the same seed."""
    by_model = collections.defaultdict(dict)
    parameters = {}
    for record in read_lines(path):
        model, seed = pathlib.Path(record["model"]).name.rsplit("-seed", 1)
        by_model[model][int(seed)] = record["nll"]
        parameters[model] = record["parameters"]
    reference = by_model["transformer"]
    if not reference:
        sys.exit(f"{path}: no run is called transformer-seedN")
    rows = []
    for model, of_seed in by_model.items():
        values = list(of_seed.values())
        differences = [nll - reference[seed] for seed, nll in of_seed.items() if seed in reference]
        against = "" if model == "transformer" or not differences else f"{statistics.mean(differences):+.4f} ± {spread(differences):.4f}"
        rows.append([model, f"{parameters[model]:,}", f"{len(values)}", f"{statistics.mean(values):.4f} ± {spread(values):.4f}",
                     ", ".join(f"{value:.4f}" for value in values), against])
    print_table(["model", "parameters", "seeds", "held-out nll, mean ± standard deviation", "each",
                 "less the transformer's of the same seed"], rows)


def ratios(record, reference):
    """The reference's state and times over the model's, and the model's throughput over the reference's."""
    def over(key):
        return reference[key]["median"] / record[key]["median"]
    return {"state": reference["state_bytes"] / record["state_bytes"], "prefill": over("prefill_ms"), "decode": over("decode_ms_per_token"),
            "throughput": 1 / over("throughput_tokens_per_s")}


def case_of(record):
    return tuple(record[key] for key in ("protocol", "dtype", "cache_dtype", "prefill_chunk", "decode_length", "batch", "length"))


def against_transformer(records):
    """(record, its ratios to the Transformer of the same case) of each record that has one."""
    transformer = {case_of(record): record for record in records if record["family"] == "transformer"}
    return [(record, ratios(record, transformer[case_of(record)])) for record in records
            if record["family"] != "transformer" and case_of(record) in transformer]


def mib(n_bytes):
    return f"{n_bytes / 2**20:,.1f}"


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def median_and_range(values):
    return f"{number(values['median'])} ({number(values['min'])} – {number(values['max'])})"


def paper_cells(length):
    paper = PAPER_RATIOS.get(length, {})
    return [f"{paper[key]}x" if key in paper else "" for key in ("memory", "prefill", "throughput")]


def inference(paths):
    records = read_benchmarks(paths)
    first = records[0]
    print(f"{first['device_name']}, {first['threads']} threads, {first['dtype']} weights, prompt in pieces of {first['prefill_chunk']:,} "
          f"(0 = whole), {first['decode_length']:,} tokens generated; medians (smallest – largest)\n")
    print_table(["model", "cache", "batch", "tokens", "state, MiB", "prefill, ms", "decode, ms/token", "throughput, tokens/s", "runs"],
                [[name_of(r["model"]), r["cache_dtype"], f"{r['batch']}", f"{r['length']:,}", mib(r["state_bytes"]),
                  median_and_range(r["prefill_ms"]), median_and_range(r["decode_ms_per_token"]),
                  number(r["throughput_tokens_per_s"]["median"]), f"{r['repeats']}"] for r in records])
    compared = against_transformer(records)
    if not compared:
        return
    print("The Transformer's state and times over the model's; the model's throughput over the Transformer's\n")
    rows = [[name_of(r["model"]), r["cache_dtype"], f"{r['batch']}", f"{r['length']:,}",
             *(f"{ratio[key]:.2f}x" for key in ("state", "prefill", "decode", "throughput")),
             *(paper_cells(r["length"]) if r["family"] == "yoco" else [""] * 3)] for r, ratio in compared]
    longest = max(r["length"] for r, _ in compared)
    rows += [["not measured here", "", "", f"{length:,}", "", "", "", "", *paper_cells(length)] for length in PAPER_RATIOS if length > longest]
    print_table(["model", "cache", "batch", "tokens", "state", "prefill", "decode", "throughput", "paper: memory", "paper: prefill",
                 "paper: throughput"], rows)
    print(PAPER_NOTE)


def memory(paths):
    """One line a model, kind of cache and size of prompt pieces; one column a length."""
    records = read_benchmarks(paths)
    lengths = sorted({record["length"] for record in records})
    by_line = collections.defaultdict(dict)
    for record in records:
        by_line[record["model"], record["cache_dtype"], record["prefill_chunk"]][record["length"]] = record
    rows = []
    for (model, cache, chunk), of_length in by_line.items():
        cells = []
        for length in lengths:
            beyond = of_length[length]["prefill_beyond_state_bytes"] if length in of_length else None
            cells.append("" if beyond is None else f"{mib(of_length[length]['state_bytes'])} + {mib(beyond)}")
        rows.append([name_of(model), cache, f"in pieces of {chunk:,}" if chunk else "whole", *cells])
    print("MiB of the state + the most that prefill took beyond state and weights\n")
    print_table(["model", "cache", "prompt", *(f"{length:,} tokens" for length in lengths)], rows)


def of_row(record, value):
    return value / record["batch"]


def costs_of_row(record):
    """What a row takes; with the decode protocol one row has read the prompt for all."""
    costs = {"state": of_row(record, record["state_bytes"]), "decode": of_row(record, record["decode_ms_per_token"]["median"]),
             "prefill": record["prefill_ms"]["median"]}
    if "total_ms" in record:
        costs |= {"prefill": of_row(record, costs["prefill"]), "total": of_row(record, record["total_ms"]["median"])}
    return costs


def against_vanilla(records):
    """(record, the vanilla model's record of the same case, its costs over the model's) of each record of another model."""
    def case(record):
        same = (record[key] for key in ("protocol", "asked_batch", "memory_bytes", "dtype", "cache_dtype", "device", "device_name",
                                        "threads", "prefill_chunk"))
        return record.get("case", record["length"]), *same
    names = sorted({record["model"] for record in records if record["family"] == "gpt_neox"})
    if len(names) > 1:
        sys.exit(f"records of more than one vanilla model: {', '.join(names)}; give those of one at a time")
    vanilla = {case(record): record for record in records if record["family"] == "gpt_neox"}
    compared = []
    for record in records:
        other = vanilla.get(case(record))
        if record["family"] != "gpt_neox" and other:
            own, others = costs_of_row(record), costs_of_row(other)
            compared.append((record, other, {key: others[key] / own[key] for key in own}))
    return compared


def block_transformer(paths):
    records = read_benchmarks(paths)
    first = records[0]
    print(f"{first['device_name']}, {first['threads']} threads, {first['dtype']}; medians (smallest – largest)\n")
    decoded = [record for record in records if record["protocol"] == "decode"]
    if decoded:
        print("Decoding alone\n")
        print_table(["model", "context", "batch", "decode, ms/token", "tokens/s", "runs", "state of a row, MiB", "of all rows at the end, MiB"],
                    [[name_of(r["model"]), f"{r['prompt_length']:,}", f"{r['batch']:,}", median_and_range(r["decode_ms_per_token"]),
                      number(r["decode_tokens_per_s"]), f"{r['repeats']}", mib(of_row(r, r["state_bytes"])),
                      mib(r["batch"] * r["state_bytes_per_row_at_end"]["total"])] for r in decoded])
    whole = [record for record in records if record["protocol"] == "block-transformer"]
    if whole:
        print("The paper's protocol, prompt + generated tokens, time of the whole call\n")
        print_table(["model", "tokens", "batch", "in all, ms", "prefill, ms", "decode, ms/token", "throughput, tokens/s", "runs"],
                    [[name_of(r["model"]), r["case"], f"{r['batch']:,}", median_and_range(r["total_ms"]), median_and_range(r["prefill_ms"]),
                      median_and_range(r["decode_ms_per_token"]), number(r["throughput_tokens_per_s"]["median"]), f"{r['repeats']}"]
                     for r in whole])
    compared = against_vanilla(records)
    if not compared:
        return
    print("The vanilla model's state and times of a row over the model's\n")
    rows = []
    for record, other, ratio in compared:
        batches = f"{record['batch']:,}" if record["batch"] == other["batch"] else f"{record['batch']:,} / {other['batch']:,}"
        rows.append([name_of(record["model"]), record.get("case", f"{record['length']:,}"), batches,
                     *(f"{ratio[key]:.2f}x" if key in ratio else "" for key in ("state", "prefill", "decode", "total"))])
    print_table(["model", "tokens", "batch: model / vanilla", "state", "prefill", "decode", "in all"], rows)
    print("The same of what can be computed from the models, and of decoding at batch 1; expected: from the shapes of the paper's models\n")
    print_table(["model", "of the vanilla model over the model's", "here", "expected"],
                [row for model in dict.fromkeys(record["model"] for record, _, _ in compared)
                 for row in cost_rows([case for case in compared if case[0]["model"] == model])])


def cost_rows(compared):
    """Of one model. `compared` as of against_vanilla."""
    record, other, _ = compared[-1]
    expected = record.get("expected", {})
    if expected.get("against_parameters") != other["parameters"]:
        expected = {}

    def row(name, here, key):
        return [name_of(record["model"]), name, here, f"{expected[key]:.2f}x" if key in expected else ""]

    def over(key):
        return f"{other[key] / record[key]:.2f}x" if record[key] else "∞"
    rows = [row("linear FLOP of a generated token", over("linear_flops_per_token"), "linear_flops_per_token"),
            row("state that a token of context adds", over("state_bytes_per_context_token"), "state_bytes_per_context_token"),
            row("attention FLOP over a token of context (keys and values read)", over("attention_flops_per_context_token"),
                "attention_flops_per_context_token")]
    rows += [row(f"FLOP of a prompt of {own['prompt_length']:,} (expected: without attention)",
                 f"{others['prefill_flops']['total'] / own['prefill_flops']['total']:.2f}x", "prefill_flops")
             for own, others, _ in compared if own["protocol"] == "decode" and own["batch"] == 1]
    rows += [row(f"decode time at batch 1, context {own['length']:,} (expected: weights alone)", f"{ratio['decode']:.2f}x",
                 "decode_ms_per_token")
             for own, _, ratio in compared if own["protocol"] == "decode" and own["batch"] == 1]
    return rows


def folder_bytes(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def cost_of_run(run, first_steps):
    """Over the steps after the first `first_steps`. A stall stands in the line of the step after it, so that of the last checkpoint
    of a run, which every run writes, is in none."""
    mode, number_of_round = name_of(run).rsplit("-round", 1)
    steps = [line for line in read_lines(run / "metrics.jsonl") if "grad_norm" in line][first_steps:]
    stalls = [line["save_seconds"] for line in steps if "save_seconds" in line]
    if not steps or (mode == "none") != (not stalls):
        sys.exit(f"{run}: {len(steps)} steps and {len(stalls)} stalls, expected steps, and stalls exactly where mode is not none")
    step_seconds = sum(line["seconds"] for line in steps)
    total = step_seconds + sum(stalls)
    return {"benchmark": "checkpoint_cost", "mode": mode, "round": int(number_of_round), "steps": len(steps),
            "first_steps_left_out": first_steps, "saves": len(stalls), "step_seconds": step_seconds / len(steps),
            "stall_seconds": sum(stalls), "total_seconds": total, "stall_share": sum(stalls) / total,
            "checkpoint_bytes": max(folder_bytes(folder) for folder in (run / "checkpoints").iterdir() if folder.is_dir())}


def checkpoint_cost(runs, first_steps, out):
    costs = [cost_of_run(run, first_steps) for run in runs]
    if out:
        out.write_text("".join(json.dumps(cost) + "\n" for cost in costs), encoding="utf-8")
    without = {cost["round"]: cost for cost in costs if cost["mode"] == "none"}
    rows = []
    for mode in dict.fromkeys(cost["mode"] for cost in costs):
        of_mode = [cost for cost in costs if cost["mode"] == mode]

        def cell(values, scale=1, form=".1f"):
            return f"{scale * statistics.mean(values):{form}} ± {scale * spread(values):{form.removeprefix('+')}}"
        row = [mode, f"{len(of_mode)}", f"{of_mode[0]['saves']}", cell([cost["step_seconds"] for cost in of_mode], 1e3),
               cell([cost["total_seconds"] for cost in of_mode], form=".2f")]
        if mode == "none":
            rows.append([*row, "", "", ""])
            continue
        slower = [cost["total_seconds"] / without[cost["round"]]["total_seconds"] - 1 for cost in of_mode]
        rows.append([*row, cell([cost["stall_seconds"] / cost["saves"] for cost in of_mode], 1e3),
                     cell([cost["stall_share"] for cost in of_mode], 100), cell(slower, 100, "+.1f")])
    print(f"{costs[0]['steps']} steps after the first {first_steps}; a checkpoint has {mib(max(c['checkpoint_bytes'] for c in costs))} MiB; "
          "mean ± standard deviation over rounds\n")
    print_table(["checkpoints", "rounds", "saves", "step, ms", "total, s", "stall of a save, ms", "stalls of total, %",
                 "total against none of the same round, %"], rows)


def read_json(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


KNOWN_TEXTS = {"bible": "King James Bible", "sources": "sources of this project", "mixed": "many scripts, numbers, emoji"}
KNOWN_VOCABULARIES = {"gpt2": "GPT-2", "cl100k_base": "cl100k (GPT-4)", "sentencepiece": "4,096 sentencepiece pieces"}


def tokenizers(path):
    results = read_json(path)
    print(f"`{results['command']}` on {results['cpu']}, {results['cores']} cores, load average before {results['load_before']:.2f}; " +
          ", ".join(f"{name} {version}" for name, version in results["versions"].items()) + "\n")

    def row_of(record):
        return [KNOWN_VOCABULARIES.get(record["vocabulary"], record["vocabulary"]), KNOWN_TEXTS.get(record["text"], record["text"])]

    def in_first_pass(vocabulary, text, library):
        """The fastest call of a library on one thread."""
        return max(record["first_mb_per_s"] for record in results["records"] if record["threads"] == 1 and
                   (record["vocabulary"], record["text"], record["library"]) == (vocabulary, text, library))
    print("How many times as fast tandem is as another library, both on one thread, the ids the same. First pass: the vocabulary was just loaded and each "
          "document is met for the first time; repeats: the same documents again, when what was seen may be remembered. Ratios of medians to the faster "
          "call of the other library; in brackets the least and the most of a round.\n")
    rows = []
    for ratio in results["ratios"]:
        library = ratio["to"][0]
        if library == "tandem":
            continue
        tandem = next(record for record in results["records"] if record["library"] == "tandem" and record["threads"] == 1 and not record["call"] and
                      (record["vocabulary"], record["text"]) == (ratio["vocabulary"], ratio["text"]))
        first = tandem["first_mb_per_s"] / in_first_pass(ratio["vocabulary"], ratio["text"], library)
        rows.append([*row_of(ratio), library, f"{first:.2f}x", f"{ratio['ratio']:.2f}x ({ratio['smallest']:.2f}–{ratio['largest']:.2f})"])
    print_table(["vocabulary", "text", "tandem against", "first pass", "repeats"], rows)
    print("Speeds, MB (10^6 bytes of text) a second: medians, in brackets the least and the most.\n")
    rows = [[*row_of(record), record["library"] + (f", {record['call']}" if record["call"] else ""), str(record["threads"]), f"{record['tokens']:,}",
             f"{record['first_mb_per_s']:.1f}", f"{record['mb_per_s']:.1f} ({record['smallest_mb_per_s']:.1f}–{record['largest_mb_per_s']:.1f})"]
            for record in results["records"]]
    print_table(["vocabulary", "text", "library, its call or file", "threads", "tokens", "first pass, MB/s", "repeats, MB/s"], rows)


def data(tokenize_path, loader_path):
    results = read_json(tokenize_path)
    print(f"`{results['command']}` on {results['cpu']}, {results['cores']} cores, load average before {results['load_before']:.2f}; "
          f"tandem {results['versions']['tandem']}\n")
    rows = [[name_of(scaling["tokenizer"]), scaling["input"], str(one["threads"]), f"{one['mb_per_s']:.1f} ({one['smallest']:.1f}–{one['largest']:.1f})",
             f"{one['speedup']:.2f}"] for scaling in results["scaling"] for one in scaling["threads"]]
    print_table(["tokenizer", "input", "threads", "MB/s", "against one thread"], rows)
    rows = [[one["input"], str(one["threads"]), f"{one['bytes'] / 1e6:,.0f}", f"{one['mb_per_s']:.1f}", mib(one["peak_bytes"])] for one in results["memory"]]
    print_table(["input", "threads", "MB of text", "MB/s", "resident at most, MiB"], rows)
    rows = [["no" if one["cold"] else "yes", str(one["busy_threads"]), f"{one['bytes_per_s'] / 1e6:.2f}", f"{one['groups']:,}",
             f"{one['waited_for']} ({one['share_waited_for']:.2%})", str(one["preempted"]), number(one["longest_wait_ms"]), number(one["first_group_ms"]),
             f"{one['most_bytes_per_s'] / 1e6:,.0f}"] for one in read_json(loader_path)["runs"]]
    print_table(["in page cache", "busy threads", "MB/s of ids", "groups", "waited for", "preempted", "longest, ms", "first group, ms", "MB/s at most"], rows)


def ranks(path):
    """Step time and stalls by number of ranks and what they divide."""
    results = read_json(path)
    rows = []
    for run in results["rows"]:
        plain = run["async"]
        low, high = plain["step_ms_quartiles"]
        without = run.get("no_overlap")
        hidden = "" if without is None or without["wait_ms"] == 0 else f"{without['wait_ms']:.0f}"
        rows.append([str(run["ranks"]), run["shard"], f"{plain['step_ms']:,.0f} ({low:,.0f}–{high:,.0f})", f"{plain['sent_mb']:.1f}", f"{plain['wait_ms']:.0f}", hidden,
                     f"{plain['save_stall_ms']:.0f}", f"{run['sync']['save_stall_ms']:.0f}"])
    print_table(["ranks", "divided", "step, ms (quartiles)", "sent by a rank, MB", "waited for others, ms", "without overlap", "stall of a save beside training, ms", "in its place, ms"], rows)


def profile(paths):
    import report_profile
    records = [record for path in paths for record in read_lines(path) if record.get("evaluation") == "profile"]
    if not records:
        sys.exit(f"{', '.join(paths)}: no records of tandem eval profile")
    print(report_profile.NOTE + "\n")
    print_table(*report_profile.by_length(records))
    ratio_header, ratio_rows = report_profile.against_transformer(records, PAPER_RATIOS)
    if ratio_rows:
        print("The Transformer's memory and prompt time over YOCO's, YOCO's throughput over the Transformer's\n")
        print_table(ratio_header, ratio_rows)
        print(PAPER_NOTE + "\n")
    print_table(*report_profile.kv_by_size(records))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)

    command = commands.add_parser("compare", help="held-out loss over seeds")
    command.add_argument("path", help="records of tandem eval nll of runs MODEL-seedN, a transformer among them")
    command.set_defaults(run=lambda arguments: compare(arguments.path))

    command = commands.add_parser("inference", help="times, bytes and ratios by length")
    command.add_argument("paths", nargs="+", help="records of tandem bench inference")
    command.set_defaults(run=lambda arguments: inference(arguments.paths))

    command = commands.add_parser("memory", help="state, and what prefill takes beyond it")
    command.add_argument("paths", nargs="+", help="records of tandem bench inference")
    command.set_defaults(run=lambda arguments: memory(arguments.paths))

    command = commands.add_parser("block-transformer", help="decoding and the paper's protocol against the vanilla model, gpt_neox")
    command.add_argument("paths", nargs="+", help="records of tandem bench inference --protocol decode or block-transformer")
    command.set_defaults(run=lambda arguments: block_transformer(arguments.paths))

    command = commands.add_parser("checkpoint-cost", help="stalls and slow-down by the way of saving")
    command.add_argument("runs", nargs="+", type=pathlib.Path, help="run folders MODE-roundN; mode none saves only at the end")
    command.add_argument("--first-steps", type=int, default=5, help="left out; default %(default)s")
    command.add_argument("--out", type=pathlib.Path, help="one line of JSON a run")
    command.set_defaults(run=lambda arguments: checkpoint_cost(arguments.runs, arguments.first_steps, arguments.out))

    command = commands.add_parser("tokenizers", help="speed against other libraries")
    command.add_argument("path", help="tokenizers.json of scripts/bench_tokenizers.sh")
    command.set_defaults(run=lambda arguments: tokenizers(arguments.path))

    command = commands.add_parser("data", help="tokenizing files, and the loader")
    command.add_argument("paths", nargs=2, metavar="path", help="tokenize.json and loader.json of scripts/bench_data.sh")
    command.set_defaults(run=lambda arguments: data(*arguments.paths))

    command = commands.add_parser("ranks", help="step time and stalls of several ranks")
    command.add_argument("path", help="ranks.json of scripts/bench_ranks.py")
    command.set_defaults(run=lambda arguments: ranks(arguments.path))

    command = commands.add_parser("profile", help="memory, prompt latency, throughput and KV bytes by length and size")
    command.add_argument("paths", nargs="+", help="records of tandem eval profile")
    command.set_defaults(run=lambda arguments: profile(arguments.paths))

    command = commands.add_parser("cache-types", help="what a narrower cache of keys and values costs and saves")
    command.add_argument("folder", help="results of scripts/cache_types.sh")

    def cache_types(arguments):
        from report_cache_types import print_cache_types
        print_cache_types(arguments.folder)
    command.set_defaults(run=cache_types)

    command = commands.add_parser("html", help="one self-contained page")
    command.add_argument("paths", nargs="+", help="run folders, files of results, folders of such files")
    command.add_argument("--out", type=pathlib.Path, required=True, help="the page")

    def html(arguments):
        from report_html import write_page  # pictures need matplotlib
        write_page(arguments.paths, arguments.out)
    command.set_defaults(run=html)

    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
