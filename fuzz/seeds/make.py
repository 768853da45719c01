#!/usr/bin/env python3
"""Makes the seed models of sentencepiece_fuzz (sentencepiece 0.2.1 of scripts/peers.sh).
  .venv-peers/bin/python fuzz/seeds/make.py
A rule table of two lines stands for NFKC, whose own is 240 KB."""
import contextlib
import io
import pathlib
import tempfile

import sentencepiece

HERE = pathlib.Path(__file__).resolve().parent
TEXT = """In the beginning was the loop, and the loop was with the index, and the index was zero.
The same was in the beginning with the buffer. All things were read by it, and without it was not any byte read that was read.
In it was 12 and 345 and 6789; and the light shineth in the cache, and the cache comprehended it not.
There was a thread sent from the pool, whose name was worker. The same came for a witness, caf\u00e9 and na\u00efve."""


sentencepiece.set_random_generator_seed(1)


def train(name, **options):
    lines = [line for line in TEXT.split("\n") for _ in range(4)]
    model = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # models keep the path as it was given
        pathlib.Path("rules.tsv").write_text("FB01\t66 69\n41 30A\tC5\n")  # "fi" as one letter, "A" with a ring as two
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=model, normalization_rule_tsv="rules.tsv", num_threads=1,
            minloglevel=2, hard_vocab_limit=False, control_symbols=["<mask>"], user_defined_symbols=["<sep>", "<sep>>"], **options)
    (HERE / name).write_bytes(model.getvalue())


train("unigram.model", model_type="unigram", vocab_size=90, self_test_sample_size=2)
train("bpe.model", model_type="bpe", vocab_size=330, byte_fallback=True, remove_extra_whitespaces=False)
