#include "comm/liveness_message.h"

#include <type_traits>
#include <utility>

#include "core/error.h"

namespace tandem {
namespace {

constexpr size_t kLengthBytes = 2;
constexpr int64_t kLongStalledMs = 10'000;  // worth a word: no usual operation takes as long

// The members of each message, once for writing and reading.
template <typename Visitor, typename M>
void members(Visitor& visit, M& message) {
  using T = std::remove_const_t<M>;
  if constexpr (std::is_same_v<T, Hello>) {
    visit(message.token, message.rank, message.world, message.pid, message.host);
  } else if constexpr (std::is_same_v<T, Start>) {
    visit(message.pid, message.host);
  } else if constexpr (std::is_same_v<T, Refused>) {
    visit(message.exit_code, message.reason);
  } else {
    if constexpr (std::is_same_v<T, Goodbye>) visit(message.exit_code, message.reason);
    if constexpr (std::is_same_v<T, LostRank>)
      visit(message.rank, message.pid, message.host, message.how, message.reason);
    visit(message.activity.step, message.activity.stalled_ms, message.activity.operation);
  }
}

void put(std::string& out, uint64_t number, size_t n_bytes) {
  for (size_t i = 0; i < n_bytes; ++i) out += static_cast<char>(number >> (8 * i) & 0xff);
}

uint64_t get(std::string_view bytes, size_t n_bytes) {
  uint64_t number = 0;
  for (size_t i = 0; i < n_bytes; ++i)
    number |= uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
  return number;
}

struct Writer {
  std::string out;
  template <typename... Values>
  void operator()(const Values&... values) {
    (write(values), ...);
  }
  void write(int64_t number) { put(out, static_cast<uint64_t>(number), 8); }
  void write(const std::string& text) {
    const std::string_view part = std::string_view(text).substr(0, kLongestText);
    put(out, part.size(), 2);
    out += part;
  }
};

struct Reader {
  std::string_view rest;
  template <typename... Values>
  void operator()(Values&... values) {
    (read(values), ...);
  }
  std::string_view take(size_t n) {
    if (n > rest.size()) throw MalformedMessage("a message ends within a value");
    const std::string_view part = rest.substr(0, n);
    rest.remove_prefix(n);
    return part;
  }
  void read(int64_t& number) { number = static_cast<int64_t>(get(take(8), 8)); }
  void read(std::string& text) {
    const uint64_t length = get(take(2), 2);
    if (length > kLongestText) throw MalformedMessage("a text in a message is too long");
    text = take(length);
  }
};

/// Calls `use` with an empty message of the kind that `index` stands for.
template <size_t I = 0, typename Use>
void with_kind(size_t index, const Use& use) {
  if constexpr (I < std::variant_size_v<Message>) {
    if (index == I) return use(std::variant_alternative_t<I, Message>{});
    with_kind<I + 1>(index, use);
  }
}

std::string seconds_of(int64_t ms) { return std::to_string(ms / 1000) + " s"; }

}  // namespace

std::string LostRank::line() const {
  std::string text = "rank " + std::to_string(rank) + " (" + one_line(host) + ", process " +
                     std::to_string(pid) + ") is gone: it " + one_line(how);
  if (!reason.empty()) text += " (" + one_line(reason) + ")";
  text +=
      activity.step < 0 ? " before its first step" : " at step " + std::to_string(activity.step);
  if (!activity.operation.empty()) text += " in " + one_line(activity.operation);
  if (activity.stalled_ms >= kLongStalledMs) text += " for " + seconds_of(activity.stalled_ms);
  return text + "; leaving with " + std::to_string(kExitPeerLost);
}

std::string encode(const Message& message) {
  Writer writer;
  writer.out += static_cast<char>(message.index());
  std::visit([&](const auto& kind) { members(writer, kind); }, message);
  std::string bytes;
  put(bytes, writer.out.size(), kLengthBytes);
  return bytes + writer.out;
}

std::optional<Message> MessageReader::next() {
  if (bytes_.size() < kLengthBytes) return std::nullopt;
  const size_t length = get(bytes_, kLengthBytes);
  if (length == 0 || length > kLongestMessage) throw MalformedMessage("no message is so long");
  if (bytes_.size() == kLengthBytes) return std::nullopt;
  const size_t kind = get(std::string_view(bytes_).substr(kLengthBytes), 1);
  if (kind >= std::variant_size_v<Message>) throw MalformedMessage("no kind of message");
  if (bytes_.size() < kLengthBytes + length) return std::nullopt;
  Reader reader{std::string_view(bytes_).substr(kLengthBytes + 1, length - 1)};
  Message message;
  with_kind(kind, [&](auto empty) {
    members(reader, empty);
    message = std::move(empty);
  });
  if (!reader.rest.empty()) throw MalformedMessage("a message holds more than its values");
  bytes_.erase(0, kLengthBytes + length);
  return message;
}

}  // namespace tandem
