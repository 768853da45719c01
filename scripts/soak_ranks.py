"""Ranks that are killed, stopped and brought back: results/soak_ranks.json.

Runs `tandem train` on a few Gloo ranks of this machine under torchrun, kills ranks at random (a third of the time inside a save), and compares what is left with a run that nobody disturbed:
the metrics and the bytes of the last checkpoint. Then ranks that are stopped, and elastic runs that change their number of ranks on the way.

  .venv/bin/python scripts/soak_ranks.py [--kills 200] [--stops 5] [--out results/soak_ranks.json]
"""
import argparse, json, os, random, shutil, signal, statistics, subprocess, sys, tempfile, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TANDEM = ROOT / "build/release/tandem"
TORCHRUN = ROOT / ".venv/bin/torchrun"

CONFIG = """model: {family: yoco, d_model: 32, ffn_dim: 64, self_decoder: {n_layers: 2, mixers: [{name: gated_retention, n_heads: 2, head_dim: 16}]},
        cross_decoder: {n_layers: 2, n_heads: 2, head_dim: 16}}
data: {tokenizer: bytes, train: [{path: DATA}], mask_documents: true}
training: {context_length: 64, tokens_per_step: 1536, micro_batch_size: 2, steps: STEPS, seed: 7, threads: 1}
optimizer: {lr: 0.003}
lr_schedule: {name: constant}
checkpoint: {every: 5, keep: 2}
metrics: {log_every: 50, tensorboard: false}
communication: {heartbeat_seconds: 3, step_seconds: 20, setup_seconds: 60}
"""
MESHES = {  # name: ranks and settings
    "none_2": (2, []),
    "parameters_3": (3, ["parallelism.shard=parameters"]),
    "optimizer_4_hybrid": (4, ["parallelism.shard=optimizer", "parallelism.replicate=2"]),
    "sequence_2_gradients_4": (4, ["parallelism.shard=gradients", "parallelism.sequence=2"]),
}
CLOCK = ("seconds", "data_seconds", "save_seconds", "wait_seconds")


def make_data(folder):
    text = folder / "text"
    text.mkdir()
    rng = random.Random(1)
    words = ["block", "key", "value", "cache", "decoder", "gate", "token", "window", "chunk", "state"]
    for i in range(40):
        (text / f"{i}.txt").write_text(" ".join(rng.choice(words) for _ in range(400)))
    subprocess.run([TANDEM, "data", "tokenize", "--tokenizer", "bytes", "--input", text, "--output", folder / "train"], check=True, capture_output=True)


def metrics(run):
    lines = []
    for line in (run / "metrics.jsonl").read_text().splitlines():
        one = json.loads(line)
        lines.append({key: value for key, value in one.items() if key not in CLOCK})
    return lines


def last_checkpoint(run):
    folder = sorted((run / "checkpoints").glob("step-*[0-9]"))[-1]
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


class Job:
    """torchrun and its ranks."""

    def __init__(self, ranks, words, restarts, log):
        self.log = open(log, "ab")
        self.process = subprocess.Popen(
            [TORCHRUN, "--no-python", "--standalone", "--nproc-per-node", str(ranks), "--max-restarts", str(restarts), "--monitor-interval", "0.1", TANDEM, "train", *map(str, words)],
            stdout=self.log, stderr=self.log, env={**os.environ, "OMP_NUM_THREADS": "1"})

    def pids(self):
        """Process ids of the ranks, by rank."""
        found = {}
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        for pid in map(int, children.read_text().split() if children.exists() else []):
            try:
                environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
            except OSError:
                continue
            for entry in environment:
                if entry.startswith(b"RANK=") and state != "Z":
                    found[int(entry[5:])] = pid
        return found

    def ended(self):
        return self.process.poll()


def lines_of(run):
    path = run / "metrics.jsonl"
    try:
        return path.read_bytes().count(b"\n")
    except OSError:
        return 0


def starts_of(run):
    try:
        return len(json.loads((run / "run.json").read_text())["starts"])
    except (OSError, ValueError):
        return 0


def wait_until(condition, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.003)
    return False


def alive(pids):
    def running(pid):
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
        except OSError:
            return False
    return [pid for pid in pids if running(pid)]


def disturbed_run(folder, name, ranks, words, count, how, rng, log):
    """Trains to the end while `count` ranks are killed or stopped; returns what was seen."""
    run = folder / name
    job = Job(ranks, words + ["--out", run], restarts=count + 5, log=log)
    seen = []
    partial = lambda: any((run / "checkpoints").glob("*.partial")) if run.exists() else False
    while len(seen) < count and job.ended() is None:
        starts = starts_of(run)
        before = lines_of(run)
        if not wait_until(lambda: job.ended() is not None or (len(job.pids()) == ranks and lines_of(run) > before), 120):
            raise SystemExit(f"{name}: no progress; see {log}")
        inside = rng.random() < 1 / 3
        if inside:
            inside = wait_until(partial, 2)
        else:
            time.sleep(rng.uniform(0, 0.4))
        pids = job.pids()
        if len(pids) < ranks or job.ended() is not None:
            continue
        victim = rng.choice(sorted(pids))
        begin = time.monotonic()
        try:
            os.kill(pids[victim], how)
        except ProcessLookupError:
            continue
        others = [pid for rank, pid in pids.items() if rank != victim]
        if not wait_until(lambda: not alive(others), 60):
            raise SystemExit(f"{name}: survivors of rank {victim} did not leave; see {log}")
        gone = time.monotonic() - begin
        if how == signal.SIGSTOP:
            os.kill(pids[victim], signal.SIGCONT)  # wakes up, and leaves at once
        if not wait_until(lambda: job.ended() is not None or starts_of(run) > starts, 120):
            raise SystemExit(f"{name}: torchrun did not start the ranks again; see {log}")
        after = lines_of(run)
        wait_until(lambda: job.ended() is not None or lines_of(run) > after, 120)
        seen.append({"rank": victim, "inside_save": inside, "survivors_left_seconds": gone, "next_step_seconds": time.monotonic() - begin})
    code = job.process.wait(timeout=600)
    return seen, code


def spread(values):
    return {"median": round(statistics.median(values), 3), "max": round(max(values), 3), "n": len(values)} if values else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--stops", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", default=None)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    folder = Path(tempfile.mkdtemp(prefix="tandem-soak-ranks-"))
    make_data(folder)
    log = folder / "log"
    result = {"command": "scripts/soak_ranks.py " + " ".join(sys.argv[1:]), "seed": arguments.seed, "cores": os.cpu_count()}
    begin = time.monotonic()

    def config(steps):
        path = folder / f"config-{steps}.yaml"
        path.write_text(CONFIG.replace("DATA", str(folder / "train")).replace("STEPS", str(steps)))
        return path

    kills, stops, differences = [], [], 0
    per_mesh = -(-arguments.kills // len(MESHES))
    for name, (ranks, settings) in MESHES.items():
        steps = max(60, per_mesh * 12)
        words = [config(steps), *settings]
        whole = Job(ranks, words + ["--out", folder / f"{name}-whole"], 0, log)
        if whole.process.wait(timeout=1200) != 0:
            raise SystemExit(f"{name}: the undisturbed run failed; see {log}")
        expected = metrics(folder / f"{name}-whole"), last_checkpoint(folder / f"{name}-whole")
        wanted, attempt, mine = per_mesh, 0, 0
        while wanted > 0:
            run_name = f"{name}-killed-{attempt}"
            seen, code = disturbed_run(folder, run_name, ranks, words, wanted, signal.SIGKILL, rng, log)
            same = code == 0 and metrics(folder / run_name) == expected[0] and last_checkpoint(folder / run_name) == expected[1]
            differences += not same
            kills += seen
            mine += len(seen)
            wanted -= len(seen)
            attempt += 1
            shutil.rmtree(folder / run_name)
        print(f"{name}: {mine} kills in {attempt} runs, {differences} differences so far, {time.monotonic() - begin:.0f} s", flush=True)
    if arguments.stops:
        ranks, settings = MESHES["parameters_3"]
        seen, code = disturbed_run(folder, "stopped", ranks, [config(max(60, per_mesh * 12)), *settings], arguments.stops, signal.SIGSTOP, rng, log)
        expected = metrics(folder / "parameters_3-whole"), last_checkpoint(folder / "parameters_3-whole")
        differences += not (code == 0 and metrics(folder / "stopped") == expected[0] and last_checkpoint(folder / "stopped") == expected[1])
        stops = seen
        print(f"stopped: {len(stops)}, {differences} differences so far", flush=True)
    result["kills"] = len(kills)
    result["kills_inside_a_save"] = sum(kill["inside_save"] for kill in kills)
    result["survivors_left_seconds"] = spread([kill["survivors_left_seconds"] for kill in kills])
    result["kill_to_next_step_seconds"] = spread([kill["next_step_seconds"] for kill in kills])
    result["stops"] = len(stops)
    result["stop_noticed_seconds"] = spread([stop["survivors_left_seconds"] for stop in stops])
    result["heartbeat_seconds"] = 3

    # Elastic: ranks change on the way; losses and weights keep their bits.
    words = [config(60), "training.deterministic=elastic", "checkpoint.every=8"]
    subprocess.run([TANDEM, "train", *map(str, words), "--out", folder / "elastic-1"], check=True, stdout=open(log, "ab"), stderr=open(log, "ab"))
    hops = [1, 2, 4, 8, 3, 6, 1]
    for i, ranks in enumerate(hops):
        stop = ["--stop-at", str(8 * (i + 1))] if i + 1 < len(hops) else []
        if Job(ranks, [*words, "--out", folder / "elastic-hops", *stop], 0, log).process.wait(timeout=600) != 0:
            raise SystemExit(f"elastic: {ranks} ranks failed; see {log}")
    strip = lambda lines: [{k: v for k, v in line.items() if k != "sent_bytes"} for line in lines]
    weights = lambda run: last_checkpoint(run)["model.safetensors"]
    same = strip(metrics(folder / "elastic-1")) == strip(metrics(folder / "elastic-hops")) and weights(folder / "elastic-1") == weights(folder / "elastic-hops")
    result["elastic_ranks"] = hops
    result["elastic_identical"] = same
    result["differences"] = differences + (not same)
    result["seconds"] = round(time.monotonic() - begin, 1)
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out:
        Path(arguments.out).write_text(text + "\n")
    if result["differences"]:
        raise SystemExit(f"differences were found; everything is in {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
