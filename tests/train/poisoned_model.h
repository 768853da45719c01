#pragma once
#include <limits>
#include <map>
#include <memory>

#include "tests/train/helpers.h"

namespace tandem {

/// What goes wrong with the loss of a batch that holds a sample.
enum class Poison { kNaN, kSpike };

/// A model whose loss is another one where certain samples are learnt from; all else is the model's
/// own.
class PoisonedModel : public LanguageModel {
 public:
  PoisonedModel(std::shared_ptr<LanguageModel> model, std::map<int64_t, Poison> samples)
      : model_(register_module("model", std::move(model))), samples_(std::move(samples)) {}

  Loss loss(const Batch& batch, const ForwardContext& context) override {
    Loss loss = model_->loss(batch, context);
    if (!context.training) return loss;
    for (const auto& [sample, poison] : samples_) {
      if (!batch.samples.eq(sample).any().item<bool>()) continue;
      loss.sum =
          loss.sum * (poison == Poison::kNaN ? std::numeric_limits<double>::quiet_NaN() : 40.0);
    }
    return loss;
  }
  std::unique_ptr<ModelState> make_state(const StateShape& shape) const override {
    return model_->make_state(shape);
  }
  Tensor extend(const Tensor& tokens, const Tensor& lengths, ModelState& state,
                Want want) override {
    return model_->extend(tokens, lengths, state, want);
  }
  Tensor extend_nll(const Tensor& tokens, const Tensor& targets, const Tensor& lengths,
                    ModelState& state) override {
    return model_->extend_nll(tokens, targets, lengths, state);
  }
  Packing packing() const override { return model_->packing(); }
  int64_t vocab_size() const override { return model_->vocab_size(); }
  int64_t n_layers() const override { return model_->n_layers(); }
  Flops flops(Phase phase, int64_t length, int64_t batch) const override {
    return model_->flops(phase, length, batch);
  }
  StateBytes state_bytes(int64_t length, torch::Dtype dtype) const override {
    return model_->state_bytes(length, dtype);
  }

 private:
  std::shared_ptr<LanguageModel> model_;
  std::map<int64_t, Poison> samples_;
};

inline ModelFactory poisoned_factory(const std::map<int64_t, Poison>& samples) {
  ModelFactory factory = tiny_factory();
  factory.build = [build = factory.build, samples](const Choice& model) {
    return std::make_shared<PoisonedModel>(build(model), samples);
  };
  return factory;
}

}  // namespace tandem
