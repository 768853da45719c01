#include "core/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <set>
#include <stdexcept>
#include <string_view>
#include <tuple>

#include "core/checksum.h"
#include "core/error.h"
#include "core/json_lines.h"

namespace tandem {
namespace {

constexpr uint64_t kLongestHeader = 100'000'000;
constexpr size_t kMostTensors = 100'000, kHighestRank = 16;
constexpr const char* kMetadataKey = "__metadata__";

struct TypeFacts {
  const char* name;
  int64_t size;
};
// In the order of DataType, which is the reference's: alignment never shrinks along it.
constexpr std::array<TypeFacts, 15> kTypes = {{{"BOOL", 1},
                                               {"U8", 1},
                                               {"I8", 1},
                                               {"F8_E5M2", 1},
                                               {"F8_E4M3", 1},
                                               {"I16", 2},
                                               {"U16", 2},
                                               {"F16", 2},
                                               {"BF16", 2},
                                               {"I32", 4},
                                               {"U32", 4},
                                               {"F32", 4},
                                               {"F64", 8},
                                               {"I64", 8},
                                               {"U64", 8}}};

const TypeFacts& facts_of(DataType type) { return kTypes.at(static_cast<size_t>(type)); }

std::optional<DataType> type_named(std::string_view name) {
  for (size_t i = 0; i < kTypes.size(); ++i) {
    if (name == kTypes[i].name) return static_cast<DataType>(i);
  }
  return std::nullopt;
}

/// A name of others in a message: quoted, escaped, no longer than fits a line.
std::string in_message(std::string_view name) { return json_string(name, 80); }

/// Bytes of a tensor; nothing when the product, taken from left to right, does not fit 64 bits.
std::optional<uint64_t> bytes_of(const TensorEntry& entry) {
  uint64_t product = 1;
  const auto multiply = [&](int64_t factor) {
    return !__builtin_mul_overflow(product, static_cast<uint64_t>(factor), &product);
  };
  for (const int64_t size : entry.shape) {
    if (!multiply(size)) return std::nullopt;
  }
  if (!multiply(size_of(entry.type))) return std::nullopt;
  return product;
}

/// Reads the header's JSON without keeping it as a tree, since it may be 100 MB of anything.
class HeaderHandler final : public JsonHandler {
 public:
  std::vector<TensorEntry> entries;
  std::map<std::string, std::string> metadata;

  void null() override {
    if (where_ == Where::kTop && key_ == kMetadataKey) return;  // as good as absent
    scalar("null");
  }
  void boolean(bool) override { scalar("a boolean"); }
  void negative(int64_t) override { scalar("a negative number"); }
  void number(double) override { scalar("a number that is no 64-bit integer"); }

  void natural(uint64_t value) override {
    if (where_ == Where::kShape) {
      if (value > INT64_MAX)
        fail("shape holds " + std::to_string(value) + ", expected at most 2^63 - 1");
      if (entry_.shape.size() == kHighestRank) fail("shape has more than 16 dimensions");
      entry_.shape.push_back(static_cast<int64_t>(value));
    } else if (where_ == Where::kOffsets) {
      if (n_offsets_ == 2) fail("data_offsets holds more than 2 numbers");
      (n_offsets_++ == 0 ? entry_.begin : entry_.end) = value;
    } else {
      scalar("an integer");
    }
  }

  void string(std::string& value) override {
    if (where_ == Where::kMetadata) {
      metadata[key_] = std::move(value);
    } else if (where_ == Where::kTensor && skipped_ == 0 && key_ == "dtype") {
      const auto type = type_named(value);
      if (!type) fail("unknown dtype " + in_message(value));
      entry_.type = *type;
      has_type_ = true;
    } else {
      scalar("a string");
    }
  }

  void key(std::string& name) override { key_ = std::move(name); }

  void begin_object() override {
    if (where_ == Where::kStart) {
      where_ = Where::kTop;
    } else if (where_ == Where::kTop && key_ == kMetadataKey) {
      where_ = Where::kMetadata;
    } else if (where_ == Where::kTop) {
      if (entries.size() == kMostTensors) {
        throw std::runtime_error("more than " + std::to_string(kMostTensors) + " tensors");
      }
      entry_ = {};
      entry_.name = key_;
      has_type_ = has_shape_ = has_offsets_ = false;
      where_ = Where::kTensor;
    } else {
      nest("an object");
    }
  }

  void end_object() override {
    if (skipped_ > 0) {
      --skipped_;
    } else if (where_ == Where::kTensor) {
      if (!has_type_) fail("dtype is missing");
      if (!has_shape_) fail("shape is missing");
      if (!has_offsets_) fail("data_offsets is missing");
      entries.push_back(std::move(entry_));
      where_ = Where::kTop;
    } else if (where_ == Where::kMetadata) {
      where_ = Where::kTop;
    }
  }

  void begin_array() override {
    if (where_ == Where::kTensor && skipped_ == 0 && key_ == "shape") {
      where_ = Where::kShape;
    } else if (where_ == Where::kTensor && skipped_ == 0 && key_ == "data_offsets") {
      where_ = Where::kOffsets;
      n_offsets_ = 0;
    } else {
      nest("an array");
    }
  }

  void end_array() override {
    if (skipped_ > 0) {
      --skipped_;
    } else if (where_ == Where::kShape) {
      has_shape_ = true;
      where_ = Where::kTensor;
    } else if (where_ == Where::kOffsets) {
      if (n_offsets_ != 2)
        fail("data_offsets holds " + std::to_string(n_offsets_) + " numbers, expected 2");
      has_offsets_ = true;
      where_ = Where::kTensor;
    }
  }

 private:
  enum class Where { kStart, kTop, kMetadata, kTensor, kShape, kOffsets };

  [[noreturn]] void fail(const std::string& rule) const {
    throw std::runtime_error("tensor " + in_message(entry_.name) + ": " + rule);
  }

  /// A value that no rule above took. Other keys of a tensor are allowed and mean nothing, as for
  /// the reference.
  void scalar(const std::string& found) const {
    switch (where_) {
      case Where::kStart:
        throw std::runtime_error("found " + found + ", expected an object");
      case Where::kTop:
        throw std::runtime_error(in_message(key_) + " is " + found + ", expected an object");
      case Where::kMetadata:
        throw std::runtime_error("__metadata__ " + in_message(key_) + " is " + found +
                                 ", expected a string");
      case Where::kShape:
        fail("shape holds " + found + ", expected integers >= 0");
      case Where::kOffsets:
        fail("data_offsets holds " + found + ", expected integers >= 0");
      case Where::kTensor:
        if (skipped_ > 0) return;
        if (key_ == "dtype") fail("dtype is " + found + ", expected a string");
        if (key_ == "shape" || key_ == "data_offsets")
          fail(key_ + " is " + found + ", expected an array");
    }
  }
  void nest(const std::string& found) {
    scalar(found);
    ++skipped_;
  }

  Where where_ = Where::kStart;
  std::string key_;
  TensorEntry entry_;
  bool has_type_ = false, has_shape_ = false, has_offsets_ = false;
  int n_offsets_ = 0;
  int skipped_ = 0;  // open objects and arrays under a key that means nothing
};

/// The length field, checked against the limits and the file.
uint64_t header_length(std::span<const std::byte> first_bytes, uint64_t file_size,
                       const std::string& path) {
  if (file_size < 8) {
    throw bad_file(path,
                   "holds " + std::to_string(file_size) + " bytes, a safetensors file at least 8");
  }
  uint64_t length;
  std::memcpy(&length, first_bytes.data(), sizeof length);
  if (length < 2 || length > kLongestHeader) {
    throw bad_file(path, "header length " + std::to_string(length) + ", expected 2 to " +
                             std::to_string(kLongestHeader));
  }
  if (length > file_size - 8) {
    throw bad_file(path, "header length " + std::to_string(length) +
                             " goes past the end of the file (" + std::to_string(file_size) +
                             " bytes)");
  }
  return length;
}

/// The spans follow each other without holes, hold what the shapes need, and end where the file
/// ends.
void check_spans(const std::vector<TensorEntry>& entries, uint64_t data_size,
                 const std::string& path) {
  uint64_t next = 0;
  for (const TensorEntry& entry : entries) {
    const auto fail = [&](const std::string& rule) {
      return bad_file(path, "tensor " + in_message(entry.name) + ": " + rule);
    };
    const std::string offsets =
        "data_offsets [" + std::to_string(entry.begin) + ", " + std::to_string(entry.end) + "]";
    if (entry.end < entry.begin) throw fail(offsets + " run backwards");
    if (entry.begin > next)
      throw fail(offsets + " leave a hole after byte " + std::to_string(next));
    if (entry.begin < next)
      throw fail(offsets + " overlap the tensor that ends at byte " + std::to_string(next));
    const auto needed = bytes_of(entry);
    if (!needed) throw fail("its shape needs more than 2^64 bytes");
    if (*needed != entry.bytes()) {
      throw fail(offsets + " hold " + std::to_string(entry.bytes()) +
                 " bytes, its shape and dtype need " + std::to_string(*needed));
    }
    next = entry.end;
  }
  if (next != data_size) {
    throw bad_file(path, "its tensors need " + std::to_string(next) +
                             " bytes of data, the file holds " + std::to_string(data_size));
  }
}

/// Orders `tensors` as the reference does and fills in their spans. All errors are the
/// programmer's.
void lay_out(std::vector<TensorEntry>& tensors) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return a.type != b.type ? a.type > b.type : a.name < b.name;
  });
  if (tensors.size() > kMostTensors)
    throw std::logic_error("safetensors: more than 100000 tensors");
  std::set<std::string_view> names;
  uint64_t next = 0;
  for (TensorEntry& entry : tensors) {
    const auto require = [&](bool holds, const char* rule) {
      if (!holds)
        throw std::logic_error("safetensors: tensor " + in_message(entry.name) + ": " + rule);
    };
    require(names.insert(entry.name).second, "given twice");
    require(entry.name != kMetadataKey, "the name is reserved");
    require(entry.shape.size() <= kHighestRank, "more than 16 dimensions");
    require(std::all_of(entry.shape.begin(), entry.shape.end(), [](int64_t n) { return n >= 0; }),
            "a negative size");
    const auto needed = bytes_of(entry);
    require(needed && *needed <= UINT64_MAX - next, "too large");
    entry.begin = next;
    entry.end = next += *needed;
  }
}

std::map<std::string, std::string> with_format(std::map<std::string, std::string> metadata) {
  metadata["format"] = "pt";  // transformers 4 refuses files without it
  return metadata;
}

}  // namespace

int64_t size_of(DataType type) { return facts_of(type).size; }
const char* name_of(DataType type) { return facts_of(type).name; }

std::vector<TensorEntry> parse_safetensors_header(std::span<const std::byte> first_bytes,
                                                  uint64_t file_size, const std::string& path,
                                                  std::map<std::string, std::string>* metadata,
                                                  uint64_t* data_offset) {
  const auto need = [&](uint64_t bytes) {
    if (first_bytes.size() < bytes)
      throw std::logic_error("parse_safetensors_header: pass the whole header");
  };
  need(std::min<uint64_t>(file_size, 8));
  const uint64_t length = header_length(first_bytes, file_size, path);
  need(8 + length);
  const std::string_view text(reinterpret_cast<const char*>(first_bytes.data()) + 8, length);
  if (text[0] != '{') throw bad_file(path, "the header does not begin with '{'");

  HeaderHandler header;
  try {
    parse_json(text, header);
  } catch (const std::runtime_error& error) {
    throw bad_file(path, std::string("header: ") + error.what());
  }
  std::sort(header.entries.begin(), header.entries.end(),
            [](const TensorEntry& a, const TensorEntry& b) {
              return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
            });
  check_spans(header.entries, file_size - 8 - length, path);
  if (metadata != nullptr) *metadata = std::move(header.metadata);
  if (data_offset != nullptr) *data_offset = 8 + length;
  return std::move(header.entries);
}

SafetensorsReader::SafetensorsReader(const std::string& path) : file_(File::open_read(path)) {
  const uint64_t size = file_.size();
  std::vector<std::byte> bytes(static_cast<size_t>(std::min<uint64_t>(size, 8)));
  file_.read_at(0, bytes);
  const uint64_t length = header_length(bytes, size, path);  // before so much is allocated
  bytes.resize(8 + length);
  file_.read_at(8, std::span(bytes).subspan(8));
  entries_ = parse_safetensors_header(bytes, size, path, &metadata_, &data_offset_);
  for (size_t i = 0; i < entries_.size(); ++i) by_name_.emplace(entries_[i].name, i);
}

const TensorEntry* SafetensorsReader::find(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &entries_[found->second];
}

void SafetensorsReader::read(const TensorEntry& entry, uint64_t begin,
                             std::span<std::byte> out) const {
  if (begin > entry.bytes() || out.size() > entry.bytes() - begin) {
    throw std::logic_error("SafetensorsReader: " + std::to_string(out.size()) + " bytes from " +
                           std::to_string(begin) + " of tensor " + in_message(entry.name) +
                           ", which has " + std::to_string(entry.bytes()));
  }
  file_.read_at(data_offset_ + entry.begin + begin, out);
}

std::string safetensors_header(std::vector<TensorEntry>& tensors,
                               const std::map<std::string, std::string>& metadata) {
  lay_out(tensors);
  std::string text = "{";
  const auto add_key = [&](const std::string& name) {
    if (text.size() > 1) text += ',';
    text += json_string(name) + ":{";
  };
  if (!metadata.empty()) {
    add_key(kMetadataKey);
    const char* separator = "";
    for (const auto& [key, value] : metadata) {
      text += separator + json_string(key) + ":" + json_string(value);
      separator = ",";
    }
    text += '}';
  }
  for (const TensorEntry& entry : tensors) {
    add_key(entry.name);
    text += std::string("\"dtype\":\"") + name_of(entry.type) + "\",\"shape\":[";
    for (size_t i = 0; i < entry.shape.size(); ++i)
      text += (i ? "," : "") + std::to_string(entry.shape[i]);
    text += "],\"data_offsets\":[" + std::to_string(entry.begin) + "," + std::to_string(entry.end) +
            "]}";
  }
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');
  if (text.size() > kLongestHeader)
    throw std::logic_error("safetensors: the header is above 100 MB");
  const uint64_t length = text.size();
  std::string bytes(sizeof length, '\0');
  std::memcpy(bytes.data(), &length, sizeof length);
  return bytes + text;
}

SafetensorsWriter::SafetensorsWriter(const std::string& path, std::vector<TensorEntry> tensors,
                                     std::map<std::string, std::string> metadata)
    : file_(File::create(path)), entries_(std::move(tensors)) {
  const std::string header = safetensors_header(entries_, with_format(std::move(metadata)));
  file_.write(header);
  written_ = header.size();
  file_checksum_ = crc32c(std::as_bytes(std::span(header)));
  next_tensor();
}

/// Goes past the tensors that are complete, those without bytes included.
void SafetensorsWriter::next_tensor() {
  while (current_ < entries_.size() && in_tensor_ == entries_[current_].bytes()) {
    checksums_.push_back(tensor_checksum_);
    ++current_;
    in_tensor_ = 0;
    tensor_checksum_ = 0;
  }
}

void SafetensorsWriter::write(std::span<const std::byte> data) {
  if (data.empty()) return;  // as a tensor without elements has it
  if (current_ == entries_.size())
    throw std::logic_error("SafetensorsWriter: more bytes than tensors");
  const TensorEntry& entry = entries_[current_];
  if (data.size() > entry.bytes() - in_tensor_) {
    throw std::logic_error("SafetensorsWriter: " + std::to_string(in_tensor_ + data.size()) +
                           " bytes for tensor " + in_message(entry.name) + ", which has " +
                           std::to_string(entry.bytes()));
  }
  file_.write(data);
  written_ += data.size();
  in_tensor_ += data.size();
  tensor_checksum_ = crc32c(data, tensor_checksum_);
  file_checksum_ = crc32c(data, file_checksum_);
  next_tensor();
}

void SafetensorsWriter::finish() {
  if (current_ < entries_.size()) {
    throw std::logic_error("SafetensorsWriter: tensor " + in_message(entries_[current_].name) +
                           " has " + std::to_string(in_tensor_) + " of its " +
                           std::to_string(entries_[current_].bytes()) + " bytes");
  }
  file_.sync();
  file_.close();
}

}  // namespace tandem
