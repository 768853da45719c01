#pragma once
#include <memory>
#include <string>

#include "data/tokenizer.h"
#include "nn/generate.h"

namespace tandem {

/// A tokenizer's StreamingDecoder as the text of generate().
class StreamingText : public TextStream {
 public:
  explicit StreamingText(const Tokenizer& tokenizer) : decoder_(tokenizer) {}
  std::string push(int64_t id) override { return decoder_.push(static_cast<int32_t>(id)); }
  std::string flush() override { return decoder_.flush(); }

 private:
  StreamingDecoder decoder_;
};

}  // namespace tandem
