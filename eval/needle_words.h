#pragma once
#include <span>
#include <string>
#include <string_view>

// The sentences of YOCO's needle protocol (arXiv 2405.05254, sec. 4.3 and its code) and the names
// that needles are about.

namespace tandem {

/// 99 cities, none the beginning of another.
std::span<const std::string_view> needle_cities();

inline constexpr std::string_view kYocoInstruction =
    "There is a special magic number inside a lot of irrelevant text. Find it and memorize them. I "
    "will quiz you about the magic number there. ";
/// "The special magic Lima number is 417 . "
std::string yoco_needle(std::string_view city, std::string_view number);
/// "What is the special magic Lima number? "; the answer begins with yoco_answer_prefix.
std::string yoco_question(std::string_view city);
/// "The special magic Lima number is "
std::string yoco_answer_prefix(std::string_view city);

}  // namespace tandem
