#pragma once
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/convert.h"
#include "cli/yoco_official.h"
#include "core/json_lines.h"
#include "tests/cli/tiny_models.h"
#include "tests/core/helpers.h"
#include "tests/golden.h"
#include "tests/nn/helpers.h"

namespace tandem {

inline std::map<std::string, Tensor> named(const PortableModel& portable) {
  return {portable.weights.begin(), portable.weights.end()};
}

inline PortableModel random_model(const std::string& yaml) {
  PortableModel portable;
  portable.model = model_choice(yaml);
  const auto model = make_tiny_model(yaml, torch::kFloat32);
  for (const auto& parameter : model->named_parameters())
    portable.weights.emplace_back(parameter.key(), parameter.value().detach());
  return portable;
}

inline void write_tensors(const std::string& path, const std::map<std::string, Tensor>& tensors,
                          DataType type = DataType::kF32) {
  std::vector<TensorEntry> entries;
  for (const auto& [name, tensor] : tensors) {
    TensorEntry entry;
    entry.name = name;
    entry.type = type;
    entry.shape = tensor.sizes().vec();
    entries.push_back(entry);
  }
  SafetensorsWriter writer(path, entries);
  for (const auto& entry : writer.order()) {
    const Tensor tensor = tensors.at(entry.name).contiguous();
    writer.write({static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()});
  }
  writer.finish();
}

class ConvertTest : public testing::Test {
 protected:
  /// A copy of a golden's arguments and weights in a folder of this test.
  std::string official_folder(const std::string& golden) {
    const std::string folder = folder_ / golden;
    make_directories(folder);
    write_file(folder + "/params.json", read_text(golden_yoco(golden) + "/config.json"));
    write_file(folder + "/model.safetensors",
               read_text(golden_yoco(golden) + "/model.safetensors"));
    return folder;
  }
  /// Changes the arguments in `folder` and reads it.
  void expect_refused(const std::string& folder, const std::string& message,
                      const std::function<void(nlohmann::ordered_json&)>& change) {
    const std::string path = folder + "/params.json";
    const std::string before = read_text(path);
    auto params = parse_json(before);
    change(params);
    write_file(path, params.dump());
    expect_user_error(kExitBadFile, path + ": " + message, [&] { read_yoco_official(folder); });
    write_file(path, before);
  }
  void expect_not_expressible(const std::string& yaml, const std::string& message) {
    expect_user_error(kExitUsage, message,
                      [&] { write_yoco_official(folder_ / "refused", random_model(yaml)); });
    EXPECT_FALSE(exists(folder_ / "refused"));
  }
  TempFolder folder_;
};

}  // namespace tandem
