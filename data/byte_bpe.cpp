// from_ranks() lets any two tokens merge whose bytes together are a token. Yet of the ways to cut a
// token in two at most one ever merges: until then no merge crosses the ends of its bytes, so those
// inside them go as if they stood alone, and merging them alone has one last step. So the table of
// pairs needs one pair a token, not all cuts of it, and stays in the cache.

#include "data/byte_bpe.h"

#include <algorithm>
#include <array>
#include <functional>
#include <numeric>
#include <queue>
#include <stdexcept>
#include <utility>

#include "data/bpe_tables.h"

namespace tandem {
namespace {

constexpr uint32_t kNever = PairTable::kNever;
constexpr size_t kShort = 64;  // bytes up to which looking at all pairs is faster than a heap

}  // namespace

struct ByteBpe::Tables {
  TokenBytes tokens;
  TokenTable whole;                     // the pre-tokens that need no merging
  PairTable pairs;                      // rank by ids
  std::vector<uint32_t> rank_of_bytes;  // [256 * first + second]: `pairs` of two bytes, kept close
  std::vector<int32_t> result_of_rank;  // the id that a merge gives
  std::array<int32_t, 256> id_of_byte{};  // what merging begins with

  /// All tokens in `whole`, no merges yet but room for `n_merges`.
  Tables(const std::vector<std::string>& all, size_t n_merges);
  void add(const Merge& merge, size_t rank);
  void merge(std::string_view pretoken, std::vector<int32_t>& ids) const {
    pretoken.size() <= kShort ? merge_short(pretoken, ids) : merge_long(pretoken, ids);
  }

 private:
  static size_t pair_of_bytes(std::string_view bytes, size_t at) {
    return size_t{256} * static_cast<unsigned char>(bytes[at]) +
           static_cast<unsigned char>(bytes[at + 1]);
  }
  int32_t id_at(std::string_view bytes, size_t at) const {
    return id_of_byte[static_cast<unsigned char>(bytes[at])];
  }
  void merge_short(std::string_view pretoken, std::vector<int32_t>& ids) const;
  void merge_long(std::string_view pretoken, std::vector<int32_t>& ids) const;
};

ByteBpe::Tables::Tables(const std::vector<std::string>& all, size_t n_merges)
    : tokens(all), whole(all.size()), pairs(n_merges), rank_of_bytes(size_t{256} * 256, kNever) {
  for (int32_t id = 0; id < tokens.size(); ++id) {
    if (tokens[id].empty()) continue;
    const int32_t other = whole.insert(tokens, id);
    if (other >= 0)
      throw std::runtime_error("ids " + std::to_string(other) + " and " + std::to_string(id) +
                               " stand for the same bytes");
  }
  for (size_t byte = 0; byte < 256; ++byte) {
    const char character = static_cast<char>(byte);
    id_of_byte[byte] = whole.find(tokens, {&character, 1});
    if (id_of_byte[byte] < 0)
      throw std::runtime_error("no token stands for the byte " + std::to_string(byte));
  }
}

void ByteBpe::Tables::add(const Merge& merge, size_t rank) {
  pairs.insert(merge.left, merge.right, static_cast<uint32_t>(rank));
  if (result_of_rank.size() <= rank) result_of_rank.resize(rank + 1);
  result_of_rank[rank] = merge.result;
  const std::string_view bytes = tokens[merge.result];
  if (bytes.size() == 2) rank_of_bytes[pair_of_bytes(bytes, 0)] = static_cast<uint32_t>(rank);
}

// Looks at all pairs for each merge, with no memory but a few lines of cache.
void ByteBpe::Tables::merge_short(std::string_view pretoken, std::vector<int32_t>& ids) const {
  int32_t id[kShort];
  uint32_t rank[kShort];  // of the pair (i, i + 1)
  size_t n = pretoken.size();
  for (size_t i = 0; i < n; ++i) id[i] = id_at(pretoken, i);
  for (size_t i = 0; i + 1 < n; ++i) rank[i] = rank_of_bytes[pair_of_bytes(pretoken, i)];
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; ++i) best = rank[i] < rank[best] ? i : best;
    if (rank[best] == kNever) break;
    id[best] = result_of_rank[rank[best]];
    --n;
    for (size_t i = best + 1; i < n; ++i) {
      id[i] = id[i + 1];
      rank[i - 1] = rank[i];
    }
    if (best + 1 < n) rank[best] = pairs.find(id[best], id[best + 1]);
    if (best > 0) rank[best - 1] = pairs.find(id[best - 1], id[best]);
  }
  ids.insert(ids.end(), id, id + n);
}

// A linked list of symbols, each named by the byte it begins at, and a heap of the pairs that
// merge.
void ByteBpe::Tables::merge_long(std::string_view pretoken, std::vector<int32_t>& ids) const {
  struct Symbol {
    int32_t id;
    uint32_t rank;  // of the pair with the next one; kNever where they do not merge
    uint32_t before, next;
  };
  struct Candidate {
    uint32_t rank, at;
    auto operator<=>(const Candidate&) const = default;  // the leftmost of equals first
  };
  if (pretoken.size() >= kNever) throw std::logic_error("ByteBpe: a pre-token of 4 GiB or more");
  const auto n = static_cast<uint32_t>(pretoken.size());
  std::vector<Symbol> symbols(n);
  std::vector<Candidate> candidates;
  for (uint32_t i = 0; i < n; ++i) {
    const uint32_t rank = i + 1 < n ? rank_of_bytes[pair_of_bytes(pretoken, i)] : kNever;
    symbols[i] = {.id = id_at(pretoken, i), .rank = rank, .before = i - 1, .next = i + 1};
    if (rank != kNever) candidates.push_back({rank, i});
  }
  std::priority_queue queue(std::greater<Candidate>(), std::move(candidates));
  const auto rank_again = [&](uint32_t at) {
    Symbol& symbol = symbols[at];
    symbol.rank = symbol.next < n ? pairs.find(symbol.id, symbols[symbol.next].id) : kNever;
    if (symbol.rank != kNever) queue.push({symbol.rank, at});
  };
  while (!queue.empty()) {
    const auto [rank, at] = queue.top();
    queue.pop();
    Symbol& symbol = symbols[at];
    if (symbol.rank != rank) continue;  // one of the two has merged with a third since
    Symbol& gone = symbols[symbol.next];
    symbol.id = result_of_rank[rank];
    symbol.next = gone.next;
    gone.rank = kNever;
    if (symbol.next < n) symbols[symbol.next].before = at;
    rank_again(at);
    if (at > 0) rank_again(symbol.before);
  }
  for (uint32_t at = 0; at < n; at = symbols[at].next) ids.push_back(symbols[at].id);
}

ByteBpe::ByteBpe(std::vector<std::string> tokens, const std::vector<Merge>& merges,
                 bool whole_first)
    : tables_(std::make_unique<Tables>(tokens, merges.size())) {
  const TokenBytes& bytes = tables_->tokens;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const Merge& merge = merges[rank];
    const std::string which = "merge " + std::to_string(rank);
    for (const int32_t id : {merge.left, merge.right, merge.result})
      if (bytes[id].empty())
        throw std::runtime_error(which + " names id " + std::to_string(id) +
                                 ", which stands for no bytes");
    if (std::string(bytes[merge.left]).append(bytes[merge.right]) != bytes[merge.result])
      throw std::runtime_error(which + " makes id " + std::to_string(merge.result) +
                               ", which is not ids " + std::to_string(merge.left) + " and " +
                               std::to_string(merge.right) + " together");
    tables_->add(merge, rank);  // of a pair that is listed twice the last rank counts, as in HF
  }
  if (whole_first) return;
  // Only those stay whole that merging gives too: the same ids, sooner.
  TokenTable whole(tokens.size());
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < size(); ++id) {
    if (bytes[id].empty()) continue;
    ids.clear();
    tables_->merge(bytes[id], ids);
    if (ids.size() == 1) whole.insert(bytes, id);
  }
  tables_->whole = std::move(whole);
}

ByteBpe ByteBpe::from_ranks(std::vector<std::string> tokens) {
  auto tables = std::make_unique<Tables>(tokens, tokens.size());
  std::vector<int32_t> by_length(tokens.size());
  std::iota(by_length.begin(), by_length.end(), 0);
  std::ranges::stable_sort(by_length, {}, [&](int32_t id) { return tables->tokens[id].size(); });
  std::vector<int32_t> sides;
  for (const int32_t id : by_length) {
    if (tables->tokens[id].size() < 2) continue;
    sides.clear();
    tables->merge(tables->tokens[id], sides);  // all that can be inside, the shorter ones, is there
    if (sides.size() == 2) tables->add({sides[0], sides[1], id}, static_cast<size_t>(id));
  }
  return ByteBpe(std::move(tables));
}

ByteBpe::ByteBpe(std::unique_ptr<Tables> tables) : tables_(std::move(tables)) {}
ByteBpe::ByteBpe(ByteBpe&&) noexcept = default;
ByteBpe& ByteBpe::operator=(ByteBpe&&) noexcept = default;
ByteBpe::~ByteBpe() = default;

void ByteBpe::append(std::string_view pretoken, std::vector<int32_t>& ids) const {
  if (pretoken.empty()) throw std::logic_error("ByteBpe::append: empty pre-token");
  const int32_t id = tables_->whole.find(tables_->tokens, pretoken);
  if (id >= 0) {
    ids.push_back(id);
  } else {
    tables_->merge(pretoken, ids);
  }
}

std::string_view ByteBpe::bytes(int32_t id) const { return tables_->tokens[id]; }
int64_t ByteBpe::size() const { return tables_->tokens.size(); }

}  // namespace tandem
