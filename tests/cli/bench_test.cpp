#include <fmt/format.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/bench_record.h"
#include "cli/commands.h"
#include "core/json_lines.h"
#include "nn/peak_memory.h"
#include "tests/cli/tiny_checkpoint.h"
#include "tests/data/temp_folder.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

class BenchCommandTest : public testing::Test {
 protected:
  Ran bench(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "inference");
    arguments.insert(arguments.end(), {"--device", "cpu", "--repeats", "2"});
    return run_captured(run_bench, "tandem bench", arguments);
  }
  std::vector<Json> records(std::vector<std::string> arguments) {
    arguments.push_back("--json");
    const Ran ran = bench(std::move(arguments));
    EXPECT_EQ(ran.code, 0);
    std::istringstream lines(ran.out);
    std::vector<Json> records;
    for (std::string line; std::getline(lines, line);) records.push_back(parse_json(line));
    return records;
  }
  std::string usage_error(const std::vector<std::string>& arguments) {
    return error_of([&] { bench(arguments); }, kExitUsage);
  }
  /// A config of random weights.
  std::string config(const std::string& name, const std::string& model_yaml) {
    write_file(folder_ / name, "model: " + model_yaml + "\n");
    return folder_ / name;
  }
  TempFolder folder_;
};

const char* const kTinyTransformer =
    "{family: transformer, vocab_size: 53, d_model: 22, ffn_dim: 29, n_layers: 3, n_heads: 4, "
    "n_kv_heads: 2, head_dim: 6}";

TEST_F(BenchCommandTest, MeasuresEveryModelBatchAndLength) {
  const std::string tiny = config("tiny.yaml", kTinyByteYoco);
  const std::string run = write_tiny_run(folder_ / "run", kTinyByteYoco);
  const auto all = records({run, tiny, "--prompt-lengths", "5,11", "--batch", "1,3", "--decode",
                            "3", "--prefill-chunk", "4"});
  ASSERT_EQ(all.size(), 8u);
  EXPECT_EQ(all[0]["checkpoint"], checkpoint_folder(run, 7));
  EXPECT_EQ(all[7]["checkpoint"], "");
  EXPECT_EQ(all[7]["batch"], 3);
  EXPECT_EQ(all[7]["length"], 11);
  for (const auto& record : all) {
    EXPECT_EQ(record["family"], "yoco");
    EXPECT_EQ(record["cache_dtype"], "float32");
    EXPECT_EQ(record["prompt_length"], record["length"]);
    EXPECT_EQ(record["decode_length"], 3);
    EXPECT_EQ(record["repeats"], 2);
    EXPECT_EQ(record["warm_up"], true);
    for (const char* spread : {"prefill_ms", "decode_ms_per_token", "throughput_tokens_per_s"}) {
      EXPECT_GT(record[spread]["min"], 0);
      EXPECT_LE(record[spread]["min"], record[spread]["median"]);
      EXPECT_LE(record[spread]["median"], record[spread]["max"]);
    }
    EXPECT_GT(record["prefill_flops"]["total"], record["decode_flops_per_token"]["total"]);
    // what the state holds after the prompt is what the model says it would
    EXPECT_EQ(record["state_bytes"], record["batch"].get<int64_t>() *
                                         record["state_bytes_per_row"]["total"].get<int64_t>());
  }
}

TEST_F(BenchCommandTest, ANarrowCacheIsMeasuredAsSuch) {
  const std::string yoco = config("yoco.yaml", kTinyByteYoco);
  const std::string transformer = config("transformer.yaml", kTinyTransformer);
  const auto wide =
      records({yoco, transformer, "--decode", "3", "--lengths", "11", "--batch", "2"});
  const auto narrow = records({yoco, transformer, "--decode", "3", "--lengths", "11", "--batch",
                               "2", "--cache-dtype", "bfloat16"});
  for (const auto& record : narrow) {
    EXPECT_EQ(record["dtype"], "float32");
    EXPECT_EQ(record["cache_dtype"], "bfloat16");
    EXPECT_EQ(record["state_bytes"], 2 * record["state_bytes_per_row"]["total"].get<int64_t>());
  }
  EXPECT_EQ(2 * narrow[0]["state_bytes_per_row"]["shared_kv"].get<int64_t>(),
            wide[0]["state_bytes_per_row"]["shared_kv"]);
  EXPECT_EQ(narrow[0]["state_bytes_per_row"]["self_decoder"],  // retention's: stays float32
            wide[0]["state_bytes_per_row"]["self_decoder"]);
  EXPECT_EQ(2 * narrow[1]["state_bytes"].get<int64_t>(), wide[1]["state_bytes"]);
  const auto codes =
      records({yoco, "--decode", "3", "--lengths", "11", "--batch", "2", "--cache-dtype", "int8"});
  EXPECT_EQ(codes[0]["cache_dtype"], "int8");
  EXPECT_EQ(codes[0]["state_bytes"], 2 * codes[0]["state_bytes_per_row"]["total"].get<int64_t>());
  EXPECT_EQ(2 * codes[0]["state_bytes_per_row"]["shared_kv"].get<int64_t>(),  // 4 codes, a scale
            wide[0]["state_bytes_per_row"]["shared_kv"]);
}

TEST_F(BenchCommandTest, ThePapersProtocolCountsGeneratedTokensIn) {
  const std::string tiny = config("tiny.yaml", kTinyByteYoco);
  const auto all =
      records({tiny, "--protocol", "yoco", "--decode", "3", "--lengths", "11", "--batch", "1"});
  EXPECT_EQ(all[0]["protocol"], "yoco");
  EXPECT_EQ(all[0]["length"], 11);
  EXPECT_EQ(all[0]["prompt_length"], 8);
  EXPECT_EQ(all[0]["decode_length"], 3);
  EXPECT_EQ(usage_error({tiny, "--protocol", "yoco", "--decode", "3", "--lengths", "3"}),
            "--lengths 3 leaves no prompt, expected more than the 3 tokens that are generated");
}

TEST_F(BenchCommandTest, WithoutTimeForRepeatsTheFirstRunCounts) {
  const std::string tiny = config("tiny.yaml", kTinyByteYoco);
  const Json record = records(
      {tiny, "--lengths", "7", "--batch", "3", "--decode", "3", "--max-seconds", "1e-9"})[0];
  EXPECT_EQ(record["repeats"], 1);
  EXPECT_EQ(record["warm_up"], false);
  const double seconds = (record["prefill_ms"]["median"].get<double>() +
                          3 * record["decode_ms_per_token"]["median"].get<double>()) /
                         1e3;
  EXPECT_NEAR(record["throughput_tokens_per_s"]["median"], 3 * 3 / seconds, 1e-6 / seconds);
}

TEST_F(BenchCommandTest, TheTableHasOneLineACase) {
  const std::string run = write_tiny_run(folder_ / "run", kTinyByteYoco);
  const Ran ran = bench({run, "--lengths", "5,7", "--decode", "3", "--batch", "2"});
  EXPECT_EQ(std::count(ran.out.begin(), ran.out.end(), '\n'), 2 + 2);  // heading and rule
  EXPECT_THAT(ran.out, testing::StartsWith("model"));
}

TEST_F(BenchCommandTest, SeveralModelsAreComparedWithTheReference) {
  const std::string yoco = config("yoco.yaml", kTinyByteYoco);
  const std::string transformer = config("transformer.yaml", kTinyTransformer);
  const Ran last = bench({yoco, transformer, "--lengths", "5,7", "--decode", "3", "--batch", "1"});
  EXPECT_THAT(last.out, testing::HasSubstr("\n" + transformer + " against each model"));
  const Ran named = bench({yoco, transformer, "--lengths", "5,7", "--decode", "3", "--batch", "1",
                           "--reference", yoco});
  EXPECT_THAT(named.out, testing::HasSubstr("\n" + yoco + " against each model"));
  EXPECT_EQ(usage_error({yoco, "--reference", "other"}), "--reference other is none of the models");
}

const char* const kTinyBlock =
    "{family: block_transformer, vocab_size: 53, block_length: 4, "
    "embedder: {kind: lookup, d_embed: 6}, "
    "block_decoder: {stack: gpt_neox, d_model: 24, ffn_dim: 29, n_layers: 2, n_heads: 3}, "
    "token_decoder: {kind: prefix, prefix_length: 2, stack: gpt_neox, d_model: 21, ffn_dim: 31, "
    "n_layers: 1, n_heads: 3, head_dim: 8}}";
const char* const kTinyVanilla =
    "{family: gpt_neox, vocab_size: 53, d_model: 24, ffn_dim: 29, n_layers: 3, n_heads: 3}";

/// Bytes of a row's state in the tiny models, written out from their shapes: float32.
int64_t block_state_bytes(int64_t n) {  // whole blocks
  const int64_t blocks = 2 * 2 * 24 * (n / 4) * 4, context = 24 * 4, tail = 4 * 8;
  const int64_t token_decoder = 2 * 1 * 3 * 8 * 2 * 4;  // keys and values of the prefix
  return blocks + context + tail + token_decoder;
}
int64_t vanilla_state_bytes(int64_t n) { return 3 * 2 * 24 * n * 4; }

TEST_F(BenchCommandTest, TheBlockTransformersProtocolRunsTheLargestBatchOfEachCase) {
  const std::string block = config("block.yaml", kTinyBlock);
  const std::string vanilla = config("vanilla.yaml", kTinyVanilla);
  const auto all = records({block, vanilla, "--protocol", "block-transformer", "--cases",
                            "10+4,3+7", "--memory", "30KiB"});
  ASSERT_EQ(all.size(), 4u);
  EXPECT_EQ(all[0]["case"], "10+4");
  EXPECT_EQ(all[0]["length"], 14);
  EXPECT_EQ(all[0]["prompt_length"], 12);  // whole blocks
  EXPECT_EQ(all[0]["decode_length"], 4);
  EXPECT_EQ(all[0]["batch"], 30 * 1024 / block_state_bytes(16));
  EXPECT_EQ(all[1]["prompt_length"], 4);
  EXPECT_EQ(all[1]["decode_length"], 8);
  EXPECT_EQ(all[1]["batch"], 30 * 1024 / block_state_bytes(12));
  EXPECT_EQ(all[2]["prompt_length"], 10);
  EXPECT_EQ(all[2]["decode_length"], 4);
  EXPECT_EQ(all[2]["batch"], 30 * 1024 / vanilla_state_bytes(14));
  for (const auto& record : all) {
    EXPECT_EQ(record["protocol"], "block-transformer");
    EXPECT_EQ(record["asked_batch"], 0);
    EXPECT_EQ(record["memory_bytes"], 30 * 1024);
    const int64_t batch = record["batch"];
    const auto generated = record["decode_length"].get<double>();
    EXPECT_NEAR(record["throughput_tokens_per_s"]["max"].get<double>() *
                    record["total_ms"]["min"].get<double>(),
                1e3 * static_cast<double>(batch) * generated, 1e-6);
    EXPECT_EQ(record["state_bytes"], batch * record["state_bytes_per_row"]["total"].get<int64_t>());
    EXPECT_GE(record["total_ms"]["median"].get<double>(),
              record["prefill_ms"]["min"].get<double>() +
                  record["decode_length"].get<double>() *
                      record["decode_ms_per_token"]["min"].get<double>());
  }
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, separator);) parts.push_back(part);
  return parts;
}

TEST_F(BenchCommandTest, TheCsvHasTheColumnsOfThePapersCode) {
  const std::string block = config("block, 4.yaml", kTinyBlock), csv = folder_ / "times.csv";
  const std::vector<std::string> arguments = {
      block, "--protocol", "block-transformer", "--cases", "8+4", "--batch", "3", "--csv", csv};
  bench(arguments);
  bench(arguments);  // appends
  const auto lines = split(file_bytes(csv), '\n');
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0],
            "model,prefill_length,decode_length,batch_size,oom,mean,std,mean_per_sample,"
            "mean_per_token,max_memory_allocated,max_memory_reserved");
  const std::string model = "\"" + block + "\",";
  ASSERT_THAT(lines[2], testing::StartsWith(model));
  const auto cells = split(lines[2].substr(model.size()), ',');
  EXPECT_THAT(lines[2], testing::EndsWith(","));  // a CPU has no allocator that reserves
  ASSERT_GE(cells.size(), 8u);
  EXPECT_EQ((std::vector<std::string>{cells.begin(), cells.begin() + 4}),
            (std::vector<std::string>{"8", "4", "3", "False"}));
  const double mean = std::stod(cells[4]);
  EXPECT_DOUBLE_EQ(std::stod(cells[6]), mean / 3);
  EXPECT_DOUBLE_EQ(std::stod(cells[7]), mean / 3 / 4);
}

TEST_F(BenchCommandTest, ACsvOfOtherColumnsIsLeftAlone) {
  const std::string csv = folder_ / "times.csv";
  write_file(csv, "a,b\n1,2\n");
  const std::string vanilla = config("vanilla.yaml", kTinyVanilla);
  EXPECT_EQ(error_of([&] {
              bench({vanilla, "--protocol", "block-transformer", "--csv", csv});
            }),
            csv +
                ": its first line is not model,prefill_length,decode_length,batch_size,oom,mean,"
                "std,mean_per_sample,mean_per_token,max_memory_allocated,max_memory_reserved; "
                "name another file");
  EXPECT_EQ(file_bytes(csv), "a,b\n1,2\n");
}

TEST(GenerationCsvTest, WhatDidNotFitHasALineWithoutTimes) {
  const TempFolder folder;
  GenerationCsv(folder / "times.csv").write_out_of_memory("m.yaml", {{8, 4}, "", 12}, 96);
  EXPECT_EQ(split(file_bytes(folder / "times.csv"), '\n').back(), "m.yaml,8,4,96,True,,,,,,");
}

TEST_F(BenchCommandTest, DecodingAloneIsTimedFromACopiedRow) {
  const std::string block = config("block.yaml", kTinyBlock);
  const std::string yoco = config("yoco.yaml", kTinyByteYoco);
  const auto all = records({block, yoco, "--protocol", "decode", "--lengths", "7,21", "--decode",
                            "5", "--memory", "24KiB"});
  ASSERT_EQ(all.size(), 8u);  // batch 1, then the largest
  EXPECT_EQ(all[1]["prompt_length"], 8);
  EXPECT_EQ(all[1]["decode_length"], 8);
  EXPECT_EQ(all[1]["batch"], 24 * 1024 / block_state_bytes(16));
  EXPECT_EQ(all[3]["prompt_length"], 24);
  EXPECT_EQ(all[3]["batch"], 24 * 1024 / block_state_bytes(32));
  EXPECT_EQ(all[6]["prompt_length"], 21);
  EXPECT_EQ(all[6]["decode_length"], 5);
  for (size_t i = 0; i < all.size(); ++i) {
    const Json& record = all[i];
    const int64_t batch = record["batch"];
    EXPECT_EQ(record["asked_batch"], i % 2 == 0 ? 1 : 0);
    EXPECT_EQ(record["memory_bytes"], i % 2 == 0 ? Json() : Json(24 * 1024));
    EXPECT_EQ(batch == 1, i % 2 == 0);
    EXPECT_EQ(record["protocol"], "decode");
    // each row of the copy holds what the model says that a row holds after the prompt
    EXPECT_EQ(record["state_bytes"], batch * record["state_bytes_per_row"]["total"].get<int64_t>());
    EXPECT_GT(record["state_bytes_per_row_at_end"]["total"].get<int64_t>(),
              record["state_bytes_per_row"]["total"].get<int64_t>());
    EXPECT_GT(record["decode_ms_per_token"]["min"], 0);
    EXPECT_FALSE(record.contains("throughput_tokens_per_s"));
    EXPECT_NEAR(record["decode_tokens_per_s"].get<double>() *
                    record["decode_ms_per_token"]["median"].get<double>(),
                1e3 * static_cast<double>(batch), 1e-6);
  }
  EXPECT_EQ(all[0]["state_bytes_per_row"]["block_decoder"], 2 * 2 * 24 * 2 * 4);
  EXPECT_EQ(all[0]["state_bytes_per_context_token"], 2 * 2 * 24 * 4 / 4.0);
  // of a block of two layers, in a token: q k^T and its product with v over a fourth of the tokens
  EXPECT_EQ(all[0]["attention_flops_per_context_token"], 2 * 4 * 24 / 16.0);
}

TEST_F(BenchCommandTest, DecodingAloneIsComparedAndItsCostsToo) {
  const std::string block = config("block.yaml", kTinyBlock);
  const std::string vanilla = config("vanilla.yaml", kTinyVanilla);
  const Ran ran = bench({block, vanilla, "--protocol", "decode", "--lengths", "8", "--decode", "4",
                         "--memory", "24KiB"});
  EXPECT_THAT(ran.out, testing::HasSubstr(
                           "\n" + vanilla +
                           " against each model: a row's state and times over the model's\n"));
  EXPECT_THAT(ran.out,
              testing::HasSubstr(fmt::format(" {} / {} ", 24 * 1024 / block_state_bytes(12),
                                             24 * 1024 / vanilla_state_bytes(12))));
  // 3 layers of the vanilla model against 2 that hold a fourth of the positions
  EXPECT_THAT(ran.out, testing::HasSubstr(" 6.00x "));
  EXPECT_THAT(ran.out, testing::HasSubstr(" 24.00x "));
}

TEST_F(BenchCommandTest, OptionsWithoutEffectAreRefused) {
  const std::string v = config("vanilla.yaml", kTinyVanilla);
  EXPECT_EQ(usage_error({v, "--cases", "8+4"}),
            "--cases has no effect without --protocol block-transformer");
  EXPECT_EQ(usage_error({v, "--protocol", "decode", "--csv", folder_ / "x.csv"}),
            "--csv has no effect without --protocol block-transformer");
  EXPECT_EQ(usage_error({v, "--protocol", "block-transformer", "--lengths", "8"}),
            "--lengths has no effect with --protocol block-transformer, which takes --cases");
  EXPECT_EQ(usage_error({v, "--protocol", "block-transformer", "--decode", "8"}),
            "--decode has no effect with --protocol block-transformer, which takes --cases");
  EXPECT_EQ(usage_error({v, "--batch", "2", "--memory", "1GiB"}),
            "--memory has no effect without --batch 0, the largest that fits");
}

TEST_F(BenchCommandTest, CasesThatCannotBeAreNamed) {
  const std::string v = config("vanilla.yaml", kTinyVanilla);
  for (const char* text : {"2048", "8+", "+8", "0+8", "8-4", "8+4x"}) {
    EXPECT_EQ(usage_error({v, "--protocol", "block-transformer", "--cases", text}),
              std::string("--cases ") + text +
                  ", expected the tokens of prompt and answer, such as 2048+128");
  }
  EXPECT_EQ(usage_error({v, "--protocol", "decode", "--lengths", "12", "--decode", "4", "--memory",
                         "1KiB"}),
            "--memory 1.00 KiB holds no row of " + v + ", whose state takes 9.00 KiB at 16 tokens");
  const std::string gpt2 =
      config("gpt2.yaml",
             "{family: gpt_neox, vocab_size: 53, max_positions: 43, d_model: 24, ffn_dim: 29, "
             "n_layers: 2, n_heads: 3, rope: {base: none}}");
  EXPECT_EQ(usage_error({gpt2, "--protocol", "decode", "--lengths", "40", "--decode", "4"}),
            gpt2 + " takes at most 43 tokens in a row, got 40 of prompt and 4 after it");
}

TEST_F(BenchCommandTest, WrongLengthsAreNamed) {
  const Ran ran = bench({"x", "--lengths", "5,0"});
  EXPECT_EQ(ran.code, kExitUsage);
  EXPECT_THAT(ran.err, testing::HasSubstr("--lengths"));
}

/// Two runs of a tiny YOCO whose whole call took 10 and 14 ms.
class HandMadeRunsTest : public testing::Test {
 protected:
  HandMadeRunsTest() {
    loaded_.model = make_tiny_model(kTinyByteYoco, torch::kFloat32);
    for (const double total_ms : {10.0, 14.0}) {
      InferenceRun run;
      run.prefill_ms = 2;
      run.decode_ms = total_ms - 5;
      run.total_ms = total_ms;
      run.before_bytes = int64_t{1} << 29;
      run.peak_bytes = static_cast<int64_t>(total_ms) << 27;
      run.reserved_bytes = int64_t{2} << 30;
      measured_.runs.push_back(run);
    }
    options_.memory_bytes = 1000;
  }
  Json record(const std::string& protocol, const BenchCase& c) {
    options_.protocol = protocol;
    return bench_record(c, measured_, options_, torch::kCPU);
  }
  BenchCase case_of(int64_t prompt, int64_t asked_batch) const {
    return {"m", loaded_, {{prompt, 4}, "", prompt + 4}, asked_batch, /*batch=*/3};
  }
  LoadedModel loaded_;
  Measured measured_;
  BenchOptions options_;
};

TEST_F(HandMadeRunsTest, ARowOfTheCsvIsTheirMeanAndPopulationDeviation) {
  TempFolder folder;
  GenerationCsv(folder / "times.csv").write(case_of(8, 3), measured_);
  // 4 ms a row, 1 ms a token; the larger peak, 14/8 GiB, and what was in use before it, 1/2 GiB
  EXPECT_EQ(split(file_bytes(folder / "times.csv"), '\n').back(), "m,8,4,3,False,12,2,4,1,2.25,2");
}

TEST_F(HandMadeRunsTest, ThroughputOfTheBlockTransformersPaperCountsTheWholeCall) {
  const Json whole = record("block-transformer", case_of(8, 3))["throughput_tokens_per_s"];
  EXPECT_DOUBLE_EQ(whole["min"], 3 * 4 / 14e-3);
  EXPECT_DOUBLE_EQ(whole["max"], 3 * 4 / 10e-3);
  const Json parts = record("yoco", case_of(8, 3))["throughput_tokens_per_s"];
  EXPECT_DOUBLE_EQ(parts["min"], 3 * 4 / 11e-3);
  EXPECT_DOUBLE_EQ(parts["max"], 3 * 4 / 7e-3);
}

TEST_F(HandMadeRunsTest, SpreadsAreOfTheRuns) {
  const Json made = record("yoco", case_of(8, 3));
  EXPECT_EQ(made["prefill_ms"], (Json{{"median", 2.0}, {"min", 2.0}, {"max", 2.0}}));
  EXPECT_EQ(made["decode_ms_per_token"], (Json{{"median", 1.75}, {"min", 1.25}, {"max", 2.25}}));
  EXPECT_EQ(made["total_ms"], (Json{{"median", 12.0}, {"min", 10.0}, {"max", 14.0}}));
  EXPECT_DOUBLE_EQ(made["prefill_tokens_per_s"], 3 * 8 / 2e-3);
}

TEST_F(HandMadeRunsTest, OnlyTheLargestBatchWasBoundByAMemory) {
  EXPECT_EQ(record("yoco", case_of(8, 0))["memory_bytes"], 1000);
  EXPECT_EQ(record("yoco", case_of(8, 3))["memory_bytes"], Json());
}

TEST_F(HandMadeRunsTest, WhatATokenOfContextCostsDoesNotDependOnTheCase) {
  loaded_.model = make_tiny_model(
      "{family: hybrid, vocab_size: 53, d_model: 22, ffn_dim: 29, n_layers: 2, mixers: "
      "[{name: full_attention, n_heads: 2, head_dim: 6}, "
      "{name: sliding_window, n_heads: 2, head_dim: 6, window: 29}]}",
      torch::kFloat32);
  for (const int64_t prompt : {7, 41}) {  // within the window and beyond it
    const Json made = record("yoco", case_of(prompt, 3));
    // the layer of full attention alone: keys and values; q k^T and its product with v
    EXPECT_EQ(made["state_bytes_per_context_token"], 2 * 2 * 6 * 4);
    EXPECT_EQ(made["attention_flops_per_context_token"], 4 * 2 * 6);
  }
}

TEST(OutOfMemoryTest, IsKnownByItsClassOrByItsMessage) {
  const auto known = [](const std::string& message) {
    try {
      TORCH_CHECK(false, message);
    } catch (const c10::Error& error) {
      return is_out_of_memory(error);
    }
  };
  EXPECT_TRUE(known("CUDA error: out of memory"));
  EXPECT_TRUE(known("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"));
  EXPECT_TRUE(known("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"));
  EXPECT_FALSE(known("CUDA error: invalid configuration argument"));
  EXPECT_TRUE(is_out_of_memory(c10::OutOfMemoryError(c10::SourceLocation{"", "", 0}, "full")));
}

/// Of a tiny model with no memory given, so that it is found by trying.
LargestBatch largest_that_runs(const Workload& workload) {
  const auto model = make_tiny_model(kTinyByteYoco, torch::kFloat32);
  return largest_batch(workload, "m", *model, {{8, 4}, "", 12}, BenchOptions{}, torch::kCPU);
}

TEST(OutOfMemoryTest, TheSearchStaysBelowIt) {
  const LargestBatch found = largest_that_runs([](int64_t rows) {
    TORCH_CHECK(rows <= 37, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED");
    return InferenceRun{};
  });
  EXPECT_EQ(found.rows, 37);
  EXPECT_EQ(found.did_not_fit.front(), 64);
  const auto broken = [](int64_t rows) {
    TORCH_CHECK(rows <= 37, "expected 3 dimensions");
    return InferenceRun{};
  };
  EXPECT_THROW(largest_that_runs(broken), c10::Error);
}

TEST(OutOfMemoryTest, NoMoreRowsAreTriedThanACudaGridHasInY) {
  EXPECT_EQ(largest_that_runs([](int64_t) { return InferenceRun{}; }).rows, 65'535);
}

TEST(PeakMemoryTest, SeesWhatWasGivenBackAndThenStartsAnew) {
  constexpr int64_t kBytes = 64 << 20;
  const PeakMemory peak(torch::kCPU);
  if (!peak.growth_bytes()) GTEST_SKIP() << "the system does not let the count begin anew";
  torch::ones({kBytes}, torch::kUInt8);
  EXPECT_GE(*peak.growth_bytes(), kBytes * 15 / 16);
  const PeakMemory after(torch::kCPU);
  EXPECT_LT(*after.growth_bytes(), kBytes / 4);
  EXPECT_GT(after.before_bytes(), 0);
}

}  // namespace
}  // namespace tandem
