#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "comm/communicator.h"

// Small messages on the host, and one outcome on all ranks of a group. Every rank of the group calls these at the same points.

namespace tandem {

/// Every rank's text, in the order of ranks.
std::vector<std::string> texts_of_all(Communicator& group, std::string_view mine);
/// The same on rank 0; nothing elsewhere.
std::vector<std::string> texts_on_first(Communicator& group, std::string_view mine);

/// What `act` returns on rank 0, or what it throws there, on all ranks; others do not call theirs.
std::string text_of_first(Communicator& group, const std::function<std::string()>& act);
/// The same without a text.
void on_first(Communicator& group, const std::function<void()>& act);

/// Calls `act` on every rank. Where it throws on any, throws on all what the lowest of those ranks threw, " (rank 3)" behind its message in a group of several.
/// PeerLost is not told to others: nothing can be told any more.
void on_all_ranks(Communicator& group, const std::function<void()>& act);

}  // namespace tandem
