#pragma once
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <variant>

namespace tandem {

// What ranks tell each other over the connections of comm/liveness. On the wire: the number of bytes that follow (2 bytes), one byte for the kind, then the members in
// their order: integers as 8 bytes, texts as 2 bytes of length and their bytes; all little-endian.

/// What a rank was doing when it last said so.
struct Activity {
  int64_t step = -1;           // -1: it did not say yet
  int64_t stalled_ms = 0;      // since it last reported anything new
  std::string operation;       // "gradient.all_reduce"
};

struct Hello {  ///< the first message of every rank but 0
  std::string token;  // as rank 0 published it
  int64_t rank = 0, world = 0, pid = 0;
  std::string host;
};
struct Start {  ///< from rank 0, when all ranks are there; of itself
  int64_t pid = 0;
  std::string host;
};
struct Refused {  ///< from rank 0 in place of Start
  int64_t exit_code = 0;
  std::string reason;
};
struct Beat {
  Activity activity;
};
struct Goodbye {  ///< the last message of a rank that leaves by itself
  int64_t exit_code = 0;
  std::string reason;
  Activity activity;
};
/// Which rank is gone, and how.
struct LostRank {
  int64_t rank = 0, pid = 0;
  std::string host;
  std::string how;     // "was killed or crashed", "stopped answering for 3.0 s", "left with exit code 66"
  std::string reason;  // that the rank itself gave, or empty
  Activity activity;
  /// "rank 2 (node7, process 4711) is gone: it was killed or crashed at step 120 in gradient.all_reduce; leaving with 75"
  std::string line() const;
};

using Message = std::variant<Hello, Start, Refused, Beat, Goodbye, LostRank>;

constexpr size_t kLongestText = 200;      // bytes; longer ones are cut when written and refused when read
constexpr size_t kLongestMessage = 1024;  // bytes, without the two of the length

std::string encode(const Message& message);

/// Bytes that no rank sends.
struct MalformedMessage : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Messages out of a stream of bytes. Holds at most what was added since the last message, and refuses a message as soon as its length or kind is wrong.
class MessageReader {
 public:
  void add(std::string_view bytes) { bytes_ += bytes; }
  /// The next message that is whole. Throws MalformedMessage; nothing more can be read then.
  std::optional<Message> next();

 private:
  std::string bytes_;
};

}  // namespace tandem
