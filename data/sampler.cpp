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
  std::vector<int64_t>
      begin;  // first token of each in this epoch's stream, and the number of tokens
};

struct WindowView::Kept {
  std::mutex mutex;
  std::shared_ptr<const Epoch> last;
};

WindowView::WindowView(std::shared_ptr<const TokenFile> file, int64_t context_length,
                       const std::string& shuffle, RandomStream stream)
    : file_(std::move(file)),
      context_length_(context_length),
      windows_(0),
      shuffle_(shuffle),
      stream_(stream),
      kept_(std::make_shared<Kept>()) {
  if (context_length < 1) throw std::logic_error("WindowView: context_length < 1");
  if (shuffle != "windows" && shuffle != "documents" && shuffle != "none") {
    throw std::logic_error("WindowView: shuffle = " + shuffle);
  }
  if (file_->tokens() < 2) {
    throw bad_file(file_->prefix() + ".idx",
                   "holds " + std::to_string(file_->tokens()) + " tokens, at least 2 are needed");
  }
  windows_ = (file_->tokens() - 2) / context_length + 1;  // all tokens but the first are targets
}

std::shared_ptr<const WindowView::Epoch> WindowView::epoch(int64_t number) const {
  const std::lock_guard lock(kept_->mutex);
  if (kept_->last && kept_->last->number == number) return kept_->last;
  auto made = std::make_shared<Epoch>();
  const int64_t documents = file_->documents();
  const Permutation permutation(static_cast<uint64_t>(documents),
                                stream_.fork("documents").fork(static_cast<uint64_t>(number)));
  made->number = number;
  made->order.reserve(static_cast<size_t>(documents));
  made->begin.reserve(static_cast<size_t>(documents) + 1);
  made->begin.push_back(0);
  for (int64_t d = 0; d < documents; ++d) {
    made->order.push_back(static_cast<int64_t>(permutation(static_cast<uint64_t>(d))));
    made->begin.push_back(made->begin.back() + file_->document_length(made->order.back()));
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
  const auto shuffled = shuffle_ == "documents" ? epoch(number) : nullptr;
  const auto& in_file = file_->document_begins();
  const auto& in_stream = shuffled ? shuffled->begin : in_file;

  // T inputs and, one on, T targets: T + 1 tokens, fewer in the last window.
  const int64_t T = context_length_;
  const int64_t begin = w * T;
  const int64_t n = std::min(T + 1, file_->tokens() - begin);
  std::vector<int64_t> tokens(static_cast<size_t>(n));
  std::vector<float> weights(static_cast<size_t>(file_->has_weights() ? n : 0));  // as targets
  std::vector<int32_t> document(static_cast<size_t>(n));  // counted within the row
  auto d = std::upper_bound(in_stream.begin(), in_stream.end(), begin) - in_stream.begin() - 1;
  int32_t segment = 0;
  for (int64_t done = 0; done < n; ++d) {
    const int64_t at = begin + done;
    const int64_t take = std::min(n - done, in_stream[d + 1] - at);
    if (take == 0) continue;  // an empty document
    const int64_t from = shuffled ? in_file[shuffled->order[d]] + (at - in_stream[d]) : at;
    file_->read(from, std::span(tokens).subspan(done, take));
    if (file_->has_weights()) file_->read_weights(from, std::span(weights).subspan(done, take));
    std::fill_n(document.begin() + done, take, segment++);
    done += take;
  }

  Row row;
  row.tokens.assign(static_cast<size_t>(T), 0);
  row.targets.assign(static_cast<size_t>(T), kIgnored);
  row.segment.assign(static_cast<size_t>(T), -1);
  if (file_->has_weights()) row.weights.assign(static_cast<size_t>(T), 0);
  for (int64_t t = 0; t < std::min(T, n); ++t) {
    row.tokens[t] = tokens[t];
    row.segment[t] = mask_documents ? document[t] : 0;
    const bool scored = t + 1 < n && (!mask_documents || document[t] == document[t + 1]);
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
                 const std::string& shuffle, bool mask_documents, uint64_t seed)
    : weights_(weights_of(sources)), mixture_(weights_), mask_documents_(mask_documents) {
  const RandomStream stream = RandomStream(seed).fork("shuffle");
  for (size_t i = 0; i < sources.size(); ++i) {
    const auto weights = sources[i].target_weights ? TargetWeights::kRead : TargetWeights::kNone;
    files_.push_back(std::make_shared<const TokenFile>(sources[i].path, weights));
    views_.emplace_back(files_.back(), context_length, shuffle, stream.fork(i));
  }
}

Row Sampler::row(int64_t sample) const {
  const auto [source, index] = mixture_.pick(sample);
  Row row = views_[source].window(index, mask_documents_);
  row.sample = sample;
  return row;
}

int64_t Sampler::tokens_per_epoch() const {
  return std::accumulate(files_.begin(), files_.end(), int64_t{0},
                         [](int64_t sum, const auto& file) { return sum + file->tokens(); });
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
