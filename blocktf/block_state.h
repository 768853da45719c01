#pragma once
#include <memory>
#include <optional>

#include "blocktf/token_decoder.h"
#include "nn/decoder_stack.h"

namespace tandem {

/// What a Block Transformer carries of each row: whole blocks in the block decoder's state, and the tokens of the one that is not full.
struct BlockState final : ModelState {
  StateShape shape;
  std::unique_ptr<StackState> blocks;  // one position a whole block
  Tensor context;                      // [B, H] what the block decoder made of the last whole block, float32, or float64 for a model of that; zeros before the first
  Tensor tail;                         // [B, L] int64, the first tail_lengths of them hold the block's tokens so far (kPadding among them), the others 0
  Tensor tail_lengths;                 // [B] int64, below L; like `lengths` a count and no part of tensors()
  std::optional<int64_t> phase;        // tail_lengths of every row, where the host knows that they are equally long
  std::unique_ptr<LocalState> local;   // the token decoder's, with all of the tail in it; absent: begin() anew

  std::unique_ptr<ModelState> select(const Tensor& rows) const override;
  std::vector<std::pair<std::string, Tensor>> tensors() const override;
  /// After blocks or tail changed.
  void update_lengths(int64_t block_length);
};

/// Throws c10::Error where a call holds padding that is not in front of a row, or a block of it. On a CPU only.
void check_padding(const BlockState& state, const Tensor& tokens, int64_t block_length);

/// Tokens of rows as blocks: each row's tail and what `extend` brings behind it.
struct Regrouped {
  Tensor tokens;        // [B, (M + 1) * L] int64, padded with 0: M blocks that may be full and one more. On a GPU M is what the columns of the call allow
  Tensor n_full;        // [B] int64, whole blocks of each row, at most M
  Tensor begin;         // [B] int64, where the new tokens begin
  Tensor tail_lengths;  // [B] int64, of what is left behind the whole blocks
  int64_t n_blocks = 0;              // M
  std::optional<int64_t> same_begin; // `begin` of every row, where the host knows it
  bool all_full = false;             // n_full is M in every row, as the host knows
  std::optional<int64_t> phase;      // tail_lengths of every row, where the host knows it
};
/// tokens: [B, T]; lengths: [B] or undefined = all T.
Regrouped regroup(const BlockState& state, const Tensor& tokens, const Tensor& lengths, int64_t block_length);

}  // namespace tandem
