"""Configs."""

from cases import case

# ---- yaml: any config


def yaml(name, text, message, **options):
    case(f"yaml/{name}.yaml", text, message, exit_code=2, **options)


yaml("tab", "a:\n\tb: 1\n", "{path}:2: a tab in the indentation, expected spaces")
yaml("nul", "a: 1\0\n", "{path}:1: holds the control character \\x00")
yaml("control_character", "a: \7\n", "{path}:1: holds the control character \\x07")
yaml("not_utf8", b"a: \xff\n", "{path}:1: not UTF-8 text")
yaml("duplicate_key", "learning_rate: 0.1\nlearning_rate: 0.2\n", "{path}:2: duplicate key learning_rate; first on line 1")
yaml("anchor", "a: &x 1\nb: 2\n", "{path}:1: anchors are not allowed: &x")
yaml("alias_bomb", "a: &a [1, 1]\nb: &b [*a, *a]\nc: [*b, *b]\n", "{path}:1: anchors are not allowed: &a")
yaml("tag", "a: !!python/object:os.system x\n", "{path}:1: tags are not allowed")
yaml("two_documents", "a: 1\n---\nb: 2\n", "{path}:2: a second document starts here, expected one; is the indentation right?")
yaml("open_bracket", "a: [1, 2\nb: 3\n", "{path}:2: not valid YAML: end of sequence flow not found")
yaml("open_quote", 'a: "x\nb: 3\n', "{path}:1: a quote that opens here or below is not closed")
yaml("empty_key", ": 1\n", "{path}:1: a key is empty or null, expected a name")
yaml("list_as_key", "[a, b]: 1\n", "{path}:1: a list or a map stands as a key; is a bracket not closed?")
yaml("deep", "[" * 65 + "]" * 65 + "\n", "{path}:1: nesting over 64 levels")
yaml("deeper", "[" * 3000, "{path}:1: a list or a map stands as a key; is a bracket not closed?")
yaml("mixed", "a: 1\n- b\n", "{path}:2: not valid YAML: end of map not found")
# Read as {threads: an integer in [1, 64] = 1, rate: a number > 0 = 0.5, kind: linear | cosine = linear, sizes: integers >= 1 = []}.
yaml("list", "- a\n", "{path}:1: [a], expected a map", reader="config")
yaml("unknown_key", "treads: 3\n", "{path}:1: unknown key treads; did you mean threads? known here: kind, rate, sizes, threads", reader="config")
yaml("word_for_number", "threads: many\n", "{path}:1: threads = many, expected an integer from 1 to 64", reader="config")
yaml("quoted_number", 'threads: "3"\n', "{path}:1: threads = \"3\", expected an integer from 1 to 64", reader="config")
yaml("fraction", "threads: 1.5\n", "{path}:1: threads = 1.5, expected an integer from 1 to 64", reader="config")
yaml("negative", "threads: -5\n", "{path}:1: threads = -5, expected an integer from 1 to 64", reader="config")
yaml("overflow", "threads: 99999999999999999999\n", "{path}:1: threads = 99999999999999999999, expected an integer from 1 to 64", reader="config")
yaml("huge", "rate: 1e400\n", "{path}:1: rate = 1e400, expected a number > 0", reader="config")
yaml("not_a_number", "rate: .nan\n", "{path}:1: rate = .nan, expected a number > 0", reader="config")
yaml("zero", "rate: 0\n", "{path}:1: rate = 0, expected a number > 0", reader="config")
yaml("other_word", "kind: cosin\n", "{path}:1: kind = cosin, expected one of: linear, cosine", reader="config")
yaml("map_for_number", "threads: {a: 1}\n", "{path}:1: threads = {a: 1}, expected an integer from 1 to 64", reader="config")
yaml("list_element", "sizes: [4, 0]\n", "{path}:1: sizes[1] = 0, expected an integer >= 1", reader="config")
