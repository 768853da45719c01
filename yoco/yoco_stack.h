#pragma once
#include <memory>

#include "nn/decoder_stack.h"
#include "yoco/cross_decoder.h"
#include "yoco/self_decoder.h"
#include "yoco/shared_kv.h"

namespace tandem {

struct YocoStackConfig {
  int64_t d_model = 768;
  int64_t ffn_dim = 2304;  // inner width of SwiGLU
  double norm_eps = 1e-5;  // of every norm, the one inside retention too, but those of heads of queries and keys
  YocoRopeConfig rope;     // of both decoders; each may give its own
  SelfDecoderConfig self_decoder;
  CrossDecoderConfig cross_decoder;
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("d_model", d_model, at_least(1));
    visit.value("ffn_dim", ffn_dim, at_least(1));
    visit.value("norm_eps", norm_eps, above(0));
    visit.section("rope", rope);
    visit.section("self_decoder", self_decoder);
    visit.section("cross_decoder", cross_decoder);
  }
};

/// The decoder-decoder (YOCO, sec. 2): self-decoder, shared keys and values, cross-decoder, final norm. The layouts of the paper's ablations are
/// numbers of layers and cross_decoder.input.
/// State: "self_decoder.layers.N.mixer.*" of constant size and "shared_kv.keys", "shared_kv.values" [B, S, G, K], which grow.
class YocoStack : public DecoderStack {
 public:
  explicit YocoStack(const YocoStackConfig& config);
  Tensor forward(const Tensor& x, const ForwardContext& context, StackState* state, Want want) override;
  std::unique_ptr<StackState> make_state(const StateShape& shape) const override;
  int64_t d_model() const override { return d_model_; }
  int64_t n_layers() const override { return n_layers_; }
  Flops forward_flops(Phase phase, int64_t length, int64_t batch) const override;
  StateBytes state_bytes(int64_t length, torch::Dtype dtype) const override;
  SequenceBytes sequence_bytes(const SequencePass& pass) const override;

 private:
  int64_t d_model_, n_layers_;
  bool unstacked_;  // the cross-decoder starts from the embeddings
  std::shared_ptr<SelfDecoder> self_decoder_;
  std::shared_ptr<SharedKvMaker> shared_kv_;
  std::shared_ptr<CrossDecoder> cross_decoder_;
  RmsNorm final_norm_{nullptr};
};

}  // namespace tandem
