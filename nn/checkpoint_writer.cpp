// Writing a checkpoint by all ranks of a group. Whatever a rank does alone ends in a call that
// tells the others how it went, so that all of them go on or none does.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <optional>

#include "comm/agreement.h"
#include "core/checksum.h"
#include "core/error.h"
#include "core/file.h"
#include "core/json_lines.h"
#include "nn/checkpoint.h"
#include "nn/streamed_checkpoint.h"

namespace tandem {
namespace {

using nlohmann::ordered_json;
using Piece = ManifestTensor::Piece;

constexpr int64_t kGatheredBytes = 64 << 20;  // at once, from all ranks together

std::span<const std::byte> bytes_of(const Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

/// A plain copy: LibTorch's own may start threads beside those of the training.
void copy_floats(const float* from, float* to, int64_t n) {
  std::memcpy(to, from, static_cast<size_t>(n) * sizeof(float));
}

/// Writes one small file; returns its entry in the manifest.
ManifestFile write_text_file(const std::string& folder, const std::string& name,
                             std::string_view text) {
  File file = File::create(join_path(folder, name));
  file.write(text);
  file.sync();
  file.close();
  return {.bytes = text.size(), .crc32c = crc32c(std::as_bytes(std::span(text)))};
}

TensorEntry float_entry(const std::string& name, std::vector<int64_t> shape) {
  TensorEntry entry;
  entry.name = name;
  entry.type = DataType::kF32;
  entry.shape = std::move(shape);
  return entry;
}

/// The entry in the manifest of a file that is finished.
ManifestFile facts_of(const SafetensorsWriter& writer) {
  ManifestFile file{.bytes = writer.file_size(), .crc32c = writer.file_checksum()};
  file.tensors.emplace();
  for (size_t i = 0; i < writer.order().size(); ++i)
    (*file.tensors)[writer.order()[i].name].crc32c = writer.checksums()[i];
  return file;
}

std::string optimizer_file(int64_t number, int64_t n) {
  char name[96];
  std::snprintf(name, sizeof name, "optimizer-%05lld-of-%05lld.safetensors",
                static_cast<long long>(number), static_cast<long long>(n));
  return name;
}

void check_pieces(const std::vector<TensorPiece>& pieces, bool may_be_read_later = false) {
  for (const auto& piece : pieces) {
    if (may_be_read_later && !piece.data.defined()) continue;
    TORCH_CHECK(piece.data.device().is_cpu() && piece.data.scalar_type() == torch::kFloat32 &&
                    piece.data.is_contiguous(),
                piece.name, " is ", piece.data.toString(),
                ", expected contiguous float32 on the CPU");
    TORCH_CHECK(piece.data.dim() == 1 && piece.data.numel() == piece.end - piece.begin, piece.name,
                ": data ", piece.data.sizes(), ", expected [", piece.end - piece.begin, "]");
  }
}

/// What one rank tells rank 0 of what it holds.
std::string holdings_text(const CheckpointContents& contents) {
  ordered_json weights = ordered_json::array();
  for (const auto& piece : contents.weights) {
    weights.push_back({piece.name, piece.global_shape, piece.begin, piece.end, piece.split_dim,
                       piece.split_begin, piece.split_end});
  }
  return ordered_json{{"weights", std::move(weights)}, {"optimizer", !contents.optimizer.empty()}}
      .dump();
}

/// What all ranks hold of one weight.
struct Holding {
  std::vector<int64_t> shape;
  std::vector<std::vector<Piece>> by_rank;  // in the order in which a rank gives their elements
};

/// Copies the data of a piece to its place in the whole tensor.
void put(const Piece& piece, const float* data, Tensor& whole) {
  const Piece all{piece.parameter, piece.global_shape, 0, whole.numel()};
  for_each_overlap(all, piece, [&](int64_t to, int64_t from, int64_t n) {
    copy_floats(data + from, whole.mutable_data_ptr<float>() + to, n);
  });
}

/// Calls each(index of the piece, its first element, its place among those wanted, n) for the
/// elements [at, at + n) of all pieces of one rank, one after the other.
template <typename Pieces, typename Each>
void for_elements(const Pieces& pieces, int64_t at, int64_t n, const Each& each) {
  int64_t before = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const int64_t size = pieces[i].end - pieces[i].begin;
    const int64_t from = std::max<int64_t>(at - before, 0), to = std::min(at + n - before, size);
    if (from < to) each(i, from, before + from - at, to - from);
    before += size;
  }
}

template <typename Pieces>
int64_t total_of(const Pieces& pieces) {
  int64_t total = 0;
  for (const auto& piece : pieces) total += piece.end - piece.begin;
  return total;
}

/// One rank's part of writing a checkpoint.
class Part {
 public:
  /// `read_weight`: gives weights whose pieces have no data; null where all have.
  Part(const CheckpointContents& contents, Communicator& save, const ReadWeight* read_weight)
      : contents_(contents), save_(save), read_weight_(read_weight) {}

  /// Fills the folder `partial`; the checkpoint will be `folder`.
  void write(const std::string& partial, const std::string& folder);

 private:
  struct Weight {
    std::string name;
    int64_t most = 0;  // elements of it that one rank holds; 0: rank 0 holds all
  };
  std::string begin(const std::string& partial, const std::vector<std::string>& holdings);
  void read_plan(const std::string& text);
  void write_weights();
  Tensor gather(const Weight& weight);
  std::vector<TensorPiece> own(const std::string& name) const;
  Tensor own_whole(const std::string& name) const;
  void write_optimizer(const std::string& partial);
  void read_back(const std::string& partial, const std::string& folder) const;
  bool is_first() const { return save_.rank() == 0; }

  const CheckpointContents& contents_;
  Communicator& save_;
  const ReadWeight* read_weight_;
  std::vector<Weight> weights_;   // in the order of the file
  std::vector<int64_t> writers_;  // ranks that have moments
  Tensor in_, all_, whole_;       // what is sent, received and put together
  std::string optimizer_name_;    // of this rank's file
  std::optional<ManifestFile> optimizer_;
  // of rank 0
  Manifest manifest_;
  std::map<std::string, Holding> holdings_;
  std::optional<SafetensorsWriter> model_;
};

void Part::write(const std::string& partial, const std::string& folder) {
  on_all_ranks(save_, [&] {
    check_pieces(contents_.weights, read_weight_ != nullptr);
    check_pieces(contents_.optimizer);
  });
  const auto holdings = texts_on_first(save_, holdings_text(contents_));
  const std::string plan = text_of_first(save_, [&] { return begin(partial, holdings); });
  on_all_ranks(save_, [&] { read_plan(plan); });
  write_weights();
  on_all_ranks(save_, [&] { write_optimizer(partial); });
  const auto entries = texts_on_first(save_, optimizer_ ? manifest_file_text(*optimizer_) : "");
  on_first(save_, [&] {
    int64_t number = 0;
    const auto n = static_cast<int64_t>(writers_.size());
    for (const int64_t rank : writers_)
      manifest_.files.emplace_back(optimizer_file(++number, n),
                                   parse_manifest_file(entries[static_cast<size_t>(rank)]));
    write_text_file(partial, kManifestFile, manifest_text(manifest_));
  });
  on_all_ranks(save_, [&] { read_back(partial, folder); });
}

/// On rank 0: writes the texts and begins the file of the weights. Returns what all must know.
std::string Part::begin(const std::string& partial, const std::vector<std::string>& holdings) {
  ordered_json writers = ordered_json::array();
  for (size_t r = 0; r < holdings.size(); ++r) {
    const ordered_json held = parse_json(holdings[r]);
    if (held.at("optimizer").get<bool>()) writers.push_back(r);
    for (const auto& item : held.at("weights")) {
      const auto number = [&](size_t i) { return item[i].get<int64_t>(); };
      Holding& holding = holdings_[item[0].get<std::string>()];
      holding.shape = item[1].get<std::vector<int64_t>>();
      holding.by_rank.resize(holdings.size());
      holding.by_rank[r].push_back({"", holding.shape, number(2), number(3),
                                    static_cast<int>(number(4)), number(5), number(6)});
    }
  }
  std::vector<TensorEntry> entries;
  for (const auto& [name, holding] : holdings_) {
    std::vector<Piece> pieces;
    for (const auto& of_rank : holding.by_rank)
      pieces.insert(pieces.end(), of_rank.begin(), of_rank.end());
    const std::string fault = fault_of_pieces(std::move(pieces));
    TORCH_CHECK(fault.empty(), "write_checkpoint: ", name, ": ", fault);
    entries.push_back(float_entry(name, holding.shape));
  }

  manifest_.step = contents_.step;
  const auto add_text = [&](const std::string& name, std::string_view text) {
    manifest_.files.emplace_back(name, write_text_file(partial, name, text));
  };
  add_text(kConfigFile, contents_.config_yaml);
  add_text(kStateFile, contents_.state.dump(2) + "\n");
  if (!contents_.tokenizer_model.empty()) {
    TORCH_CHECK(is_tokenizer_file(contents_.tokenizer_file),
                "write_checkpoint: a tokenizer called ", contents_.tokenizer_file);
    add_text(contents_.tokenizer_file, contents_.tokenizer_model);
  }
  model_.emplace(join_path(partial, kModelFile), std::move(entries));

  ordered_json weights = ordered_json::array();
  for (const TensorEntry& entry : model_->order()) {
    const auto& ranks = holdings_.at(entry.name).by_rank;
    int64_t most = 0;
    const bool elsewhere = std::any_of(ranks.begin() + 1, ranks.end(),
                                       [](const auto& of) { return total_of(of) > 0; });
    if (elsewhere) {
      for (const auto& of_rank : ranks) most = std::max(most, total_of(of_rank));
    }
    weights.push_back({entry.name, most});
  }
  return ordered_json{{"weights", std::move(weights)}, {"writers", std::move(writers)}}.dump();
}

/// Memory for gathering is taken here, where a rank that has none can still tell the others.
void Part::read_plan(const std::string& text) {
  const ordered_json plan = parse_json(text);
  writers_ = plan.at("writers").get<std::vector<int64_t>>();
  int64_t most = 0, largest = 0;
  for (const auto& item : plan.at("weights")) {
    weights_.push_back({item[0].get<std::string>(), item[1].get<int64_t>()});
    if (weights_.back().most == 0) continue;
    most = std::max(most, weights_.back().most);
    if (is_first())
      largest = std::max(largest, elements_of(holdings_.at(weights_.back().name).shape));
  }
  if (most == 0) return;
  const int64_t at_once =
      std::clamp<int64_t>(kGatheredBytes / int64_t{sizeof(float)} / save_.size(), 1, most);
  in_ = torch::empty({at_once}, torch::kFloat32);
  std::memset(in_.mutable_data_ptr(), 0, in_.nbytes());
  if (!is_first()) return;
  all_ = torch::empty({save_.size() * at_once}, torch::kFloat32);
  whole_ = torch::empty({largest}, torch::kFloat32);
}

/// Gathers one weight after the other on rank 0, which writes them.
void Part::write_weights() {
  std::exception_ptr error;  // of rank 0, which first lets the others know
  const auto attempt = [&](const auto& act) {
    if (error || !is_first()) return;
    try {
      act();
    } catch (const PeerLost&) {
      throw;
    } catch (...) {
      error = std::current_exception();
    }
  };
  for (const Weight& weight : weights_) {
    if (weight.most == 0) {
      attempt([&] { model_->write(bytes_of(own_whole(weight.name))); });
      continue;
    }
    const bool goes_on = text_of_first(save_, [&] { return error ? "" : "go on"; }) == "go on";
    if (!goes_on) break;
    const Tensor whole = gather(weight);
    attempt([&] { model_->write(bytes_of(whole)); });
  }
  attempt([&] {
    model_->finish();
    manifest_.files.emplace_back(kModelFile, facts_of(*model_));
  });
  on_first(save_, [&] {
    if (error) std::rethrow_exception(error);
  });
}

/// All of a weight, out of the pieces of all ranks; on rank 0, and there until the next one.
Tensor Part::gather(const Weight& weight) {
  const auto mine = own(weight.name);
  const Holding* holding = is_first() ? &holdings_.at(weight.name) : nullptr;
  Tensor whole = holding ? whole_.narrow(0, 0, elements_of(holding->shape)) : Tensor();
  for (int64_t at = 0; at < weight.most; at += in_.numel()) {
    const int64_t n = std::min(in_.numel(), weight.most - at);
    for_elements(mine, at, n, [&](size_t i, int64_t from, int64_t to, int64_t count) {
      copy_floats(mine[i].data.const_data_ptr<float>() + from, in_.mutable_data_ptr<float>() + to,
                  count);
    });
    Tensor all = holding ? all_.narrow(0, 0, save_.size() * n) : Tensor();
    save_.gather(all, in_.narrow(0, 0, n), 0)->wait();
    for (int64_t r = 0; holding && r < save_.size(); ++r) {
      const auto& pieces = holding->by_rank[static_cast<size_t>(r)];
      const float* data = all.const_data_ptr<float>() + r * n;
      for_elements(pieces, at, n, [&](size_t i, int64_t from, int64_t to, int64_t count) {
        Piece range = pieces[i];
        range.begin += from;
        range.end = range.begin + count;
        put(range, data + to, whole);
      });
    }
  }
  return whole;
}

/// This rank's pieces of a weight.
std::vector<TensorPiece> Part::own(const std::string& name) const {
  std::vector<TensorPiece> pieces;
  std::copy_if(contents_.weights.begin(), contents_.weights.end(), std::back_inserter(pieces),
               [&](const TensorPiece& piece) { return piece.name == name; });
  return pieces;
}

/// A weight that rank 0 holds alone.
Tensor Part::own_whole(const std::string& name) const {
  const auto pieces = own(name);
  if (read_weight_ && pieces.size() == 1 && !pieces.front().data.defined()) {
    const Tensor whole = (*read_weight_)(name).contiguous();
    TORCH_CHECK(whole.scalar_type() == torch::kFloat32 &&
                    whole.sizes() == c10::IntArrayRef(pieces.front().global_shape),
                "write_checkpoint: ", name, " was read as ", whole.toString(), " ", whole.sizes());
    return whole;
  }
  if (pieces.size() == 1) return pieces.front().data;
  Tensor whole = torch::empty({elements_of(holdings_.at(name).shape)}, torch::kFloat32);
  for (const auto& piece : pieces) put(piece, piece.data.const_data_ptr<float>(), whole);
  return whole;
}

/// Writes the file of this rank's moments, when it has any.
void Part::write_optimizer(const std::string& partial) {
  const auto me = std::find(writers_.begin(), writers_.end(), save_.rank());
  if (me == writers_.end()) return;
  std::vector<TensorEntry> entries;
  std::map<std::string, const TensorPiece*> by_name;
  for (const auto& piece : contents_.optimizer) {
    entries.push_back(float_entry(piece.name, {piece.end - piece.begin}));
    TORCH_CHECK(by_name.emplace(piece.name, &piece).second, "write_checkpoint: ", piece.name,
                " comes twice");
  }
  optimizer_name_ =
      optimizer_file(me - writers_.begin() + 1, static_cast<int64_t>(writers_.size()));
  SafetensorsWriter writer(join_path(partial, optimizer_name_), std::move(entries));
  for (const TensorEntry& entry : writer.order())
    writer.write(bytes_of(by_name.at(entry.name)->data));
  writer.finish();
  optimizer_ = facts_of(writer);
  for (const auto& piece : contents_.optimizer) optimizer_->tensors->at(piece.name).piece = piece;
}

/// Every rank reads what it wrote.
void Part::read_back(const std::string& partial, const std::string& folder) const {
  try {
    if (is_first()) {
      const Checkpoint written(partial);  // the manifest, and the sizes of all files
      for (const auto& [name, facts] : manifest_.files) {
        if (!name.starts_with("optimizer-")) verify_file(partial, name, facts);
      }
    }
    if (optimizer_) verify_file(partial, optimizer_name_, *optimizer_);
  } catch (const UserError& error) {
    throw cannot_write(folder, std::string("cannot be read back: ") + error.what());
  }
}

// Rank 0 makes the folder, all fill it, rank 0 gives it its name or removes it.
void write_folder_of(Part& part, const std::string& folder, Communicator& save) {
  std::exception_ptr error;
  const auto attempt = [&](const auto& act) {
    try {
      act();
    } catch (const PeerLost&) {
      throw;
    } catch (...) {
      error = std::current_exception();
    }
  };
  const auto rethrow = [&] {
    if (error) std::rethrow_exception(error);
  };
  if (save.rank() == 0) {
    bool made = false;
    attempt([&] {
      write_folder(folder, [&](const std::string& partial) {
        made = true;
        text_of_first(save, [&] { return partial; });
        part.write(partial, folder);
      });
    });
    if (!made) on_first(save, rethrow);  // what the others wait for
  } else {
    const std::string partial = text_of_first(save, nullptr);
    attempt([&] { part.write(partial, folder); });
  }
  on_first(save, rethrow);
  rethrow();
}

}  // namespace

void write_checkpoint(const std::string& folder, const CheckpointContents& contents,
                      Communicator& save) {
  Part part(contents, save, nullptr);
  write_folder_of(part, folder, save);
}

void write_streamed_checkpoint(const std::string& folder, const CheckpointContents& contents,
                               const ReadWeight& read_weight) {
  const auto save = make_single_communicator("save");
  Part part(contents, *save, &read_weight);
  write_folder_of(part, folder, *save);
}

void write_checkpoint(const std::string& folder, const CheckpointContents& contents) {
  write_checkpoint(folder, contents, *make_single_communicator("save"));
}

}  // namespace tandem
