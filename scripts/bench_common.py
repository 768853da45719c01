"""What the benchmarks of the data pipeline share: the machine, and the texts as lists of documents."""

import json
import os
import pathlib
import random
import subprocess

ROOT = pathlib.Path(__file__).parent.parent
HAN = ("的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方多经么去"
       "法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性知全三又关点"
       "正业外将两高间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给世位次度门任常先海通教")
KANA = "のにはをたがでてとしれさるいなうかもこらりまくきよえあどけつせそわめ"
HANGUL = "이다는을가의에하고지은도기리사어를자로인나시한서해수일그대아니들과만보정있부"
CYRILLIC = ("в и не на что он как это по но из она так за то было от все мы же был бы для вы есть когда уже время человек сказал "
            "очень другой жизнь дело рука первый которого возможность необходимо исследование промышленность").split()
GREEK = "και το να την της του που με για από δεν είναι θα στην τα στο μια άνθρωπος κόσμος ημέρα θάλασσα πρόβλημα".split()
FRENCH = "l'été où déjà ça naïve cœur garçon façade Noël œuvre être élève âge hôpital français très après même".split()
EMOJI = ["😀", "🎉", "👍🏽", "👩‍👩‍👧‍👦", "🇩🇪", "❤️", "🚀", "é", "ﬁ", "①"]


def machine():
    models = [line.split(":")[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
    return {"cpu": models[0] if models else "", "cores": len(os.sched_getaffinity(0))}


def version_of(tandem):
    return subprocess.run([tandem, "--version"], check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout.strip().removeprefix("tandem ")


def documents_of(path):
    """Of JSON lines their "text"; of any other file what blank lines keep apart, each with its own newlines."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        return [json.loads(line)["text"] for line in text.splitlines() if line.strip()]
    documents = [""]
    for line in text.splitlines(keepends=True):
        if line.strip():
            documents[-1] += line
        elif documents[-1]:
            documents.append("")
    return [document for document in documents if document]


def project_sources():
    """The sources of this project, a file a document, without those that hold U+2581: sentencepiece takes it for a space,
    tandem does not."""
    folders = "core comm data nn yoco blocktf train eval cli scripts tests bench".split()
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*")
                   if path.suffix in (".cpp", ".h", ".py", ".sh") and path.is_file())
    return [text for text in (path.read_text(encoding="utf-8") for path in paths) if "\u2581" not in text]


def frequent_first(rng, items):
    """One of them, the first far more often than the last."""
    return items[int(len(items) * rng.random() ** 3)]


def mixed(n_documents=600, seed=7):
    """Made by chance, the same each time: Chinese, Japanese, Korean, Russian, Greek, French, tables of numbers, emoji, odd white space."""
    rng = random.Random(seed)

    def script(characters, stops, spaced):
        text = ""
        for _ in range(rng.randint(20, 60)):
            text += "".join(frequent_first(rng, characters) for _ in range(rng.randint(2, 9))) + (" " if spaced else rng.choice(stops))
        return text + "\n"

    def words(vocabulary):
        return " ".join(frequent_first(rng, vocabulary) for _ in range(rng.randint(20, 80))).capitalize() + ".\n"

    def numbers():
        rows = [f"{rng.randint(1900, 2099)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
                f"\t{rng.random() * 10 ** rng.randint(0, 9):.{rng.randint(0, 6)}f}"
                f"\t{rng.getrandbits(rng.choice([8, 32, 64])):x},{rng.randint(0, 10 ** rng.randint(1, 15)):,}" for _ in range(rng.randint(5, 20))]
        return rng.choice(["\n", "\r\n"]).join(rows) + "\n"

    def odd():
        return "".join(rng.choice(EMOJI) * rng.randint(1, 3) + rng.choice([" ", "  ", "\t", "\n\n\n", " " * 17, "\u00a0", "\u3000", "!!!", "...", "_" * 9])
                       for _ in range(rng.randint(10, 40))) + "\n"

    kinds = [lambda: script(HAN, "，。、；", False), lambda: script(HAN[:80] + KANA, "。、", False), lambda: script(HANGUL, "", True),
             lambda: words(CYRILLIC), lambda: words(GREEK), lambda: words(FRENCH), numbers, odd]
    return ["".join(rng.choice(kinds)() for _ in range(rng.randint(4, 16))) for _ in range(n_documents)]


def write_json_lines(path, documents):
    with open(path, "w", encoding="utf-8") as file:
        for document in documents:
            file.write(json.dumps({"text": document}, ensure_ascii=False) + "\n")
