"""What the reports share: reading records, naming models, tables in Markdown."""

import json
import pathlib


def read_lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def name_of(path):
    """Of a run folder, checkpoint or config."""
    return pathlib.Path(path).name.removesuffix(".yaml")


def print_table(header, rows):
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()
