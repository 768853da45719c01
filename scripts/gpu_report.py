#!/usr/bin/env python3
"""What scripts/gpu_check.sh found: WORK's parts, gtest results, training metrics and benchmarks into OUT/gpu_check.json and OUT/summary.txt."""
import json
import statistics
import sys
from pathlib import Path

COLUMNS = ("part", "passed", "failed", "skipped", "seconds", "how it ended")


def json_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines() if line] if path.exists() else []


def tests_of(path):
    """Results by name: {"result": passed | failed | skipped, "message": the first one, "seconds"}."""
    tests = {}
    for suite in json.loads(path.read_text())["testsuites"]:
        for test in suite["testsuite"]:
            messages = [entry.get("failure", entry.get("message", "")) for entry in test.get("failures", []) + test.get("skipped", [])]
            result = "failed" if "failures" in test else "skipped" if test["result"] == "SKIPPED" else "passed"
            tests[f'{suite["name"]}.{test["name"]}'] = {
                "result": result, "seconds": float(test["time"].rstrip("s")), "message": messages[0] if messages else ""}
    return tests


def training_of(run):
    """Median seconds of the steps after the first ten, when kernels are loaded and memory is found, and losses."""
    lines = json_lines(run / "metrics.jsonl")
    steps = [line for line in lines if "loss" in line and "seconds" in line]
    settled = [line["seconds"] for line in steps if line["step"] > 10]
    if not settled:
        return None
    return {"steps": len(steps), "step_seconds": statistics.median(settled), "first_loss": steps[0]["loss"], "last_loss": steps[-1]["loss"]}


def main():
    work, out = map(Path, sys.argv[1:])
    report = {"facts": (work / "facts.txt").read_text().splitlines(), "parts": [], "bench": json_lines(work / "bench.jsonl")}
    rows, all_good = [], True
    for line in (work / "parts.tsv").read_text().splitlines():
        name, code, seconds = line.split("\t")
        part = {"name": name, "code": code, "seconds": int(seconds)}
        ended = {"0": "done", "124": "ran past its time", "137": "ran past its time", "skipped": "no time left"}.get(code, f"exit code {code}")
        counts = {"passed": "", "failed": "", "skipped": ""}
        good = code == "0"
        if name.startswith("test "):
            path = work / f"test-{name[5:]}.json"
            part["tests"] = tests_of(path) if path.exists() else {}
            results = [test["result"] for test in part["tests"].values()]
            counts = {key: results.count(key) for key in counts}
            if "passed" not in results:
                good, ended = False, ended if code != "0" else "no test ran"
        elif name.startswith("train "):
            part["training"] = training_of(work / f'run-{name[6:].replace(" ", "-")}')
            if part["training"]:
                t = part["training"]
                ended += f', {1e3 * t["step_seconds"]:.1f} ms a step, loss {t["first_loss"]:.3f} to {t["last_loss"]:.3f}'
        report["parts"].append(part)
        rows.append((name, *counts.values(), seconds, ended))
        all_good = all_good and good
    report["passed"] = all_good
    (out / "gpu_check.json").write_text(json.dumps(report, indent=1) + "\n")

    lines = list(report["facts"])
    table = [COLUMNS] + [tuple(map(str, row)) for row in rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(COLUMNS))]
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in table]
    for part in report["parts"]:
        for name, test in part.get("tests", {}).items():
            if test["result"] == "failed":
                lines.append(f'FAILED {name}: {" ".join(test["message"].split())[:300]}')
    skipped = {test["message"].split("\n")[-1] for part in report["parts"] for test in part.get("tests", {}).values() if test["result"] == "skipped"}
    lines += [f"skipped because: {reason}" for reason in sorted(skipped)]
    for record in report["bench"]:
        lines.append(f'{record["model"]} {record["dtype"]}, batch {record["batch"]}, prompt {record["prompt_length"]}: '
                     f'prefill {record["prefill_ms"]["median"]:.2f} ms, {record["decode_ms_per_token"]["median"]:.3f} ms a token')
    lines.append("all passed" if all_good else "something failed")
    text = "\n".join(lines) + "\n"
    (out / "summary.txt").write_text(text)
    print(text, end="")
    return 0 if all_good else 1


if __name__ == "__main__":
    sys.exit(main())
