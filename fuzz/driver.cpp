// Runs a fuzz target without a fuzzing engine: every seed file as it is, then mutated copies of
// seeds.
//   TARGET ITERATIONS SEED_FILE ...                       the same inputs in every run
//   TARGET --seconds N [--seed NUMBER] SEED_FILE ...      as many as fit; NUMBER chooses which
//   (default 42)
// A finding is a failed require(), a sanitizer's report, an input that takes more than 10 seconds,
// or memory beyond 2 GiB; the input is then left in TARGET.finding of the working folder, to be
// given as a seed. With clang's libFuzzer the targets link as they are and this file is left out.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

// The sanitizers' own: where they look for options, and what they call before they end the process.
// Absent from builds without.
extern "C" const char* __asan_default_options() {
  return "hard_rss_limit_mb=2048:max_allocation_size_mb=1024:detect_leaks=1";
}
extern "C" __attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)());

namespace {

using Bytes = std::vector<uint8_t>;

constexpr unsigned kSlowestSeconds = 10;

const uint8_t* current_data = nullptr;
size_t current_size = 0;
char finding_path[256];

/// Leaves the input at hand in a file; called from signal handlers, so system calls only.
void save_finding() {
  if (current_data == nullptr) return;
  const int fd = ::open(finding_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return;
  if (::write(fd, current_data, current_size) >= 0 &&
      ::write(2, finding_path, std::strlen(finding_path)) > 0) {
    (void)!::write(2, ": the input of this finding\n", 28);
  }
  ::close(fd);
  current_data = nullptr;
}

void on_signal(int signal) {
  if (signal == SIGALRM) (void)!::write(2, "an input takes too long\n", 24);
  save_finding();
  std::signal(signal, SIG_DFL);
  ::raise(signal == SIGALRM ? SIGKILL : signal);
}

void run(const Bytes& bytes) {
  current_data = bytes.data();
  current_size = bytes.size();
  ::alarm(kSlowestSeconds);
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  current_data = nullptr;
}

std::ptrdiff_t offset(size_t n) { return static_cast<std::ptrdiff_t>(n); }

/// Makes `n` bytes at `at` those of an integer at the edge of some type.
void put_integer(Bytes& bytes, size_t at, std::mt19937_64& random) {
  static constexpr uint64_t kEdges[] = {0,
                                        1,
                                        2,
                                        0x7f,
                                        0x80,
                                        0xff,
                                        0x7fff,
                                        0xffff,
                                        0x7fffffff,
                                        0x80000000,
                                        0xffffffff,
                                        uint64_t{1} << 32,
                                        uint64_t{1} << 53,
                                        ~uint64_t{0} >> 1,
                                        uint64_t{1} << 63,
                                        ~uint64_t{0}};
  const uint64_t value = random() % 4 == 0 ? bytes.size() : kEdges[random() % std::size(kEdges)];
  const size_t n = std::min<size_t>(size_t{1} << (random() % 4), bytes.size() - at);
  std::memcpy(bytes.data() + at, &value, n);
}

Bytes mutate(Bytes bytes, const std::vector<Bytes>& seeds, std::mt19937_64& random) {
  const int n_changes = 1 + static_cast<int>(random() % 8);
  for (int i = 0; i < n_changes; ++i) {
    const size_t at = bytes.empty() ? 0 : random() % bytes.size();
    switch (bytes.empty() ? 6 : random() % 7) {
      case 0:  // flip a bit
        bytes[at] ^= uint8_t{1} << (random() % 8);
        break;
      case 1: {  // an interesting byte
        static constexpr uint8_t kBytes[] = {0,   1,   0x7f, 0x80, 0xff, '{', '}',  '[',
                                             ']', '"', ':',  ',',  '-',  '9', '\n', ' '};
        bytes[at] = kBytes[random() % std::size(kBytes)];
        break;
      }
      case 2:  // cut off the end
        bytes.resize(at);
        break;
      case 3:  // repeat a piece
        if (bytes.size() < 65536) {
          const size_t n = 1 + random() % std::min<size_t>(32, bytes.size() - at);
          const Bytes piece(bytes.begin() + offset(at), bytes.begin() + offset(at + n));
          bytes.insert(bytes.begin() + offset(random() % (bytes.size() + 1)), piece.begin(),
                       piece.end());
        }
        break;
      case 4: {  // drop a piece
        const size_t n = 1 + random() % std::min<size_t>(16, bytes.size() - at);
        bytes.erase(bytes.begin() + offset(at), bytes.begin() + offset(at + n));
        break;
      }
      case 5:
        put_integer(bytes, at, random);
        break;
      default: {  // the rest of another seed
        const Bytes& other = seeds[random() % seeds.size()];
        const size_t from = other.empty() ? 0 : random() % other.size();
        bytes.resize(at);
        bytes.insert(bytes.end(), other.begin() + offset(from), other.end());
      }
    }
  }
  return bytes;
}

int usage(const char* program) {
  std::fprintf(
      stderr,
      "usage: %s ITERATIONS SEED_FILE ...\n       %s --seconds N [--seed NUMBER] SEED_FILE ...\n",
      program, program);
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  long iterations = -1;
  double seconds = -1;
  uint64_t seed = 42;
  int first = 1;
  for (; first + 1 < argc && std::string(argv[first]).starts_with("--"); first += 2) {
    const std::string option = argv[first];
    if (option == "--seconds") {
      seconds = std::atof(argv[first + 1]);
    } else if (option == "--seed") {
      seed = std::strtoull(argv[first + 1], nullptr, 10);
    } else {
      return usage(argv[0]);
    }
  }
  if (seconds < 0 && first < argc) iterations = std::atol(argv[first++]);
  if (first >= argc) return usage(argv[0]);

  const std::string path = argv[0];
  std::snprintf(finding_path, sizeof finding_path, "%s.finding",
                path.substr(path.rfind('/') + 1).c_str());
  for (const int signal : {SIGABRT, SIGALRM, SIGSEGV, SIGFPE, SIGBUS}) {
    const bool sanitized = __sanitizer_set_death_callback != nullptr;  // it reports these itself
    if (!sanitized || signal == SIGABRT || signal == SIGALRM) std::signal(signal, on_signal);
  }
  if (__sanitizer_set_death_callback != nullptr) __sanitizer_set_death_callback(save_finding);

  std::vector<Bytes> seeds;
  for (int i = first; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    if (!file) {
      std::fprintf(stderr, "%s: cannot read\n", argv[i]);
      return 66;
    }
    seeds.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    run(seeds.back());
  }
  std::mt19937_64 random(seed);
  const auto begin = std::chrono::steady_clock::now();
  const auto passed = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  long done = 0;
  for (; iterations >= 0 ? done < iterations : passed() < seconds; ++done)
    run(mutate(seeds[random() % seeds.size()], seeds, random));
  std::printf("%ld mutated inputs in %.1f s, no finding\n", done, passed());
}
