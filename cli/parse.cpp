#include "cli/parse.h"

#include <cstdio>
#include <string>

#include "core/error.h"

namespace tandem {

std::optional<int> parse_arguments(CLI::App& app, int argc, const char* const* argv) {
  try {
    app.parse(argc, argv);
    return std::nullopt;
  } catch (const CLI::Success&) {
    const CLI::App* shown = &app;
    std::string before;  // the commands typed before the one that is shown
    while (!shown->get_subcommands().empty()) {
      before += (before.empty() ? "" : " ") + shown->get_name();
      shown = shown->get_subcommands().front();
    }
    std::fputs(shown->help(before, CLI::AppFormatMode::Normal).c_str(), stdout);
    return kExitDone;
  } catch (const CLI::ParseError& error) {
    std::fprintf(stderr, "tandem: %s; see %s --help\n", error.what(), argv[0]);
    return kExitUsage;
  }
}

}  // namespace tandem
