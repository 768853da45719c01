// parse_hf_tokenizer() on any bytes: a UserError with exit code 66 or a tokenizer that gives text
// back, in ids of its vocabulary.
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include "core/error.h"
#include "data/hf_tokenizer.h"
#include "data/normal_form.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

std::string plain(std::string text) {
  std::erase(text, ' ');
  return tandem::nfc(text);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::unique_ptr<tandem::Tokenizer> tokenizer;
  const std::string json(reinterpret_cast<const char*>(data), size);
  try {
    tokenizer = tandem::parse_hf_tokenizer(json, "file");
  } catch (const tandem::UserError& error) {
    const std::string_view message = error.what();
    require(error.exit_code() == tandem::kExitBadFile && message.starts_with("file: "));
    require(message.find('\n') == std::string_view::npos);
    return 0;
  }
  require(tokenizer->model_bytes() == json && tokenizer->vocab_size() >= 256);
  for (const std::string text :
       {"the ferry's  12 \r\n caf\xC3\xA9 e\xCC\x81\xF0\x9F\x91\x8D<|endoftext|>  ", " x"}) {
    for (const auto specials : {tandem::Specials::kAsText, tandem::Specials::kAsIds}) {
      int64_t bytes = 0;
      const auto ids = tokenizer->encode(text, specials);
      for (const int32_t id : ids) {
        require(id >= 0 && id < tokenizer->vocab_size());
        bytes += tokenizer->byte_length(id);
      }
      const std::string back = tokenizer->decode(ids);
      require(static_cast<int64_t>(back.size()) == bytes);
      // add_prefix_space may add spaces, NFC may compose.
      if (specials == tandem::Specials::kAsText) require(plain(back) == plain(text));
    }
  }
  return 0;
}
