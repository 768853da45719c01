#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

/// Who read our standard output has left, as `head` does: nothing is wrong and nothing is left to
/// do.
struct ReaderLeft {};

/// Writes to standard output and flushes. Throws ReaderLeft on a closed pipe, cannot_write on a
/// full disk and the like.
void print(std::string_view text);

/// Rows of cells in aligned columns, the first to the left and the others to the right; a rule
/// under the first row.
std::string format_table(const std::vector<std::vector<std::string>>& rows);

}  // namespace tandem
