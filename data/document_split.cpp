#include "data/document_split.h"

#include <cmath>

namespace tandem {

DocumentSplit::DocumentSplit(double fraction, uint64_t seed)
    : fraction_(fraction), stream_(RandomStream(seed).fork("validation split")) {}

bool DocumentSplit::chosen(int64_t document) const {
  if (fraction_ <= 0) return false;
  const auto at = static_cast<double>(document);
  const auto first = static_cast<uint64_t>(at * fraction_);
  const auto last = static_cast<uint64_t>((at + 1) * fraction_);
  for (uint64_t stratum = first; stratum <= last; ++stratum) {
    const double place = (static_cast<double>(stratum) + stream_.uniform(stratum)) / fraction_;
    if (std::floor(place) == at) return true;
  }
  return false;
}

}  // namespace tandem
