// Runs a fuzz target without a fuzzing engine: every seed file as it is, then mutated copies of seeds, the same ones in every run.
//   TARGET ITERATIONS SEED_FILE ...
// With clang's libFuzzer the targets link as they are and this file is left out.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using Bytes = std::vector<uint8_t>;

Bytes mutate(Bytes bytes, const std::vector<Bytes>& seeds, std::mt19937_64& random) {
  const int n_changes = 1 + static_cast<int>(random() % 8);
  for (int i = 0; i < n_changes; ++i) {
    const size_t at = bytes.empty() ? 0 : random() % bytes.size();
    switch (random() % 6) {
      case 0:  // flip a bit
        if (!bytes.empty()) bytes[at] ^= uint8_t{1} << (random() % 8);
        break;
      case 1:  // an interesting byte
        if (!bytes.empty()) {
          static constexpr uint8_t kBytes[] = {0, 1, 0x7f, 0x80, 0xff, '{', '}', '[', ']', '"', ':', ',', '-', '9', '\n', ' '};
          bytes[at] = kBytes[random() % std::size(kBytes)];
        }
        break;
      case 2:  // cut off the end
        bytes.resize(at);
        break;
      case 3:  // repeat a piece
        if (!bytes.empty() && bytes.size() < 65536) {
          const size_t n = 1 + random() % std::min<size_t>(32, bytes.size() - at);
          const Bytes piece(bytes.begin() + static_cast<std::ptrdiff_t>(at), bytes.begin() + static_cast<std::ptrdiff_t>(at + n));
          bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(random() % (bytes.size() + 1)), piece.begin(), piece.end());
        }
        break;
      case 4:  // drop a piece
        if (!bytes.empty()) {
          const size_t n = 1 + random() % std::min<size_t>(16, bytes.size() - at);
          bytes.erase(bytes.begin() + static_cast<std::ptrdiff_t>(at), bytes.begin() + static_cast<std::ptrdiff_t>(at + n));
        }
        break;
      default: {  // the rest of another seed
        const Bytes& other = seeds[random() % seeds.size()];
        const size_t from = other.empty() ? 0 : random() % other.size();
        bytes.resize(at);
        bytes.insert(bytes.end(), other.begin() + static_cast<std::ptrdiff_t>(from), other.end());
      }
    }
  }
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s ITERATIONS SEED_FILE ...\n", argv[0]);
    return 2;
  }
  std::vector<Bytes> seeds;
  for (int i = 2; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    if (!file) {
      std::fprintf(stderr, "%s: cannot read\n", argv[i]);
      return 66;
    }
    seeds.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    LLVMFuzzerTestOneInput(seeds.back().data(), seeds.back().size());
  }
  std::mt19937_64 random(42);
  const long n = std::atol(argv[1]);
  for (long i = 0; i < n; ++i) {
    const Bytes bytes = mutate(seeds[random() % seeds.size()], seeds, random);
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
  std::printf("%ld mutated inputs, no finding\n", n);
}
