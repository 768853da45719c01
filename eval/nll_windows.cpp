#include "eval/nll_windows.h"

#include <c10/util/Exception.h>

#include <algorithm>

#include "core/error.h"
#include "data/document_view.h"

namespace tandem {
namespace {

/// Gives each token its document and leaves the first of each document out of scoring, as nothing
/// is before it. `row` is all of `sequence`.
void mask(Row& row, const NllSequence& sequence) {
  const auto& begins = sequence.file->document_begins();
  auto next = std::upper_bound(begins.begin(), begins.end(), sequence.begin);  // document's begin
  int32_t segment = 0;
  for (int64_t t = 0; t < sequence.targets(); ++t) {
    const int64_t target_at = sequence.begin + t + 1;
    row.segment[static_cast<size_t>(t)] = segment;
    while (next != begins.end() && *next < target_at) ++next;
    if (next == begins.end() || *next != target_at) continue;
    row.targets[static_cast<size_t>(t)] = kIgnored;
    ++segment;
  }
}

}  // namespace

int64_t NllSequence::columns(const Packing& packing) const {
  const int64_t n = packing.padding_to_score() + inputs();
  return (n + packing.multiple - 1) / packing.multiple * packing.multiple;
}

int64_t NllSequence::first_scored(const Packing& packing) const {
  const int64_t front = packing.padding_to_score();
  const int64_t first = std::max(packing.unscored_prefix, front + std::max<int64_t>(unscored, 0));
  return first < front + targets() ? first : columns(packing);
}

Row NllSequence::part(int64_t first, int64_t n, const Packing& packing) const {
  const int64_t front = packing.padding_to_score(), n_bos = bos ? 1 : 0;
  Row row{.tokens = std::vector<int64_t>(static_cast<size_t>(n), 0),
          .targets = std::vector<int64_t>(static_cast<size_t>(n), kIgnored),
          .segment = std::vector<int32_t>(static_cast<size_t>(n), -1)};
  // ids [begin_id, end_id) of the sequence: the inputs of these columns and the target of the last
  const int64_t begin_id = std::max<int64_t>(first - front, 0),
                end_id = std::min(first + n - front + 1, ids());
  if (begin_id >= end_id) return row;
  std::vector<int64_t> read(static_cast<size_t>(end_id - begin_id));
  const int64_t from_file = begin_id == 0 ? n_bos : 0;  // of `read`, the first that the file has
  if (from_file == 1) read[0] = *bos;
  file->read(begin + begin_id + from_file - n_bos,
             std::span(read).subspan(static_cast<size_t>(from_file)));
  const int64_t scored = first_scored(packing);
  for (int64_t id = begin_id; id < std::min(end_id, inputs()); ++id) {
    const int64_t column = front + id;
    if (column >= first + n) break;
    const auto t = static_cast<size_t>(column - first);
    row.tokens[t] = read[static_cast<size_t>(id - begin_id)];
    row.segment[t] = 0;
    if (column >= scored && id < targets())
      row.targets[t] = read[static_cast<size_t>(id + 1 - begin_id)];
  }
  return row;
}

Row NllSequence::row(const Packing& packing) const {
  TORCH_CHECK(!mask_documents || (packing.multiple == 1 && !bos),
              "NllSequence: document masks with blocks of ", packing.multiple, " tokens",
              bos ? " and BOS" : "", ", expected none");
  Row row = part(0, columns(packing), packing);
  if (mask_documents) mask(row, *this);
  return row;
}

int64_t NllWindows::count() const {
  const int64_t after_first = std::max<int64_t>(0, targets() - length);
  return 1 + (after_first + stride - 1) / stride;
}

NllSequence NllWindows::sequence(int64_t k) const {
  NllSequence sequence{
      .file = file, .begin = k * stride, .bos = bos, .mask_documents = mask_documents};
  sequence.tokens = std::min(length + (bos ? 0 : 1), tokens - sequence.begin);
  const int64_t scored_before = k == 0 ? 0 : length - stride;
  sequence.unscored = std::max(skip, scored_before);
  if (last > 0) sequence.unscored = std::max(sequence.unscored, sequence.targets() - last);
  return sequence;
}

void NllDocuments::choose(int64_t min_length, int64_t max_length, int64_t most) {
  const DocumentView view(file, {.min_length = min_length, .max_length = max_length});
  left_out = {view.dropped().documents, view.dropped().tokens};
  const auto count = [](Count& of, int64_t n) {
    ++of.documents;
    of.tokens += n;
  };
  chosen.clear();
  without_target = not_reached = cut = {};
  for (int64_t i = 0; i < view.documents(); ++i) {
    const int64_t n = view.length(i);
    const int64_t fits = length + (bos ? 0 : 1);
    if (n + (bos ? 1 : 0) < 2) {
      count(without_target, n);
    } else if (most > 0 && std::ssize(chosen) == most) {
      count(not_reached, n);
    } else {
      chosen.push_back(view.in_file(i));
      if (n > fits) count(cut, n - fits);
    }
  }
  if (chosen.empty())
    throw bad_file(file->path(), "has no document of two tokens or more within the limits");
}

NllSequence NllDocuments::sequence(int64_t k) const {
  const int64_t document = chosen[static_cast<size_t>(k)];
  NllSequence sequence{.file = file,
                       .begin = file->document_begins()[static_cast<size_t>(document)],
                       .tokens = std::min(file->document_length(document), length + (bos ? 0 : 1)),
                       .bos = bos,
                       .unscored = skip};
  if (last > 0) sequence.unscored = std::max(skip, sequence.targets() - last);
  return sequence;
}

NllUnits units_of(const NllWindows& windows) {
  return {.file = windows.file,
          .count = windows.count(),
          .tokens = windows.tokens,
          .positions = std::min(windows.length, windows.targets()),
          .sequence = [windows](int64_t k) { return windows.sequence(k); }};
}

NllUnits units_of(const NllDocuments& documents) {
  NllUnits units{.file = documents.file,
                 .count = std::ssize(documents.chosen),
                 .sequence = [documents](int64_t k) { return documents.sequence(k); }};
  for (int64_t k = 0; k < units.count; ++k) {
    const NllSequence sequence = documents.sequence(k);
    units.tokens += sequence.tokens;
    units.positions = std::max(units.positions, sequence.targets());
  }
  const auto count = [&](const char* name, const NllDocuments::Count& of) {
    units.counts[std::string("documents_") + name] = of.documents;
    units.counts[std::string("tokens_") + name] = of.tokens;
  };
  count("left_out", documents.left_out);
  count("without_target", documents.without_target);
  count("not_reached", documents.not_reached);
  count("cut", documents.cut);
  return units;
}

}  // namespace tandem
