#include "core/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "core/log.h"

namespace tandem {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kBetweenBars = std::chrono::milliseconds(100);
constexpr auto kBetweenLines = std::chrono::seconds(10);
constexpr const char* kEraseLine = "\r\033[K";

void print(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stderr); }

size_t terminal_columns() {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

std::string bar(double share) {
  constexpr size_t kWidth = 24;
  const auto filled = static_cast<size_t>(share * kWidth);
  return "[" + std::string(filled, '#') + std::string(kWidth - filled, '.') + "] ";
}

}  // namespace

Progress::Progress(std::string label, int64_t total, std::string unit, int64_t done)
    : label_(std::move(label)),
      unit_(std::move(unit)),
      total_(total),
      start_(done),
      done_(done),
      terminal_(::isatty(STDERR_FILENO) == 1),
      begin_(Clock::now()),
      last_draw_(begin_) {}

Progress::~Progress() { finish(); }

void Progress::update(int64_t done, std::string_view note) {
  done_ = done;
  note_ = note;
  const auto now = Clock::now();
  const bool due =
      terminal_ ? !drawn_ || now - last_draw_ >= kBetweenBars : now - last_draw_ >= kBetweenLines;
  if (finished_ || !due) return;
  last_draw_ = now;
  draw(/*last=*/false);
}

void Progress::clear() {
  if (!terminal_ || !drawn_) return;
  print(kEraseLine);
  drawn_ = false;
}

void Progress::finish() {
  if (finished_) return;
  finished_ = true;
  clear();
  draw(/*last=*/true);
}

/// `label: [####....] 40% 400 / 1,000 steps, 12 s left, note`; the last line has the time taken
/// instead.
void Progress::draw(bool last) {
  const double seconds = std::chrono::duration<double>(Clock::now() - begin_).count();
  std::string text = label_ + ": ";
  if (total_ > 0 && !last) {
    const double share =
        std::clamp(static_cast<double>(done_) / static_cast<double>(total_), 0.0, 1.0);
    if (terminal_) text += bar(share);
    text += std::to_string(static_cast<int>(100 * share)) + "% ";
  }
  text += with_commas(done_);
  if (total_ > 0 && !(last && done_ == total_)) text += " / " + with_commas(total_);
  text += " " + unit_;
  if (last) {
    text += " in " + human_duration(seconds);
  } else if (total_ > done_ && done_ > start_) {
    const double per_unit = seconds / static_cast<double>(done_ - start_);
    text += ", " + human_duration(per_unit * static_cast<double>(total_ - done_)) + " left";
  }
  if (!note_.empty()) text += ", " + note_;

  if (last || !terminal_) {
    print(text + "\n");
    return;
  }
  text.resize(std::min(text.size(), terminal_columns() - 1));  // a wrapped bar could not be erased
  print(kEraseLine + text);
  drawn_ = true;
}

}  // namespace tandem
