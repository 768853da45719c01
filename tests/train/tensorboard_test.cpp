#include "train/tensorboard.h"

#include <gtest/gtest.h>

#include "core/checksum.h"
#include "tests/data/temp_folder.h"

namespace tandem {
namespace {

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2) {
    if (hex[i] == ' ') ++i;
    bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

/// Events of a file; checks the frames.
std::vector<std::string> events_of(const std::string& file) {
  std::vector<std::string> events;
  for (size_t at = 0; at < file.size();) {
    uint64_t length = 0;
    for (size_t i = 0; i < 8; ++i)
      length |= static_cast<uint64_t>(static_cast<unsigned char>(file.at(at + i))) << (8 * i);
    events.push_back(file.substr(at + 12, length));
    EXPECT_EQ(file.substr(at, 16 + length), event_record(events.back()));
    at += 16 + length;
  }
  return events;
}

// Both records were read back by TensorBoard's own loader.
TEST(TensorboardTest, WritesTheVersionRecord) {
  EXPECT_EQ(event_record(version_event(0)),
            from_hex("1800000000000000 a37f4b22 090000000000000000 1a0d") + "brain.Event:2" +
                from_hex("eedf28a3"));
}

TEST(TensorboardTest, WritesAScalar) {
  EXPECT_EQ(event_record(scalars_event(0, 7, {{"a", 1.5}})),
            from_hex("1700000000000000 e7cef81e 090000000000000000 1007 2a0a 0a08 0a0161 "
                     "150000c03f 43fa1fed"));
}

TEST(TensorboardTest, WritesManyScalarsOfALateStep) {
  const std::string long_tag(200, 'x');  // its length takes two bytes
  const std::string event = scalars_event(0, 300, {{"b", -1}, {long_tag, 0.5}});
  const std::string first = from_hex("0a08 0a0162 15000080bf");
  const std::string second = from_hex("0ad001 0ac801") + long_tag + from_hex("150000003f");
  EXPECT_EQ(event, from_hex("090000000000000000 10ac02 2add01") + first + second);
}

TEST(TensorboardTest, AResumedRunDropsWhatAKilledProcessLeft) {
  // Event.session_log (field 7) with status START (1); TensorBoard forgets points from the event's
  // step on.
  EXPECT_EQ(restart_event(0, 9), from_hex("090000000000000000 1009 3a02 0801"));
  const TempFolder folder;
  { TensorboardWriter(folder.path(), 1).write(1, {{"loss", 3}}); }
  { TensorboardWriter(folder.path(), 9).write(9, {{"loss", 2}}); }
  const auto files = list_directory(folder.path());
  ASSERT_EQ(files.size(), 2u);
  for (const auto& name : files) EXPECT_TRUE(name.starts_with("events.out.tfevents.")) << name;
  const auto first = events_of(file_bytes(folder / files[0])),
             second = events_of(file_bytes(folder / files[1]));
  ASSERT_EQ(first.size(), 2u);
  ASSERT_EQ(second.size(), 3u);
  EXPECT_EQ(second[1].substr(9), restart_event(0, 9).substr(9));  // behind the wall time
  EXPECT_EQ(second[2].substr(9), scalars_event(0, 9, {{"loss", 2}}).substr(9));
}

}  // namespace
}  // namespace tandem
