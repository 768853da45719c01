#include "data/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <mutex>
#include <numeric>
#include <stdexcept>

#include "core/checksum.h"
#include "core/error.h"

namespace tandem {

struct WindowView::Epoch {
  int64_t number = 0;
  std::vector<int64_t> order;  // documents of the file in this epoch's order
  std::vector<int64_t> begin;  // of each, with its padding, in this epoch's stream; and the end
};

struct WindowView::Kept {
  std::mutex mutex;
  std::shared_ptr<const Epoch> last;
};

WindowView::WindowView(std::shared_ptr<const TokenFile> file, int64_t context_length,
                       const std::string& shuffle, RandomStream stream, const Packing& packing)
    : file_(std::move(file)),
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
  if (file_->tokens() < 2) {
    throw bad_file(file_->prefix() + ".idx",
                   "holds " + std::to_string(file_->tokens()) + " tokens, at least 2 are needed");
  }
  if (padded_to_ > 1) padded_begins_ = padded_begins();
  tokens_ = begins().back();
  windows_ = (tokens_ - 2) / context_length + 1;  // all tokens but the first are targets
}

int64_t WindowView::padding_before(int64_t document) const {
  if (padded_to_ == 1) return 0;
  return static_cast<int64_t>(
      padding_stream_.below(static_cast<uint64_t>(document), static_cast<uint64_t>(padded_to_)));
}

std::vector<int64_t> WindowView::padded_begins() const {
  const int64_t documents = file_->documents();
  std::vector<int64_t> begins = {0};
  begins.reserve(static_cast<size_t>(documents) + 1);
  for (int64_t d = 0; d < documents; ++d) {
    const int64_t length = file_->document_length(d);
    const int64_t padded =
        length == 0 ? 0 : padding_before(d) + length;  // no block of padding alone
    begins.push_back(begins.back() + (padded + padded_to_ - 1) / padded_to_ * padded_to_);
  }
  return begins;
}

std::shared_ptr<const WindowView::Epoch> WindowView::shuffled_epoch(int64_t number) const {
  const std::lock_guard lock(kept_->mutex);
  if (kept_->last && kept_->last->number == number) return kept_->last;
  auto made = std::make_shared<Epoch>();
  const auto& in_file = begins();
  const auto documents = static_cast<uint64_t>(file_->documents());
  made->number = number;
  const Permutation permutation(documents,
                                stream_.fork("documents").fork(static_cast<uint64_t>(number)));
  made->order.reserve(documents);
  made->begin.reserve(documents + 1);
  made->begin.push_back(0);
  for (uint64_t d = 0; d < documents; ++d) {
    const auto document = static_cast<int64_t>(permutation(d));
    made->order.push_back(document);
    made->begin.push_back(made->begin.back() + in_file[document + 1] - in_file[document]);
  }
  return kept_->last = std::move(made);
}

Row WindowView::window(int64_t k, bool mask_documents) const {
  if (k < 0) throw std::logic_error("WindowView::window: k < 0");
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
  const int64_t T = context_length_, begin = w * T, end = begin + T + 1;
  const auto n = static_cast<size_t>(T + 1);
  std::vector<int64_t> tokens(n, 0);
  std::vector<float> weights(file_->has_weights() ? n : 0);  // as targets
  std::vector<int32_t> document(n, -1);                      // counted within the row; -1 = padding
  int32_t segment = 0;
  auto d =
      std::upper_bound(first_tokens.begin(), first_tokens.end(), begin) - first_tokens.begin() - 1;
  for (; d < file_->documents() && first_tokens[d] < end; ++d) {
    const int64_t in_file = shuffled ? shuffled->order[d] : d;
    const int64_t first = first_tokens[d] + padding_before(in_file);  // behind its padding
    const int64_t from = std::max(begin, first);
    const int64_t take = std::min(end, first + file_->document_length(in_file)) - from;
    if (take <= 0) continue;  // an empty document, or only padding of it is in the window
    const int64_t at = file_->document_begins()[in_file] + (from - first);
    file_->read(at, std::span(tokens).subspan(from - begin, take));
    if (file_->has_weights())
      file_->read_weights(at, std::span(weights).subspan(from - begin, take));
    std::fill_n(document.begin() + (from - begin), take, segment++);
  }

  Row row;
  row.tokens.assign(tokens.begin(), tokens.end() - 1);
  row.targets.assign(static_cast<size_t>(T), kIgnored);
  row.segment.assign(static_cast<size_t>(T), -1);
  if (file_->has_weights()) row.weights.assign(static_cast<size_t>(T), 0);
  for (int64_t t = 0; t < T; ++t) {
    if (document[t] >= 0) row.segment[t] = mask_documents ? document[t] : 0;
    const bool scored = document[t + 1] >= 0 && (!mask_documents || document[t] == document[t + 1]);
    if (!scored) continue;
    row.targets[t] = tokens[t + 1];
    if (file_->has_weights()) row.weights[t] = weights[t + 1];
  }
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
    : weights_(weights_of(sources)), mixture_(weights_), mask_documents_(mask_documents) {
  const RandomStream stream = RandomStream(seed).fork("shuffle");
  for (size_t i = 0; i < sources.size(); ++i) {
    const auto weights = sources[i].target_weights ? TargetWeights::kRead : TargetWeights::kNone;
    files_.push_back(std::make_shared<const TokenFile>(sources[i].path, weights));
    views_.emplace_back(files_.back(), context_length, shuffle, stream.fork(i), packing);
  }
}

Row Sampler::row(int64_t sample) const {
  const auto [source, index] = mixture_.pick(sample);
  Row row = views_[source].window(index, mask_documents_);
  row.sample = sample;
  return row;
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
  }
  return sha256_hex(std::as_bytes(std::span(parts))).substr(0, 16);
}

}  // namespace tandem
