#pragma once
#include <cstdint>

#include "core/random.h"

namespace tandem {

/// Chooses a fraction of all documents by their running number, spread evenly: of each 1 / fraction documents in a row one is chosen, at a place that the seed decides.
class DocumentSplit {
 public:
  DocumentSplit(double fraction, uint64_t seed);
  bool chosen(int64_t document) const;

 private:
  double fraction_;
  RandomStream stream_;
};

}  // namespace tandem
