// Processes that watch each other: this program starts itself again as a rank, `liveness_test rank
// FOLDER RANK WORLD HEARTBEAT_SECONDS CONNECT_SECONDS WHAT_IT_DOES`.
#include "comm/liveness.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/file.h"
#include "core/random.h"
#include "tests/data/temp_folder.h"
#include "tests/process.h"

namespace tandem {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using testing::HasSubstr;
constexpr auto kLongest = std::chrono::seconds(60);  // that anything here may take

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

bool wait_until(const auto& holds, double seconds = 30) {
  for (const auto begin = Clock::now(); seconds_since(begin) < seconds;) {
    if (holds()) return true;
    std::this_thread::sleep_for(milliseconds(1));
  }
  return holds();
}

/// The store: files of a folder.
Rendezvous files_of(const std::string& folder) {
  return {[folder](const std::string& key, const std::string& value) {
            write_atomically(join_path(folder, key), value);
          },
          [folder](const std::string& key, double seconds) {
            const std::string path = join_path(folder, key);
            if (!wait_until([&] { return exists(path); }, seconds))
              throw UserError(kExitPeerLost, "rank 0 did not come within the limit");
            return read_text(path);
          }};
}

/// One rank; its exit code. Files named `go`, `process-RANK` and `ready-RANK` are how the test and
/// the ranks know of each other.
int run_rank(char** words) {
  ::alarm(60);
  const std::string folder = words[2], what = words[7];
  GatherOptions options;
  options.rank = std::atoll(words[3]);
  options.world = std::atoll(words[4]);
  options.heartbeat_seconds = std::atof(words[5]);
  options.connect_seconds = std::atof(words[6]);
  write_atomically(join_path(folder, "process-" + std::string(words[3])),
                   std::to_string(::getpid()));
  const auto print = [](const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); };
  std::unique_ptr<Liveness> liveness;
  try {
    liveness = std::make_unique<Liveness>(options, files_of(folder), print);
  } catch (const UserError& error) {
    print(error.what());
    return error.exit_code();
  }
  liveness->report(120, "gradient.all_reduce");
  std::this_thread::sleep_for(
      milliseconds(400));  // until it was sent, whatever else this machine does
  write_atomically(join_path(folder, "ready-" + std::to_string(options.rank)), "");
  if (what == "block") ::pause();
  const auto go = [&] { return exists(join_path(folder, "go")); };
  for (int64_t step = 121; !go(); ++step) {
    if (what == "step") liveness->report(step, "gradient.all_reduce");
    std::this_thread::sleep_for(milliseconds(5));
  }
  if (what == "leave") liveness->leave("gradient.all_reduce: Connection closed by peer");
  if (what == "leave with 66") {
    liveness->goodbye(66, "books.bin: cannot be opened");
    return 66;
  }
  // All others end one after the other, as at the end of a run.
  std::this_thread::sleep_for(milliseconds(30 * options.rank));
  const int code = what == "stop" ? 143 : 0;
  liveness->goodbye(code);
  return code;
}

class LivenessTest : public testing::Test {
 protected:
  /// Starts rank `rank` as well; all of one test say the same limits.
  void start(int64_t rank, int64_t world, const std::string& what) {
    const std::string program = std::filesystem::read_symlink("/proc/self/exe");
    const auto text = [](auto number) { return std::to_string(number); };
    names_.push_back(rank);
    ranks_.push_back(std::make_unique<Process>(
        std::vector<std::string>{program, "rank", folder_.path(), text(rank), text(world),
                                 text(heartbeat_seconds_), text(connect_seconds_), what},
        folder_ / ("stderr-" + text(names_.size() - 1))));
  }
  void start_all(int64_t world, const std::string& what) {
    for (int64_t rank = 0; rank < world; ++rank) start(rank, world, what);
  }
  void wait_until_ready() {
    for (const int64_t rank : names_)
      ASSERT_TRUE(wait_until([&] { return exists(folder_ / ("ready-" + std::to_string(rank))); }))
          << said(rank);
  }
  void begin_again() {
    names_.clear();
    ranks_.clear();
    for (const std::string& name : list_directory(folder_.path())) remove_tree(folder_ / name);
  }
  std::string process_of(int64_t rank) {
    return read_text(folder_ / ("process-" + std::to_string(rank)));
  }
  void go() { write_file(folder_ / "go", ""); }
  /// What the i-th process that was started wrote to standard error.
  std::string said(size_t i) { return file_bytes(folder_ / ("stderr-" + std::to_string(i))); }
  /// All but `lost` leave with 75 and one line, which has these words about it.
  void expect_named(size_t lost, const std::string& words) {
    for (size_t i = 0; i < ranks_.size(); ++i) {
      if (i == lost) continue;
      EXPECT_EQ(ranks_[i]->wait(kLongest), 75) << said(i);
      EXPECT_EQ(said(i), "rank " + std::to_string(names_[lost]) + " (" + host_name() +
                             ", process " + process_of(names_[lost]) + ") is gone: it " + words +
                             "; leaving with 75\n");
    }
  }
  void expect_all(int code) {
    for (size_t i = 0; i < ranks_.size(); ++i) {
      EXPECT_EQ(ranks_[i]->wait(kLongest), code) << said(i);
    }
  }
  TempFolder folder_;
  double heartbeat_seconds_ = 20, connect_seconds_ = 20;
  std::vector<int64_t> names_;  // the rank of each process
  std::vector<std::unique_ptr<Process>> ranks_;
};

TEST_F(LivenessTest, AWorldOfOneWatchesNothing) {
  Liveness liveness({}, {}, [](const std::string&) {});
  liveness.report(1, "gradient.all_reduce");
  EXPECT_FALSE(liveness.wait_for_verdict(60));
  liveness.goodbye(66);
}

class LivenessKillTest : public LivenessTest, public testing::WithParamInterface<int> {};

TEST_P(LivenessKillTest, AKilledRankIsNamedByAllOthers) {
  start_all(4, "block");
  wait_until_ready();
  ranks_[GetParam()]->send(SIGKILL);
  expect_named(GetParam(), "was killed or crashed at step 120 in gradient.all_reduce");
}
INSTANTIATE_TEST_SUITE_P(EveryRank, LivenessKillTest, testing::Range(0, 4));

TEST_F(LivenessTest, AFailedCollectiveWaitsForTheNameOfTheLostRank) {
  for (int64_t rank = 0; rank < 4; ++rank) start(rank, 4, rank == 2 ? "block" : "leave");
  wait_until_ready();
  go();
  ranks_[2]->send(SIGKILL);
  expect_named(2, "was killed or crashed at step 120 in gradient.all_reduce");
}

TEST_F(LivenessTest, AFailedCollectiveWithoutALostRankIsTold) {
  for (int64_t rank = 0; rank < 3; ++rank) start(rank, 3, rank == 1 ? "leave" : "block");
  wait_until_ready();
  go();
  expect_named(1,
               "left with exit code 75 (gradient.all_reduce: Connection closed by peer) at step "
               "120 in gradient.all_reduce");
  EXPECT_EQ(ranks_[1]->wait(kLongest), 75);
  EXPECT_EQ(said(1), "gradient.all_reduce: Connection closed by peer; leaving with 75\n");
}

TEST_F(LivenessTest, ARankThatLeavesOnItsOwnErrorIsNamedWithItsCode) {
  for (int64_t rank = 0; rank < 3; ++rank) start(rank, 3, rank == 2 ? "leave with 66" : "block");
  wait_until_ready();
  go();
  expect_named(
      2, "left with exit code 66 (books.bin: cannot be opened) at step 120 in gradient.all_reduce");
  EXPECT_EQ(ranks_[2]->wait(kLongest), 66);
}

TEST_F(LivenessTest, RankZeroThatLeavesOnItsOwnErrorIsNamedToo) {
  for (int64_t rank = 0; rank < 3; ++rank) start(rank, 3, rank == 0 ? "leave with 66" : "block");
  wait_until_ready();
  go();
  expect_named(
      0, "left with exit code 66 (books.bin: cannot be opened) at step 120 in gradient.all_reduce");
  EXPECT_EQ(ranks_[0]->wait(kLongest), 66);
}

TEST_F(LivenessTest, OrderlyEndsOneAfterTheOtherAreNoLoss) {
  start_all(4, "step");
  wait_until_ready();
  go();
  expect_all(0);
  EXPECT_EQ(said(0) + said(1) + said(2) + said(3), "");
}

TEST_F(LivenessTest, AllStoppedByASignalIsNoLoss) {
  start_all(3, "stop");
  wait_until_ready();
  go();
  expect_all(143);
}

TEST_F(LivenessTest, MissingRanksAreNamed) {
  connect_seconds_ = 0.5;
  start(0, 4, "block");
  start(2, 4, "block");
  expect_all(75);
  EXPECT_EQ(said(0), "of 4 ranks these did not come within 0.5 s: 1, 3\n");
  EXPECT_EQ(said(1), said(0));
}

TEST_F(LivenessTest, WithoutRankZeroTheOthersEnd) {
  connect_seconds_ = 0.3;
  start(1, 3, "block");
  start(2, 3, "block");
  expect_all(75);
}

/// A process of the test's own in place of a rank.
class LivenessStrangerTest : public LivenessTest {
 protected:
  /// A socket to rank 0 once that listens.
  Descriptor connect() {
    if (token_.empty()) {
      const std::string found = files_of(folder_.path()).lookup("liveness", 30);
      port_ = std::atoll(found.c_str());
      token_ = found.substr(found.find(' ') + 1);
    }
    std::string error;
    return connect_to("127.0.0.1", port_, 10, &error);
  }
  Connection hello(int64_t rank, int64_t world) {
    Connection connection(connect());
    connection.send(Hello{token_, rank, world, 4711, "node7"});
    return connection;
  }
  /// The first message that comes, or none before the end of the connection.
  std::optional<Message> heard(Connection& connection) {
    std::vector<Message> messages;
    EXPECT_TRUE(wait_until([&] {
      messages = connection.receive();
      return !messages.empty() || connection.closed();
    }));
    if (messages.empty()) return std::nullopt;
    return messages.front();
  }
  int64_t port_ = 0;
  std::string token_;
};

TEST_F(LivenessStrangerTest, ARankThatEndsWhileOthersAreAwaitedIsNamed) {
  start(0, 3, "block");
  { const Connection connection = hello(2, 3); }
  EXPECT_EQ(ranks_[0]->wait(kLongest), 75);
  EXPECT_EQ(said(0),
            "rank 2 (node7, process 4711) is gone: it was killed, crashed or gave up while ranks "
            "were awaited before its first step; leaving with 75\n");
}

TEST_F(LivenessStrangerTest, TheSameRankTwiceAndAnotherWorldAreRefused) {
  start(0, 3, "step");
  Connection first = hello(1, 3), second = hello(1, 3), other = hello(2, 4);
  const auto text = [&](Connection& connection) {
    const auto message = heard(connection);
    const auto* refused = message ? std::get_if<Refused>(&*message) : nullptr;
    return refused == nullptr ? "" : std::to_string(refused->exit_code) + ": " + refused->reason;
  };
  EXPECT_EQ(text(second),
            "2: rank 1 (node7, process 4711) came while process 4711 on node7 is that rank");
  EXPECT_EQ(text(other),
            "2: rank 2 (node7, process 4711) of a world of 4 came to rank 0 of a world of 3");
  Connection third = hello(2, 3);
  for (Connection* rank : {&first, &third}) {
    const auto message = heard(*rank);
    EXPECT_TRUE(message && std::holds_alternative<Start>(*message));
  }
}

TEST_F(LivenessStrangerTest, ARankThatSendsOtherBytesIsLost) {
  start(0, 2, "block");
  Descriptor socket = connect();
  const std::string message = encode(Hello{token_, 1, 2, 4711, "node7"});
  ASSERT_EQ(::send(socket.fd(), message.data(), message.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(message.size()));
  wait_until_ready();
  ASSERT_EQ(::send(socket.fd(), "GET /", 5, MSG_NOSIGNAL), 5);
  EXPECT_EQ(ranks_[0]->wait(kLongest), 75);
  EXPECT_THAT(said(0), HasSubstr("rank 1 (node7, process 4711) is gone: it sent what no rank "
                                 "sends: no message is so long"));
}

/// Random bytes, web browsers and ranks of other jobs before the last rank comes; some never say
/// anything.
class LivenessStrangersTest : public LivenessStrangerTest {
 protected:
  void harass(uint64_t n_strangers) {
    connect_seconds_ = 60;
    start(0, 2, "step");
    std::vector<Descriptor> silent;
    for (int i = 0; i < 100; ++i) silent.push_back(connect());
    [[maybe_unused]] const int64_t before = resident_bytes();
    for (uint64_t i = 0; i < n_strangers; ++i) {
      const std::string bytes = said_by(i);
      const Descriptor socket = connect();
      ASSERT_TRUE(socket);
      (void)::send(socket.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    }
    start(1, 2, "step");
    wait_until_ready();
#if !defined(__SANITIZE_ADDRESS__)  // which keeps freed memory for a while
    EXPECT_LT(resident_bytes() - before, 4 << 20);
#endif
    go();
    expect_all(0);
  }

 private:
  std::string said_by(uint64_t i) const {
    if (i % 10 == 0) return "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    if (i % 10 == 1) return encode(Hello{std::string(32, 'a'), 1, 2, 4711, "node7"});
    const RandomStream random = RandomStream(7).fork(i);
    std::string bytes(random.below(0, 500), ' ');
    for (size_t k = 0; k < bytes.size(); ++k) bytes[k] = static_cast<char>(random.bits(1 + k));
    return bytes;
  }
  int64_t resident_bytes() {
    const std::string text = file_bytes("/proc/" + process_of(0) + "/statm");
    return std::atoll(text.substr(text.find(' ')).c_str()) * ::sysconf(_SC_PAGESIZE);
  }
};

TEST_F(LivenessStrangersTest, AreCutOffAndHarmNothing) { harass(300); }

class LivenessStrangersSlowTest : public LivenessStrangersTest {};

TEST_F(LivenessStrangersSlowTest, TenThousandOfThemHarmNothing) { harass(10'000); }

class LivenessSlowTest : public LivenessTest {};

TEST_F(LivenessSlowTest, AStoppedRankIsNamedAndLeavesWhenItWakes) {
  heartbeat_seconds_ = 1;
  for (const int stopped : {2, 0}) {
    begin_again();
    start_all(4, "block");
    wait_until_ready();
    ranks_[stopped]->send(SIGSTOP);
    for (int i = 0; i < 4; ++i) {
      if (i == stopped) continue;
      EXPECT_EQ(ranks_[i]->wait(kLongest), 75);
      EXPECT_THAT(said(i),
                  testing::MatchesRegex("rank " + std::to_string(stopped) +
                                        " .* is gone: it stopped answering for 1\\.[0-9] s at step "
                                        "120 in gradient\\.all_reduce; leaving with 75\n"));
    }
    EXPECT_FALSE(ranks_[stopped]->ended());
    ranks_[stopped]->send(SIGCONT);
    EXPECT_EQ(ranks_[stopped]->wait(kLongest), 75);
    EXPECT_EQ(said(stopped), said(stopped == 2 ? 0 : 1));
  }
}

TEST_F(LivenessSlowTest, RanksThatAreStoppedForLessThanTheLimitAreNotLost) {
  heartbeat_seconds_ = 3;
  start_all(4, "step");
  wait_until_ready();
  const RandomStream random(11);
  for (uint64_t i = 0; i < 3; ++i) {
    const auto stop = [&](size_t rank, double seconds) {
      ranks_[rank]->send(SIGSTOP);
      std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
      ranks_[rank]->send(SIGCONT);
    };
    std::thread other(stop, 0, 0.5 + 2 * random.uniform(2 * i));
    stop(1 + i, 0.5 + 2 * random.uniform(2 * i + 1));
    other.join();
  }
  go();
  expect_all(0);
}

TEST_F(LivenessSlowTest, AJobThatIsSuspendedAndGoesOnIsNotLost) {
  heartbeat_seconds_ = 1;
  start_all(3, "step");
  wait_until_ready();
  for (const auto& rank : ranks_) rank->send(SIGSTOP);
  std::this_thread::sleep_for(milliseconds(1500));
  for (const auto& rank : ranks_) rank->send(SIGCONT);
  std::this_thread::sleep_for(milliseconds(500));
  go();
  expect_all(0);
}

/// By hand: LIVENESS_TRIALS=100.
TEST_F(LivenessSlowTest, KilledWhileTheyStepAllLeave) {
  const char* trials = std::getenv("LIVENESS_TRIALS");
  const RandomStream random(5);
  std::vector<double> seconds;
  for (int i = 0; i < (trials == nullptr ? 4 : std::atoi(trials)); ++i) {
    begin_again();
    start_all(4, "step");
    wait_until_ready();
    std::this_thread::sleep_for(
        std::chrono::duration<double>(0.05 * random.uniform(static_cast<uint64_t>(i))));
    const auto begin = Clock::now();
    ranks_[i % 4]->send(SIGKILL);
    for (int rank = 0; rank < 4; ++rank) {
      if (rank == i % 4) continue;
      ASSERT_EQ(ranks_[rank]->wait(kLongest), 75) << said(rank);
      ASSERT_THAT(said(rank),
                  testing::MatchesRegex("rank " + std::to_string(i % 4) +
                                        " .* is gone: it was killed or crashed at step 1[0-9]+ in "
                                        "gradient\\.all_reduce; leaving with 75\n"));
    }
    seconds.push_back(seconds_since(begin));
  }
  std::sort(seconds.begin(), seconds.end());
  std::printf("from the kill to the last exit: median %.1f ms, most %.1f ms of %zu\n",
              1000 * seconds[seconds.size() / 2], 1000 * seconds.back(), seconds.size());
}

TEST_F(LivenessSlowTest, ALateRankIsAwaited) {
  start(0, 3, "step");
  start(1, 3, "step");
  std::this_thread::sleep_for(milliseconds(3000));
  start(2, 3, "step");
  wait_until_ready();
  go();
  expect_all(0);
}

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) {
  if (argc == 8 && std::string(argv[1]) == "rank") return tandem::run_rank(argv);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
