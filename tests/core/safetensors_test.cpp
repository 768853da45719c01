#include "core/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "core/checksum.h"
#include "tests/core/helpers.h"

namespace tandem {
namespace {

using testing::ElementsAre;

std::string length_field(uint64_t length) {
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes;
}

/// A file with this header and so many bytes of data.
std::string file_of(const std::string& header, size_t data_bytes) {
  return length_field(header.size()) + header + std::string(data_bytes, 'd');
}

std::vector<TensorEntry> parse(const std::string& file,
                               std::map<std::string, std::string>* metadata = nullptr) {
  return parse_safetensors_header(bytes_of(file), file.size(), "m", metadata);
}

void expect_refused(const std::string& header, size_t data_bytes, const std::string& message) {
  expect_user_error(66, "m: " + message, [&] { parse(file_of(header, data_bytes)); });
}

/// The header of one tensor "a" with these fields.
std::string tensor(const std::string& fields) { return "{\"a\":{" + fields + "}}"; }
std::string tensor(const std::string& type, const std::string& shape, const std::string& offsets) {
  return tensor("\"dtype\":" + type + ",\"shape\":" + shape + ",\"data_offsets\":" + offsets);
}

std::vector<std::string> names_of(const std::vector<TensorEntry>& entries) {
  std::vector<std::string> names;
  for (const auto& entry : entries) names.push_back(entry.name);
  return names;
}

TensorEntry entry_of(const std::string& name, DataType type, std::vector<int64_t> shape) {
  TensorEntry entry;
  entry.name = name;
  entry.type = type;
  entry.shape = std::move(shape);
  return entry;
}

// The four files are those of the reference's own tests (tensor.rs).
TEST(SafetensorsHeaderTest, BytesAreTheReferences) {
  std::vector<TensorEntry> none;
  EXPECT_EQ(safetensors_header(none, {}), length_field(8) + "{}      ");
  EXPECT_EQ(safetensors_header(none, {{"framework", "pt"}}),
            length_field(0x28) + "{\"__metadata__\":{\"framework\":\"pt\"}}     ");
  std::vector<TensorEntry> one = {entry_of("attn.0", DataType::kF32, {1, 2, 3})};
  EXPECT_EQ(
      safetensors_header(one, {}),
      length_field(0x40) + R"({"attn.0":{"dtype":"F32","shape":[1,2,3],"data_offsets":[0,24]}})");
  std::vector<TensorEntry> padded = {entry_of("attn0", DataType::kF32, {1, 1, 2, 3})};
  EXPECT_EQ(safetensors_header(padded, {}),
            length_field(0x48) +
                R"({"attn0":{"dtype":"F32","shape":[1,1,2,3],"data_offsets":[0,24]}})" + "       ");
}

TEST(SafetensorsHeaderTest, OrderIsByTypeThenName) {
  std::vector<TensorEntry> tensors;
  const char* names[] = {"BOOL", "U8",  "I8",  "F8_E5M2", "F8_E4M3", "I16", "U16", "F16",
                         "BF16", "I32", "U32", "F32",     "F64",     "I64", "U64"};
  const int64_t sizes[] = {1, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 8, 8, 8};
  for (size_t i = 0; i < 15; ++i) {
    const auto type = static_cast<DataType>(i);
    EXPECT_STREQ(name_of(type), names[i]);
    EXPECT_EQ(size_of(type), sizes[i]);
    tensors.push_back(entry_of(std::string("b.") + names[i], type, {3}));
    tensors.push_back(entry_of(std::string("a.") + names[i], type, {}));
  }
  const std::string header = safetensors_header(tensors, {});
  EXPECT_EQ(tensors.front().name, "a.U64");
  EXPECT_EQ(tensors[1].name, "b.U64");
  EXPECT_EQ(tensors.back().name, "b.BOOL");
  for (const auto& entry : tensors)
    EXPECT_EQ(entry.begin % static_cast<uint64_t>(size_of(entry.type)), 0u) << entry.name;
  const auto read = parse(header + std::string(tensors.back().end, 'd'));
  ASSERT_EQ(read.size(), 30u);
  for (size_t i = 0; i < 30; ++i) {
    EXPECT_EQ(read[i].name, tensors[i].name);
    EXPECT_EQ(read[i].type, tensors[i].type);
    EXPECT_EQ(read[i].shape, tensors[i].shape);
    EXPECT_EQ(read[i].begin, tensors[i].begin);
    EXPECT_EQ(read[i].end, tensors[i].end);
  }
}

TEST(SafetensorsHeaderTest, NamesAreEscapedAndComeBack) {
  std::vector<TensorEntry> tensors = {entry_of("a\"\\\n\x01é", DataType::kU8, {2}),
                                      entry_of("", DataType::kU8, {1})};
  const std::string header = safetensors_header(tensors, {{"k\t", "v\""}});
  std::map<std::string, std::string> metadata;
  EXPECT_THAT(names_of(parse(header + "ddd", &metadata)), ElementsAre("", "a\"\\\n\x01é"));
  EXPECT_EQ(metadata, (std::map<std::string, std::string>{{"k\t", "v\""}}));
}

TEST(SafetensorsHeaderTest, WriterRefusesWhatNoReaderTakes) {
  const auto expect_logic_error = [](const std::string& message, std::vector<TensorEntry> tensors) {
    expect_error<std::logic_error>("safetensors: " + message,
                                   [&] { safetensors_header(tensors, {}); });
  };
  const auto a = entry_of("a", DataType::kF32, {2});
  expect_logic_error("tensor \"a\": given twice", {a, a});
  expect_logic_error("tensor \"__metadata__\": the name is reserved",
                     {entry_of("__metadata__", DataType::kF32, {2})});
  expect_logic_error("tensor \"a\": a negative size", {entry_of("a", DataType::kF32, {2, -1})});
  expect_logic_error("tensor \"a\": more than 16 dimensions",
                     {entry_of("a", DataType::kF32, std::vector<int64_t>(17, 1))});
  expect_logic_error("tensor \"a\": too large",
                     {entry_of("a", DataType::kF32, {int64_t{1} << 40, int64_t{1} << 40})});
  expect_logic_error("tensor \"b\": too large", {entry_of("a", DataType::kF64, {int64_t{1} << 60}),
                                                 entry_of("b", DataType::kU8, {INT64_MAX, 2})});
}

TEST(SafetensorsParseTest, TakesWhatTheReferenceTakes) {
  EXPECT_TRUE(parse(file_of("{}", 0)).empty());
  EXPECT_TRUE(parse(file_of("{} \n\t\r", 0)).empty());
  EXPECT_EQ(parse(file_of(tensor("\"F32\"", "[2]", "[0,8]"), 8)).at(0).shape,
            std::vector<int64_t>{2});
  EXPECT_EQ(parse(file_of("{ \"a\" : { \"data_offsets\" : [ 0 , 8 ] , \"shape\" : [ ] , \"dtype\" "
                          ": \"I64\" } }",
                          8))
                .size(),
            1u);
  EXPECT_EQ(parse(file_of(tensor("\"F32\"", "[0,9223372036854775807]", "[0,0]"), 0)).at(0).bytes(),
            0u);
  EXPECT_EQ(parse(file_of(tensor("\"F32\"", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[0,4]"), 4))
                .at(0)
                .shape.size(),
            16u);
  // other keys of a tensor mean nothing, whatever they hold
  const auto entries =
      parse(file_of(tensor("\"x\":{\"dtype\":\"F64\",\"shape\":[7],\"data_offsets\":[[9]]},"
                           "\"dtype\":\"F32\",\"y\":[1,[\"shape\",null]],"
                           "\"shape\":[2],\"n\":-1.5,\"data_offsets\":[0,8],\"z\":true"),
                    8));
  EXPECT_EQ(entries.at(0).type, DataType::kF32);
  EXPECT_EQ(entries.at(0).shape, std::vector<int64_t>{2});
  EXPECT_EQ(entries.at(0).end, 8u);
  std::map<std::string, std::string> metadata = {{"old", "gone"}};
  parse(file_of("{\"__metadata__\":null}", 0), &metadata);
  EXPECT_TRUE(metadata.empty());
}

TEST(SafetensorsParseTest, SortsBySpan) {
  const std::string u8 = "\"dtype\":\"U8\",\"shape\":";
  const auto entries = parse(file_of("{\"c\":{" + u8 + "[2],\"data_offsets\":[4,6]},\"b\":{" + u8 +
                                         "[4],\"data_offsets\":[0,4]}," + "\"empty\":{" + u8 +
                                         "[0],\"data_offsets\":[4,4]},\"first\":{" + u8 +
                                         "[3,0],\"data_offsets\":[0,0]}}",
                                     6));
  EXPECT_THAT(names_of(entries), ElementsAre("first", "b", "empty", "c"));
}

TEST(SafetensorsParseTest, LengthField) {
  const auto expect_message = [](const std::string& file, const std::string& message) {
    expect_user_error(66, "m: " + message, [&] { parse(file); });
  };
  expect_message("", "holds 0 bytes, a safetensors file at least 8");
  expect_message("1234567", "holds 7 bytes, a safetensors file at least 8");
  expect_message(length_field(0), "header length 0, expected 2 to 100000000");
  expect_message(length_field(1) + "{", "header length 1, expected 2 to 100000000");
  expect_message(length_field(100'000'001), "header length 100000001, expected 2 to 100000000");
  expect_message(length_field(uint64_t{1} << 63),
                 "header length 9223372036854775808, expected 2 to 100000000");
  expect_message(length_field(UINT64_MAX - 7),
                 "header length 18446744073709551608, expected 2 to 100000000");
  expect_message(length_field(3) + "{}",
                 "header length 3 goes past the end of the file (10 bytes)");
  expect_error<std::logic_error>("parse_safetensors_header: pass the whole header", [] {
    const std::string file = file_of("{}", 0);
    parse_safetensors_header(bytes_of(file).first(9), file.size(), "m");
  });
}

TEST(SafetensorsParseTest, Json) {
  expect_refused(" {}", 0, "the header does not begin with '{'");
  expect_refused("\xef\xbb\xbf{}", 0, "the header does not begin with '{'");
  expect_refused("[]", 0, "the header does not begin with '{'");
  expect_refused("{\"a\"", 0,
                 "header: byte 4: syntax error while parsing object separator - unexpected end of "
                 "input; expected ':'");
  expect_refused(std::string("{}\0\0", 4), 0, "header: byte 3: a NUL character");
  expect_refused(
      "{}{}", 0,
      "header: byte 3: syntax error while parsing value - unexpected '{'; expected end of input");
  expect_refused("{\"\xff\":{}}", 0,
                 "header: byte 3: syntax error while parsing object key - invalid string: "
                 "ill-formed UTF-8 byte");
  expect_refused("{\"__metadata__\":{},\"__metadata__\":{}}", 0,
                 "header: byte 33: duplicate key \"__metadata__\"");
  expect_refused("{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0,
                 "header: byte 28: duplicate key \"a\"");
  const std::string empty = "{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}";
  expect_refused("{\"a\":" + empty + ",\"a\":" + empty + "}", 0,
                 "header: byte 56: duplicate key \"a\"");
  expect_refused(tensor("\"dtype\":\"U8\",\"dtype\":\"U8\""), 0,
                 "header: byte 26: duplicate key \"dtype\"");
  expect_refused(tensor("\"x\":" + std::string(100, '[')), 0,
                 "header: byte 73: nested deeper than 64");
}

TEST(SafetensorsParseTest, Metadata) {
  expect_refused("{\"__metadata__\":{\"a\":1}}", 0,
                 "header: byte 23: __metadata__ \"a\" is an integer, expected a string");
  expect_refused("{\"__metadata__\":{\"a\":{}}}", 0,
                 "header: byte 22: __metadata__ \"a\" is an object, expected a string");
  expect_refused("{\"__metadata__\":{\"a\":[\"b\"]}}", 0,
                 "header: byte 22: __metadata__ \"a\" is an array, expected a string");
  expect_refused("{\"__metadata__\":{\"a\":null}}", 0,
                 "header: byte 25: __metadata__ \"a\" is null, expected a string");
  expect_refused("{\"__metadata__\":\"pt\"}", 0,
                 "header: byte 20: \"__metadata__\" is a string, expected an object");
  expect_refused("{\"__metadata__\":[]}", 0,
                 "header: byte 17: \"__metadata__\" is an array, expected an object");
}

TEST(SafetensorsParseTest, Fields) {
  expect_refused("{\"a\":null}", 0, "header: byte 9: \"a\" is null, expected an object");
  expect_refused("{\"a\":[\"F32\",[],[0,4]]}", 4,
                 "header: byte 6: \"a\" is an array, expected an object");
  expect_refused("{\"a\":true}", 0, "header: byte 9: \"a\" is a boolean, expected an object");
  const std::string a = "tensor \"a\": ";
  expect_refused(tensor("\"shape\":[0],\"data_offsets\":[0,0]"), 0,
                 "header: byte 39: " + a + "dtype is missing");
  expect_refused(tensor("\"dtype\":\"U8\",\"data_offsets\":[0,0]"), 0,
                 "header: byte 40: " + a + "shape is missing");
  expect_refused(tensor("\"dtype\":\"U8\",\"shape\":[0]"), 0,
                 "header: byte 31: " + a + "data_offsets is missing");
  expect_refused(tensor("\"C64\"", "[0]", "[0,0]"), 0,
                 "header: byte 19: " + a + "unknown dtype \"C64\"");
  expect_refused(tensor("\"f32\"", "[0]", "[0,0]"), 0,
                 "header: byte 19: " + a + "unknown dtype \"f32\"");
  expect_refused(tensor("7", "[0]", "[0,0]"), 0,
                 "header: byte 16: " + a + "dtype is an integer, expected a string");
  expect_refused(tensor("[\"U8\"]", "[0]", "[0,0]"), 0,
                 "header: byte 15: " + a + "dtype is an array, expected a string");
  expect_refused(tensor("\"U8\"", "{}", "[0,0]"), 0,
                 "header: byte 28: " + a + "shape is an object, expected an array");
  expect_refused(tensor("\"U8\"", "[2]", "8"), 8,
                 "header: byte 48: " + a + "data_offsets is an integer, expected an array");
}

TEST(SafetensorsParseTest, Numbers) {
  expect_refused(
      tensor("\"U8\"", "[-1]", "[0,1]"), 1,
      "header: byte 31: tensor \"a\": shape holds a negative number, expected integers >= 0");
  expect_refused(
      tensor("\"U8\"", "[-0]", "[0,0]"), 0,
      "header: byte 31: tensor \"a\": shape holds a negative number, expected integers >= 0");
  expect_refused(tensor("\"U8\"", "[1.0]", "[0,1]"), 1,
                 "header: byte 32: tensor \"a\": shape holds a number that is no 64-bit integer, "
                 "expected integers >= 0");
  expect_refused(tensor("\"U8\"", "[1e0]", "[0,1]"), 1,
                 "header: byte 32: tensor \"a\": shape holds a number that is no 64-bit integer, "
                 "expected integers >= 0");
  expect_refused(tensor("\"U8\"", "[\"1\"]", "[0,1]"), 1,
                 "header: byte 31: tensor \"a\": shape holds a string, expected integers >= 0");
  expect_refused(tensor("\"U8\"", "[[1]]", "[0,1]"), 1,
                 "header: byte 29: tensor \"a\": shape holds an array, expected integers >= 0");
  expect_refused(tensor("\"U8\"", "[0,18446744073709551616]", "[0,0]"), 0,
                 "header: byte 51: tensor \"a\": shape holds a number that is no 64-bit integer, "
                 "expected integers >= 0");
  expect_refused(
      tensor("\"U8\"", "[0,9223372036854775808]", "[0,0]"), 0,
      "header: byte 50: tensor \"a\": shape holds 9223372036854775808, expected at most 2^63 - 1");
  expect_refused(tensor("\"U8\"", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[0,1]"), 1,
                 "header: byte 62: tensor \"a\": shape has more than 16 dimensions");
  expect_refused(tensor("\"U8\"", "[0]", "[0]"), 0,
                 "header: byte 49: tensor \"a\": data_offsets holds 1 numbers, expected 2");
  expect_refused(tensor("\"U8\"", "[0]", "[0,0,0]"), 0,
                 "header: byte 53: tensor \"a\": data_offsets holds more than 2 numbers");
  expect_refused(tensor("\"U8\"", "[0]", "[0,-1]"), 0,
                 "header: byte 52: tensor \"a\": data_offsets holds a negative number, expected "
                 "integers >= 0");
  expect_refused(tensor("\"U8\"", "[0]", "[0.0,0]"), 0,
                 "header: byte 51: tensor \"a\": data_offsets holds a number that is no 64-bit "
                 "integer, expected integers >= 0");
}

TEST(SafetensorsParseTest, Spans) {
  const auto two = [](const std::string& first, const std::string& second) {
    return "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":" + first +
           "},\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":" + second + "}}";
  };
  EXPECT_EQ(parse(file_of(two("[0,4]", "[4,8]"), 8)).size(), 2u);
  expect_refused(two("[1,5]", "[5,9]"), 9,
                 "tensor \"a\": data_offsets [1, 5] leave a hole after byte 0");
  expect_refused(two("[0,4]", "[5,9]"), 9,
                 "tensor \"b\": data_offsets [5, 9] leave a hole after byte 4");
  expect_refused(two("[0,4]", "[3,7]"), 7,
                 "tensor \"b\": data_offsets [3, 7] overlap the tensor that ends at byte 4");
  expect_refused(two("[0,4]", "[0,4]"), 4,
                 "tensor \"b\": data_offsets [0, 4] overlap the tensor that ends at byte 4");
  expect_refused(two("[0,4]", "[4,0]"), 4, "tensor \"b\": data_offsets [4, 0] run backwards");
  expect_refused(two("[0,4]", "[4,9]"), 9,
                 "tensor \"b\": data_offsets [4, 9] hold 5 bytes, its shape and dtype need 4");
  expect_refused(two("[0,4]", "[4,8]"), 7, "its tensors need 8 bytes of data, the file holds 7");
  expect_refused(two("[0,4]", "[4,8]"), 9, "its tensors need 8 bytes of data, the file holds 9");
  expect_refused("{}", 1, "its tensors need 0 bytes of data, the file holds 1");
  expect_refused(tensor("\"F32\"", "[2]", "[0,18446744073709551615]"), 8,
                 "tensor \"a\": data_offsets [0, 18446744073709551615] hold 18446744073709551615 "
                 "bytes, its shape and dtype need 8");
  // 2^64 + 4 elements: a product that wraps has 4
  expect_refused(tensor("\"U8\"", "[4194305,4194305,211106198978564]", "[0,4]"), 4,
                 "tensor \"a\": its shape needs more than 2^64 bytes");
  expect_refused(tensor("\"F32\"", "[4611686018427387905]", "[0,4]"), 4,
                 "tensor \"a\": its shape needs more than 2^64 bytes");
}

TEST(SafetensorsParseTest, LongNamesAreCutInMessages) {
  const std::string name(1'000'000, 'n');
  expect_refused(
      "{\"" + name + "\":{\"dtype\":\"X\"}}", 0,
      "header: byte 1000016: tensor \"" + name.substr(0, 80) + "\"...: unknown dtype \"X\"");
}

TEST(SafetensorsParseTest, AtMostAHundredThousandTensors) {
  std::string header = "{";
  for (int i = 0; i < 100'000; ++i) {
    header += (i ? ",\"" : "\"") + std::to_string(i) +
              "\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}";
  }
  EXPECT_EQ(parse(file_of(header + "}", 0)).size(), 100'000u);
  const std::string message =
      "header: byte " + std::to_string(header.size() + 6) + ": more than 100000 tensors";
  expect_refused(header + ",\"a\":{}}", 0, message);
}

TEST(SafetensorsParseTest, EveryTruncationIsRefused) {
  std::vector<TensorEntry> tensors = {entry_of("a", DataType::kF32, {2, 3}),
                                      entry_of("b", DataType::kU8, {5})};
  const std::string file = safetensors_header(tensors, {{"format", "pt"}}) + std::string(29, 'd');
  EXPECT_EQ(parse(file).size(), 2u);
  for (size_t n = 0; n < file.size(); ++n) EXPECT_THROW(parse(file.substr(0, n)), UserError) << n;
}

class SafetensorsFileTest : public testing::Test {
 protected:
  TempFolder folder_;
  std::string path_ = folder_ / "m.safetensors";
  std::vector<TensorEntry> tensors_ = {
      entry_of("bytes", DataType::kU8, {5}), entry_of("none", DataType::kF32, {0, 7}),
      entry_of("weight", DataType::kBF16, {3}), entry_of("last", DataType::kBool, {0})};
};

TEST_F(SafetensorsFileTest, WhatIsWrittenIsRead) {
  SafetensorsWriter writer(path_, tensors_, {{"step", "7"}});
  EXPECT_THAT(names_of(writer.order()), ElementsAre("none", "weight", "bytes", "last"));
  writer.write({});  // `none` may be written or left out
  writer.write(bytes_of("we"));
  writer.write(bytes_of("ight"));
  writer.write(bytes_of("bytes"));
  writer.finish();
  const std::string file = read_text(path_);
  EXPECT_EQ(writer.file_size(), file.size());
  EXPECT_EQ(writer.file_checksum(), crc32c(bytes_of(file)));
  EXPECT_THAT(writer.checksums(),
              ElementsAre(0, crc32c(bytes_of("weight")), crc32c(bytes_of("bytes")), 0));

  const SafetensorsReader reader(path_);
  EXPECT_EQ(reader.path(), path_);
  EXPECT_THAT(names_of(reader.entries()), ElementsAre("none", "weight", "bytes", "last"));
  EXPECT_EQ(reader.metadata(),
            (std::map<std::string, std::string>{{"format", "pt"}, {"step", "7"}}));
  EXPECT_EQ(reader.find("nothing"), nullptr);
  const TensorEntry* weight = reader.find("weight");
  ASSERT_NE(weight, nullptr);
  EXPECT_EQ(weight->type, DataType::kBF16);
  std::string part(4, '\0');
  reader.read(*weight, 1, std::as_writable_bytes(std::span(part)));
  EXPECT_EQ(part, "eigh");
  expect_error<std::logic_error>(
      "SafetensorsReader: 4 bytes from 3 of tensor \"weight\", which has 6",
      [&] { reader.read(*weight, 3, std::as_writable_bytes(std::span(part))); });
}

TEST_F(SafetensorsFileTest, WriterCountsTheBytes) {
  SafetensorsWriter writer(path_, tensors_);
  expect_error<std::logic_error>("SafetensorsWriter: 7 bytes for tensor \"weight\", which has 6",
                                 [&] { writer.write(bytes_of("1234567")); });
  writer.write(bytes_of("1234"));
  expect_error<std::logic_error>("SafetensorsWriter: tensor \"weight\" has 4 of its 6 bytes",
                                 [&] { writer.finish(); });
  writer.write(bytes_of("56"));
  writer.write(bytes_of("12345"));
  expect_error<std::logic_error>("SafetensorsWriter: more bytes than tensors",
                                 [&] { writer.write(bytes_of("1")); });
  writer.finish();
  EXPECT_EQ(SafetensorsReader(path_).entries().size(), 4u);
}

TEST_F(SafetensorsFileTest, ReaderRefusesDamage) {
  write_file(path_, file_of(tensor("\"U8\"", "[4]", "[0,4]"), 3));
  expect_user_error(66, path_ + ": its tensors need 4 bytes of data, the file holds 3",
                    [&] { SafetensorsReader reader(path_); });
  write_file(path_, "short");
  expect_user_error(66, path_ + ": holds 5 bytes, a safetensors file at least 8",
                    [&] { SafetensorsReader reader(path_); });
  write_file(path_, length_field(90'000'000) + "{}");  // nothing of this size is allocated
  expect_user_error(66, path_ + ": header length 90000000 goes past the end of the file (10 bytes)",
                    [&] { SafetensorsReader reader(path_); });
  remove_tree(path_);
  expect_user_error(66, path_ + ": cannot open: No such file or directory",
                    [&] { SafetensorsReader reader(path_); });
}

TEST_F(SafetensorsFileTest, ReaderNoticesAFileCutAfterOpening) {
  write_file(path_, file_of(tensor("\"U8\"", "[4]", "[0,4]"), 4));
  const SafetensorsReader reader(path_);
  const uint64_t size = File::open_read(path_).size();
  File::open_append(path_).truncate(size - 1);
  std::byte out[4];
  expect_user_error(66,
                    path_ + ": ends after " + std::to_string(size - 1) +
                        " bytes, expected at least " + std::to_string(size),
                    [&] { reader.read(reader.entries()[0], 0, out); });
}

TEST_F(SafetensorsFileTest, FullDisk) {
  expect_user_error(74, "/dev/full: cannot write: No space left on device",
                    [&] { SafetensorsWriter("/dev/full", tensors_); });
}

}  // namespace
}  // namespace tandem
