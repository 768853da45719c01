#include "comm/launch.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <utility>

#include "core/error.h"

namespace tandem {
namespace {

using Environment = std::optional<std::string> (*)(const char*);

/// `text` as an integer of [least, most]; throws naming `name`.
int64_t number_of(const std::string& name, const std::string& text, int64_t least, int64_t most) {
  int64_t value = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), value);
  if (read.ec == std::errc() && read.ptr == text.data() + text.size() && value >= least &&
      value <= most)
    return value;
  throw bad_usage(name + " = " + one_line(text) + ", expected an integer from " +
                  std::to_string(least) + " to " + std::to_string(most));
}

constexpr int64_t kMostRanks = 1'000'000;
constexpr int64_t kDefaultPort = 29500;

/// What one launcher calls things.
struct Names {
  const char *source, *rank, *world, *local_rank, *local_world;
};
constexpr Names kTorchrun = {"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"};
constexpr Names kSlurm = {"Slurm", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", nullptr};
constexpr Names kOpenMpi = {"OpenMPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
                            "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"};
constexpr Names kPmi = {"PMI", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"};

std::string required(Environment environment, const char* name, const std::string& source) {
  if (auto value = environment(name)) return *value;
  throw bad_usage(source + " started this process without " + name);
}

Launch read_names(Environment environment, const Names& names) {
  Launch launch;
  launch.source = names.source;
  launch.world =
      number_of(names.world, required(environment, names.world, names.source), 1, kMostRanks);
  launch.rank =
      number_of(names.rank, required(environment, names.rank, names.source), 0, launch.world - 1);
  launch.local_world = launch.world;
  if (names.local_world) {
    if (const auto text = environment(names.local_world))
      launch.local_world = number_of(names.local_world, *text, 1, launch.world);
  }
  launch.local_rank = launch.rank % launch.local_world;
  if (const auto text = environment(names.local_rank))
    launch.local_rank = number_of(names.local_rank, *text, 0, launch.local_world - 1);
  return launch;
}

/// "node[003-007,12],x1" -> "node003"; "rack[0-3]node[1-4]" -> "rack0node1"; "a,b" -> "a".
std::string first_host(const std::string& list) {
  std::string host;
  for (size_t i = 0; i < list.size() && list[i] != ','; ++i) {
    if (list[i] != '[') {
      host += list[i];
      continue;
    }
    const size_t end = std::min(list.find_first_of("-,]", i), list.size());
    host += list.substr(i + 1, end - i - 1);
    i = std::min(list.find(']', i), list.size() - 1);
  }
  return host;
}

/// Whether srun started this process as a task of a step. A batch script has Slurm's variables too,
/// without a step or, like an interactive allocation's shell, with one of its reserved numbers.
bool is_slurm_task(Environment environment) {
  constexpr int64_t kFirstReserved =
      0xfffffffa;  // SLURM_INTERACTIVE_STEP in slurm.h; the others are above
  const auto step = environment("SLURM_STEP_ID");
  return step && environment(kSlurm.rank) &&
         number_of("SLURM_STEP_ID", *step, 0, INT64_MAX) < kFirstReserved;
}

/// Where rank 0 is, as users of these launchers say it.
void read_address(Environment environment, Launch& launch) {
  if (launch.world == 1) return;
  launch.address = required(environment, "MASTER_ADDR", launch.source);
  launch.port = kDefaultPort;
  if (const auto port = environment("MASTER_PORT"))
    launch.port = number_of("MASTER_PORT", *port, 1, 65535);
}

Launch of_torchrun(Environment environment) {
  Launch launch = read_names(environment, kTorchrun);
  read_address(environment, launch);
  launch.attempt = environment("TORCHELASTIC_RUN_ID").value_or("none") + "/" +
                   environment("TORCHELASTIC_RESTART_COUNT").value_or("0");
  launch.store_is_served = environment("TORCHELASTIC_USE_AGENT_STORE").value_or("") == "True";
  return launch;
}

Launch of_slurm(Environment environment) {
  Launch launch = read_names(environment, kSlurm);
  // What the allocation asked for; a step may have fewer tasks, or more on one node.
  if (const auto text = environment("SLURM_NTASKS_PER_NODE"))
    launch.local_world =
        std::max(std::min(number_of("SLURM_NTASKS_PER_NODE", *text, 1, kMostRanks), launch.world),
                 launch.local_rank + 1);
  if (launch.world == 1) return launch;
  const auto nodes = environment("SLURM_STEP_NODELIST");
  launch.address = environment("MASTER_ADDR")
                       .value_or(first_host(
                           nodes ? *nodes : required(environment, "SLURM_JOB_NODELIST", "Slurm")));
  const std::string job = required(environment, "SLURM_JOB_ID", "Slurm");
  launch.port = 15000 + number_of("SLURM_JOB_ID", job, 0, INT64_MAX) % 30000;
  if (const auto port = environment("MASTER_PORT"))
    launch.port = number_of("MASTER_PORT", *port, 1, 65535);
  launch.attempt = job + "." + environment("SLURM_STEP_ID").value_or("0") + "/" +
                   environment("SLURM_RESTART_COUNT").value_or("0");
  return launch;
}

Launch of_mpi(Environment environment, const Names& names) {
  Launch launch = read_names(environment, names);
  read_address(environment, launch);
  return launch;
}

Launch of_flags(const LaunchFlags& flags) {
  if (!flags.rank || !flags.world)
    throw bad_usage(flags.rank ? "--rank needs --world" : "--world needs --rank");
  Launch launch;
  launch.source = "flags";
  launch.world = *flags.world;
  launch.rank = *flags.rank;
  if (launch.world < 1 || launch.world > kMostRanks || launch.rank < 0 ||
      launch.rank >= launch.world)
    throw bad_usage("--rank " + std::to_string(launch.rank) + " --world " +
                    std::to_string(launch.world) + ", expected 0 <= rank < world");
  launch.local_world = launch.world;
  launch.local_rank = flags.local_rank.value_or(launch.rank);
  if (launch.local_rank < 0 || launch.local_rank >= launch.world)
    throw bad_usage("--local-rank " + std::to_string(launch.local_rank) + " --world " +
                    std::to_string(launch.world) + ", expected 0 <= local rank < world");
  if (launch.world == 1) return launch;
  if (!flags.port) throw bad_usage("--world " + std::to_string(launch.world) + " needs --port");
  launch.address = flags.address.value_or("127.0.0.1");
  launch.port = *flags.port;
  if (launch.port < 1 || launch.port > 65535)
    throw bad_usage("--port " + std::to_string(launch.port) + ", expected 1 to 65535");
  return launch;
}

}  // namespace

std::optional<std::string> process_environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? std::optional<std::string>(value) : std::nullopt;
}

Launch find_launch(const LaunchFlags& flags, Environment environment) {
  if (flags.rank || flags.world) return of_flags(flags);
  for (const auto& [given, name] : {std::pair{flags.address.has_value(), "--address"},
                                    {flags.port.has_value(), "--port"},
                                    {flags.local_rank.has_value(), "--local-rank"}})
    if (given) throw bad_usage(std::string(name) + " needs --rank and --world");
  if (environment("RANK")) return of_torchrun(environment);
  // Before Slurm: there mpirun's daemons are the tasks, and what they start has their variables
  // too.
  if (environment(kOpenMpi.rank)) return of_mpi(environment, kOpenMpi);
  if (is_slurm_task(environment)) return of_slurm(environment);
  if (environment(kPmi.rank)) return of_mpi(environment, kPmi);
  if (environment("WORLD_SIZE").value_or("1") != "1")
    throw bad_usage("WORLD_SIZE is set, RANK is not");
  return {};
}

}  // namespace tandem
