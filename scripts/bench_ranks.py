"""Step time of 1, 2 and 4 ranks on this machine at each level of sharding, with checkpoints beside the training and not: results/ranks.json.

Every run trains the same model on the same samples; the ranks share the machine's cores, so that more of them are not faster here: what the table shows is what sharing costs. A step's time is the median
over the steps after the first five. `wait` is what the first rank waits for others' gradients and weights; with `overlap: false` gradients travel after the backward pass, so the difference is what travels under it.

  .venv/bin/python scripts/bench_ranks.py [--steps 30] [--out results/ranks.json]
"""
import argparse, json, os, random, shutil, statistics, subprocess, sys, tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TANDEM = ROOT / "build/release/tandem"
TORCHRUN = ROOT / ".venv/bin/torchrun"
CONFIG = """model: {family: yoco, d_model: 192, ffn_dim: 512, self_decoder: {n_layers: 3, mixers: [{name: gated_retention, n_heads: 3, head_dim: 64}]},
        cross_decoder: {n_layers: 3, n_heads: 6, head_dim: 32}}
data: {tokenizer: bytes, train: [{path: DATA}]}
training: {context_length: 256, tokens_per_step: 4096, micro_batch_size: 2, steps: STEPS, threads: 1}
optimizer: {lr: 0.001}
lr_schedule: {name: constant}
checkpoint: {every: 10, keep: 1}
metrics: {log_every: 100, tensorboard: false}
parallelism: {bucket_mb: 2}
"""


def make_data(folder):
    rng = random.Random(1)
    (folder / "text.txt").write_text(" ".join(rng.choice(["block", "key", "value", "cache", "decoder", "gate"]) for _ in range(300_000)))
    subprocess.run([TANDEM, "data", "tokenize", "--tokenizer", "bytes", "--input", folder / "text.txt", "--output", folder / "train"], check=True, capture_output=True)


def measure(folder, ranks, settings, steps):
    config = folder / "config.yaml"
    config.write_text(CONFIG.replace("DATA", str(folder / "train")).replace("STEPS", str(steps)))
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    words = [TANDEM, "train", config, *settings, "--device", "cpu", "--out", run]
    if ranks > 1:
        words = [TORCHRUN, "--no-python", "--standalone", "--nproc-per-node", str(ranks), *words]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()][5:]
    stalls = [line["save_seconds"] for line in lines if "save_seconds" in line]
    seconds = [line["seconds"] for line in lines]
    return {
        "step_ms": round(1000 * statistics.median(seconds), 1),
        "step_ms_quartiles": [round(1000 * q, 1) for q in statistics.quantiles(seconds, n=4)[::2]],
        "save_stall_ms": round(1000 * statistics.median(stalls), 1),
        "wait_ms": round(1000 * statistics.median(line.get("wait_seconds", 0) for line in lines), 1),
        "sent_mb": round(statistics.median(line.get("sent_bytes", 0) for line in lines) / 1e6, 3),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--out", default=None)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tandem-bench-ranks-"))
    make_data(folder)
    result = {"command": "scripts/bench_ranks.py " + " ".join(sys.argv[1:]), "cores": os.cpu_count(), "load_before": os.getloadavg()[0], "rows": []}
    for ranks in (1, 2, 4):
        for level in ("none",) if ranks == 1 else ("none", "optimizer", "gradients", "parameters"):
            row = {"ranks": ranks, "shard": level}
            base = [f"parallelism.shard={level}"]
            row["async"] = measure(folder, ranks, base, arguments.steps)
            row["sync"] = measure(folder, ranks, [*base, "checkpoint.async=false"], arguments.steps)
            if ranks > 1:
                row["no_overlap"] = measure(folder, ranks, [*base, "parallelism.overlap=false"], arguments.steps)
            result["rows"].append(row)
            print(json.dumps(row), flush=True)
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(result, indent=2) + "\n")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
