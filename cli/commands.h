#pragma once

namespace tandem {

// One function per subcommand. argv[0] is the command as typed ("tandem train"). They return an exit code and throw UserError.
int run_train(int argc, const char* const* argv);
int run_data(int argc, const char* const* argv);
int run_sweep(int argc, const char* const* argv);
int run_eval(int argc, const char* const* argv);
int run_generate(int argc, const char* const* argv);
int run_score(int argc, const char* const* argv);
int run_bench(int argc, const char* const* argv);
int run_convert(int argc, const char* const* argv);
int run_config(int argc, const char* const* argv);

}  // namespace tandem
