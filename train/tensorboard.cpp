#include "train/tensorboard.h"

#include <unistd.h>

#include <bit>
#include <chrono>

#include "core/checksum.h"

namespace tandem {
namespace {

// Protobuf: each field begins with number * 8 + wire type.
constexpr int kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5;
constexpr int kWallTime = 1, kStep = 2, kFileVersion = 3, kSummary = 5,
              kSessionLog = 7;             // of Event
constexpr int kValue = 1;                  // of Summary
constexpr int kTag = 1, kSimpleValue = 2;  // of Summary.Value
constexpr int kStatus = 1, kStart = 1;     // of SessionLog

template <typename Unsigned>
void put_fixed(std::string& out, Unsigned value) {
  for (size_t i = 0; i < sizeof value; ++i) out.push_back(static_cast<char>(value >> (8 * i)));
}

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

void put_key(std::string& out, int field, int type) {
  put_varint(out, static_cast<uint64_t>(field * 8 + type));
}

void put_bytes(std::string& out, int field, std::string_view bytes) {
  put_key(out, field, kBytes);
  put_varint(out, bytes.size());
  out += bytes;
}

std::string event_at(double wall_time) {
  std::string event;
  put_key(event, kWallTime, kFixed64);
  put_fixed(event, std::bit_cast<uint64_t>(wall_time));
  return event;
}

std::string event_at(double wall_time, int64_t step) {
  std::string event = event_at(wall_time);
  put_key(event, kStep, kVarint);
  put_varint(event, static_cast<uint64_t>(step));
  return event;
}

/// TensorFlow's masked CRC, so that sums of data that holds sums stay good.
uint32_t masked_crc(std::string_view data) {
  return std::rotr(crc32c(std::as_bytes(std::span(data))), 15) + 0xa282ead8u;
}

double seconds_since_1970() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string new_event_file(const std::string& folder) {
  make_directories(folder);
  char host[256] = "localhost";
  gethostname(host, sizeof host - 1);
  const auto seconds = static_cast<int64_t>(seconds_since_1970());
  const std::string name = "events.out.tfevents." + std::to_string(seconds) + "." + host + "." +
                           std::to_string(getpid()) + ".";
  int64_t n = 0;
  while (exists(join_path(folder, name + std::to_string(n)))) ++n;
  return join_path(folder, name + std::to_string(n));
}

}  // namespace

std::string version_event(double wall_time) {
  std::string event = event_at(wall_time);
  put_bytes(event, kFileVersion, "brain.Event:2");
  return event;
}

std::string scalars_event(double wall_time, int64_t step, const Scalars& scalars) {
  std::string summary;
  for (const auto& [tag, value] : scalars) {
    std::string entry;
    put_bytes(entry, kTag, tag);
    put_key(entry, kSimpleValue, kFixed32);
    put_fixed(entry, std::bit_cast<uint32_t>(static_cast<float>(value)));
    put_bytes(summary, kValue, entry);
  }
  std::string event = event_at(wall_time, step);
  put_bytes(event, kSummary, summary);
  return event;
}

std::string restart_event(double wall_time, int64_t step) {
  std::string log;
  put_key(log, kStatus, kVarint);
  put_varint(log, kStart);
  std::string event = event_at(wall_time, step);
  put_bytes(event, kSessionLog, log);
  return event;
}

std::string event_record(std::string_view event) {
  std::string length, record;
  put_fixed(length, static_cast<uint64_t>(event.size()));
  record = length;
  put_fixed(record, masked_crc(length));
  record += event;
  put_fixed(record, masked_crc(event));
  return record;
}

TensorboardWriter::TensorboardWriter(const std::string& folder, int64_t next_step)
    : file_(File::create(new_event_file(folder))) {
  file_.write(event_record(version_event(seconds_since_1970())));
  if (next_step > 1) file_.write(event_record(restart_event(seconds_since_1970(), next_step)));
}

void TensorboardWriter::write(int64_t step, const Scalars& scalars) {
  file_.write(event_record(scalars_event(seconds_since_1970(), step, scalars)));
}

}  // namespace tandem
