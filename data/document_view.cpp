#include "data/document_view.h"

#include <stdexcept>
#include <string_view>
#include <utility>

#include "core/error.h"
#include "core/log.h"

namespace tandem {

DocumentView::DocumentView(std::shared_ptr<const TokenFile> file, const ViewSpec& spec)
    : file_(std::move(file)), spec_(spec) {
  if (spec.upsample_times < 1 || spec.upsample_times > kMostUpsampling) {
    throw std::logic_error("DocumentView: upsample_times = " + std::to_string(spec.upsample_times) +
                           ", expected 1 to " + std::to_string(kMostUpsampling));
  }
  if (spec.min_length == 0 && spec.max_length == 0 && spec.upsample_times == 1) {
    tokens_ = file_->tokens();
  } else {
    choose();
  }
  if (tokens_ >= 2) return;
  std::string without;
  for (const std::string& phrase : left_out())
    without += (without.empty() ? "without " : " and ") + phrase;
  throw bad_file(file_->path(), without + (without.empty() ? "" : " it ") + "holds " +
                                    std::to_string(tokens_) + " tokens, at least 2 are needed");
}

void DocumentView::choose() {
  const auto leave_out = [](Dropped& dropped, int64_t length) {
    ++dropped.documents;
    dropped.tokens += length;
  };
  for (int64_t d = 0; d < file_->documents(); ++d) {
    const int64_t length = file_->document_length(d);
    if (length < spec_.min_length) {
      leave_out(shorter_, length);
    } else if (spec_.max_length > 0 && length > spec_.max_length) {
      leave_out(longer_, length);
    } else {
      once_.push_back(d);
      tokens_ += length;
      if (spec_.upsample_times == 1 || length < spec_.upsample_from) continue;
      more_.push_back(d);
      tokens_ += (spec_.upsample_times - 1) * length;
    }
  }
  whole_ = more_.empty() && dropped().documents == 0;
  if (whole_) once_ = {};
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

std::string why_one_document(const TokenFile& file, std::optional<int64_t> eos_id) {
  if (file.documents() != 1 || std::string_view(file.format()) == "indexed") return "";
  if (!eos_id) return file.path() + " has no eos_id";
  int64_t last = 0;
  file.read(file.tokens() - 1, {&last, 1});
  return last == *eos_id ? "" : file.path() + " holds no token " + std::to_string(*eos_id);
}

}  // namespace tandem
