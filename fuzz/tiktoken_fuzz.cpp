// parse_tiktoken() on any bytes: a UserError with exit code 66 or a tokenizer that gives text back,
// in ids of its vocabulary.
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include "core/error.h"
#include "data/tiktoken.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string ranks(reinterpret_cast<const char*>(data), size);
  for (const char* name : {"gpt2_ranks", "cl100k_ranks"}) {
    std::unique_ptr<tandem::Tokenizer> tokenizer;
    try {
      tokenizer = tandem::parse_tiktoken(ranks, "file", name);
    } catch (const tandem::UserError& error) {
      const std::string_view message = error.what();
      require(error.exit_code() == tandem::kExitBadFile && message.starts_with("file: "));
      require(message.find('\n') == std::string_view::npos);
      continue;
    }
    require(tokenizer->model_bytes() == ranks);
    const std::string text =
        "the ferry's  1234 \r\n caf\xC3\xA9 e\xCC\x81\xF0\x9F\x91\x8D<|endoftext|>  ";
    const auto ids = tokenizer->encode(text);
    int64_t bytes = 0;
    for (const int32_t id : ids) {
      require(id >= 0 && id < tokenizer->vocab_size());
      bytes += tokenizer->byte_length(id);
    }
    require(tokenizer->decode(ids) == text && bytes == static_cast<int64_t>(text.size()));
    require(tokenizer->encode(text, tandem::Specials::kAsIds).size() < ids.size());
  }
  return 0;
}
