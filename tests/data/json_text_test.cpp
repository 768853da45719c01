#include "data/json_text.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <stdexcept>

#include "core/json_lines.h"
#include "data/utf8.h"

namespace tandem {
namespace {

using Keys = std::vector<std::string>;

std::string text_or_error(const std::string& line, const Keys& keys) {
  JsonText text(keys);
  try {
    return "text " + std::string(text.of(line));
  } catch (const std::runtime_error& error) {
    return std::string("error ") + error.what();
  }
}

/// The same by the full parser alone.
std::string reference(const std::string& line, const Keys& keys) {
  try {
    const auto value = parse_json(line);
    if (!value.is_object()) return "error expected a JSON object";
    for (const auto& key : keys) {
      if (!value.contains(key)) continue;
      return value[key].is_string() ? "text " + value[key].get<std::string>()
                                    : "error \"" + key + "\" is not a string";
    }
    return keys.size() == 1 ? "error no key \"" + keys[0] + "\""
                            : "error no key \"" + keys[0] + "\" or \"" + keys[1] + "\"";
  } catch (const std::runtime_error& error) {
    return std::string("error ") + error.what();
  }
}

TEST(JsonTextTest, TakesTheFirstKeyThatIsThere) {
  const Keys keys = {"text", "content"};
  EXPECT_EQ(text_or_error(R"({"text": "a"})", keys), "text a");
  EXPECT_EQ(text_or_error(R"({"content": "c", "n": {"text": "inner"}, "text": "t"})", keys),
            "text t");
  EXPECT_EQ(text_or_error(R"({"id": [1, {"text": 2}], "content": "c"})", keys), "text c");
  EXPECT_EQ(text_or_error(R"({"content": "c", "text": null})", keys),
            R"(error "text" is not a string)");
  EXPECT_EQ(text_or_error(R"({"other": "c"})", keys), R"(error no key "text" or "content")");
  EXPECT_EQ(text_or_error(R"({"other": "c"})", {"te\"xt"}), R"(error no key "te\"xt")");
  EXPECT_EQ(text_or_error(R"([1])", keys), "error expected a JSON object");
  EXPECT_EQ(text_or_error(R"({"text": "a\n\u00e9\ud83d\ude00\/\u0041"})", keys),
            "text a\n\xC3\xA9\xF0\x9F\x98\x80/A");
}

TEST(JsonTextTest, AgreesWithTheFullParserOnDamagedLines) {
  const std::vector<std::string> seeds = {
      R"({"text": "one", "content": "two", "n": -12.50, "list": [true, false, null, {"a": {}}]})",
      R"({"id":17,"meta":{"url":"http:\/\/x.y","tags":["a","b\u00e9"],"e":1e5},"text":"caf\u00e9 \ud83d\ude00 \\ \"q\" \n\t"})",
      "\t{ \"content\" : \"tail\", \"text\" : 7 , \"\": [ ] } \r\n",
      R"({"content": "bad \ud800 escape", "text": "fine", "a": [[[[0]]]], "b": 18446744073709551616})",
  };
  constexpr std::string_view kBytes = "{}[]\",:\\u0019dDce8fF.-+ \ntrnb\x01\x7f\xC3\xA9";
  std::mt19937 random(11);
  int texts = 0, errors = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string line = seeds[random() % seeds.size()];
    for (size_t n = random() % 4; n > 0; --n) {
      const size_t at = random() % line.size();
      switch (random() % 4) {
        case 0:
          line[at] = kBytes[random() % kBytes.size()];
          break;
        case 1:
          line.insert(at, 1, kBytes[random() % kBytes.size()]);
          break;
        case 2:
          line.erase(at, 1 + random() % 3);
          break;
        default:
          line.insert(at, line.substr(random() % line.size(), random() % 12));
      }
      if (line.empty()) line = " ";
    }
    line = valid_utf8(line);
    const Keys keys = i % 2 == 0 ? Keys{"text"} : Keys{"text", "content"};
    const std::string expected = reference(line, keys);
    ASSERT_EQ(text_or_error(line, keys), expected) << line;
    (expected.starts_with("text") ? texts : errors) += 1;
  }
  EXPECT_GT(texts, 3000);
  EXPECT_GT(errors, 3000);
}

TEST(JsonTextTest, AgreesAtTheLimits) {
  const auto nested = [](int n) {
    return R"({"text": "t", "a": )" + std::string(n, '[') + std::string(n, ']') + "}";
  };
  std::string many = R"({"text": "t")";
  for (int i = 0; i < 100; ++i) many += ", \"k" + std::to_string(i) + "\": " + std::to_string(i);
  const std::vector<std::string> lines = {nested(31),
                                          nested(32),
                                          nested(63),
                                          nested(64),
                                          many + "}",
                                          many + R"(, "k50": 0})",
                                          R"({"text": "t", "a": 1e400})",
                                          R"({"text": "t", "te\u0078t": "u"})",
                                          R"({"text": "t", "a": 00})",
                                          R"({"text": "t", "a": 123456789012345678901234567890})",
                                          R"({"text": "t"} x)",
                                          R"({"text": "t",})",
                                          R"({"text": "t)",
                                          R"({"text": "t\)",
                                          std::string("{\"text\": \"t\0\"}", 14),
                                          "{}"};
  for (const auto& line : lines) {
    EXPECT_EQ(text_or_error(line, {"text"}), reference(line, {"text"})) << line.substr(0, 80);
  }
}

}  // namespace
}  // namespace tandem
