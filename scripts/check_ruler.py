"""Are RULER samples of tandem built like those of RULER's own generator? Reads both, and compares what each task's samples are made of.

    tandem eval needle RUN --protocol ruler --tasks all --lengths 2048 --samples 12 --haystack FOLDER --cache ours
    .venv/bin/python scripts/check_ruler.py --ours ours --official FOLDER --out results/ruler_check.json

--official: a folder TASK/validation.jsonl for each of the eight needle tasks, as RULER's scripts/data/synthetic/niah.py writes them. Words, numbers,
places and haystacks are drawn anew by each, so that no text is compared but its parts: the wording around the context, how many needles there are, of
what keys and values, what stands between them and the rest, which of them are asked for and how, and what the answers are. Exit code 1 where they differ.
"""

import argparse
import collections
import json
import pathlib
import re
import sys

TASKS = ("niah_single_1", "niah_single_2", "niah_single_3", "niah_multikey_1", "niah_multikey_2", "niah_multikey_3", "niah_multivalue", "niah_multiquery")
FRAME = re.compile(r"(?P<head>\w+ special magic (?P<kind>\w+) \w+ hidden within .*?\n)(?P<context>.*)\n(?P<tail>What \w+(?: \w+)? the special magic .*)", re.DOTALL)
NEEDLE = re.compile(r"One of the special magic (\w+) for (.+?) is: (\S+)\.")
KINDS = {"uuid": r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", "number of 7 digits": r"[1-9]\d{6}", "words": r"[A-Za-z].*-.+"}


def kind_of(text):
    return next((name for name, form in KINDS.items() if re.fullmatch(form, text)), f"unknown: {text}")


def query_of(tail):
    return re.match(r"What \w+(?: all)? the special magic \w+ for (.*?) mentioned in the provided text\?", tail).group(1)


def enumerated(words):
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + ", and " + words[-1]


def edges(context, needle):
    """What stands before and behind a needle; nothing at the ends of the text."""
    begin, end = needle.span()
    return {repr(side) for side in (context[begin - 1:begin], context[end:end + 1]) if side}


def structure(sample):
    """What a sample is made of, its drawn words, numbers and places left out."""
    frame = FRAME.fullmatch(sample["input"] + sample.get("answer_prefix", ""))
    if not frame:
        return {"frame": "not RULER's"}
    context, query = frame["context"], query_of(frame["tail"])
    needles = list(NEEDLE.finditer(context))
    asked = re.split(r", and |, ", query)
    values = collections.defaultdict(list)
    for needle in needles:
        values[needle[2]].append(needle[3])
    lines = context.split("\n")
    fillers = [line for line in lines if not NEEDLE.fullmatch(line)]
    only_needles = len(lines) > 1 and not fillers
    return {
        "wording": (frame["head"] + "..." + frame["tail"]).replace(query, "QUERY"),
        "query": enumerated(["KEY"] * len(asked)) if query == enumerated(asked) else "other",
        "needles": "every line" if only_needles else len(needles),
        "plural": sorted({needle[1] for needle in needles}),
        "keys": sorted({kind_of(key) for key in values}),
        "values": sorted({kind_of(value) for of_key in values.values() for value in of_key}),
        "values of a key asked for": sorted({len(values[key]) for key in asked}),
        "keys not asked for": "many" if only_needles else len(set(values) - set(asked)),
        "around a needle": sorted(set().union(*(edges(context, needle) for needle in needles))),
        "filler": "needles" if only_needles else "noise" if len(lines) > 1 and set(fillers) == {fillers[0]} and fillers[0].startswith("The grass is green.") else
                  "one line of text" if len(lines) == 1 else "lines of text",
        "filler text": fillers[0] if len(lines) > 1 and fillers else "",
        "answers": "every value of the keys asked for, by key" if sorted(sample["outputs"]) == sorted(v for key in asked for v in values[key]) and
                   [key for value in sample["outputs"] for key in asked if value in values[key]] == [key for key in asked for _ in values[key]] else "others",
    }


def samples_of(folder, task):
    """Of TASK/validation.jsonl, or of sets that tandem keeps (PROTOCOL-TASK-LENGTH-HASH/validation.jsonl)."""
    files = [path for path in sorted(folder.glob("*/validation.jsonl")) if path.parent.name == task or path.parent.name.startswith(f"ruler-{task}-")]
    samples = [json.loads(line) for path in files for line in path.read_text(encoding="utf-8").splitlines()]
    if not samples:
        sys.exit(f"{folder}: no samples of {task}, expected {task}/validation.jsonl or ruler-{task}-*/validation.jsonl")
    return samples


def kinds_of(samples):
    """{part: the forms it takes}"""
    found = collections.defaultdict(set)
    for sample in samples:
        for part, form in structure(sample).items():
            found[part].add(json.dumps(form))
    return {part: sorted(forms) for part, forms in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", type=pathlib.Path, required=True, help="the folder given to --cache")
    parser.add_argument("--official", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, help="the comparison as JSON")
    arguments = parser.parse_args()
    result = {"check": "ruler", "tasks": {}, "differences": 0}
    for task in TASKS:
        ours, official = samples_of(arguments.ours, task), samples_of(arguments.official, task)
        mine, theirs = kinds_of(ours), kinds_of(official)
        parts = sorted(set(mine) | set(theirs))
        different = [part for part in parts if mine.get(part) != theirs.get(part)]
        for part in different:
            print(f"{task}: {part}: ours {mine.get(part)}, RULER's {theirs.get(part)}")
        print(f"{task}: {len(ours)} samples of ours, {len(official)} of RULER's, {len(parts) - len(different)} of {len(parts)} parts alike")
        result["tasks"][task] = {"ours": len(ours), "official": len(official), "parts": {part: mine.get(part) for part in parts}, "different": different}
        result["differences"] += len(different)
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.exit(1 if result["differences"] else 0)


if __name__ == "__main__":
    main()
