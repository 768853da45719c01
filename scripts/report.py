"""Tables in Markdown out of what evaluations left behind.

    .venv/bin/python scripts/report.py compare nll.jsonl    mean and spread over seeds of runs named MODEL-seedN
"""

import argparse
import collections
import json
import math
import pathlib
import statistics


def read_lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


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
    print("| model | parameters | seeds | held-out nll, mean ± standard deviation | each | less the transformer's of the same seed |")
    print("|---|---|---|---|---|---|")
    for model, of_seed in by_model.items():
        values = list(of_seed.values())
        differences = [nll - reference[seed] for seed, nll in of_seed.items()]
        against = "" if model == "transformer" else f"{statistics.mean(differences):+.4f} ± {spread(differences):.4f}"
        each = ", ".join(f"{value:.4f}" for value in values)
        print(f"| {model} | {parameters[model]:,} | {len(values)} | {statistics.mean(values):.4f} ± {spread(values):.4f} | {each} | {against} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("compare")
    command.add_argument("path")
    command.set_defaults(run=lambda arguments: compare(arguments.path))
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
