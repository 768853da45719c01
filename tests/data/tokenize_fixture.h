#pragma once
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/file.h"
#include "core/log.h"
#include "data/tokenize.h"
#include "tests/data/packed_text.h"
#include "tests/data/temp_folder.h"

// A small job over files of all kinds.

namespace tandem {

using Files = std::map<std::string, std::string>;  // name and bytes

inline Files files_in(const std::string& folder) {
  Files files;
  for (const auto& name : list_directory(folder)) files[name] = file_bytes(folder + "/" + name);
  return files;
}

inline std::string json_line(const std::string& text) {
  return nlohmann::ordered_json({{"text", text}}).dump() + "\n";
}

/// One token for each document, at which it calls `each`.
class OneTokenTokenizer : public Tokenizer {
 public:
  explicit OneTokenTokenizer(std::function<void(std::string_view)> each) : each_(std::move(each)) {}
  void append(std::string_view text, Specials, std::vector<int32_t>& ids) const override {
    each_(text);
    ids.push_back(static_cast<int32_t>(text.size() % 7));
  }
  std::string decode(std::span<const int32_t>) const override { return ""; }
  int64_t vocab_size() const override { return 7; }
  std::optional<int32_t> bos() const override { return std::nullopt; }
  std::optional<int32_t> eos() const override { return std::nullopt; }
  std::optional<int32_t> special_id(std::string_view) const override { return std::nullopt; }
  int64_t byte_length(int32_t) const override { return 1; }
  std::string model_bytes() const override { return ""; }
  std::string file_name() const override { return ""; }
  std::string name() const override { return "one token"; }

 private:
  std::function<void(std::string_view)> each_;
};

class TokenizeTest : public testing::Test {
 protected:
  TokenizeTest() {
    set_log_quiet(true);
    std::mt19937 random(19);
    std::string a, b, paragraphs;
    for (int i = 0; i < 97; ++i) {
      const std::string text =
          i % 11 == 3
              ? ""
              : std::string(random() % 50, static_cast<char>('a' + i % 26)) + std::to_string(i);
      (i < 60 ? a : b) += i % 31 == 7 ? "no JSON\n" : json_line(text);
      paragraphs += text + (i % 4 == 0 ? "\n\n" : "\n");
    }
    write_file(folder_ / "in/a.jsonl", a);
    write_file(folder_ / "in/b.jsonl.gz", gzip_packed(b));
    write_file(folder_ / "in/c.txt", paragraphs);
    write_file(folder_ / "in/d.txt", "");
    write_file(folder_ / "in/e/f.txt.zst", zstd_packed("last\n\none\xFF\n"));
    write_file(folder_ / "in/e/g.jsonl", "");
    job_ = {.input = folder_ / "in",
            .documents = {.split = SplitText::kBlankLine},
            .output = folder_ / "out/train",
            .validation_output = folder_ / "out/valid",
            .validation_fraction = 0.2,
            .seed = 3,
            .eos = 257,
            .max_bad_lines = 0.5,
            .block_bytes = 100};
  }

  ~TokenizeTest() override { set_log_quiet(false); }

  /// All files of a job that nothing stopped.
  Files whole(const TokenizeJob& job) {
    TokenizeJob elsewhere = job;
    elsewhere.output = folder_ / "whole/train";
    if (!job.validation_output.empty()) elsewhere.validation_output = folder_ / "whole/valid";
    EXPECT_TRUE(tokenize(*bytes_, elsewhere));
    Files files = files_in(folder_ / "whole");
    std::filesystem::remove_all(folder_ / "whole");
    return files;
  }
  Files outputs() const { return files_in(folder_ / "out"); }

  TempFolder folder_;
  std::unique_ptr<Tokenizer> bytes_ = load_tokenizer("bytes");
  TokenizeJob job_;
};

}  // namespace tandem
