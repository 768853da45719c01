"""Ranks of tiktoken as a tokenizer of Hugging Face's library, which wants the merges that the ranks leave unsaid."""

import tokenizers
from tokenizers import decoders, models, pre_tokenizers


def parts_of(ranks, token):
    """The two tokens that `token` is merged from: what byte pair encoding leaves of it with the ranks below its own."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        pairs = [(ranks.get(left + right, ranks[token]), i) for i, (left, right) in enumerate(zip(parts, parts[1:]))]
        rank, i = min(pairs)
        if rank >= ranks[token]:
            raise ValueError(f"no two tokens of lower rank make up {token}")
        parts[i:i + 2] = [parts[i] + parts[i + 1]]
    return parts


def printable_bytes():
    """The character that stands for each byte in GPT-2's vocabulary: itself where it can be seen, else one from U+0100 on."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    unseen = [byte for byte in range(256) if byte not in seen]
    return {**{byte: chr(byte) for byte in seen}, **{byte: chr(0x100 + i) for i, byte in enumerate(unseen)}}


def hf_tokenizer(ranks, special_tokens, pattern):
    """ranks: {bytes: id}; special_tokens: {text: id}; pattern: a regular expression, or None for GPT-2's."""
    characters = printable_bytes()

    def shown(token):
        return "".join(characters[byte] for byte in token)

    merges = [tuple(map(shown, parts_of(ranks, token))) for token in sorted(ranks, key=ranks.get) if len(token) > 1]
    vocabulary = {shown(token): rank for token, rank in ranks.items()} | special_tokens
    # tiktoken takes a word that is a token whole, whatever its merges would give.
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    in_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    if pattern is not None:
        in_bytes = pre_tokenizers.Sequence([pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated"), in_bytes])
    tokenizer.pre_tokenizer = in_bytes
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([tokenizers.AddedToken(text, normalized=False) for text in special_tokens])  # keeps the ids of the vocabulary
    return tokenizer
