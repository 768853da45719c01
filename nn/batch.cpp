#include "nn/batch.h"

#include <ATen/core/CachingHostAllocator.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>

namespace tandem {
namespace {

bool is_one_document(const int32_t* segment, int64_t n) {
  return segment[0] >= 0 &&
         std::all_of(segment, segment + n, [&](int32_t s) { return s == segment[0]; });
}

void check_tokens(const int64_t* tokens, int64_t n) {
  for (int64_t t = 0; t < n; ++t) {
    TORCH_CHECK(tokens[t] >= 0, "make_batch: token ", tokens[t], " at column ", t,
                ", expected an id >= 0; padding has token 0 and segment -1");
  }
}

// Leaves the targets that count, and weights of these alone; returns how many. Adds their weights
// to `total`.
int64_t settle_scoring(int64_t* targets, float* weights, int64_t n, double& total) {
  int64_t scored = 0;
  for (int64_t t = 0; t < n; ++t) {
    if (weights) {
      TORCH_CHECK(weights[t] >= 0, "make_batch: a target weighs ", weights[t],
                  ", expected at least 0");
      if (targets[t] == kIgnored) weights[t] = 0;
      if (weights[t] == 0) targets[t] = kIgnored;
    }
    if (targets[t] == kIgnored) continue;
    ++scored;
    total += weights ? static_cast<double>(weights[t]) : 1;
  }
  return scored;
}

// The columns that `targets` score, of which there are n_scored, and as many of the first others,
// which see the fewest keys, as make up `n`; ascending.
void write_columns(const int64_t* targets, int64_t n_scored, int64_t n, int64_t* columns) {
  int64_t others = n - n_scored;
  for (int64_t t = 0, written = 0; written < n; ++t) {
    const bool scored = targets[t] != kIgnored;
    if (!scored && others == 0) continue;
    if (!scored) --others;
    columns[written++] = t;
  }
}

// Pinned memory: tensors of it are given out again by LibTorch's allocator, which is told to wait
// for what was queued when they go.
class PinnedRows : public RowsMemory {
 public:
  PinnedRows(int64_t rows, int64_t length, bool weighted, torch::Device device) : device_(device) {
    view_.rows = rows;
    view_.length = length;
    view_.tokens = make<int64_t>(rows * length);
    view_.targets = make<int64_t>(rows * length);
    view_.segment = make<int32_t>(rows * length);
    if (weighted) view_.weights = make<float>(rows * length);
    view_.samples = make<int64_t>(rows);
  }
  ~PinnedRows() override {
    const c10::Stream stream = c10::impl::VirtualGuardImpl(device_.type()).getStream(device_);
    at::HostAllocator* const allocator = at::getHostAllocator(device_.type());
    for (const Tensor& tensor : tensors_) {
      const auto& data = tensor.storage().data_ptr();
      allocator->record_event(data.get(), data.get_context(), stream);
    }
  }
  RowsView view() const override { return view_; }

 private:
  template <typename T>
  T* make(int64_t n) {
    const auto options =
        torch::TensorOptions(torch::CppTypeToScalarType<T>::value).pinned_memory(true);
    return tensors_.emplace_back(torch::empty({n}, options)).template mutable_data_ptr<T>();
  }
  torch::Device device_;
  std::vector<Tensor> tensors_;
  RowsView view_;
};

// [B, T], columns counted from the start of each document.
Tensor positions_in_documents(const Tensor& tokens, const Tensor& segment) {
  const auto columns = torch::arange(tokens.size(1), tokens.options()).expand_as(tokens);
  if (!segment.defined()) return columns;
  const int64_t n_tokens = segment.size(1);
  auto first = torch::zeros_like(tokens);  // the column where the token's document begins
  const auto begins = segment.narrow(1, 1, n_tokens - 1) != segment.narrow(1, 0, n_tokens - 1);
  first.narrow(1, 1, n_tokens - 1).copy_(columns.narrow(1, 1, n_tokens - 1) * begins);
  return columns - std::get<0>(first.cummax(/*dim=*/1));
}

// Leaves one part of the columns of a batch of whole rows. Their targets alone were settled.
void keep_part(Batch& batch, const RowPart& part) {
  batch.positions = positions_in_documents(batch.tokens, batch.segment);
  batch.row_segment = batch.segment;
  const int64_t n = batch.tokens.size(1) / part.size;
  for (Tensor* tensor :
       {&batch.tokens, &batch.targets, &batch.segment, &batch.weights, &batch.positions}) {
    if (tensor->defined()) *tensor = tensor->narrow(1, part.rank * n, n).contiguous();
  }
}

// `owner` is kept for as long as tensors look at the rows; null: the caller keeps them.
Batch make_batch(const RowsView& rows, torch::Device device, const RowPart& part,
                 const std::shared_ptr<const RowsMemory>& owner) {
  const int64_t B = rows.rows, T = rows.length;
  TORCH_CHECK(B >= 1 && T >= 1, "make_batch: no rows");
  TORCH_CHECK(part.rank >= 0 && part.rank < part.size && T % part.size == 0, "make_batch: part ",
              part.rank, " of ", part.size, " of rows of ", T, " columns, expected them to divide");
  const int64_t own = T / part.size, begin = part.rank * own;  // the part's columns
  const auto tensor = [&]<typename V>(V* data, torch::IntArrayRef sizes) {
    const auto view = torch::from_blob(
        data, sizes, [owner](void*) {}, torch::CppTypeToScalarType<V>::value);
    return view.to(device, /*non_blocking=*/true);
  };
  Batch batch;
  bool one_document = true;
  std::vector<int64_t> n_scored;
  for (int64_t r = 0; r < B; ++r) {
    check_tokens(rows.tokens + r * T, T);
    one_document = one_document && is_one_document(rows.segment + r * T, T);
    n_scored.push_back(settle_scoring(rows.targets + r * T + begin,
                                      rows.weights ? rows.weights + r * T + begin : nullptr, own,
                                      batch.total_weight));
  }
  batch.tokens = tensor(rows.tokens, {B, T});
  batch.targets = tensor(rows.targets, {B, T});
  if (!one_document) batch.segment = tensor(rows.segment, {B, T});
  batch.samples = tensor(rows.samples, {B});
  if (rows.weights) batch.weights = tensor(rows.weights, {B, T});
  if (part.size > 1) keep_part(batch, part);

  // A row of columns that are all unscored is simpler than none.
  const int64_t n = std::max<int64_t>(1, *std::max_element(n_scored.begin(), n_scored.end()));
  if (4 * n <= 3 * own) {
    const auto columns =
        torch::empty({B, n}, torch::TensorOptions(torch::kInt64).pinned_memory(device.is_cuda()));
    for (int64_t r = 0; r < B; ++r) {
      write_columns(rows.targets + r * T + begin, n_scored[r], n,
                    columns.mutable_data_ptr<int64_t>() + r * n);
    }
    batch.scored = columns.to(device, /*non_blocking=*/true);
  }
  return batch;
}

}  // namespace

Batch make_batch(const RowsView& rows, torch::Device device, const RowPart& part) {
  return make_batch(rows, device, part, nullptr);
}

Batch make_batch(const std::vector<Row>& rows, torch::Device device, const RowPart& part) {
  const std::shared_ptr<const RowsMemory> memory = pack_rows(rows, rows_memory_for(device));
  return make_batch(memory->view(), device, part, memory);
}

MakeRowsMemory rows_memory_for(torch::Device device) {
  if (!device.is_cuda()) return make_rows_memory;
  return [device](int64_t rows, int64_t length, bool weighted) {
    return std::make_unique<PinnedRows>(rows, length, weighted, device);
  };
}

Tensor positions_of(const Batch& batch) {
  if (batch.positions.defined()) return batch.positions;
  return positions_in_documents(batch.tokens, batch.segment);
}

}  // namespace tandem
