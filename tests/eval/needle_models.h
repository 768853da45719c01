#pragma once
#include <memory>
#include <string>

#include "tests/eval/text_model.h"

namespace tandem {

/// Really looks for the sentence that its text's last one begins like, and goes on as that did;
/// says the text is over where there is none. `knows_nothing`: every token is as likely.
class LookingModel : public TextModel {
 public:
  explicit LookingModel(bool knows_nothing, Packing packing = {})
      : knows_nothing_(knows_nothing), packing_(packing) {}
  Packing packing() const override { return packing_; }

 private:
  Tensor predict(const std::string& text) const override {
    const Tensor logits = torch::zeros({kVocabulary}, torch::kFloat64);
    if (knows_nothing_) return logits;
    const size_t begin = text.rfind("special magic ");
    const std::string key = begin == std::string::npos ? text : text.substr(begin);
    const size_t found = text.find(key);  // the last one at the latest
    const size_t behind = found + key.size();
    const int64_t next =
        behind < text.size() ? static_cast<unsigned char>(text[behind]) : int64_t{kEos};
    logits[next] = 10;
    return logits;
  }
  bool knows_nothing_;
  Packing packing_;
};

inline std::shared_ptr<LookingModel> make_looking_model(bool knows_nothing = false,
                                                        Packing packing = {}) {
  auto model = std::make_shared<LookingModel>(knows_nothing, packing);
  materialise_random(*model, 1);
  return model;
}

}  // namespace tandem
