#pragma once
#include "data/tokenize.h"

namespace tandem {

/// Throws bad_usage or bad_value for what a job may not ask for, before anything is read or written; std::logic_error for what only a program can.
void check_job(const Tokenizer& tokenizer, const TokenizeJob& job);

}  // namespace tandem
