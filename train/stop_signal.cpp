#include "train/stop_signal.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>

namespace tandem {
namespace {

constexpr std::array kCaught = {SIGTERM, SIGINT};
constexpr std::array kIgnoredSignals = {SIGPIPE, SIGXFSZ};

std::atomic<int> received_signal{0};
static_assert(std::atomic<int>::is_always_lock_free, "written by a signal handler");
std::array<struct sigaction, kCaught.size() + kIgnoredSignals.size()> actions_before;

void on_signal(int number) {
  if (received_signal.exchange(number) != 0) _exit(128 + number);
}

}  // namespace

StopSignal::StopSignal() {
  received_signal = 0;
  size_t n = 0;
  const auto install = [&](int number, void (*handler)(int)) {
    struct sigaction action {};
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;
    sigaction(number, &action, &actions_before[n++]);
  };
  for (const int number : kCaught) install(number, on_signal);
  for (const int number : kIgnoredSignals) install(number, SIG_IGN);
}

StopSignal::~StopSignal() {
  size_t n = 0;
  for (const int number : kCaught) sigaction(number, &actions_before[n++], nullptr);
  for (const int number : kIgnoredSignals) sigaction(number, &actions_before[n++], nullptr);
}

int StopSignal::received() const { return received_signal; }

}  // namespace tandem
