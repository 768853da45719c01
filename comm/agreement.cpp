#include "comm/agreement.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <stdexcept>

namespace tandem {
namespace {

constexpr int kOther = -1;  // stands for the exit code of what is no UserError

/// `text` at the start of n bytes.
at::Tensor padded(std::string_view text, int64_t n) {
  at::Tensor bytes = at::empty({n}, at::kByte);
  std::memset(bytes.mutable_data_ptr(), 0, bytes.nbytes());
  std::memcpy(bytes.mutable_data_ptr(), text.data(), text.size());
  return bytes;
}

std::string text_at(const at::Tensor& bytes, int64_t begin, int64_t n) {
  return {bytes.const_data_ptr<uint8_t>() + begin, bytes.const_data_ptr<uint8_t>() + begin + n};
}

/// Sizes of all ranks' texts; then the padded texts by `collect`.
template <typename Collect>
std::vector<std::string> collected(Communicator& group, std::string_view mine, bool here,
                                   const Collect& collect) {
  at::Tensor sizes = at::empty({group.size()}, at::kLong);
  group.all_gather(sizes, at::full({1}, static_cast<int64_t>(mine.size()), at::kLong))->wait();
  const auto* size = sizes.const_data_ptr<int64_t>();
  const int64_t most = std::max<int64_t>(1, *std::max_element(size, size + group.size()));
  at::Tensor all = here ? at::empty({group.size() * most}, at::kByte) : at::Tensor();
  collect(all, padded(mine, most));
  std::vector<std::string> texts;
  for (int64_t r = 0; here && r < group.size(); ++r)
    texts.push_back(text_at(all, r * most, size[r]));
  return texts;
}

/// Rank 0's text.
std::string broadcast_text(Communicator& group, std::string_view text) {
  at::Tensor size = at::full({1}, static_cast<int64_t>(text.size()), at::kLong);
  group.broadcast(size, 0)->wait();
  const auto n = *size.const_data_ptr<int64_t>();
  if (n == 0) return "";
  at::Tensor bytes = padded(group.rank() == 0 ? text : "", n);
  group.broadcast(bytes, 0)->wait();
  return text_at(bytes, 0, n);
}

/// "74 message" of the exception that is being handled.
std::string described() {
  try {
    throw;
  } catch (const UserError& error) {
    return std::to_string(error.exit_code()) + " " + error.what();
  } catch (const c10::Error& error) {
    return std::to_string(kOther) + " " + error.what_without_backtrace();
  } catch (const std::exception& error) {
    return std::to_string(kOther) + " " + error.what();
  } catch (...) {
    return std::to_string(kOther) + " an unknown error";
  }
}

/// Throws what another rank described.
[[noreturn]] void throw_described(const std::string& text, int64_t rank, bool names_rank) {
  const size_t space = text.find(' ');
  const int code = std::stoi(text.substr(0, space));
  const std::string message = text.substr(space + 1), which = "rank " + std::to_string(rank);
  if (code == kOther) throw std::runtime_error(which + ": " + message);
  throw UserError(code, names_rank ? message + " (" + which + ")" : message);
}

}  // namespace

std::vector<std::string> texts_of_all(Communicator& group, std::string_view mine) {
  if (group.size() == 1) return {std::string(mine)};
  return collected(group, mine, /*here=*/true, [&](at::Tensor& all, const at::Tensor& in) {
    group.all_gather(all, in)->wait();
  });
}

std::vector<std::string> texts_on_first(Communicator& group, std::string_view mine) {
  if (group.size() == 1) return {std::string(mine)};
  return collected(group, mine, group.rank() == 0, [&](at::Tensor& all, const at::Tensor& in) {
    group.gather(all, in, 0)->wait();
  });
}

std::string text_of_first(Communicator& group, const std::function<std::string()>& act) {
  if (group.size() == 1) return act();
  if (group.rank() == 0) {
    std::string text, error;
    std::exception_ptr mine;
    try {
      text = act();
    } catch (const PeerLost&) {
      throw;
    } catch (...) {
      mine = std::current_exception();
      error = described();
    }
    broadcast_text(group, mine ? error : "0 " + text);
    if (mine) std::rethrow_exception(mine);
    return text;
  }
  const std::string told = broadcast_text(group, "");
  if (!told.starts_with("0 ")) throw_described(told, 0, /*names_rank=*/false);
  return told.substr(2);
}

void on_first(Communicator& group, const std::function<void()>& act) {
  text_of_first(group, [&] {
    act();
    return std::string();
  });
}

void on_all_ranks(Communicator& group, const std::function<void()>& act) {
  if (group.size() == 1) return act();
  std::string error;
  std::exception_ptr mine;
  try {
    act();
  } catch (const PeerLost&) {
    throw;
  } catch (...) {
    mine = std::current_exception();
    error = described();
  }
  at::Tensor failed = at::full({1}, mine ? 1 : 0, at::kLong);
  group.all_reduce(failed, Reduction::kMax)->wait();
  if (*failed.const_data_ptr<int64_t>() == 0) return;
  const auto errors = texts_of_all(group, error);
  const auto first = std::find_if(errors.begin(), errors.end(),
                                  [](const std::string& text) { return !text.empty(); });
  const auto rank = static_cast<int64_t>(first - errors.begin());
  const bool keeps_its_type = rank == group.rank() && error.starts_with(std::to_string(kOther));
  if (keeps_its_type) std::rethrow_exception(mine);
  throw_described(*first, rank, /*names_rank=*/true);
}

}  // namespace tandem
