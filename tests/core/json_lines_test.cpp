#include "core/json_lines.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cmath>
#include <csignal>
#include <limits>
#include <nlohmann/json.hpp>

#include "tests/core/helpers.h"

namespace tandem {
namespace {

using nlohmann::ordered_json;

void expect_refused(const std::string& text, const std::string& message) {
  expect_error<std::runtime_error>(message, [&] { parse_json(text); });
}

TEST(ParseJsonTest, KeepsValuesAndOrder) {
  const std::string text =
      R"({"z":[1,-2,3.5,true,false,null,"a\nb\u00e9"],"a":{"k":{}},"m":[],"big":18446744073709551615})";
  const ordered_json value = parse_json(text);
  EXPECT_EQ(
      value.dump(),
      R"({"z":[1,-2,3.5,true,false,null,"a\nbé"],"a":{"k":{}},"m":[],"big":18446744073709551615})");
  EXPECT_EQ(value["big"].get<uint64_t>(), UINT64_MAX);
  EXPECT_EQ(parse_json(" 17 \n"), 17);
  EXPECT_EQ(parse_json("\"text\""), "text");
  EXPECT_EQ(parse_json("\xef\xbb\xbf[]"), ordered_json::array());  // a byte order mark is skipped
}

TEST(ParseJsonTest, AgreesWithTheOrdinaryParserOnManyValues) {
  std::string text = "[";
  for (int i = 0; i < 200; ++i) {
    text += (i ? "," : "") + std::string("{\"k") + std::to_string(i) + "\":[" +
            std::to_string(i * 0.37) + ",{\"a\":\"" + std::string(static_cast<size_t>(i), 'x') +
            "\",\"b\":[[" + std::to_string(-i) + "]]}]}";
  }
  text += "]";
  EXPECT_EQ(parse_json(text), ordered_json::parse(text));
}

TEST(ParseJsonTest, ErrorsSayByteAndRule) {
  expect_refused("",
                 "byte 0: syntax error while parsing value - unexpected end of input; expected "
                 "'[', '{', or a literal");
  expect_refused(
      "{\"a\":}",
      "byte 6: syntax error while parsing value - unexpected '}'; expected '[', '{', or a literal");
  expect_refused(
      "[1,]",
      "byte 4: syntax error while parsing value - unexpected ']'; expected '[', '{', or a literal");
  expect_refused("{} x", "byte 4: syntax error while parsing value - invalid literal");
  expect_refused("[1e400]", "byte 7: number overflow parsing '1e400'");
}

TEST(ParseJsonTest, RefusesWhatJsonDoesNotHave) {
  for (const char* text : {"[1] [2]", "{\"a\":1,}", "{a:1}", "{'a':1}", "[01]", "[+1]", "[.5]",
                           "[1.]", "[NaN]", "[Infinity]", "[1 // one\n]", "\"open", "[\"\\x41\"]",
                           "[\"\\ud800\"]", "[\"a\tb\"]", "tru", "{\"a\" 1}"}) {
    EXPECT_THROW(parse_json(text), std::runtime_error) << text;
  }
}

TEST(ParseJsonTest, NulIsNotTheEnd) {  // nlohmann's lexer stops there and would accept what follows
  expect_refused(std::string("{}\0{", 4), "byte 3: a NUL character");
  expect_refused(std::string("[\"a\0b\"]", 7), "byte 4: a NUL character");
}

TEST(ParseJsonTest, RefusesWhatIsNotUtf8) {
  for (const char* text : {"[\"\xff\"]", "[\"\xc0\xaf\"]", "[\"\xed\xa0\x80\"]",
                           "[\"\xf4\x90\x80\x80\"]", "[\"\xe2\x82\"]", "\xe9"}) {
    EXPECT_THROW(parse_json(text), std::runtime_error) << text;
  }
}

TEST(ParseJsonTest, RefusesDuplicateKeys) {
  expect_refused(R"({"a":1,"b":2,"a":3})", R"(byte 16: duplicate key "a")");
  expect_refused(R"([{"k":{"a":1,"\u0061":2}}])", R"(byte 21: duplicate key "a")");
  expect_refused("{\"" + std::string(79, 'x') + "éy\":1,\"" + std::string(79, 'x') + "éy\":1}",
                 "byte 172: duplicate key \"" + std::string(79, 'x') + "\"...");
  EXPECT_EQ(parse_json(R"([{"a":1},{"a":{"a":2}}])").dump(), R"([{"a":1},{"a":{"a":2}}])");
}

TEST(ParseJsonTest, RefusesDeepNesting) {
  const auto nested = [](size_t n) { return std::string(n, '[') + std::string(n, ']'); };
  EXPECT_EQ(parse_json(nested(64)).dump(), nested(64));
  expect_refused(nested(65), "byte 65: nested deeper than 64");
  expect_refused(std::string(1'000'000, '['), "byte 65: nested deeper than 64");
  std::string objects;
  for (int i = 0; i < 65; ++i) objects += "{\"a\":";
  expect_refused(objects, "byte 321: nested deeper than 64");
}

TEST(ParseJsonTest,
     ManyKeysTakeNoQuadraticTime) {  // seconds with a look-up of each key among all before it
  std::string text = "{";
  for (int i = 0; i < 50'000; ++i) text += (i ? ",\"k" : "\"k") + std::to_string(i) + "\":0";
  EXPECT_EQ(parse_json(text + "}").size(), 50'000u);
}

TEST(ReadJsonTest, ErrorsNameTheFile) {
  const TempFolder folder;
  write_file(folder / "a.json", "{\"a\": [1, 2]}\n");
  EXPECT_EQ(read_json(folder / "a.json").dump(), R"({"a":[1,2]})");
  write_file(folder / "a.json", "{\"a\": 1, \"a\": 2}");
  expect_user_error(66, (folder / "a.json") + ": byte 12: duplicate key \"a\"",
                    [&] { read_json(folder / "a.json"); });
  expect_user_error(66, "no.json: cannot open: No such file or directory",
                    [] { read_json("no.json"); });
}

TEST(GetIntTest, TakesIntegersInTheRangeOnly) {
  const auto object = parse_json(
      R"({"a":7,"low":-9223372036854775808,"f":7.0,"s":"7","b":true,"u":18446744073709551615,"h":1e30,"l":[1]})");
  EXPECT_EQ(get_int(object, "a", 7, 7), 7);
  EXPECT_EQ(get_int(object, "low", INT64_MIN, INT64_MAX), INT64_MIN);
  const auto expect_refused_int = [&](const char* key, const std::string& message) {
    expect_error<std::runtime_error>(message, [&] { get_int(object, key, 0, 6); });
  };
  expect_refused_int("a", "a = 7, expected an integer in [0, 6]");
  expect_refused_int("low", "low = -9223372036854775808, expected an integer in [0, 6]");
  expect_refused_int("f", "f = 7, expected an integer in [0, 6]");
  expect_refused_int("s", "s = string, expected an integer in [0, 6]");
  expect_refused_int("b", "b = boolean, expected an integer in [0, 6]");
  expect_refused_int("h", "h = 1e+30, expected an integer in [0, 6]");
  expect_refused_int("l", "l = array, expected an integer in [0, 6]");
  expect_refused_int("none", "none is missing, expected an integer in [0, 6]");
  expect_error<std::runtime_error>(  // get<int64_t>() would say -1
      "u = 18446744073709551615, expected an integer in [-9, 9223372036854775807]",
      [&] { get_int(object, "u", -9, INT64_MAX); });
  expect_error<std::runtime_error>("found array, expected an object with a",
                                   [] { get_int(ordered_json::array(), "a", 0, 1); });
}

TEST(GetStringTest, TakesStringsOnly) {
  const auto object = parse_json(R"({"a":"text","n":1})");
  EXPECT_EQ(get_string(object, "a"), "text");
  expect_error<std::runtime_error>("n = 1, expected a string", [&] { get_string(object, "n"); });
  expect_error<std::runtime_error>("b is missing, expected a string",
                                   [&] { get_string(object, "b"); });
}

TEST(JsonNumberTest, IsTheShortestThatReadsBack) {
  EXPECT_EQ(json_number(0.1), "0.1");
  EXPECT_EQ(json_number(3), "3");
  EXPECT_EQ(json_number(-2.5e-9), "-2.5e-09");
  EXPECT_EQ(json_number(1e300), "1e+300");
  for (const double x :
       {1.0 / 3, 5e-324, 1.7976931348623157e308, 0x1.fffffffffffffp-1, 123456789.123, -0.0}) {
    EXPECT_EQ(std::strtod(json_number(x).c_str(), nullptr), x);
    EXPECT_EQ(parse_json(json_number(x)).get<double>(), x);
  }
  EXPECT_EQ(json_number(std::nan("")), "null");
  EXPECT_EQ(json_number(std::numeric_limits<double>::infinity()), "null");
  EXPECT_EQ(json_number(-std::numeric_limits<double>::infinity()), "null");
}

TEST(JsonStringTest, EscapesAndCuts) {
  EXPECT_EQ(json_string("a\"b\\c\n\x01é"), R"("a\"b\\c\n\u0001é")");
  EXPECT_EQ(json_string("abcdef", 6), "\"abcdef\"");
  EXPECT_EQ(json_string("abcdef", 4), "\"abcd\"...");
  EXPECT_EQ(json_string("abcéf", 4), "\"abc\"...");  // not inside the é
  expect_error<std::logic_error>("json_string: the text is not UTF-8", [] { json_string("\xff"); });
}

TEST(JsonLinesWriterTest, OneLineAnObject) {
  const TempFolder folder;
  JsonLinesWriter(folder / "m.jsonl").write({{"step", 1}, {"loss", 2.5}, {"text", "a\nb"}});
  JsonLinesWriter writer(folder / "m.jsonl");
  writer.write({{"step", 2}, {"loss", std::nan("")}, {"text", "\xff"}});
  EXPECT_EQ(read_text(folder / "m.jsonl"),
            "{\"step\":1,\"loss\":2.5,\"text\":\"a\\nb\"}\n{\"step\":2,\"loss\":null,\"text\":"
            "\"\xef\xbf\xbd\"}\n");
}

TEST(JsonLinesWriterTest, CutsOffAHalfLine) {
  const TempFolder folder;
  for (const size_t half : {0, 1, 9, 4095, 4096, 4097, 9000}) {
    for (const std::string& whole : {std::string(), std::string("{\"step\":1}\n")}) {
      write_file(folder / "m.jsonl", whole + std::string(half, '{'));
      JsonLinesWriter(folder / "m.jsonl").write({{"step", 2}});
      EXPECT_EQ(read_text(folder / "m.jsonl"), whole + "{\"step\":2}\n") << half;
    }
  }
}

TEST(JsonLinesWriterTest, FullDiskLosesOneLineOnly) {
  const TempFolder folder;
  JsonLinesWriter writer(folder / "m.jsonl");
  writer.write({{"step", 1}});
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit limit{15, before.rlim_max};  // inside the second line
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  expect_user_error(74, (folder / "m.jsonl") + ": cannot write: File too large", [&] {
    writer.write({{"step", 2}});
  });
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(read_text(folder / "m.jsonl"), "{\"step\":1}\n{\"st");
  writer.write({{"step", 3}});
  EXPECT_EQ(read_text(folder / "m.jsonl"), "{\"step\":1}\n{\"step\":3}\n");
}

}  // namespace
}  // namespace tandem
