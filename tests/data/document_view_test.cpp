#include "data/document_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <map>

#include "tests/data/token_files.h"

namespace tandem {
namespace {

using testing::ElementsAre;

const std::vector<int64_t> kLengths = {5, 1, 13, 2, 8, 21, 3};  // 53 tokens

class DocumentViewTest : public testing::Test {
 protected:
  DocumentView view(const ViewSpec& spec) {
    write_tokens(folder_ / "x", kLengths);
    return documents_of(folder_ / "x", spec);
  }
  TempFolder folder_;
};

std::vector<int64_t> in_file(const DocumentView& view) {
  std::vector<int64_t> numbers;
  for (int64_t i = 0; i < view.documents(); ++i) numbers.push_back(view.in_file(i));
  return numbers;
}

std::vector<int64_t> copies(const DocumentView& view) {
  std::vector<int64_t> numbers;
  for (int64_t i = 0; i < view.documents(); ++i) numbers.push_back(view.copy(i));
  return numbers;
}

TEST_F(DocumentViewTest, WithoutASpecItIsTheFile) {
  const DocumentView whole = view({});
  EXPECT_TRUE(whole.whole());
  EXPECT_EQ(whole.tokens(), 53);
  EXPECT_THAT(in_file(whole), ElementsAre(0, 1, 2, 3, 4, 5, 6));
  EXPECT_THAT(copies(whole), ElementsAre(0, 0, 0, 0, 0, 0, 0));
  EXPECT_EQ(whole.length(5), 21);
  EXPECT_EQ(whole.dropped().documents, 0);
  EXPECT_TRUE(whole.left_out().empty());
  // Nor do settings change that by which no document is concerned.
  EXPECT_TRUE(view({.min_length = 1, .max_length = 21}).whole());
  EXPECT_TRUE(view({.upsample_from = 22, .upsample_times = 3}).whole());
  EXPECT_TRUE(view({.upsample_from = 2, .upsample_times = 1}).whole());
}

TEST_F(DocumentViewTest, FiltersTakeTheirLimitsInAndCountWhatTheyLeaveOut) {
  const DocumentView some = view({.min_length = 3, .max_length = 13});
  EXPECT_FALSE(some.whole());
  EXPECT_THAT(in_file(some), ElementsAre(0, 2, 4, 6));
  EXPECT_EQ(some.tokens(), 5 + 13 + 8 + 3);
  EXPECT_EQ(some.dropped().documents, 3);
  EXPECT_EQ(some.dropped().tokens, 1 + 2 + 21);
  EXPECT_THAT(some.left_out(), ElementsAre("2 documents (3 tokens) shorter than 3",
                                           "1 document (21 tokens) longer than 13"));
  EXPECT_THAT(in_file(view({.max_length = 2})), ElementsAre(1, 3));
}

TEST_F(DocumentViewTest, LargeNumbersAreReadable) {
  write_tokens(folder_ / "x", {1500, 1900, 70'000});
  EXPECT_THAT(documents_of(folder_ / "x", {.min_length = 65'536}).left_out(),
              ElementsAre("2 documents (3,400 tokens) shorter than 65,536"));
}

TEST_F(DocumentViewTest, CopiesComeAfterThePassOverAll) {
  const DocumentView more = view({.upsample_from = 8, .upsample_times = 3});
  EXPECT_THAT(in_file(more), ElementsAre(0, 1, 2, 3, 4, 5, 6, 2, 4, 5, 2, 4, 5));
  EXPECT_THAT(copies(more), ElementsAre(0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2));
  EXPECT_EQ(more.tokens(), 53 + 2 * (13 + 8 + 21));
  EXPECT_EQ(more.upsampled(), 3);
  EXPECT_EQ(more.dropped().documents, 0);
  const DocumentView both =
      view({.min_length = 2, .max_length = 13, .upsample_from = 8, .upsample_times = 2});
  EXPECT_THAT(in_file(both), ElementsAre(0, 2, 3, 4, 6, 2, 4));
  EXPECT_EQ(both.tokens(), 31 + 21);
}

TEST_F(DocumentViewTest, CopiesOfADocumentAreNoNeighbours) {
  std::vector<int64_t> lengths;
  for (int64_t d = 0; d < 57; ++d) lengths.push_back(1 + d * d % 31);
  write_tokens(folder_ / "x", lengths);
  for (const int64_t from : {1, 5, 17, 26}) {
    for (const int64_t times : {2, 3, 7}) {
      const DocumentView view =
          documents_of(folder_ / "x", {.upsample_from = from, .upsample_times = times});
      ASSERT_GE(view.upsampled(), 2);
      std::map<int64_t, int64_t> seen;
      for (int64_t i = 0; i < view.documents(); ++i) {
        EXPECT_TRUE(i == 0 || view.in_file(i) != view.in_file(i - 1)) << i;
        EXPECT_EQ(view.copy(i), seen[view.in_file(i)]++);
      }
      for (int64_t d = 0; d < 57; ++d)
        EXPECT_EQ(seen[d], lengths[static_cast<size_t>(d)] >= from ? times : 1) << d;
    }
  }
}

TEST_F(DocumentViewTest, EmptyDocumentsCountAsDocuments) {
  write_empty_documents(folder_ / "x");
  EXPECT_EQ(documents_of(folder_ / "x").documents(), 5);
  const DocumentView some = documents_of(folder_ / "x", {.min_length = 1});
  EXPECT_EQ(some.documents(), 2);
  EXPECT_EQ(some.tokens(), 5);
  EXPECT_THAT(some.left_out(), ElementsAre("3 documents (0 tokens) shorter than 1"));
}

TEST_F(DocumentViewTest, TooFewTokensAreNamedWithWhatWasLeftOut) {
  const std::string x = folder_ / "x";
  EXPECT_EQ(error_of([&] { view({.min_length = 22}); }),
            x + ": without 7 documents (53 tokens) shorter than 22 it holds 0 tokens, at least 2 "
                "are needed");
  EXPECT_EQ(error_of([&] { view({.min_length = 6, .max_length = 7}); }),
            x + ": without 4 documents (11 tokens) shorter than 6 and 3 documents (42 tokens) "
                "longer than 7 it holds 0 tokens, at least 2 are needed");
  EXPECT_EQ(error_of([&] { view({.max_length = 1}); }),
            x + ": without 6 documents (52 tokens) longer than 1 it holds 1 tokens, at least 2 "
                "are needed");
  write_tokens(x, {1});
  EXPECT_EQ(error_of([&] { documents_of(x); }), x + ": holds 1 tokens, at least 2 are needed");
}

TEST_F(DocumentViewTest, TimesAreBounded) {
  EXPECT_EQ(view({.upsample_from = 21, .upsample_times = 1000}).tokens(), 53 + 999 * 21);
  EXPECT_THROW(view({.upsample_times = 0}), std::logic_error);
  EXPECT_THROW(view({.upsample_times = 1001}), std::logic_error);
}

TEST_F(DocumentViewTest, MessagesNameThePathAsGiven) {
  write_file(folder_ / "raw.bin", std::string("\1\0\7\0\2\0\3\0", 8));
  const TokenFileSpec spec = {folder_ / "raw.bin", "uint16", 7};
  EXPECT_EQ(error_of([&] { DocumentView(std::make_shared<TokenFile>(spec), {.min_length = 3}); }),
            folder_ / "raw.bin" +
                ": without 2 documents (4 tokens) shorter than 3 it holds 0 tokens, at least 2 "
                "are needed");
}

TEST_F(DocumentViewTest, SaysWhyAFileIsOneDocument) {
  write_file(folder_ / "raw.bin", std::string("\1\0\7\0\2\0\3\0", 8));
  const auto why = [&](std::optional<int64_t> eos_id) {
    return why_one_document(TokenFile(TokenFileSpec{folder_ / "raw.bin", "uint16", eos_id}),
                            eos_id);
  };
  EXPECT_EQ(why({}), folder_ / "raw.bin" + " has no eos_id");
  EXPECT_EQ(why(5), folder_ / "raw.bin" + " holds no token 5");
  EXPECT_EQ(why(7), "");
  EXPECT_EQ(why(3), "");  // its end
  write_tokens(folder_ / "x", {5});
  EXPECT_EQ(why_one_document(TokenFile(folder_ / "x"), {}), "");
}

}  // namespace
}  // namespace tandem
