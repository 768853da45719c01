"""What dividing rows among ranks gives and costs (parallelism.sequence): results/sequence.json.

  longest   the longest row, in powers of two, that trains while every rank stays below --memory of resident memory, for 1, 2 and 4 ranks
  chain     seconds of a step where each rank holds 4,096 tokens of the row, for a model of gated retention alone. The ranks share this machine's cores, so with R ranks on C cores the work alone takes
            R / min(R, C) times as long; if each rank waited for the one before it, R times.

Ranks are processes of one thread over Gloo.

  .venv/bin/python scripts/bench_sequence.py [--memory 1.0] [--out results/sequence.json]
"""
import argparse, json, os, shutil, socket, statistics, subprocess, sys, tempfile
from pathlib import Path

from bench_ranks import TANDEM, make_data

MODELS = {
    "yoco": """  family: yoco
  d_model: 128
  ffn_dim: 384
  self_decoder: {n_layers: 2, mixers: [{name: gated_retention, n_heads: 2, head_dim: 64}]}
  cross_decoder: {n_layers: 2, n_heads: 2, n_kv_heads: 1, head_dim: 64}
""",
    "retention": """  family: hybrid
  d_model: 128
  ffn_dim: 384
  n_layers: 6
  mixers: [{name: gated_retention, n_heads: 2, head_dim: 64}]
""",
}
CONFIG = """model:
MODELdata: {tokenizer: bytes, train: [{path: DATA}]}
training: {context_length: LENGTH, tokens_per_step: LENGTH, micro_batch_size: 1, steps: STEPS, threads: 1}
optimizer: {lr: 0.001}
lr_schedule: {name: constant}
checkpoint: {every: STEPS, keep: 2}
metrics: {log_every: 100, tensorboard: false}
parallelism: {sequence: RANKS}
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def train(folder, model, ranks, length, steps):
    """(seconds of each step, largest resident memory of any rank in bytes)."""
    config = folder / "config.yaml"
    values = {"MODEL": MODELS[model], "DATA": str(folder / "train"), "LENGTH": str(length), "STEPS": str(steps), "RANKS": str(ranks)}
    text = CONFIG
    for key, value in values.items():
        text = text.replace(key, value)
    config.write_text(text)
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    port = free_port()
    children = []
    for rank in range(ranks):
        words = [TANDEM, "train", config, "--device", "cpu", "--out", run]
        if ranks > 1:
            words += ["--rank", rank, "--world", ranks, "--local-rank", rank, "--port", port]
        children.append(subprocess.Popen([str(word) for word in words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True))
    peak, failed = 0, []
    for child in children:
        _, status, usage = os.wait4(child.pid, 0)
        peak = max(peak, usage.ru_maxrss * 1024)
        if status != 0:
            failed.append(child.stderr.read())
    if failed:
        raise SystemExit(failed[0])
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["seconds"] for line in lines if "seconds" in line], peak


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", type=float, default=1.0, help="GiB that a rank may hold")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--out", default=None)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tandem-bench-sequence-"))
    make_data(folder)
    result = {"command": "scripts/bench_sequence.py " + " ".join(sys.argv[1:]), "cores": os.cpu_count(), "load_before": os.getloadavg()[0], "limit_gib": arguments.memory, "longest": [], "chain": []}
    for ranks in (1, 2, 4):
        seconds, _ = train(folder, "retention", ranks, 4096 * ranks, arguments.steps)
        row = {"ranks": ranks, "tokens": 4096 * ranks, "step_s": statistics.median(seconds[1:]), "smallest": min(seconds[1:]), "largest": max(seconds[1:])}
        result["chain"].append(row)
        print(json.dumps(row), flush=True)
    for model in MODELS:
        for ranks in (1, 2, 4):
            length, longest, peak_there = 4096, 0, 0
            while length <= 4096 * 64:
                _, peak = train(folder, model, ranks, length, 1)
                if peak > arguments.memory * 2**30:
                    break
                longest, peak_there, length = length, peak, length * 2
            row = {"model": model, "ranks": ranks, "longest": longest, "peak_gib": peak_there / 2**30, "refused": length, "refused_peak_gib": peak / 2**30}
            result["longest"].append(row)
            print(json.dumps(row), flush=True)
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(result, indent=2) + "\n")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
