#include "data/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <mutex>
#include <numeric>
#include <stdexcept>

#include "core/checksum.h"
#include "core/error.h"

namespace tandem {

struct WindowView::Epoch {
  int64_t number = 0;
  std::vector<int64_t> order;  // documents of the view in this epoch's order
  std::vector<int64_t> begin;  // of each, with its padding, in this epoch's stream; and the end
};

struct WindowView::Kept {
  std::mutex mutex;
  std::shared_ptr<const Epoch> epochs[2];  // of even and of odd number
};

struct WindowView::Part {
  int64_t in_file = 0;  // its first token
  int64_t column = 0;   // of the row, where that stands
  int64_t tokens = 0;   // the last of which may be one beyond the row
};

WindowView::WindowView(DocumentView documents, int64_t context_length, const std::string& shuffle,
                       RandomStream stream, const Packing& packing)
    : documents_(std::move(documents)),
      context_length_(context_length),
      shuffle_(shuffle),
      stream_(stream),
      padding_stream_(stream.fork("padding")),
      padded_to_(packing.pad_documents ? packing.multiple : 1),
      kept_(std::make_shared<Kept>()) {
  if (context_length < 1) throw std::logic_error("WindowView: context_length < 1");
  if (packing.multiple < 1 || context_length % packing.multiple != 0) {
    throw std::logic_error("WindowView: context_length = " + std::to_string(context_length) +
                           ", expected a multiple of " + std::to_string(packing.multiple));
  }
  if (shuffle != "windows" && shuffle != "documents" && shuffle != "none") {
    throw std::logic_error("WindowView: shuffle = " + shuffle);
  }
  if (padded_to_ > 1 || !documents_.whole()) begins_ = make_begins();
  tokens_ = begins().back();
  windows_ = (tokens_ - 2) / context_length + 1;  // all tokens but the first are targets
}

int64_t WindowView::padding_before(int64_t document) const {
  if (padded_to_ == 1) return 0;
  const int64_t copy = documents_.copy(document);
  const RandomStream stream =
      copy == 0 ? padding_stream_ : padding_stream_.fork(static_cast<uint64_t>(copy));
  return static_cast<int64_t>(stream.below(static_cast<uint64_t>(documents_.in_file(document)),
                                           static_cast<uint64_t>(padded_to_)));
}

std::vector<int64_t> WindowView::make_begins() const {
  const int64_t documents = documents_.documents();
  std::vector<int64_t> begins = {0};
  begins.reserve(static_cast<size_t>(documents) + 1);
  for (int64_t d = 0; d < documents; ++d) {
    const int64_t length = documents_.length(d);
    const int64_t padded =
        length == 0 ? 0 : padding_before(d) + length;  // no block of padding alone
    begins.push_back(begins.back() + (padded + padded_to_ - 1) / padded_to_ * padded_to_);
  }
  return begins;
}

std::shared_ptr<const WindowView::Epoch> WindowView::shuffled_epoch(int64_t number) const {
  const std::lock_guard lock(kept_->mutex);
  auto& kept = kept_->epochs[number % 2];
  if (kept && kept->number == number) return kept;
  kept.reset();
  auto made = std::make_shared<Epoch>();
  const auto& in_view = begins();
  const auto documents = static_cast<uint64_t>(documents_.documents());
  made->number = number;
  const Permutation permutation(documents,
                                stream_.fork("documents").fork(static_cast<uint64_t>(number)));
  made->order.reserve(documents);
  made->begin.reserve(documents + 1);
  made->begin.push_back(0);
  for (uint64_t d = 0; d < documents; ++d) {
    const auto document = static_cast<int64_t>(permutation(d));
    made->order.push_back(document);
    made->begin.push_back(made->begin.back() + in_view[document + 1] - in_view[document]);
  }
  return kept = std::move(made);
}

/// Calls each(part) for the documents of window `k` in order, an empty one left out.
template <typename Each>
void WindowView::for_each_part(int64_t k, const Each& each) const {
  if (k < 0) throw std::logic_error("WindowView: window " + std::to_string(k));
  const int64_t number = k / windows_;
  int64_t w = k % windows_;
  if (shuffle_ != "none") {
    const auto stream = stream_.fork("windows").fork(static_cast<uint64_t>(number));
    w = static_cast<int64_t>(
        Permutation(static_cast<uint64_t>(windows_), stream)(static_cast<uint64_t>(w)));
  }
  const auto shuffled = shuffle_ == "documents" ? shuffled_epoch(number) : nullptr;
  const auto& first_tokens = shuffled ? shuffled->begin : begins();

  // T inputs and, one on, T targets: T + 1 tokens of the stream, behind whose end all is padding.
  const int64_t begin = w * context_length_, end = begin + context_length_ + 1;
  auto d =
      std::upper_bound(first_tokens.begin(), first_tokens.end(), begin) - first_tokens.begin() - 1;
  for (; d < documents_.documents() && first_tokens[d] < end; ++d) {
    const int64_t in_view = shuffled ? shuffled->order[d] : d;
    const int64_t first = first_tokens[d] + padding_before(in_view);  // behind its padding
    const int64_t from = std::max(begin, first);
    const int64_t tokens = std::min(end, first + documents_.length(in_view)) - from;
    if (tokens <= 0) continue;  // an empty document, or only padding of it is in the window
    const int64_t in_file =
        documents_.file().document_begins()[documents_.in_file(in_view)] + (from - first);
    each(Part{.in_file = in_file, .column = from - begin, .tokens = tokens});
  }
}

void WindowView::will_fill(int64_t k) const {
  for_each_part(k,
                [&](const Part& part) { documents_.file().will_read(part.in_file, part.tokens); });
}

void WindowView::fill(int64_t k, bool mask_documents, const RowsView& rows, int64_t r) const {
  const TokenFile& file = documents_.file();
  if (k < 0 || r < 0 || r >= rows.rows || rows.length != context_length_ ||
      (file.has_weights() && !rows.weights)) {
    throw std::logic_error("WindowView::fill: window " + std::to_string(k) + " into row " +
                           std::to_string(r) + " of " + std::to_string(rows.rows) + " x " +
                           std::to_string(rows.length) + (rows.weights ? " with" : " without") +
                           " weights, expected rows of " + std::to_string(context_length_) +
                           (file.has_weights() ? " with weights" : ""));
  }
  const int64_t T = context_length_;
  int64_t* const tokens = rows.tokens + r * T;
  int64_t* const targets = rows.targets + r * T;
  int32_t* const segment = rows.segment + r * T;
  float* const weights = rows.weights ? rows.weights + r * T : nullptr;
  std::fill_n(tokens, T, 0);
  std::fill_n(targets, T, kIgnored);
  std::fill_n(segment, T, -1);
  if (weights) std::fill_n(weights, T, 0.0f);
  rows.samples[r] = 0;

  int32_t document = 0;  // counted within the row
  for_each_part(k, [&](const Part& part) {
    const int64_t n = std::min(part.tokens, T - part.column);
    file.read(part.in_file, {tokens + part.column, static_cast<size_t>(n)});
    std::fill_n(segment + part.column, n, mask_documents ? document : 0);
    ++document;

    // The token at column t + 1 is the target of column t. A document's first is one only where
    // what stands before it is seen.
    const int64_t unscored = part.column == 0 || mask_documents ? 1 : 0;
    const int64_t column = part.column + unscored - 1;
    const auto scored = static_cast<size_t>(part.tokens - unscored);
    file.read(part.in_file + unscored, {targets + column, scored});
    if (file.has_weights()) {
      file.read_weights(part.in_file + unscored, {weights + column, scored});
    } else if (weights) {
      std::fill_n(weights + column, scored, 1.0f);
    }
  });
}

Row WindowView::window(int64_t k, bool mask_documents) const {
  const auto n = static_cast<size_t>(context_length_);
  Row row;
  row.tokens.resize(n);
  row.targets.resize(n);
  row.segment.resize(n);
  if (documents_.file().has_weights()) row.weights.resize(n);
  fill(k, mask_documents, view_of(row), 0);
  return row;
}

Mixture::Mixture(const std::vector<double>& weights) {
  if (weights.empty() || weights.size() > static_cast<size_t>(kPeriod)) {
    throw bad_usage("a mixture of " + std::to_string(weights.size()) +
                    " sources, expected 1 to 65536");
  }
  double total = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (!(weights[i] > 0) || !std::isfinite(weights[i])) {
      throw bad_usage("weight " + std::to_string(weights[i]) + " of source " + std::to_string(i) +
                      ", expected a number > 0");
    }
    total += weights[i];
  }

  // Shares of a period that add up: each rounded down but at least 1, then one more where most was
  // cut off, or one less where most was added.
  const auto n = weights.size();
  std::vector<double> missing(n);
  int64_t given = 0;
  for (size_t i = 0; i < n; ++i) {
    const double share = weights[i] / total * static_cast<double>(kPeriod);
    counts_.push_back(std::max<int64_t>(1, static_cast<int64_t>(share)));
    missing[i] = share - static_cast<double>(counts_[i]);
    given += counts_[i];
  }
  for (; given != kPeriod; given += given < kPeriod ? 1 : -1) {
    const int64_t step = given < kPeriod ? 1 : -1;
    size_t best = n;
    for (size_t i = 0; i < n; ++i) {
      if (step < 0 && counts_[i] == 1) continue;
      if (best == n ||
          missing[i] * static_cast<double>(step) > missing[best] * static_cast<double>(step))
        best = i;
    }
    counts_[best] += step;
    missing[best] -= static_cast<double>(step);
  }

  // Sample j of a source with c samples a period may come from position floor(j P / c) on and is
  // due before ceil((j + 1) P / c). Taking the earliest due keeps every source within one of its
  // share, as Baruah et al. show for proportionate progress (Algorithmica 15, 1996).
  std::vector<int64_t> taken(n, 0);
  for (int64_t position = 0; position < kPeriod; ++position) {
    size_t best = n;
    int64_t best_due = 0;
    for (size_t i = 0; i < n; ++i) {
      if (taken[i] * kPeriod / counts_[i] > position || taken[i] == counts_[i]) continue;
      const int64_t due = ((taken[i] + 1) * kPeriod + counts_[i] - 1) / counts_[i];
      if (best == n || due < best_due) best = i, best_due = due;
    }
    order_.push_back(static_cast<uint16_t>(best));
    rank_.push_back(taken[best]++);
  }
}

Mixture::Pick Mixture::pick(int64_t sample) const {
  if (sample < 0) throw std::logic_error("Mixture::pick: sample < 0");
  const int64_t position = sample % kPeriod;
  const int64_t source = order_[position];
  return {source, sample / kPeriod * counts_[source] + rank_[position]};
}

namespace {

std::vector<double> weights_of(const std::vector<SourceSpec>& sources) {
  std::vector<double> weights;
  for (const auto& source : sources) weights.push_back(source.weight);
  return weights;
}

}  // namespace

Sampler::Sampler(const std::vector<SourceSpec>& sources, int64_t context_length,
                 const std::string& shuffle, bool mask_documents, uint64_t seed,
                 const Packing& packing)
    : weights_(weights_of(sources)),
      mixture_(weights_),
      context_length_(context_length),
      mask_documents_(mask_documents) {
  const RandomStream stream = RandomStream(seed).fork("shuffle");
  for (size_t i = 0; i < sources.size(); ++i) {
    files_.push_back(std::make_shared<const TokenFile>(sources[i].file));
    specs_.push_back(sources[i].view);
    views_.emplace_back(DocumentView(files_.back(), sources[i].view), context_length, shuffle,
                        stream.fork(i), packing);
  }
}

Row Sampler::row(int64_t sample) const {
  const auto [source, index] = mixture_.pick(sample);
  Row row = views_[source].window(index, mask_documents_);
  row.sample = sample;
  return row;
}

void Sampler::fill(int64_t sample, const RowsView& rows, int64_t r) const {
  const auto [source, index] = mixture_.pick(sample);
  views_[source].fill(index, mask_documents_, rows, r);
  rows.samples[r] = sample;
}

void Sampler::will_fill(int64_t sample) const {
  const auto [source, index] = mixture_.pick(sample);
  views_[source].will_fill(index);
}

bool Sampler::weighted() const {
  return std::ranges::any_of(files_, [](const auto& file) { return file->has_weights(); });
}

int64_t Sampler::tokens_per_epoch() const {
  return std::accumulate(views_.begin(), views_.end(), int64_t{0},
                         [](int64_t sum, const auto& view) { return sum + view.tokens(); });
}

std::string Sampler::data_hash() const {
  std::string parts;
  for (size_t i = 0; i < files_.size(); ++i) {
    char weight[64];
    std::snprintf(weight, sizeof weight, " %a\n", weights_[i]);  // exact
    parts += files_[i]->content_hash() + weight;
    if (views_[i].documents().whole()) continue;
    for (const int64_t number : {specs_[i].min_length, specs_[i].max_length,
                                 specs_[i].upsample_from, specs_[i].upsample_times})
      parts += std::to_string(number) + "\n";
  }
  return sha256_hex(parts).substr(0, 16);
}

}  // namespace tandem
