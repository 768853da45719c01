#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "core/mapped_file.h"
#include "tests/data/token_parts.h"

// TokenFile::will_read() in what the system says of its page cache.

namespace tandem {
namespace {

/// Asks the system to drop a file from memory, which it does where all is on disk already.
void forget(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY);
  ::fsync(fd);
  ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  ::close(fd);
}

struct Range {
  std::string path;
  size_t begin, end;  // bytes
};

/// The share of the pages of some ranges that is in memory.
double share_in_memory(const std::vector<Range>& ranges) {
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> pages;
  for (const Range& range : ranges) {
    const MappedFile file(range.path);
    const size_t first = range.begin / page, n = (range.end - 1) / page - first + 1;
    const size_t at = pages.size();
    pages.resize(at + n);
    ::mincore(const_cast<std::byte*>(file.bytes().data()) + first * page, n * page, &pages[at]);
  }
  const auto there = std::count_if(pages.begin(), pages.end(), [](auto each) { return each & 1; });
  return static_cast<double>(there) / static_cast<double>(pages.size());
}

TEST(WillReadTest, BringsTheTokensAndTheirWeightsAndNoOthers) {
  const TempFolder folder;
  constexpr int64_t kTokens = 1'500'000, kBegin = 700'003, kEnd = 800'007;
  IndexParts index;
  index.lengths = {kTokens};
  index.offsets = {0};
  index.documents = {0, 1};
  write_file(folder / "x.idx", index.str());
  write_file(folder / "x.bin", raw(std::vector<uint16_t>(kTokens, 1)));
  write_file(folder / "x.weights", raw(std::vector<float>(kTokens, 1.0f)));
  forget(folder / "x.bin");
  forget(folder / "x.weights");
  const TokenFile file(folder / "x", TargetWeights::kRead);
  const std::vector<Range> asked = {{folder / "x.bin", 2 * kBegin, 2 * kEnd},
                                    {folder / "x.weights", 4 * kBegin, 4 * kEnd}};
  const std::vector<Range> others = {{folder / "x.bin", 0, 2 * 600'000},
                                     {folder / "x.bin", 2 * 900'000, 2 * kTokens},
                                     {folder / "x.weights", 0, 4 * 600'000},
                                     {folder / "x.weights", 4 * 900'000, 4 * kTokens}};
  if (share_in_memory(asked) > 0 || share_in_memory(others) > 0) {
    GTEST_SKIP() << "this file system keeps files in memory";
  }
  file.will_read(kBegin, kEnd - kBegin);
  for (int i = 0; i < 1000 && share_in_memory(asked) < 1; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(share_in_memory(asked), 1);
  EXPECT_EQ(share_in_memory(others), 0);
}

}  // namespace
}  // namespace tandem
