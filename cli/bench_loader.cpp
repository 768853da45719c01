#include "cli/bench_loader.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "cli/data_commands.h"
#include "core/error.h"
#include "core/version.h"
#include "data/loader.h"
#include "nn/device_info.h"

namespace tandem {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kLate = 1e-3;  // s; a group that takes longer to come holds training up

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// What training does between two groups: computes on `n` threads, the one that takes the groups
/// and others, which are joined in the destructor; with n = 0 nothing.
class Training {
 public:
  explicit Training(int64_t n) : computes_(n > 0) {
    for (int64_t i = 1; i < n; ++i)
      others_.emplace_back([this] { compute([this] { return stop_.load(); }); });
  }
  ~Training() { stop_ = true; }
  void until(Clock::time_point due) const {
    if (!computes_) return std::this_thread::sleep_until(due);
    compute([due] { return Clock::now() >= due; });
  }

 private:
  static void compute(const auto& done) {
    volatile double x = 1;
    while (!done()) x = x * 0.999;
  }
  bool computes_;
  std::atomic<bool> stop_ = false;
  std::vector<std::jthread> others_;
};

/// How often this thread has slept because it waited for another, and not because the system ran
/// something else.
int64_t times_blocked() {
  rusage use{};
  ::getrusage(RUSAGE_THREAD, &use);
  return use.ru_nvcsw;
}

struct Paced {
  int64_t groups = 0, waited = 0, preempted = 0;  // without the first group
  double first = 0, waited_seconds = 0, longest = 0, seconds = 0;
};

/// Takes a group each `interval` seconds. Nobody could read the first ahead: it is told by itself.
Paced take_paced(Loader& loader, const Training& training, double interval, double seconds) {
  Paced paced;
  auto begin = Clock::now();
  loader.next();
  paced.first = seconds_since(begin);
  const auto step =
      std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(interval));
  begin = Clock::now();
  auto due = begin;
  do {
    due = std::max(due + step, Clock::now());  // who waited does not hurry afterwards
    training.until(due);
    const auto asked = Clock::now();
    const int64_t blocked = times_blocked();
    loader.next();
    const double wait = seconds_since(asked);
    ++paced.groups;
    if (wait > kLate) {
      const bool slept = times_blocked() > blocked;
      ++(slept ? paced.waited : paced.preempted);
      if (slept) paced.waited_seconds += wait;
    }
    paced.longest = std::max(paced.longest, wait);
  } while (seconds_since(begin) < seconds);
  paced.seconds = seconds_since(begin);
  return paced;
}

/// Groups a second, one directly after the other.
double unpaced_rate(Loader& loader, double seconds) {
  loader.next();
  const auto begin = Clock::now();
  int64_t groups = 0;
  do {
    loader.next();
    ++groups;
  } while (seconds_since(begin) < seconds);
  return static_cast<double>(groups) / seconds_since(begin);
}

struct LoaderBench {
  TokenFileOptions file;
  int64_t context_length = 2048, rows = 8, ahead = 0, busy_threads = 0;
  double rate = 1.5e6, seconds = 10;
  std::string shuffle = "windows";
  bool mask_documents = false, json = false;
  uint64_t seed = 0;

  void add_to(CLI::App& command) {
    command.footer(
        "An id counts as many bytes as the token file keeps it in: 2 of uint16, 4 of int32.\n"
        "A group is ROWS x CONTEXT_LENGTH ids. It was waited for when it took more than 1 ms to "
        "come\n"
        "and the thread slept meanwhile; where it did not sleep, the system ran something else\n"
        "(preempted). The first group, which nobody could read ahead, is told by itself.\n"
        "Example: tandem bench loader data/books --context-length 2048 --rows 8 --rate 1.5e6");
    file.add_to(command);
    command.add_option("--context-length", context_length, "Tokens of a row")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    command.add_option("--rows", rows, "Rows of a group")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    command.add_option("--rate", rate, "Bytes of ids that are taken a second")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    command.add_option("--seconds", seconds, "Time at that rate, and time as fast as it goes")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    command
        .add_option("--ahead", ahead, "Groups that the loader keeps ready; default: as in training")
        ->check(CLI::PositiveNumber);
    command
        .add_option(
            "--busy-threads", busy_threads,
            "Threads that compute between groups, as training would, with the one that takes the "
            "groups; 0 = it sleeps")
        ->check(CLI::Range(0, 1024))
        ->capture_default_str();
    command.add_option("--shuffle", shuffle, "As in a config; none keeps the order of the file")
        ->check(CLI::IsMember({"windows", "documents", "none"}))
        ->capture_default_str();
    command.add_flag("--mask-documents", mask_documents, "Tokens see their own document only");
    command.add_option("--seed", seed, "Of the order of windows or documents")
        ->capture_default_str();
    command.add_flag("--json", json, "Print the result as JSON");
  }

  int run() {
    if (ahead == 0) ahead = groups_ahead(rows, context_length);
    const std::vector<SourceSpec> sources = {{.file = file.spec}};
    const auto sampler =
        std::make_shared<const Sampler>(sources, context_length, shuffle, mask_documents, seed);
    const auto loader = [&] {
      return std::make_unique<Loader>(
          sampler, [n = rows](int64_t k) { return SampleRange{.first = k * n, .n = n}; }, ahead);
    };
    const TokenFile& tokens = *sampler->files().front();
    const auto group_tokens = static_cast<double>(rows * context_length);
    const double group_bytes =
        group_tokens * static_cast<double>(find_token_dtype(tokens.dtype())->bytes);
    if (group_bytes > rate * seconds)
      throw bad_usage(fmt::format("a group is {} bytes: --rate {} for --seconds {} takes none",
                                  group_bytes, rate, seconds));

    const Training training(busy_threads);
    const Paced paced = take_paced(*loader(), training, group_bytes / rate, seconds);
    const double most = unpaced_rate(*loader(), seconds);
    const auto groups = static_cast<double>(paced.groups);
    print_result({{"benchmark", "loader"},
                  {"version", kTandemVersion},
                  {"cpu", device_name(torch::kCPU)},
                  {"path", tokens.prefix()},
                  {"dtype", tokens.dtype()},
                  {"documents", tokens.documents()},
                  {"tokens", tokens.tokens()},
                  {"context_length", context_length},
                  {"rows", rows},
                  {"ahead", ahead},
                  {"busy_threads", busy_threads},
                  {"shuffle", shuffle},
                  {"mask_documents", mask_documents},
                  {"asked_bytes_per_s", rate},
                  {"bytes_per_s", groups * group_bytes / paced.seconds},
                  {"seconds", paced.seconds},
                  {"groups", paced.groups},
                  {"waited_for", paced.waited},
                  {"share_waited_for", static_cast<double>(paced.waited) / groups},
                  {"preempted", paced.preempted},
                  {"waited_seconds", paced.waited_seconds},
                  {"longest_wait_ms", paced.longest * 1e3},
                  {"first_group_ms", paced.first * 1e3},
                  {"most_bytes_per_s", most * group_bytes},
                  {"most_tokens_per_s", most * group_tokens}},
                 json);
    return kExitDone;
  }
};

}  // namespace

std::function<int()> add_loader_bench(CLI::App& app) {
  const auto bench = std::make_shared<LoaderBench>();
  bench->add_to(*app.add_subcommand("loader", "Whether training would wait for its rows"));
  return [bench] { return bench->run(); };
}

}  // namespace tandem
