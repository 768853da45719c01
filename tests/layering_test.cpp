// Which folder may include which. Read off the sources, so that a link that happens to work does not hide a wrong dependency.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/paths.h"

namespace {

const std::map<std::string, std::set<std::string>> kMayInclude = {
    {"core", {"core"}},
    {"data", {"data", "core"}},
    {"comm", {"comm", "core"}},
    {"nn", {"nn", "comm", "core"}},
    {"yoco", {"yoco", "nn", "comm", "core"}},
    {"blocktf", {"blocktf", "nn", "comm", "core"}},
    {"train", {"train", "nn", "data", "comm", "core"}},
    {"eval", {"eval", "nn", "data", "comm", "core"}},
    {"cli", {"cli", "train", "eval", "yoco", "blocktf", "nn", "data", "comm", "core"}},
};

struct Include {
  std::string folder, file, target;
  int line;
};

// What `line` includes, or nothing.
std::string included_by(const std::string& line) {
  const std::string directive = "#include ";
  if (line.rfind(directive, 0) != 0) return "";
  const size_t begin = directive.size() + 1;
  return line.substr(begin, line.find_first_of(">\"", begin) - begin);
}

std::vector<Include> includes() {
  std::vector<Include> found;
  for (const auto& [folder, allowed] : kMayInclude) {
    const auto root = std::filesystem::path(tandem::kSourceDir) / folder;
    if (!std::filesystem::is_directory(root)) continue;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
      const auto extension = entry.path().extension();
      if (extension != ".h" && extension != ".cpp" && extension != ".cu") continue;
      std::ifstream file(entry.path());
      std::string text;
      for (int line = 1; std::getline(file, text); ++line) {
        const std::string target = included_by(text);
        if (!target.empty()) found.push_back({folder, entry.path().string(), target, line});
      }
    }
  }
  return found;
}

bool starts_with_any(const std::string& text, std::initializer_list<const char*> prefixes) {
  for (const char* prefix : prefixes) {
    if (text.rfind(prefix, 0) == 0) return true;
  }
  return false;
}

TEST(LayeringTest, FoldersIncludeOnlyWhatTheyMay) {
  const auto all = includes();
  ASSERT_GT(all.size(), 100u);
  for (const auto& include : all) {
    const std::string target = include.target.substr(0, include.target.find('/'));
    if (!kMayInclude.contains(target) || !include.target.ends_with(".h")) continue;
    EXPECT_TRUE(kMayInclude.at(include.folder).contains(target))
        << include.file << ":" << include.line << " includes " << include.target;
  }
}

TEST(LayeringTest, CoreAndDataAreFreeOfLibTorch) {
  for (const auto& include : includes()) {
    if (include.folder != "core" && include.folder != "data") continue;
    EXPECT_FALSE(starts_with_any(include.target, {"torch/", "ATen/", "c10/", "caffe2/"}))
        << include.file << ":" << include.line << " includes " << include.target;
  }
}

TEST(LayeringTest, OnlyCommKnowsTheProcessGroups) {
  for (const auto& include : includes()) {
    if (include.folder == "comm") continue;
    EXPECT_FALSE(starts_with_any(include.target, {"torch/csrc/distributed", "gloo/", "nccl"}))
        << include.file << ":" << include.line << " includes " << include.target;
  }
}

}  // namespace
