#include "data/document_view.h"

#include <stdexcept>
#include <utility>

#include "core/error.h"
#include "core/log.h"

namespace tandem {

DocumentView::DocumentView(std::shared_ptr<const TokenFile> file, const ViewSpec& spec)
    : file_(std::move(file)), spec_(spec) {
  if (spec.upsample_times < 1) throw std::logic_error("DocumentView: upsample_times < 1");
  int64_t upsampled_tokens = 0;
  const auto leave_out = [](Dropped& dropped, int64_t length) {
    ++dropped.documents;
    dropped.tokens += length;
  };
  for (int64_t d = 0; d < file_->documents(); ++d) {
    const int64_t length = file_->document_length(d);
    if (length < spec.min_length) {
      leave_out(shorter_, length);
    } else if (spec.max_length > 0 && length > spec.max_length) {
      leave_out(longer_, length);
    } else {
      once_.push_back(d);
      tokens_ += length;
      if (spec.upsample_times == 1 || length < spec.upsample_from) continue;
      more_.push_back(d);
      upsampled_tokens += length;
    }
  }
  whole_ = more_.empty() && dropped().documents == 0;
  if (whole_) once_ = {};

  int64_t copied = 0;
  if (__builtin_mul_overflow(upsampled_tokens, spec.upsample_times - 1, &copied) ||
      __builtin_add_overflow(tokens_, copied, &tokens_)) {
    throw bad_usage(file_->prefix() + ": documents that come " +
                    std::to_string(spec.upsample_times) +
                    " times are more tokens than can be counted");
  }
  if (tokens_ >= 2) return;
  std::string without;
  for (const std::string& phrase : left_out())
    without += (without.empty() ? "without " : " and ") + phrase;
  throw bad_file(file_->prefix(), without + (without.empty() ? "" : " it ") + "holds " +
                                      std::to_string(tokens_) + " tokens, at least 2 are needed");
}

int64_t DocumentView::documents() const {
  if (whole_) return file_->documents();
  return static_cast<int64_t>(once_.size()) + (spec_.upsample_times - 1) * upsampled();
}

int64_t DocumentView::in_file(int64_t i) const {
  if (whole_) return i;
  const auto n = static_cast<int64_t>(once_.size());
  return i < n ? once_[i] : more_[(i - n) % upsampled()];
}

int64_t DocumentView::copy(int64_t i) const {
  const auto n = static_cast<int64_t>(once_.size());
  return whole_ || i < n ? 0 : 1 + (i - n) / upsampled();
}

DocumentView::Dropped DocumentView::dropped() const {
  return {shorter_.documents + longer_.documents, shorter_.tokens + longer_.tokens};
}

std::vector<std::string> DocumentView::left_out() const {
  std::vector<std::string> phrases;
  const auto add = [&](const Dropped& dropped, const char* how, int64_t limit) {
    if (dropped.documents == 0) return;
    phrases.push_back(
        with_commas(dropped.documents) + (dropped.documents == 1 ? " document (" : " documents (") +
        with_commas(dropped.tokens) + " tokens) " + how + " than " + with_commas(limit));
  };
  add(shorter_, "shorter", spec_.min_length);
  add(longer_, "longer", spec_.max_length);
  return phrases;
}

}  // namespace tandem
