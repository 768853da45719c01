#pragma once
#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

// The tables of data/byte_bpe. Both are open addressing with linear probing in a power of two of slots, at most half of them taken.

/// Well-mixed bits of two numbers: the two halves of their 128-bit product.
inline uint64_t mix_bits(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a ^ 0x9E3779B97F4A7C15u) * (b ^ 0xD6E8FEB86659FD93u);
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

/// The bytes of all tokens, one behind the other.
class TokenBytes {
 public:
  explicit TokenBytes(const std::vector<std::string>& tokens) {
    begins_.reserve(tokens.size() + 1);
    for (const std::string& token : tokens) {
      begins_.push_back(bytes_.size());
      bytes_ += token;
    }
    begins_.push_back(bytes_.size());
  }
  int64_t size() const { return static_cast<int64_t>(begins_.size()) - 1; }
  /// Empty for an id beyond them.
  std::string_view operator[](int64_t id) const {
    if (id < 0 || id >= size()) return {};
    const auto i = static_cast<size_t>(id);
    return std::string_view(bytes_).substr(begins_[i], begins_[i + 1] - begins_[i]);
  }

 private:
  std::string bytes_;
  std::vector<size_t> begins_;
};

/// Bytes to id. A token of up to 8 bytes is its own key, so that finding it touches no other memory.
class TokenTable {
 public:
  explicit TokenTable(size_t capacity) : slots_(std::bit_ceil(2 * capacity + 2)) {}

  /// The id of `bytes`, which are not empty, or -1.
  int32_t find(const TokenBytes& tokens, std::string_view bytes) const {
    return slots_[place(tokens, bytes, key_of(bytes))].id;
  }
  /// Adds `id`, unless another has the same bytes already, whose id it returns; else -1.
  int32_t insert(const TokenBytes& tokens, int32_t id) {
    const std::string_view bytes = tokens[id];
    const uint64_t key = key_of(bytes);
    Slot& slot = slots_[place(tokens, bytes, key)];
    if (slot.id >= 0) return slot.id;
    slot = {.key = key, .size = static_cast<uint32_t>(bytes.size()), .id = id};
    return -1;
  }

 private:
  struct Slot {
    uint64_t key = 0;   // the bytes, or a hash of more than 8
    uint32_t size = 0;  // bytes of the token
    int32_t id = -1;    // -1: free
  };

  static uint64_t load8(const char* from) {
    uint64_t word;
    std::memcpy(&word, from, sizeof(word));
    return word;
  }
  /// For up to 8 bytes, different ones of the same size have different keys.
  static uint64_t key_of(std::string_view bytes) {
    const char* from = bytes.data();
    const size_t size = bytes.size();
    if (size > 8) {
      uint64_t key = size;
      for (size_t at = 0; at + 8 < size; at += 8) key = mix_bits(key, load8(from + at));
      return mix_bits(key, load8(from + size - 8));
    }
    if (size == 8) return load8(from);
    if (size >= 4) {  // two words that may overlap
      uint32_t first, last;
      std::memcpy(&first, from, sizeof(first));
      std::memcpy(&last, from + size - sizeof(last), sizeof(last));
      return static_cast<uint64_t>(last) << 32 | first;
    }
    const auto byte = [&](size_t i) { return static_cast<uint64_t>(static_cast<unsigned char>(from[i])); };
    return byte(0) | byte(size / 2) << 8 | byte(size - 1) << 16;
  }
  /// The slot of `bytes`, or the free one where they belong.
  size_t place(const TokenBytes& tokens, std::string_view bytes, uint64_t key) const {
    const size_t mask = slots_.size() - 1;
    for (size_t at = mix_bits(key, bytes.size()) & mask;; at = (at + 1) & mask) {
      const Slot& slot = slots_[at];
      if (slot.id < 0) return at;
      if (slot.key == key && slot.size == bytes.size() && (slot.size <= 8 || tokens[slot.id] == bytes)) return at;
    }
  }

  std::vector<Slot> slots_;
};

/// (left id, right id) to the rank at which they merge. Most of those asked for never do, and a bit in the cache mostly says so.
class PairTable {
 public:
  static constexpr uint32_t kNever = std::numeric_limits<uint32_t>::max();  ///< the rank of a pair that does not

  explicit PairTable(size_t capacity) : slots_(std::bit_ceil(2 * capacity + 16)), is_there_(slots_.size() / 16) {}

  uint32_t find(int32_t left, int32_t right) const {
    const uint64_t hash = hash_of(left, right);
    const bool may_be_there = is_there_[word_of(hash)] >> (hash >> 58) & 1;
    return may_be_there ? slots_[place(left, right, hash)].rank : kNever;
  }
  /// Adds the pair, or gives it another rank.
  void insert(int32_t left, int32_t right, uint32_t rank) {
    const uint64_t hash = hash_of(left, right);
    is_there_[word_of(hash)] |= uint64_t{1} << (hash >> 58);
    slots_[place(left, right, hash)] = {left, right, rank};
  }

 private:
  struct Slot {
    int32_t left = -1, right = -1;  // -1: free
    uint32_t rank = kNever;
  };
  static uint64_t hash_of(int32_t left, int32_t right) {
    return mix_bits(static_cast<uint64_t>(left), static_cast<uint64_t>(right));
  }
  size_t word_of(uint64_t hash) const { return (hash >> 26) & (is_there_.size() - 1); }
  /// The slot of the pair, or the free one where it belongs.
  size_t place(int32_t left, int32_t right, uint64_t hash) const {
    const size_t mask = slots_.size() - 1;
    for (size_t at = hash & mask;; at = (at + 1) & mask) {
      const Slot& slot = slots_[at];
      if (slot.left < 0 || (slot.left == left && slot.right == right)) return at;
    }
  }

  std::vector<Slot> slots_;
  std::vector<uint64_t> is_there_;  // 4 bits a slot; a pair sets the one that its hash picks
};

}  // namespace tandem
