# Sourced by the recipes: the King James Bible, or a text of one's own, as token files.

# prepare_text TANDEM OUT: OUT/data/{tokenizer.model,train,valid}, 5 % of the documents held out, from $TEXT (a folder or file; plain text,
# or .jsonl with the text under "text") or from the Debian package bible-kjv. What is there already is used again.
prepare_text() {
  local tandem=$1 out=$2 text split
  if [ -n "${TEXT:-}" ]; then
    text=$TEXT
    split=file
  else
    # A chapter is a document: blank lines between chapters, verse numbers taken off.
    text="$out/bible.txt"
    split=blank-line
    if [ ! -s "$text" ]; then
      bible -f gen1:1-rev22:21 |
        awk '{ chapter = $1; sub(/:.*/, "", chapter); sub(/^[^ ]+ /, ""); if (NR > 1 && chapter != last) print ""; last = chapter; print }' \
          >"$text.partial"
      mv "$text.partial" "$text"
    fi
  fi

  say "Tokenizer: 4,096 pieces learnt from $text"
  if [ ! -s "$out/data/tokenizer.model" ]; then
    mkdir -p "$out/data"
    "$tandem" data train-tokenizer --input "$text" --vocab-size 4096 --output "$out/data/tokenizer.model"
  fi
  say "Tokens: 5 % of the documents are held out"
  if [ ! -s "$out/data/valid.idx" ]; then
    "$tandem" data tokenize --tokenizer "$out/data/tokenizer.model" --input "$text" --split "$split" --output "$out/data/train" \
      --validation-fraction 0.05 --validation-output "$out/data/valid"
  fi
}

# bible_text FILE: the King James Bible, a verse a line, without verse numbers.
bible_text() {
  if [ ! -s "$1" ]; then
    bible -f gen1:1-rev22:21 | sed 's/^[^ ]* //' >"$1.partial"
    mv "$1.partial" "$1"
  fi
}

# made_from OUT TEXT: OUT is not used again for anything but what TEXT says.
made_from() {
  mkdir -p "$1"
  if [ -f "$1/made_from" ] && [ "$(cat "$1/made_from")" != "$2" ]; then
    echo "$1 was made with $(cat "$1/made_from"), not $2: remove it, or name another folder with OUT=" >&2
    exit 2
  fi
  printf '%s' "$2" >"$1/made_from"
}
