# Sourced by scripts/retrieval.sh after scripts/text.sh: text, vocabulary and training samples for retrieval.

# samples TANDEM OUT LENGTH COUNT PAIRS DENSE NEEDLE: OUT/data/lengthLENGTH.
samples() {
  local prefix="$2/data/length$3"
  [ -s "$prefix.idx" ] || "$1" data retrieval --tokenizer "$2/data/tokenizer.model" --input "$2/data/train.txt" --length "$3" --samples "$4" \
    --pairs "$5" --dense "$6" --needle "$7" --output "$prefix"
}

# prepare_retrieval TANDEM OUT: the King James Bible without verse numbers as OUT/data/text.txt (the haystack), its first 95 % as train.txt, 768 pieces learnt from that (256 of them bytes), and samples of
# the curriculum's lengths. What is there already is used again.
prepare_retrieval() {
  local tandem=$1 out=$2
  mkdir -p "$out/data"
  bible_text "$out/data/text.txt"
  [ -s "$out/data/train.txt" ] || head -c $(($(stat -c %s "$out/data/text.txt") * 95 / 100)) "$out/data/text.txt" >"$out/data/train.txt"
  [ -s "$out/data/tokenizer.model" ] || "$tandem" data train-tokenizer --input "$out/data/train.txt" --vocab-size 768 --output "$out/data/tokenizer.model"
  samples "$tandem" "$out" 32 7680 1 0 0
  samples "$tandem" "$out" 64 2560 0.7 0.3 0
  samples "$tandem" "$out" 128 1920 0.4 0.6 0
  samples "$tandem" "$out" 256 7680 0.2 0.3 0.5
}
