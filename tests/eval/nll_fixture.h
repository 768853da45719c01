#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "data/token_file_writer.h"
#include "eval/nll.h"
#include "eval/nll_windows.h"
#include "nn/score.h"
#include "tests/data/temp_folder.h"
#include "tests/nn/tiny_model.h"

namespace tandem {

// Bytes, so that every id below 256 is one byte of text; 257 is EOS.
inline constexpr int64_t kVocabulary = 258;

class NllTest : public testing::Test {
 protected:
  void SetUp() override {
    TokenFileWriter writer(data_, kVocabulary);
    for (const auto& document : documents_) writer.add_document(document);
    writer.publish();
    file_ = std::make_shared<const TokenFile>(data_);
    for (const auto& document : documents_)
      stream_.insert(stream_.end(), document.begin(), document.end());
  }
  NllWindows windows(int64_t length, int64_t stride) const {
    return {.file = file_, .tokens = file_->tokens(), .length = length, .stride = stride};
  }
  // What `config` gives for one recurrent model.
  std::vector<nlohmann::ordered_json> run(const NllConfig& config, Packing packing = {}) {
    return run(config, make_recurrent_model(kVocabulary, packing));
  }
  std::vector<nlohmann::ordered_json> run(NllConfig config, std::shared_ptr<LanguageModel> model) {
    if (config.data.empty()) config.data = {data_};
    std::vector<nlohmann::ordered_json> records;
    EvalArgs args;
    args.inputs = {"runs/recurrent"};
    args.batch = 3;
    args.seed = 4;
    args.dtype = "float64";
    args.load = [&](const std::string& path) {
      LoadedModel loaded;
      loaded.model = model;
      loaded.config = trained_with_;
      if (with_tokenizer_) loaded.tokenizer = load_tokenizer("bytes");
      loaded.checkpoint = path + "/checkpoints/step-00000009";
      loaded.step = 9;
      loaded.context_length = 10;
      return loaded;
    };
    CellRunner cells(out_, nullptr, [&](const auto& record) { records.push_back(record); });
    args.cells = &cells;
    table_ = run_nll(config, args);
    return records;
  }
  // Sum of the NLL of stream tokens [begin + 1, end) given those from `begin` on.
  double by_hand(int64_t begin, int64_t end) const {
    const auto model = make_recurrent_model(kVocabulary);
    const std::vector<std::vector<int64_t>> sequences = {
        {stream_.begin() + begin, stream_.begin() + end}};
    const auto result = log_probs(*model, sequences, torch::kCPU, 1);
    double sum = 0;
    for (const double log_p : result.front()) sum -= std::isnan(log_p) ? 0 : log_p;
    return sum;
  }

  TempFolder folder_;
  const std::string data_ = folder_ / "valid";
  const std::vector<std::vector<int32_t>> documents_ = {
      {72, 101, 108, 108, 111, 257},
      {87, 257},
      {111, 114, 108, 100, 33, 33, 10, 257},
      {79, 110, 99, 101, 32, 117, 112, 111, 110, 32, 97, 257}};
  std::vector<int64_t> stream_;  // 28 tokens
  std::shared_ptr<const TokenFile> file_;
  ConfigNode trained_with_ = ConfigNode::make_map();
  bool with_tokenizer_ = true;
  std::string out_;  // result file; empty: none
  EvalTable table_;
};

}  // namespace tandem
