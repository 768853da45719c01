#pragma once
#include <cstdint>
#include <optional>
#include <string>

namespace tandem {

/// Which of how many processes this one is, and where they meet.
struct Launch {
  int64_t rank = 0, world = 1, local_rank = 0, local_world = 1;
  std::string address = "127.0.0.1";  // of rank 0
  int64_t port = 0;                   // of the store on rank 0; 0 with a world of one
  std::string attempt = "0";          // of the job: a restarted one never meets the ranks of the one before
  bool store_is_served = false;       // by the launcher (torchrun's agent); else rank 0 serves it
  std::string source = "one process"; // for the log: "torchrun", "Slurm", "OpenMPI", "PMI", "flags"
};

/// What the user gave by flags; all that is absent is looked for in the environment.
struct LaunchFlags {
  std::optional<int64_t> rank, world, local_rank;
  std::optional<std::string> address;
  std::optional<int64_t> port;
};

/// Flags, then torchrun, OpenMPI, Slurm, PMI, in this order, then one process. `environment` looks up a variable: std::getenv but in tests.
/// Throws UserError (exit code 2) naming the variable or flag that is missing or wrong: RANK without WORLD_SIZE, a rank that is not below the world, no address, ...
Launch find_launch(const LaunchFlags& flags, std::optional<std::string> (*environment)(const char*));
std::optional<std::string> process_environment(const char* name);

}  // namespace tandem
