#include "comm/liveness_message.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace tandem {
namespace {

const Activity kActivity = {120, 350, "gradient.all_reduce"};

std::vector<Message> one_of_each() {
  return {Hello{"0123456789abcdef0123456789abcdef", 2, 4, 4711, "node7"},
          Start{17, "node1"},
          Refused{75, "of 4 ranks these did not come within 300 s: 2, 3"},
          Beat{kActivity},
          Goodbye{66, "books.bin: cannot be opened", kActivity},
          LostRank{2, 4711, "node7", "was killed or crashed", "", kActivity}};
}

/// A frame of these bytes.
std::string frame(const std::string& body) {
  return std::string{static_cast<char>(body.size() & 0xff), static_cast<char>(body.size() >> 8)} +
         body;
}

std::string error_of_reading(const std::string& bytes) {
  MessageReader reader;
  reader.add(bytes);
  try {
    reader.next();
  } catch (const MalformedMessage& malformed) {
    return malformed.what();
  }
  return "";
}

TEST(LivenessMessageTest, EveryKindComesBackFromSingleBytes) {
  MessageReader reader;
  std::vector<size_t> kinds;
  for (const auto& message : one_of_each()) {
    const std::string bytes = encode(message);
    for (const char byte : bytes) {
      ASSERT_FALSE(reader.next());
      reader.add({&byte, 1});
    }
    const auto read = reader.next();
    ASSERT_TRUE(read);
    EXPECT_EQ(read->index(), message.index());
    EXPECT_EQ(encode(*read), bytes);
    kinds.push_back(message.index());
  }
  EXPECT_EQ(kinds.size(), std::variant_size_v<Message>);
}

TEST(LivenessMessageTest, LongTextsAreCutWhenWritten) {
  MessageReader reader;
  const std::string longer(70'000, 'x');
  reader.add(encode(LostRank{1, 2, longer, longer, longer, {3, 4, longer}}));
  const auto read = reader.next();
  ASSERT_TRUE(read);
  EXPECT_EQ(std::get<LostRank>(*read).how, std::string(kLongestText, 'x'));
}

TEST(LivenessMessageTest, WhatNoRankSendsIsRefused) {
  EXPECT_EQ(error_of_reading("GET / HTTP/1.1\r\n"), "no message is so long");
  EXPECT_EQ(error_of_reading(std::string(2, '\0')), "no message is so long");
  EXPECT_EQ(error_of_reading(frame("\x06")), "no kind of message");
  EXPECT_EQ(error_of_reading(std::string("\xff\x03\x7f", 3)),
            "no kind of message");  // seen before the rest
  EXPECT_EQ(error_of_reading(frame("\x01"
                                   "1234567")),
            "a message ends within a value");
  EXPECT_EQ(error_of_reading(frame(std::string("\x01"
                                               "12345678\x09\0node",
                                               15))),
            "a message ends within a value");
  EXPECT_EQ(error_of_reading(frame(std::string("\x01"
                                               "12345678\xc9\0",
                                               11))),
            "a text in a message is too long");
  EXPECT_EQ(error_of_reading(frame(std::string("\x01"
                                               "12345678\x01\0ab",
                                               13))),
            "a message holds more than its values");
}

TEST(LivenessMessageTest, TheLineOfALoss) {
  LostRank loss{2, 4711, "node7", "was killed or crashed", "", kActivity};
  EXPECT_EQ(loss.line(),
            "rank 2 (node7, process 4711) is gone: it was killed or crashed at step 120 in "
            "gradient.all_reduce; leaving with 75");
  loss.how = "left with exit code 66";
  loss.reason = "a\nb.bin: cannot be opened";
  loss.activity = {0, 63'400, "data"};
  EXPECT_EQ(loss.line(),
            "rank 2 (node7, process 4711) is gone: it left with exit code 66 (a\\nb.bin: cannot be "
            "opened) at step 0 in data for 63 s; leaving with 75");
  loss.activity = {};
  loss.reason = "";
  EXPECT_EQ(loss.line(),
            "rank 2 (node7, process 4711) is gone: it left with exit code 66 before its first "
            "step; leaving with 75");
}

}  // namespace
}  // namespace tandem
