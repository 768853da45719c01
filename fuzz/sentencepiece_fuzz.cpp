// Any bytes as a sentencepiece model: refused with a UserError in one line, or a tokenizer that
// encodes and decodes a probe. Mutated models seldom get past the check in front of the library, so
// every second input is a recipe for a model that does. Build the library with the sanitizers too:
// scripts/fuzz.sh does.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "data/sentencepiece_tokenizer.h"
#include "data/utf8.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

// ---- sentencepiece_model.proto on the wire

std::string varint(uint64_t value) {
  std::string out;
  for (; value > 127; value >>= 7) out += static_cast<char>((value & 127) | 128);
  return out + static_cast<char>(value);
}
std::string field(uint64_t number, std::string_view bytes) {
  return (varint(number << 3 | 2) + varint(bytes.size())).append(bytes);
}
std::string number_field(uint64_t number, uint64_t value) {
  return varint(number << 3) + varint(value);
}
std::string piece(std::string_view text, float score, uint64_t type) {
  std::string out =
      field(1, text) + varint(2 << 3 | 5) + std::string(4, '\0') + number_field(3, type);
  std::memcpy(out.data() + field(1, text).size() + 1, &score, 4);
  return field(1, out);
}

/// Takes choices from the input; zeros behind its end.
struct Choices {
  const uint8_t* data;
  size_t size;
  uint8_t next() { return size == 0 ? 0 : (--size, *data++); }
  uint8_t below(uint8_t n) { return static_cast<uint8_t>(next() % n); }
  std::string text(size_t n) {
    std::string out = tandem::valid_utf8({reinterpret_cast<const char*>(data), std::min(n, size)});
    data += std::min(n, size);
    size -= std::min(n, size);
    std::replace(out.begin(), out.end(), '\0', ' ');
    return out;
  }
};

/// A trie with the keys "a", "aa", ... and some of its 256 units as the input has them, and the
/// texts that they stand for.
std::string charsmap(Choices& choices) {
  std::vector<uint32_t> units(256);
  for (uint32_t i = 0; i < 256; ++i) units[i] = i ^ 1;  // nothing leads to them
  const auto base = [](uint32_t n) { return 2 + n; };   // without bit 6, which nodes have
  const uint8_t n_keys = choices.below(33);
  const std::string texts = choices.text(choices.below(64)) + '\0' + "x y" + '\0';
  units[0] = base(0) << 10;
  for (uint32_t n = 0; n < n_keys; ++n) {
    const uint32_t node = base(n) ^ 'a';
    units[node] = 'a' | (choices.below(4) == 0 ? 0u : 1u << 8) | (node ^ base(n + 1)) << 10;
    units[base(n + 1)] = 1u << 31 | choices.next() % static_cast<uint32_t>(texts.size());
  }
  for (uint8_t edits = choices.below(4); edits > 0; --edits) {
    const uint8_t at = choices.next(), label = choices.next();
    units[at] = label | (label % 2u) << 8 | uint32_t{choices.next()} << 10;
  }
  std::string out(4 + 1024, '\0');
  out[1] = 4;  // 1024, little endian
  std::memcpy(out.data() + 4, units.data(), 1024);
  return out + texts;
}

std::string normalizer(Choices& choices) {
  std::string out;
  if (choices.below(2) == 0) out += field(2, charsmap(choices));
  for (uint64_t flag = 3; flag <= 5; ++flag) out += number_field(flag, choices.below(2));
  return out;
}

std::string model_of(Choices choices) {
  enum { kByteFallback = 35, kSuffix = 24, kUnkSurface = 44 };
  const uint8_t type = choices.below(8), flags = choices.next();
  const bool bytes = (flags & 1) != 0;
  std::string trainer = number_field(3, type < 4 ? type + 1u : type % 2u + 1u) +
                        number_field(kByteFallback, bytes) +
                        number_field(kSuffix, (flags >> 1) & 1);
  if ((flags & 4) != 0) trainer += field(kUnkSurface, choices.text(choices.below(8)));
  std::string out = field(2, trainer) + field(3, normalizer(choices));
  if ((flags & 8) != 0) out += field(5, normalizer(choices));
  out += piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3);
  for (int b = 0; bytes && b < 256; ++b) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", b);
    out += piece(name, 0, 6);
  }
  std::set<std::string> known = {""};
  for (int n = 0; n < 60 && choices.size > 0; ++n) {
    static constexpr uint8_t kTypes[] = {1, 1, 1, 1, 1, 3, 4, 5};
    const uint8_t kind = kTypes[choices.below(8)];
    float score = 0.25f * static_cast<float>(static_cast<int8_t>(choices.next()));
    if (choices.below(16) == 0) score = std::ldexp(score, choices.next() - 128);
    const std::string text = choices.text(1 + choices.below(choices.below(16) == 0 ? 200 : 6));
    if (known.insert(text).second) out += piece(text, std::isfinite(score) ? score : 0, kind);
  }
  return out;
}

// ---- reading

/// A file of this process, removed at its end.
struct ModelFile {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("sentencepiece_fuzz." + std::to_string(getpid()));
  ~ModelFile() { std::filesystem::remove(path); }
};

void read(std::string_view model) {
  using namespace tandem;
  static const ModelFile file;
  std::ofstream(file.path, std::ios::binary)
      .write(model.data(), static_cast<std::streamsize>(model.size()));
  static const std::string probe =
      " The quick  brown fox\n\n  12,345\t\xC3\xA9\xE2\x96\x81\xF0\x9F\x98\x80 \xEF\xAC\x81 "
      "\xEF\xB7\xBA </s><s>\xE4\xB8\xAD\xE6\x96\x87\xFF\xC3 " +
      std::string(100, 'a') + ' ';
  try {
    const auto tokenizer = load_sentencepiece(file.path);
    for (const std::string& text : {probe, std::string(model.substr(model.size() / 2, 200))}) {
      for (const Specials specials : {Specials::kAsText, Specials::kAsIds}) {
        const auto ids = tokenizer->encode(text, specials);
        for (const int32_t id : ids)
          require(id >= 0 && id < tokenizer->vocab_size() && tokenizer->byte_length(id) >= 0);
        (void)tokenizer->decode(ids);
      }
    }
    std::vector<int32_t> all;
    for (int32_t id = -1; id <= tokenizer->vocab_size() && id < 400; ++id) all.push_back(id);
    (void)tokenizer->decode(all);
    for (const auto id : {tokenizer->bos(), tokenizer->eos()})
      require(!id || (*id >= 0 && *id < tokenizer->vocab_size()));
  } catch (const UserError& error) {
    const std::string_view message = error.what();
    require(error.exit_code() == kExitBadFile && message.find('\n') == message.npos);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const bool recipe = size > 0 && (data[size / 2] ^ size) % 2 == 0;
  read(recipe ? model_of({data, size}) : std::string(reinterpret_cast<const char*>(data), size));
  return 0;
}
