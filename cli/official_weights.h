#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/safetensors.h"
#include "nn/parameter.h"

namespace tandem {

/// The type that a tensor is read as; throws bad_file for another than F32, F16 and BF16.
torch::Dtype torch_type_of(const SafetensorsReader& reader, const TensorEntry& entry);
/// One tensor as it is stored.
Tensor read_stored(const SafetensorsReader& reader, const TensorEntry& entry);
/// The type in a file of a float32, bfloat16 or float16 tensor.
DataType stored_type_of(torch::Dtype dtype);
/// Says why `folder`, which has no safetensors, cannot be read: its weights are pickles, or it has none.
[[noreturn]] void refuse_without_safetensors(const std::string& folder);

/// The weights of another program in one folder: model.safetensors, or else every *.safetensors there.
class OfficialWeights {
 public:
  /// Names lose `prefix` where they begin with it. Throws bad_file for a folder without weights, for one that has only
  /// pickles, which are not read, and for a tensor that is there twice.
  explicit OfficialWeights(const std::string& folder, const std::string& prefix = "");
  /// Leaves out what is no weight.
  void skip(const std::function<bool(const std::string& name)>& is_skipped);
  /// Takes one tensor as float32. Throws bad_file where it is missing, of another shape, or of another type than F32, F16 and BF16.
  Tensor take(const std::string& name, const std::vector<int64_t>& shape);
  /// Throws bad_file naming a tensor that nobody took.
  void expect_all_taken() const;
  /// A file to name in messages about several tensors.
  const std::string& path() const { return readers_.front().path(); }

 private:
  struct Place {
    const SafetensorsReader* reader;
    const TensorEntry* entry;
  };
  std::vector<SafetensorsReader> readers_;
  std::map<std::string, Place> tensors_;
};

/// Makes `folder` with model.safetensors and one text file beside it; nothing stays of it on an error. Tensors are float32,
/// bfloat16 or float16 on the CPU and written as they are.
void write_official_folder(const std::string& folder, const std::map<std::string, Tensor>& weights,
                           const std::string& text_name, const std::string& text);

}  // namespace tandem
