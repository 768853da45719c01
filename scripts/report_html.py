"""One self-contained HTML page of runs, evaluations and sweeps: `report.py html PATH ... --out report.html`.

A PATH is a run folder, a file of results (.jsonl, or one .json), or a folder of such (a sweep: its sweep.jsonl, bench.jsonl, fits.jsonl). The page
needs no network: its pictures are SVG inside it. Lines are told apart by "evaluation", "benchmark" or "sweep"; kinds that have no section of
their own get a table of all their fields.
"""

import collections
import html
import json
import pathlib
import sys

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; border-bottom: 1px solid #ccc; } h3 { font-size: 1.05rem; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; margin: 0.5rem 0 1rem; }
th, td { padding: 0.2rem 0.6rem; text-align: right; border-bottom: 1px solid #e6e6e6; } th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 1px solid #999; position: sticky; top: 0; background: #fff; }
.wide { overflow-x: auto; } figure { margin: 1rem 0; } figure svg { max-width: 100%; height: auto; }
pre { background: #f6f6f6; padding: 0.7rem; overflow-x: auto; font-size: 0.8rem; } .note { color: #666; font-size: 0.85rem; }
"""


class Page:
    """HTML that grows; every text that it is given is escaped but pictures."""

    def __init__(self):
        self.parts = []

    def heading(self, level, text):
        self.parts.append(f"<h{level}>{html.escape(text)}</h{level}>")

    def note(self, text):
        self.parts.append(f'<p class="note">{html.escape(text)}</p>')

    def picture(self, svg, caption=""):
        if svg:
            below = f"<figcaption class=\"note\">{html.escape(caption)}</figcaption>" if caption else ""
            self.parts.append(f"<figure>{svg}{below}</figure>")

    def table(self, header, rows):
        if not rows:
            return
        def cells(tag, values):
            return "".join(f"<{tag}>{html.escape(str(value))}</{tag}>" for value in values)
        self.parts.append('<div class="wide"><table><thead><tr>' + cells("th", header) + "</tr></thead><tbody>" +
                          "".join(f"<tr>{cells('td', row)}</tr>" for row in rows) + "</tbody></table></div>")

    def folded(self, summary, text):
        self.parts.append(f"<details><summary>{html.escape(summary)}</summary><pre>{html.escape(text)}</pre></details>")

    def html(self, title):
        return ('<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
                f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n<body>\n<h1>{html.escape(title)}</h1>\n" +
                "\n".join(self.parts) + "\n</body>\n</html>\n")


def read_records(path):
    """Of .jsonl one a line, of .json the whole. A line that is no object ends the program with its number."""
    text = path.read_text(encoding="utf-8")
    texts = [text] if path.suffix == ".json" else text.splitlines()
    records = []
    for i, one in enumerate(texts):
        if not one.strip():
            continue
        try:
            record = json.loads(one)
        except json.JSONDecodeError as error:
            sys.exit(f"{path}:{i + error.lineno}: not JSON: {error.msg}")
        if not isinstance(record, dict):
            sys.exit(f"{path}:{i + 1}: expected an object")
        records.append(record)
    return records


def kind_of(record):
    for key in ("evaluation", "benchmark"):
        if isinstance(record.get(key), str):
            return record[key]
    return "sweep" if "sweep" in record else "other"


def result_files(folder):
    return sorted(path for path in folder.iterdir() if path.suffix in (".jsonl", ".json") and path.is_file())


def write_page(paths, out):
    from report_html_sections import SECTIONS, add_generic, add_run  # matplotlib takes a second to load
    page = Page()
    shown = 0
    for path in map(pathlib.Path, paths):
        if (path / "metrics.jsonl").is_file():
            page.heading(2, f"Run {path}")
            add_run(page, path)
            shown += 1
            continue
        files = result_files(path) if path.is_dir() else [path]
        for file in files:
            if not file.is_file():
                sys.exit(f"{file}: no such file; expected a run folder, a .jsonl or .json file of results, or a folder of such")
            by_kind = collections.defaultdict(list)
            for record in read_records(file):
                by_kind[kind_of(record)].append(record)
            for kind, records in by_kind.items():
                page.heading(2, f"{file}: {kind}, {len(records):,} record{'s' if len(records) > 1 else ''}")
                SECTIONS.get(kind, add_generic)(page, records)
                shown += 1
    if not shown:
        sys.exit(f"{', '.join(map(str, paths))}: no run and no results")
    title = "Tandem: " + ", ".join(pathlib.Path(path).name for path in paths)
    pathlib.Path(out).write_text(page.html(title), encoding="utf-8")
    print(out)
