#include <cmath>

#include "data/sampler.h"
#include "eval/nll_scorer.h"
#include "tests/eval/nll_fixture.h"
#include "tests/nn/block_model.h"

namespace tandem {
namespace {

// NLL of each of `ids` but the first under a model of blocks, with padding in front or without it.
std::vector<double> block_nll(const BlockModel& model, std::span<const int64_t> ids) {
  std::vector<double> nll;
  auto before = padded(model.packing().padding_to_score(), {});
  for (size_t i = 0; i + 1 < ids.size(); ++i) {
    before.push_back(ids[i]);
    const bool scored = std::ssize(before) >= model.packing().multiple;
    nll.push_back(scored ? -model.log_prob(before, ids[i + 1]) : NAN);
  }
  return nll;
}

TEST_F(NllTest, EveryTokenButTheFirstIsScoredOnceWhateverTheStride) {
  for (const int64_t length : {1, 4, 9, 27, 28, 40}) {
    for (int64_t stride = 1; stride <= length; stride += 3) {
      const auto w = windows(length, stride);
      std::vector<int> scored(stream_.size());
      for (int64_t k = 0; k < w.count(); ++k) {
        const Row row = w.row(k, {});
        for (size_t t = 0; t < row.targets.size(); ++t) {
          if (row.targets[t] == kIgnored) continue;
          const auto at = static_cast<size_t>(k * stride) + t + 1;
          EXPECT_EQ(row.targets[t], stream_[at]);
          ++scored[at];
          EXPECT_TRUE(k == 0 || static_cast<int64_t>(t) >= length - stride)
              << "seen with less context than promised";
        }
      }
      std::vector<int> expected(stream_.size(), 1);
      expected[0] = 0;
      EXPECT_EQ(scored, expected) << "length " << length << ", stride " << stride;
    }
  }
}

TEST_F(NllTest, WindowsOfBlocksScoreEachTokenOnceBehindTheirPadding) {
  const Packing padding{.multiple = 4, .unscored_prefix = 3, .pad_documents = true};
  const auto w = windows(9, 5);
  std::vector<int> scored(stream_.size());
  for (int64_t k = 0; k < w.count(); ++k) {
    const Row row = w.row(k, padding);
    EXPECT_EQ(row.targets.size() % 4, 0u);
    for (size_t t = 0; t < row.targets.size(); ++t) {
      if (row.targets[t] == kIgnored) continue;
      const auto at = static_cast<size_t>(k * 5) + (t - 3) + 1;
      EXPECT_EQ(row.targets[t], stream_[at]);
      EXPECT_EQ(row.tokens[t], stream_[at - 1]);
      ++scored[at];
    }
  }
  std::vector<int> expected(stream_.size(), 1);
  expected[0] = 0;
  EXPECT_EQ(scored, expected);
  auto masked = w;
  masked.mask_documents = true;
  EXPECT_THROW(masked.row(0, padding), c10::Error);
}

TEST_F(NllTest, BlocksWithPaddingScoreAsModelsWithoutBlocks) {
  const auto model = make_block_model(4, true, 0, kVocabulary);
  const auto expected = block_nll(*model, stream_);
  for (const int64_t chunk : {0, 5}) {
    const auto record =
        run({.context_length = 100, .chunk = chunk, .buckets = 27, .unigram = data_}, model)[1];
    EXPECT_EQ(record["tokens_scored"], 27);
    EXPECT_EQ(record["unscored_prefix"], 0);
    EXPECT_EQ(record["padding"], 3);
    const auto& by_position = record["nll_by_position"];
    ASSERT_EQ(by_position.size(), 27u);  // without the padding in front and behind
    double sum = 0;
    std::vector<double> by_slot(4), n(4);
    for (size_t i = 0; i < 27; ++i) {
      EXPECT_EQ(by_position[i]["begin"], i);
      EXPECT_NEAR(by_position[i]["nll"].get<double>(), expected[i], 1e-10);
      sum += expected[i];
      by_slot[i % 4] += expected[i], n[i % 4] += 1;  // token 1 begins the second block
    }
    EXPECT_NEAR(record["nll"].get<double>(), sum / 27, 1e-10);
    ASSERT_EQ(record["nll_by_block_position"].size(), 4u);
    for (size_t slot = 0; slot < 4; ++slot) {
      EXPECT_NEAR(record["nll_by_block_position"][slot].get<double>(), by_slot[slot] / n[slot],
                  1e-10);
    }
    EXPECT_EQ(record["tokens_scored_by_block_position"].dump(), "[7,7,7,6]");
  }
}

TEST_F(NllTest, BlocksWithoutPaddingLeaveTheFirstOfAWindowOut) {
  const auto model = make_block_model(4, false, 0, kVocabulary);
  double sum = 0;
  std::vector<int> n(4);
  for (const auto& [begin, end] : {std::pair(0, 11), std::pair(10, 21), std::pair(20, 28)}) {
    const auto nll = block_nll(*model, std::span(stream_).subspan(begin, end - begin));
    for (size_t i = 0; i < nll.size(); ++i) {
      if (std::isnan(nll[i])) continue;
      sum += nll[i];
      ++n[(i + 1) % 4];
    }
  }
  const auto records = run({.unigram = data_}, model);
  for (const auto& record : records) {
    EXPECT_EQ(record["tokens_scored"], 3 * -3 + 27);
    EXPECT_EQ(record["unscored_prefix"], 3);
    EXPECT_EQ(record["padding"], 0);
    EXPECT_EQ(record["nll_by_position"][0]["begin"], 3);  // 16 buckets of one token
    EXPECT_EQ(record["tokens_scored_by_block_position"].get<std::vector<int>>(), n);
  }
  EXPECT_NEAR(records[1]["nll"].get<double>(), sum / 18, 1e-10);
  EXPECT_EQ(records[0]["bytes_scored"], records[1]["bytes_scored"]);
  const auto of_others = run({}).front();
  EXPECT_EQ(of_others["unscored_prefix"], 0);
  EXPECT_FALSE(of_others.contains("nll_by_block_position"));
  // a block and one token more: nothing is scored in the others
  const auto of_one = run({.context_length = 4, .max_tokens = 4}, model).front();
  const auto& slots = of_one["nll_by_block_position"];
  EXPECT_EQ(slots.dump(), "[" + slots[0].dump() + ",null,null,null]");
  EXPECT_EQ(slots[0], of_one["nll"]);
}

TEST_F(NllTest, ModelsOfBlocksAreScoredWithoutDocumentMasks) {
  trained_with_ = parse_yaml("data: {mask_documents: true}", "config.yaml");
  EXPECT_EQ(run({}).front()["mask_documents"], true);
  const auto model = make_block_model(4, true, 0, kVocabulary);
  EXPECT_EQ(error_of([&] { run({.mask_documents = true}, model); }, kExitUsage),
            "--mask-documents true, but runs/recurrent is a model of blocks of 4 tokens; give "
            "--mask-documents false: documents that see no other need rows padded to blocks, as in "
            "training");
  testing::internal::CaptureStderr();
  const auto record = run({}, model).front();
  EXPECT_TRUE(testing::internal::GetCapturedStderr().starts_with(
      "warning: runs/recurrent was trained with document masks and is scored without: documents "
      "that see no other need rows padded to blocks, as in training\n"));
  EXPECT_EQ(record["mask_documents"], false);
  EXPECT_EQ(record["tokens_scored"], 27);
  testing::internal::CaptureStderr();
  EXPECT_EQ(run({.mask_documents = false}, model).front()["nll"], record["nll"]);
  EXPECT_EQ(testing::internal::GetCapturedStderr().find("warning"), std::string::npos);
  // a block of one token is no block
  EXPECT_EQ(run({}, Packing{.pad_documents = true}).front()["mask_documents"], true);
}

TEST_F(NllTest, WindowsHaveTheModelsPositionsAtMost) {
  const std::string shortened =
      "runs/recurrent is scored in windows of 9 tokens, not the 10 of its training: it has no more "
      "positions\n";
  testing::internal::CaptureStderr();
  EXPECT_EQ(run({.context_length = 9}, {.max_length = 9}).front()["window"], 9);
  EXPECT_EQ(run({}, {.max_length = 10}).front()["window"], 10);
  EXPECT_EQ(testing::internal::GetCapturedStderr().find(shortened), std::string::npos);
  testing::internal::CaptureStderr();
  EXPECT_EQ(run({}, {.max_length = 9}).front()["window"], 9);
  EXPECT_TRUE(testing::internal::GetCapturedStderr().starts_with(shortened));
  EXPECT_EQ(error_of([&] { run({.context_length = 10}, {.max_length = 9}); }, kExitUsage),
            "--context-length 10, expected at most 9, the positions of runs/recurrent");
  const auto model = make_block_model(4, true, 12, kVocabulary);
  EXPECT_EQ(run({}, model).front()["window"], 9);
  EXPECT_EQ(error_of([&] { run({.context_length = 10}, model); }, kExitUsage),
            "--context-length 10, expected at most 9, the positions of runs/recurrent but 3 of "
            "padding");
}

TEST_F(NllTest, WindowsSideBySideAreThoseOfTraining) {
  for (const bool mask : {false, true}) {
    const WindowView view(DocumentView(file_, {}), 5, "none", RandomStream(1));
    auto w = windows(5, 5);
    w.mask_documents = mask;
    ASSERT_EQ(w.count(), view.windows());
    for (int64_t k = 0; k < w.count(); ++k) {
      std::vector<Row> rows = {w.row(k, {}), view.window(k, mask)};
      pad_rows(rows);
      EXPECT_EQ(rows[0].targets, rows[1].targets) << "window " << k;
      for (size_t t = 0; t < rows[0].targets.size(); ++t) {
        if (rows[0].targets[t] == kIgnored) continue;
        EXPECT_EQ(rows[0].tokens[t], rows[1].tokens[t]);
        EXPECT_EQ(rows[0].segment[t], rows[1].segment[t]);
      }
    }
  }
}

TEST_F(NllTest, OneWindowGivesTheSumOverTheStream) {
  const auto record = run({.context_length = 100}).front();
  const double expected = by_hand(0, 28);
  EXPECT_EQ(record["tokens_scored"], 27);
  EXPECT_NEAR(record["nll"].get<double>(), expected / 27, 1e-5);
  EXPECT_NEAR(record["ppl"].get<double>(), std::exp(expected / 27), 1e-3 * std::exp(expected / 27));
  EXPECT_EQ(record["bytes_scored"], 27 - 4);  // without the four EOS
  EXPECT_NEAR(record["bpb"].get<double>(), expected / std::log(2.0) / 23, 1e-5);
}

TEST_F(NllTest, AStrideGivesLaterTokensTheContextOfTheirWindow) {
  const auto record = run({.context_length = 12, .stride = 8}).front();
  // windows at 0, 8, 16 with 12 inputs each; the later ones score their last 8 targets
  const double expected =
      by_hand(0, 13) + (by_hand(8, 21) - by_hand(8, 13)) + (by_hand(16, 28) - by_hand(16, 21));
  EXPECT_NEAR(record["nll"].get<double>(), expected / 27, 1e-5);
}

TEST_F(NllTest, PiecesAndBucketsKeepTheSum) {
  const auto whole = run({.context_length = 11, .buckets = 4}).front(),
             pieces = run({.context_length = 11, .chunk = 3}).front();
  EXPECT_NEAR(whole["nll"].get<double>(), pieces["nll"].get<double>(), 1e-12);
  double sum = 0;
  int64_t tokens = 0, end = 0;
  for (const auto& bucket : whole["nll_by_position"]) {
    EXPECT_EQ(bucket["begin"], end);
    end = bucket["end"];
    sum += bucket["nll"].get<double>() * bucket["tokens_scored"].get<double>();
    tokens += bucket["tokens_scored"].get<int64_t>();
  }
  EXPECT_EQ(whole["nll_by_position"].size(), 4u);
  EXPECT_EQ(end, 11);
  EXPECT_EQ(tokens, 27);
  EXPECT_NEAR(sum / 27, whole["nll"].get<double>(), 1e-12);
}

TEST_F(NllTest, TheRecordSaysWhatMakesNumbersComparable) {
  const auto record = run({.max_tokens = 20}, {.multiple = 4, .unscored_prefix = 3}).front();
  EXPECT_EQ(record["evaluation"], "nll");
  EXPECT_EQ(record["model"], "runs/recurrent");
  EXPECT_EQ(record["checkpoint"], "runs/recurrent/checkpoints/step-00000009");
  EXPECT_EQ(record["step"], 9);
  EXPECT_EQ(record["parameters"], 2 * 258 * 7);
  EXPECT_EQ(record["dtype"], "float64");
  EXPECT_EQ(record["device"], "cpu");
  EXPECT_EQ(record["seed"], 4);
  EXPECT_EQ(record["data"], data_);
  EXPECT_EQ(record["data_hash"], file_->content_hash());
  EXPECT_EQ(record["window"], 10);
  EXPECT_EQ(record["stride"], 10);
  EXPECT_EQ(record["bos"], "none");
  EXPECT_EQ(record["mask_documents"], false);
  EXPECT_EQ(record["tokens_scored"], 20 - 2 * 3);  // two windows, each without the model's prefix
}

TEST_F(NllTest, PiecesMayHoldKeysAndValuesInAnotherType) {
  const auto same = run({.context_length = 11, .chunk = 3}).front(),
             narrow = run({.context_length = 11, .chunk = 3, .cache_dtype = "float32"}).front();
  EXPECT_EQ(same["cache_dtype"], "same");
  EXPECT_EQ(narrow["cache_dtype"], "float32");
  EXPECT_NE(narrow["nll"], same["nll"]);  // the state of float64 is rounded to float32
  EXPECT_NEAR(narrow["nll"].get<double>(), same["nll"].get<double>(), 1e-6);
  EXPECT_TRUE(run({.context_length = 11}).front()["cache_dtype"].is_null());
  EXPECT_EQ(error_of([&] { run({.cache_dtype = "bfloat16"}); }, kExitUsage),
            "--cache-dtype bfloat16 has no effect without --chunk: whole windows hold no keys and "
            "values");
}

TEST_F(NllTest, SkipMakesModelsWithAndWithoutAPrefixComparable) {
  const auto skipping = run({.context_length = 9, .skip = 3}).front(),
             with_prefix = run({.context_length = 9}, {.unscored_prefix = 3}).front();
  EXPECT_EQ(skipping["tokens_scored"], with_prefix["tokens_scored"]);
  EXPECT_EQ(skipping["nll"], with_prefix["nll"]);
}

TEST_F(NllTest, UnigramIsTheFrequencyWithOneMoreOfEach) {
  const auto nll = unigram_nll(*file_, kVocabulary);
  double sum = 0;
  for (const double value : nll) sum += std::exp(-value);
  EXPECT_NEAR(sum, 1, 1e-12);
  EXPECT_NEAR(nll[257], -std::log(5.0 / (28 + 258)), 1e-12);  // four EOS
  EXPECT_NEAR(nll[0], -std::log(1.0 / (28 + 258)), 1e-12);

  const auto records = run({.unigram = data_});
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0]["model"], "unigram");
  EXPECT_EQ(records[0]["tokens_scored"], records[1]["tokens_scored"]);
  double expected = 0;
  for (size_t i = 1; i < stream_.size(); ++i) expected += nll[static_cast<size_t>(stream_[i])];
  EXPECT_NEAR(records[0]["nll"].get<double>(), expected / 27, 1e-12);
  ASSERT_EQ(table_.size(), 3u);
  EXPECT_EQ(table_[1].front(), "unigram");
  EXPECT_EQ(table_[2].front(), "runs/recurrent");
}

TEST_F(NllTest, MistakesAreNamed) {
  EXPECT_EQ(error_of([&] { run({.stride = 11}); }, kExitUsage),
            "--stride 11, expected at most the window's 10 tokens");
  EXPECT_EQ(error_of([&] { run({.chunk = 4, .mask_documents = true}); }, kExitUsage),
            "--chunk needs windows without document masks; give --mask-documents false");
  EXPECT_EQ(error_of([&] { run({.skip = 100}); }, kExitUsage),
            "nothing to score: --skip, --last and the model's unscored prefix leave no target");
  EXPECT_EQ(error_of([&] { unigram_nll(*file_, 200); }),
            data_ + ": holds token 257, the model's vocabulary ends at 199");
  EXPECT_EQ(error_of([&] { evaluations().front().run(ConfigNode::make_map(), {}); }, kExitUsage),
            "eval nll needs a token file to score, --data PREFIX");
}

TEST_F(NllTest, TokensOfAnotherTokenizerAreRefused) {
  write_file(data_ + ".manifest.json",
             R"({"format": "tandem tokens", "version": 1, "tokenizer": {"name": "books.model", )"
             R"("sha256": ")" +
                 std::string(64, '0') + "\"}}");
  const std::string message =
      ": was made with the tokenizer books.model, that of runs/recurrent is bytes; run `tandem "
      "data tokenize` again with the model's";
  EXPECT_EQ(error_of([&] { run({}); }, kExitUsage), data_ + message);
  TokenFileWriter other(folder_ / "other", kVocabulary);
  other.add_document(documents_[3]);
  other.publish();
  EXPECT_EQ(run({.data = {folder_ / "other"}}).size(), 1u);  // which says nothing
  EXPECT_EQ(
      error_of([&] { run({.data = {folder_ / "other"}, .unigram = data_ + ".idx"}); }, kExitUsage),
      data_ + ".idx" + message);
}

TEST_F(NllTest, HeaderlessFilesAreScoredAsIndexedOnes) {
  std::string raw;
  for (const int64_t token : stream_) {
    raw += static_cast<char>(token % 256);
    raw += static_cast<char>(token / 256);
  }
  const std::string path = folder_ / "raw.bin";
  write_file(path, raw);
  const NllConfig headerless = {.data = {path},
                                .data_dtype = "uint16",
                                .eos_id = 257,
                                .mask_documents = true,
                                .unigram = path};
  const auto expected = run({.mask_documents = true, .unigram = data_}), found = run(headerless);
  ASSERT_EQ(found.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(found[i]["nll"], expected[i]["nll"]);
    EXPECT_EQ(found[i]["tokens_scored"], expected[i]["tokens_scored"]);
  }
  const auto warning = [&](const NllConfig& config) {
    testing::internal::CaptureStderr();
    run(config);
    const std::string log = testing::internal::GetCapturedStderr();
    return log.starts_with("warning: ") ? log.substr(0, log.find('\n')) : "";
  };
  EXPECT_EQ(warning(headerless), "");
  EXPECT_EQ(warning({.data = {path}, .data_dtype = "uint16", .mask_documents = true}),
            "warning: " + path +
                " has no eos_id, so that it is one document: document masks have no effect on "
                "runs/recurrent");
  EXPECT_EQ(warning({.data = {path}, .data_dtype = "uint16", .eos_id = 3, .mask_documents = true}),
            "warning: " + path +
                " holds no token 3, so that it is one document: document masks have no effect on "
                "runs/recurrent");
  EXPECT_EQ(warning({.data = {path}, .data_dtype = "uint16", .eos_id = 257}),
            "warning: --eos-id has no effect on runs/recurrent: it is scored without document "
            "masks");
  EXPECT_EQ(error_of([&] { run({.data = {path}}); }),
            path +
                ": has no raw.idx beside it and does not begin with LITPKDS; a headerless file "
                "needs its dtype, uint16 or uint32");
}

TEST_F(NllTest, TheRegistryNamesEveryOption) {
  const Evaluation& nll = evaluations().front();
  EXPECT_EQ(nll.name, "nll");
  std::vector<std::string> keys;
  for (const EvalFlag& flag : nll.flags) {
    keys.push_back(flag.key);
    std::string option = "--" + flag.key;
    std::replace(option.begin(), option.end(), '_', '-');
    EXPECT_NE(nll.help.find(option), std::string::npos) << option;
  }
  EXPECT_EQ(keys.size(), 24u);
}

}  // namespace
}  // namespace tandem
