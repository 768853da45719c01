#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "core/json_lines.h"
#include "data/token_file.h"
#include "tests/cli/tiny_checkpoint.h"
#include "tests/data/temp_folder.h"

namespace tandem {
namespace {

class DataVerifyTest : public testing::Test {
 protected:
  void SetUp() override {
    TokenFileWriter writer(prefix_, 300);
    writer.add_document(std::vector<int32_t>{5, 299, 7});
    writer.finish();
  }
  nlohmann::ordered_json verify() {
    const Ran ran = run_captured(run_data, "tandem data", {"verify", prefix_ + ".bin", "--json"});
    EXPECT_EQ(ran.code, 0);
    return parse_json(ran.out);
  }
  void write_weights(const std::vector<float>& weights) {
    write_file(prefix_ + ".weights",
               {reinterpret_cast<const char*>(weights.data()), weights.size() * sizeof(float)});
  }

  TempFolder folder_;
  const std::string prefix_ = folder_ / "x";
};

TEST_F(DataVerifyTest, SaysWhatIsThere) {
  const auto result = verify();
  EXPECT_EQ(result["tokens"], 3);
  EXPECT_EQ(result["largest_token"], 299);
  EXPECT_FALSE(result.contains("tokens_with_weight"));
}

TEST_F(DataVerifyTest, WeightsAreCheckedWhereThereAreSome) {
  const auto without = verify();
  write_weights({0, 0.5, 2});
  const auto result = verify();
  EXPECT_EQ(result["tokens_with_weight"], 2);
  EXPECT_EQ(result["weight"], 2.5);
  EXPECT_EQ(result["content_hash"], without["content_hash"]);
  EXPECT_EQ(result["content_hash_with_weights"],
            TokenFile(prefix_, TargetWeights::kRead).content_hash());
  write_weights({0, 0.5, -2});
  EXPECT_EQ(error_of([&] { verify(); }),
            prefix_ + ".weights: weight 2 is -2, expected a finite number >= 0");
  write_weights({0, 0.5});
  EXPECT_EQ(error_of([&] { verify(); }),
            prefix_ + ".weights: has 8 bytes, expected 12, a float32 for each token of x.bin");
}

}  // namespace
}  // namespace tandem
