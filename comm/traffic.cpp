#include "comm/communicator.h"

namespace tandem {

void Traffic::add(const std::string& key, double bytes) {
  const std::lock_guard lock(mutex_);
  bytes_[key] += bytes;
}

std::map<std::string, double> Traffic::bytes() const {
  const std::lock_guard lock(mutex_);
  return bytes_;
}

// Of the groups that train: what ranks tell each other on the host depends on when saves end.
double Traffic::total() const {
  double sum = 0;
  for (const auto& [key, bytes] : bytes()) {
    if (!key.starts_with("control.") && !key.starts_with("save.")) sum += bytes;
  }
  return sum;
}

void Traffic::reset() {
  const std::lock_guard lock(mutex_);
  bytes_.clear();
}

}  // namespace tandem
