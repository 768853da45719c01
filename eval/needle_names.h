#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

// Words for RULER's keys ("quiet-harbor") and names for the phone book.

namespace tandem {

std::span<const std::string_view> needle_adjectives();
std::span<const std::string_view> needle_nouns();

/// How many names person_name() tells apart.
int64_t person_names();
/// Name `i` of [0, person_names()): "Ada Moreno"; beyond the plain ones with an initial, "Ada K.
/// Moreno".
std::string person_name(int64_t i);
/// Those without an initial come first.
int64_t plain_person_names();

}  // namespace tandem
