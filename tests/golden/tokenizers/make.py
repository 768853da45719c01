#!/usr/bin/env python3
"""Makes the small vocabularies of this folder and ids.json with the libraries they belong to. scripts/peers.sh installs these; then

    .venv-peers/bin/python tests/golden/tokenizers/make.py

writes the same bytes every time. The vocabularies are learned from the text below."""
import base64
import io
import json
import pathlib
import random
import unicodedata

import sentencepiece
import tiktoken
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).parent
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

LINES = [
    "The ferry leaves at seven, and it doesn't wait for anyone who isn't there.",
    "She'll say that they've gone; we're sure he'd have told us, I'm certain it's true.",
    "    if (count > 10) {\n        return values[count - 1];\n    }\n",
    "\tfor line in lines:\r\n\t\tprint(line)\r\n",
    "In 1984 there were 12345 boats, in 2024 only 678; 3.14159 is not 2.71828.",
    "Ein schöner Tag für die Bären; où est le café où l'été dure? El niño comió mañana.",
    "Паром уходит в семь часов, и он никого не ждёт у моста через реку.",
    "渡船七点离开码头。夕方の橋の下で、七つの船が待っている。나룻배는 일곱 시에 떠난다.",
    "العبارة تغادر في الساعة السابعة ولا تنتظر أحدا. เรือข้ามฟากออกเวลาเจ็ดโมง नाव सात बजे जाती है",
    "A river, a bridge, a stone; the river runs under the stone bridge and the boats wait.",
    "Good 👍 day 😀 to the family 👨‍👩‍👧 by the river 🏽\n\n\n",
    "https://example.org/ferry?from=north&to=south#times -- ** == != :: -> ... \"quoted\"",
    "        deep indentation        and   runs    of     spaces\n",
]
TRAINING = [line * repeat for repeat, line in enumerate(LINES * 3, 1)]

SPECIALS = ["<|endoftext|>", "<|padding|>", "<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>", "<|endofprompt|>",
            "<|fim_prefix|>", "<jupyter_code>", "<|extra_17|>", "<|eot_id|>", "<mask>"]
TEXTS = [
    "", " ", "  ", "\n", "\r\n", "a", "the river runs under the stone bridge", " leading and trailing  ",
    "café niño ждёт Bären 가나 が ﬁ Å",                                        # composed
    unicodedata.normalize("NFD", "café niño ждёт Bären 가나 が Å Ṩ ế"),          # decomposed
    "q\u0323\u0307 q\u0307\u0323 \u0344 \u0958 \u2126 \u212b \uf900 a\u0301\u0301 \u1100\u1161\u11a8",  # marks out of order, singletons, exclusions, Hangul
    "👍 👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 ❤️ 😀😀😀",
    "".join(" " * n + "x" for n in range(1, 27)), "\t\t\tx\t y \t z", "a \t \n b", "x\n\n\n\ny\n \n  \n   z",
    "one\r\ntwo\r\n\r\nthree\rfour\n\rfive\r\n  six \r\n", "line\u2028separator\u2029paragraph\u0085next\x0bvt\x0cff",
    "1 12 123 1234 12345 1234567890 ١٢٣ Ⅳ ² ½ 三十", "3.14159e-10 0x1F 1,000,000.50 1984年",
    "渡船七点离开码头，夕方の橋の下で、七つの船が待っている。나룻배는 일곱 시에", "العبارة تغادر في الساعة السابعة ١٩٨٤",
    "เรือข้ามฟากออกเวลาเจ็ดโมงเช้า", "नाव सात बजे जाती है क्षत्रिय", "Паром уходит в семь часов",
    "don't DON'T Don'T we're WE'RE they've I'M he'll SHE'LL she'd it's IT'S 'tis o'clock ''s 'S'T'Re'VE'm'LL'd 'ſ",
    "l'été d’accord ‘quoted’ — “dash” … ‰ € £", "!!! ??? ... --- *** ===>>> <<<||| :-) (a,b); {x: [1]}", " ?!\n\n  ...\r\n #",
    "\u2581a \u2581\u2581 literal\u2581marks \u2581", "NUL \0 inside \0\0", "controls \x01\x02\x1b[31m\x7f \x80 \x9f",
    "no\u00a0break \u00a0\u00a0 \u2003em\u3000ideographic\u200bzero\ufeffbom", "\ufeffbom first", "soft\u00adhyphen rtl\u200f \u202edirection\u202c",
    "supercalifragilistic" * 20, "ab" * 99, " " * 301, "9" * 100, "é" * 57, "-" * 120, "\n" * 70,
    "private \ue000 \U000f0000 nonchar \uffff \U0010ffff unassigned \u0378", "\ufffd already replaced \ufffd\ufffd",
    "if (count > 10) {\n        return values[count - 1];\n    }\n\n\tdef f(x):\r\n\t    return x ** 2  # note\n",
    "https://example.org/a_b-c?d=e&f=%20#g user@host.example", "snake_case camelCase SCREAMING kebab-case __init__",
    "q" + "\u0301\u0323" * 9 + "r", "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich",
]
TEXTS += [f"before {text} after" for text in SPECIALS]
TEXTS += ["a  <|endoftext|>  b", "<|endoftext|><|endoftext|>\n<|endoftext|>", "<|endoftext", "<<|endoftext|>>", "<|endoftext|> <|im_start|>user\nhi<|im_end|>\n",
          "<s>a</s><s>b", "a<|im_end|>\u0338 b<|endoftext|>\u0338 c<|endofprompt|>\u0338", "<|begin_of_text|>the ferry<|end_of_text|>", "é<|im_end|>\u0301 e<|im_start|>\u0301", "don<|endoftext|>'t", "x <mask>   <mask>y", "t\u0323e\u0301 \u1e6d\u00e9 x\u0301e\u0301 x\u0301\u00e9"]
BYTES = ["61ff62", "c3", "63c3a9c3", "f09f98", "f09f98f09f9880", "e28099e280", "eda080", "c080 80", "f4908080", "fffefd20e29681", "e0a041 f09f4142", "80" * 9]

rng = random.Random(6)
POOL = ("aetnr  \n'sTx19 .,-" * 3 + "éüßжд船七の가ع\u0301\u0308\u0327\u200d👍🏽\t\r\u00a0\u2581\u0e40\u0e49\u093e\u1161\u11a8ÅΩ")
TEXTS += ["".join(rng.choice(POOL) for _ in range(rng.randint(20, 50))) for _ in range(12)]

DOCUMENTS = [text.encode() for text in TEXTS] + [bytes.fromhex(text) for text in BYTES]


def replaced(document):
    return document.decode("utf-8", errors="replace")


def entry(load, vocab_size, bos, eos, as_text, as_ids, decode):
    """Ids of all documents; special tokens as ids, and decoded text, only where they differ."""
    plain = [as_text(replaced(document)) for document in DOCUMENTS]
    special = {str(i): as_ids(replaced(document)) for i, document in enumerate(DOCUMENTS)}
    decoded = {str(i): decode(ids) for i, ids in enumerate(plain)}
    return {
        "load": load, "vocab_size": vocab_size, "bos": bos, "eos": eos, "ids": plain,
        "special_ids": {i: ids for i, ids in special.items() if ids != plain[int(i)]},
        "decoded": {i: text for i, text in decoded.items() if text != replaced(DOCUMENTS[int(i)])},
    }


# Hugging Face

def trained(vocab_size, pre_tokenizer, normalizer=None, first=()):
    tokenizer = Tokenizer(models.BPE())
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(TRAINING, trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=list(first), show_progress=False,
                                                                initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return tokenizer


def split(regex):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(regex), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def hugging_face(name, tokenizer, bos, eos, change=None):
    data = json.loads(tokenizer.to_str())
    if change:
        change(data)
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    (HERE / name).write_text(text + "\n")
    tokenizer = Tokenizer.from_str(text)

    def encode(text, specials_are_text):
        tokenizer.encode_special_tokens = specials_are_text
        return tokenizer.encode(text, add_special_tokens=False).ids

    return entry(name, tokenizer.get_vocab_size(), tokenizer.token_to_id(bos) if bos else None, tokenizer.token_to_id(eos) if eos else None,
                 lambda text: encode(text, True), lambda text: encode(text, False), tokenizer.decode)


def old_merges(data):  # as files before tokenizers 0.20
    data["model"]["merges"] = [" ".join(pair) for pair in data["model"]["merges"]]


def gpt2():
    tokenizer = trained(450, pre_tokenizers.ByteLevel(add_prefix_space=False))
    tokenizer.add_special_tokens(["<|endoftext|>"])  # the last id, as GPT-2's
    return hugging_face("gpt2.json", tokenizer, "<|endoftext|>", "<|endoftext|>", old_merges)


def prefix_space():  # as RoBERTa's, but for its <mask>, which strips
    tokenizer = trained(420, pre_tokenizers.ByteLevel(add_prefix_space=True), first=["<s>", "<pad>", "</s>", "<unk>"])
    tokenizer.add_special_tokens([AddedToken("<mask>", normalized=True)])
    tokenizer.add_tokens([AddedToken("ferry", normalized=False), AddedToken("ferr", normalized=False)])
    return hugging_face("prefix_space.json", tokenizer, "<s>", "</s>")


def neox():
    tokenizer = trained(480, pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.NFC(), ["<|endoftext|>", "<|padding|>"])
    tokenizer.add_tokens([AddedToken(" " * n, normalized=True) for n in range(24, 1, -1)])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return hugging_face("neox.json", tokenizer, "<|endoftext|>", "<|endoftext|>", old_merges)


def llama3():
    tokenizer = trained(500, split(LLAMA3))
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"])
    begin = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", begin)])

    def change(data):  # without some merges, so that some tokens are had only whole
        data["model"]["ignore_merges"] = True
        del data["model"]["merges"][5::9]

    return hugging_face("llama3.json", tokenizer, "<|begin_of_text|>", "<|end_of_text|>", change)


def qwen2():
    tokenizer = trained(500, split(QWEN2), normalizers.NFC())
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    # One in another form than NFC, matched in the text as it is, and one matched in NFC.
    tokenizer.add_tokens([AddedToken("x\u0301e\u0301", normalized=False), AddedToken("t\u0323e\u0301", normalized=True)])
    return hugging_face("qwen2.json", tokenizer, "<|endoftext|>", "<|endoftext|>")


# tiktoken

def ranks():
    """A vocabulary as tiktoken takes it, in a file whose lines are out of order."""
    tokenizer = trained(520, split(LLAMA3))
    byte_of = {character: byte for byte, character in enumerate_bytes()}
    lines = [base64.b64encode(bytes(byte_of[c] for c in token)) + b" %d\n" % rank for token, rank in sorted(tokenizer.get_vocab().items())]
    rng.shuffle(lines)
    lines.sort(key=lambda line: len(line) % 3)
    (HERE / "ranks.tiktoken").write_bytes(b"".join(lines))
    return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines)}


def enumerate_bytes():
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printing]
    return [(byte, chr(byte)) for byte in printing] + [(byte, chr(0x100 + i)) for i, byte in enumerate(others)]


def tiktoken_entries():
    learned = ranks()
    cl100k = {"<|endoftext|>": 100257, "<|fim_prefix|>": 100258, "<|fim_middle|>": 100259, "<|fim_suffix|>": 100260, "<|endofprompt|>": 100276}
    code = ["<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>", "<reponame>", "<filename>", "<gh_stars>", "<issue_start>", "<issue_comment>",
            "<issue_closed>", "<jupyter_start>", "<jupyter_text>", "<jupyter_code>", "<jupyter_output>", "<empty_output>", "<commit_before>",
            "<commit_msg>", "<commit_after>"]
    yoco = {**cl100k, **{text: 100264 + i for i, text in enumerate(code)}}
    llama = ["<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>", "<|finetune_right_pad_id|>",
             "<|step_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>", "<|image|>"]
    llama += [f"<|reserved_special_token_{i}|>" for i in range(2, 246)]
    llama = {text: 128000 + i for i, text in enumerate(llama)}
    qwen = {text: 151643 + i for i, text in enumerate(["<|endoftext|>", "<|im_start|>", "<|im_end|>"] + [f"<|extra_{i}|>" for i in range(205)])}
    own = {"<|endoftext|>": 520}
    for name, pattern, n_ranks, specials, bos, eos, shift, normalize in [
            ("gpt2", GPT2, 50256, {"<|endoftext|>": 50256}, 50256, 50256, 0, False),
            ("cl100k_base", LLAMA3, 100256, cl100k, 100257, 100257, 0, False),
            ("yoco_cl100k_base", LLAMA3, 100256, yoco, 0, 2, 4, False),
            ("llama3", LLAMA3, 128000, llama, 128000, 128001, 0, False),
            ("qwen", QWEN2, 151643, qwen, 151643, 151643, 0, True),
            ("gpt2_ranks", GPT2, 520, own, 520, 520, 0, False),
            ("cl100k_ranks", LLAMA3, 520, own, 520, 520, 0, False)]:
        # A name says how many ranks there are: the others are bytes that no text holds, as in the test.
        mergeable = {**learned, **{b"\xff%d" % rank: rank for rank in range(len(learned), n_ranks)}}
        encoding = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=mergeable, special_tokens=specials)
        form = (lambda text: unicodedata.normalize("NFC", text)) if normalize else (lambda text: text)
        size = encoding.n_vocab if shift == 0 else (encoding.n_vocab + shift + 7) // 8 * 8
        yield entry(f"{name}:ranks.tiktoken", size, bos, eos,
                    lambda text: [i + shift for i in encoding.encode_ordinary(form(text))],
                    lambda text: [i + shift for i in encoding.encode(form(text), allowed_special="all")],
                    lambda ids: encoding.decode([i - shift for i in ids]))


# sentencepiece

def sentence_piece(name, model_type, exact, own=False):
    """`exact`: nothing in front of the text. `own`: with what `tandem data train-tokenizer` gives its models, and they are told by."""
    model = io.BytesIO()
    settings = dict(model_type=model_type, vocab_size=460, hard_vocab_limit=False, byte_fallback=True, split_digits=True, normalization_rule_name="identity",
                    allow_whitespace_only_pieces=True, remove_extra_whitespaces=False, add_dummy_prefix=not exact, num_threads=1, minloglevel=2)
    if own:
        settings.update(max_sentence_length=4096, unk_id=0, bos_id=1, eos_id=2, pad_id=-1)
    sentences = [line for text in TRAINING[:20] for line in text.splitlines(keepends=exact)]
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(sentences), model_writer=model, **settings)
    (HERE / name).write_bytes(model.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    mark = [processor.piece_to_id(f"<0x{byte:02X}>") for byte in "\u2581".encode()]

    def encode_with_marks(text):
        # The exception: our own models give the mark itself in bytes, as its piece would come back as a space.
        first, *others = text.split("\u2581")
        return processor.encode(first) + [i for other in others for i in mark + processor.encode(other)]

    def encode_specials(text, encode=processor.encode):
        ids = []
        while text:
            begins = {text.find(special): special for special in ("<s>", "</s>") if special in text}
            if not begins:
                return ids + encode(text)
            begin = min(begins)
            ids += encode(text[:begin]) + [processor.piece_to_id(begins[begin])]
            text = text[begin + len(begins[begin]):]
        return ids

    result = entry(name, processor.get_piece_size(), processor.bos_id(), processor.eos_id(), processor.encode, encode_specials, processor.decode)
    if own:
        texts = [(str(i), replaced(document)) for i, document in enumerate(DOCUMENTS)]
        result["marks_in_bytes"] = {i: encode_with_marks(text) for i, text in texts if "\u2581" in text}
    return result


tokenizers = [gpt2(), prefix_space(), neox(), llama3(), qwen2(), *tiktoken_entries(),
              sentence_piece("bpe.model", "bpe", True, own=True), sentence_piece("unigram.model", "unigram", True, own=True),
              sentence_piece("no_prefix_bpe.model", "bpe", True),
              sentence_piece("llama2_bpe.model", "bpe", False), sentence_piece("llama2_unigram.model", "unigram", False)]
rows = ",\n".join(json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")) for tokenizer in tokenizers)
texts = ",\n".join(json.dumps(document.hex()) for document in DOCUMENTS)
(HERE / "ids.json").write_text(f'{{"documents":[\n{texts}],\n"tokenizers":[\n{rows}]}}\n')
