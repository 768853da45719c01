#pragma once
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

// Text as Python sees it, since published prompts and word counts are made with its functions. All
// text is valid UTF-8.

bool is_space(char32_t code);                    ///< str.isspace() of one character, and \s
size_t count_characters(std::string_view text);  ///< len(str): code points
std::string_view strip_left(std::string_view text);
std::string_view strip_right(std::string_view text);
std::string_view strip(std::string_view text);
/// str.split(separator), which is not empty: pieces between its occurrences, empty ones too.
std::vector<std::string> split(std::string_view text, std::string_view separator);
std::string replace_all(std::string_view text, std::string_view from, std::string_view to);
/// str.capitalize(): the first character in title case, all others in lower case. Characters that
/// become several in another case (but for U+0130) and the final sigma keep Unicode's simple
/// mapping.
std::string capitalize(std::string_view text);
/// len(re.split(r"\s+", text)): words with the empty ones before and behind outer spaces.
size_t count_words(std::string_view text);

}  // namespace tandem
