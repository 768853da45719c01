#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

/// Names of what a task may do to a document before its templates see it, sorted.
std::vector<std::string> document_processes();
/// Adds fields to a document by a process of that name. Throws std::runtime_error where a field it
/// needs is missing or of another kind.
///   hellaswag    query and choices: the two parts of the context behind the activity, the endings,
///                without the brackets that WikiHow left in them
///   winogrande   contexts: the sentence up to its blank, filled with each option; ending: what
///                follows the blank; gold: place of the answer
///   wikitext     text: the page as it was before it was cut into words
void process_document(std::string_view process, nlohmann::ordered_json& document);

}  // namespace tandem
