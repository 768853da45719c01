#include "data/document_split.h"

#include <gtest/gtest.h>

#include <vector>

namespace tandem {
namespace {

TEST(DocumentSplitTest, ChoosesOneOfEachStratum) {
  for (const int64_t width : {2, 4, 20}) {  // documents of which one is chosen
    const DocumentSplit split(1.0 / static_cast<double>(width), 17);
    for (int64_t begin = 0; begin < 2000; begin += width) {
      int64_t chosen = 0;
      for (int64_t d = begin; d < begin + width; ++d) chosen += split.chosen(d);
      ASSERT_EQ(chosen, 1) << begin << " of " << width;
    }
  }
  EXPECT_FALSE(DocumentSplit(0, 1).chosen(0));
  EXPECT_TRUE(DocumentSplit(1, 1).chosen(12345));
}

TEST(DocumentSplitTest, IsWhatItAlwaysWas) {
  std::vector<int64_t> chosen;  // as of the first release: validation sets must stay as they are
  for (int64_t d = 0; d < 200; ++d) {
    if (DocumentSplit(0.05, 0).chosen(d)) chosen.push_back(d);
  }
  EXPECT_EQ(chosen, (std::vector<int64_t>{18, 37, 41, 68, 99, 116, 129, 151, 164, 181}));
}

}  // namespace
}  // namespace tandem
