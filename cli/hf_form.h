#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/config.h"
#include "nn/official_params.h"
#include "nn/parameter.h"

namespace tandem {

// Forms of the Hugging Face libraries: a folder with config.json and safetensors. One file for each
// form holds its table of names.

/// One tensor of a form and what of ours it holds.
struct FormTensor {
  std::string name;  // theirs
  std::vector<int64_t> shape;
  std::vector<std::string> ours;  // one; of a fused tensor the query's, key's and value's
  int64_t n_heads = 0;  // of a fused one, whose rows are [n_heads, 3, head_dim]: query, key and
                        // value of one head, then of the next
};
/// Our weight `ours[i]` out of their tensor, and their tensor out of all of ours. Both are exact.
Tensor part_of(const FormTensor& tensor, const Tensor& theirs, size_t i);
Tensor joined(const FormTensor& tensor, const std::vector<Tensor>& ours);

struct HfForm {
  const char* name;          // --format NAME
  const char* model_type;    // in config.json
  const char* architecture;  // the class of the model with its head
  const char* tied_head;     // their name of the head; in files of tied models it may be there as a
                             // copy of `table`
  const char* table;
  /// The model of a config.json. Throws std::runtime_error naming the key that has no counterpart
  /// here.
  Choice (*read)(OfficialParams& config);
  /// What config.json says of a model beside the keys that all forms share. Throws UserError naming
  /// what the form cannot express.
  nlohmann::ordered_json (*write)(const Choice& model);
  std::vector<FormTensor> (*tensors)(const Choice& model);
  /// Buffers of older files that nothing reads.
  bool (*is_dead)(const std::string& name);
};
const HfForm& hf_llama();     // LlamaForCausalLM, our family `transformer`
const HfForm& hf_gpt_neox();  // GPTNeoXForCausalLM, our family `gpt_neox`
const HfForm& fla_yoco();     // flash-linear-attention's YOCOForCausalLM, our family `yoco`

// ---- what the forms share

/// Every weight of `model` as a tensor of its own under the name that `name_of` gives it.
std::vector<FormTensor> named_tensors(const Choice& model,
                                      std::string (*name_of)(const std::string& ours));

/// Rotary positions under both the older keys and those of transformers 5 (rope_parameters).
struct HfRope {
  double base = 10000, fraction = 1;
};
/// `base_key`, `fraction_key`: the older keys; a fraction key that is null allows whole heads only.
/// Throws where positions are scaled.
HfRope read_hf_rope(OfficialParams& config, const char* base_key, const char* fraction_key,
                    double fraction);

/// A number of layers; more than any model has is a damaged file.
int64_t read_layers(OfficialParams& config, const char* key);

/// Throws bad_usage: "WHAT cannot be written as FORM, which has EXPECTED".
void require_form(bool holds, const std::string& what, const std::string& form,
                  const std::string& expected);

}  // namespace tandem
