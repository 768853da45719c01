#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cli/hf_form.h"
#include "core/safetensors.h"

namespace tandem {

/// The weights of a folder: model.safetensors, or the files that model.safetensors.index.json
/// lists, or else every *.safetensors. Only headers are held.
class HfWeights {
 public:
  /// Throws bad_file for a folder without safetensors, a file that is listed and missing, and where
  /// the index and the files disagree.
  explicit HfWeights(const std::string& folder);
  /// Leaves out the tensors that `is_dead` names; returns their names.
  std::vector<std::string> drop(const std::function<bool(const std::string& name)>& is_dead);
  bool has(const std::string& name) const { return tensors_.contains(name); }
  /// Throws bad_file naming a tensor that is missing, of another shape or type, or that `tensors`
  /// does not have.
  void expect(const std::vector<FormTensor>& tensors) const;
  Tensor read(const std::string& name) const;  ///< as float32
  const std::string& path() const {
    return readers_.front()->path();
  }  ///< of a file, for messages about several tensors

 private:
  struct Place {
    const SafetensorsReader* reader;
    const TensorEntry* entry;
  };
  void add(const std::string& path);
  void check_index(const std::string& folder,
                   const std::map<std::string, std::string>& files) const;
  std::vector<std::unique_ptr<SafetensorsReader>> readers_;
  std::map<std::string, Place> tensors_;
};

/// Writes the tensors in files of at most `max_bytes` (but at least one tensor each):
/// model.safetensors, or several with model.safetensors.index.json. `make` gives each tensor of
/// `tensors` as it is written, float32 on the CPU.
void write_hf_weights(const std::string& folder, const std::vector<FormTensor>& tensors,
                      const std::function<Tensor(const FormTensor&)>& make, torch::Dtype dtype,
                      uint64_t max_bytes);

}  // namespace tandem
