"""`tandem data tokenize` from files to files: its speed by threads, its memory by the size of the input; and the loader at the pace of training.

    scripts/bench_data.sh      prepares all that this needs and calls it

Inputs are JSON lines of the text over and over. In each copy but the first, every 16th document has its letters put in the place of others, other
ones in each copy: new words keep coming, so that memory which grew with them would show. Speeds are MB (10^6 bytes of text) by the wall clock of the
whole command, start and fsync included; memory is the most that was resident.
"""

import argparse
import hashlib
import json
import os
import pathlib
import random
import resource
import shutil
import statistics
import string
import subprocess
import sys
import time

import bench_common

SIZES = [10, 100, 1000]  # MB


def write_input(path, documents, size):
    """JSON lines of at least `size` bytes."""
    written, copy = 0, 0
    with open(path, "wb") as file:
        while written < size:
            order = random.Random(copy).sample(string.ascii_lowercase, 26)
            letters = str.maketrans(string.ascii_letters, "".join(order) + "".join(order).upper())
            for i, document in enumerate(documents):
                text = document.translate(letters) if copy > 0 and i % 16 == 0 else document
                written += file.write((json.dumps({"text": text}, ensure_ascii=False) + "\n").encode())
                if written >= size:
                    break
            copy += 1


def run(command, log):
    """Its standard output, wall-clock seconds and most resident bytes; standard error goes behind `log`."""
    with open(log, "ab") as errors, open(log.with_suffix(".out"), "w+b") as out:
        begin = time.perf_counter()
        pid = os.posix_spawnp(command[0], command, os.environ,
                              file_actions=[(os.POSIX_SPAWN_DUP2, out.fileno(), 1), (os.POSIX_SPAWN_DUP2, errors.fileno(), 2)])
        _, status, usage = os.wait4(pid, 0)
        seconds = time.perf_counter() - begin
        out.seek(0)
        text = out.read().decode()
    if status != 0:
        sys.exit(f"{' '.join(command)}: failed, see {log}")
    # A child counts what its parent held when it was started.
    if usage.ru_maxrss <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss:
        sys.exit("memory cannot be told: this script takes more than the program")
    return text, seconds, usage.ru_maxrss * 1024


def sha256_of(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Bench:
    def __init__(self, tandem, work):
        self.tandem, self.work = tandem, work

    def tokenize(self, tokenizer, path, threads):
        """A record of one run; its output is left as OUTPUT.bin, .idx and .manifest.json in the work folder."""
        output = self.work / "output"
        for old in self.work.glob("output.*"):
            old.unlink()
        text, seconds, peak = run([self.tandem, "data", "tokenize", "--tokenizer", str(tokenizer), "--input", str(path),
                                   "--output", str(output), "--threads", str(threads), "--json"], self.work / "tokenize.log")
        result = json.loads(text)
        return {"tokenizer": str(tokenizer), "input": path.name, "input_bytes": path.stat().st_size,
                **{key: result[key] for key in ("bytes", "documents", "tokens")}, "threads": threads, "seconds": seconds,
                "mb_per_s": result["bytes"] / 1e6 / seconds, "peak_bytes": peak,
                "sha256": {name: sha256_of(f"{output}{name}") for name in (".bin", ".idx", ".manifest.json")}}

    def scaling(self, tokenizer, path, threads, rounds):
        """Numbers of threads take turns; all must write the same bytes."""
        runs = [self.tokenize(tokenizer, path, n) for turn in range(rounds) for n in (threads if turn % 2 == 0 else reversed(threads))]
        if len({tuple(one["sha256"].values()) for one in runs}) > 1:
            sys.exit(f"{path}: the result depends on the number of threads")
        speeds = {n: [one["mb_per_s"] for one in runs if one["threads"] == n] for n in threads}
        return {"tokenizer": str(tokenizer), "input": path.name, "same_output": True,
                "threads": [{"threads": n, "mb_per_s": statistics.median(speeds[n]), "smallest": min(speeds[n]), "largest": max(speeds[n]),
                             "speedup": statistics.median(speeds[n]) / statistics.median(speeds[threads[0]])} for n in threads],
                "runs": runs}

    def loader(self, seconds, busy_threads, cold):
        with open(self.work / "output.bin", "rb") as file:
            if cold:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                while file.read(1 << 24):
                    pass
        text, _, _ = run([self.tandem, "bench", "loader", str(self.work / "output"), "--context-length", "2048", "--rows", "8",
                          "--rate", "1.5e6", "--seconds", str(seconds), "--busy-threads", str(busy_threads), "--json"],
                         self.work / "loader.log")
        return {"cold": cold, **json.loads(text)}


def measure_tokenizing(bench, tokenizers, paths, threads, rounds):
    """Speed by threads, then memory by size."""
    middle = paths[-2] if len(paths) > 1 else paths[0]
    scaling = []
    for tokenizer in tokenizers:
        for path in dict.fromkeys([middle, paths[-1]] if tokenizer == tokenizers[0] else [middle]):
            print(f"speed with {tokenizer} on {path} by threads", file=sys.stderr)
            scaling.append(bench.scaling(tokenizer, path, threads, rounds))
    packed = []
    if shutil.which("zstd"):
        packed = [middle.with_suffix(".jsonl.zst")]
        subprocess.run(["zstd", "--quiet", "--force", str(middle), "-o", str(packed[0])], check=True)
    memory = []
    for path in [*packed, *paths]:
        print(f"memory on {path}", file=sys.stderr)
        memory.append(bench.tokenize(tokenizers[0], path, threads[-1]))
    return {"scaling": scaling, "memory": memory}


def measure_loader(bench, tokenizer, path, cores, seconds):
    """On the tokens of one input, its file in the page cache and not, with idle cores and with busy ones."""
    print(f"loader on {path}", file=sys.stderr)
    bench.tokenize(tokenizer, path, cores)
    return {"runs": [bench.loader(seconds, busy, cold) for busy in (0, cores) for cold in (True, False)]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tandem", required=True, help="the program")
    parser.add_argument("--text", required=True, type=pathlib.Path, help="cut into documents at blank lines, or JSON lines")
    parser.add_argument("--tokenizers", required=True, nargs="+", help="speed is measured with each, memory with the first")
    parser.add_argument("--parts", nargs="+", choices=["tokenize", "loader"], default=["tokenize", "loader"], help="what is measured")
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES,
                        help="of the inputs, MB, the largest last; speed is measured on the last but one, with the first tokenizer also on the last")
    parser.add_argument("--rounds", type=int, default=3, help="runs for each number of threads")
    parser.add_argument("--seconds", type=float, default=10, help="of each part of the loader's runs")
    parser.add_argument("--command", required=True, help="what is recorded as the way to the results")
    parser.add_argument("--load-before", required=True, type=float, help="the load average before all this, recorded too")
    parser.add_argument("--work", required=True, type=pathlib.Path, help="folder for inputs and outputs, 2.5 times the largest input")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="folder for the results, tokenize.json and loader.json")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    machine = bench_common.machine()
    about = {"command": arguments.command, **machine, "load_before": arguments.load_before,
             "versions": {"tandem": bench_common.version_of(arguments.tandem)}}
    threads = sorted({1, machine["cores"]})

    documents = bench_common.documents_of(arguments.text)
    sizes = arguments.sizes if "tokenize" in arguments.parts else arguments.sizes[-1:]
    paths = [arguments.work / f"{size}mb.jsonl" for size in sizes]
    for path, size in zip(paths, sizes):
        print(f"writes {path}", file=sys.stderr)
        write_input(path, documents, size * 1_000_000)

    bench = Bench(arguments.tandem, arguments.work)
    parts = {"tokenize": lambda: measure_tokenizing(bench, arguments.tokenizers, paths, threads, arguments.rounds),
             "loader": lambda: measure_loader(bench, arguments.tokenizers[0], paths[-1], machine["cores"], arguments.seconds)}
    for part in arguments.parts:
        results = {"benchmark": part, **about, **parts[part]()}
        (arguments.out / f"{part}.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for pattern in ("*mb.jsonl*", "output.*"):
        for made in arguments.work.glob(pattern):
            made.unlink()


if __name__ == "__main__":
    main()
