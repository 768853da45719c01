#include "comm/launch.h"

#include <gtest/gtest.h>

#include <map>

#include "core/error.h"
#include "tests/data/temp_folder.h"

namespace tandem {
namespace {

std::map<std::string, std::string>& variables() {
  static std::map<std::string, std::string> map;
  return map;
}
std::optional<std::string> given(const char* name) {
  const auto found = variables().find(name);
  return found == variables().end() ? std::nullopt : std::optional(found->second);
}
Launch launch_in(std::map<std::string, std::string> environment, const LaunchFlags& flags = {}) {
  variables() = std::move(environment);
  return find_launch(flags, given);
}
std::string refusal_in(const std::map<std::string, std::string>& environment, const LaunchFlags& flags = {}) {
  return error_of([&] { launch_in(environment, flags); }, kExitUsage);
}

TEST(LaunchTest, WithoutALauncherThereIsOneProcess) {
  const Launch launch = launch_in({});
  EXPECT_EQ(launch.world, 1);
  EXPECT_EQ(launch.source, "one process");
}

TEST(LaunchTest, Torchrun) {
  std::map<std::string, std::string> environment = {
      {"RANK", "5"},          {"WORLD_SIZE", "8"},    {"LOCAL_RANK", "1"},          {"LOCAL_WORLD_SIZE", "4"},          {"MASTER_ADDR", "node1"},
      {"MASTER_PORT", "1234"}, {"SLURM_PROCID", "0"}, {"TORCHELASTIC_RUN_ID", "job"}, {"TORCHELASTIC_RESTART_COUNT", "2"}, {"TORCHELASTIC_USE_AGENT_STORE", "True"}};
  const Launch launch = launch_in(environment);
  EXPECT_EQ(launch.source, "torchrun");
  EXPECT_EQ(launch.rank, 5);
  EXPECT_EQ(launch.world, 8);
  EXPECT_EQ(launch.local_rank, 1);
  EXPECT_EQ(launch.local_world, 4);
  EXPECT_EQ(launch.address, "node1");
  EXPECT_EQ(launch.port, 1234);
  EXPECT_EQ(launch.attempt, "job/2");
  EXPECT_TRUE(launch.store_is_served);
}

TEST(LaunchTest, Slurm) {
  std::map<std::string, std::string> environment = {{"SLURM_PROCID", "3"},  {"SLURM_NTASKS", "4"},       {"SLURM_LOCALID", "1"}, {"SLURM_NTASKS_PER_NODE", "2"},
                                                    {"SLURM_JOB_ID", "77"}, {"SLURM_STEP_NODELIST", "gpu[003-007,12],x1"}, {"SLURM_STEP_ID", "0"}};
  Launch launch = launch_in(environment);
  EXPECT_EQ(launch.source, "Slurm");
  EXPECT_EQ(launch.rank, 3);
  EXPECT_EQ(launch.local_rank, 1);
  EXPECT_EQ(launch.address, "gpu003");
  EXPECT_EQ(launch.port, 15077);
  EXPECT_EQ(launch.attempt, "77.0/0");
  environment["SLURM_STEP_NODELIST"] = "a1,b[2-3]";
  EXPECT_EQ(launch_in(environment).address, "a1");
  environment["SLURM_STEP_NODELIST"] = "c[9,11]";
  EXPECT_EQ(launch_in(environment).address, "c9");
  environment["SLURM_STEP_NODELIST"] = "rack[0-3]node[1-4],other";
  EXPECT_EQ(launch_in(environment).address, "rack0node1");
  environment["SLURM_NTASKS_PER_NODE"] = "8";  // of the allocation
  EXPECT_EQ(launch_in(environment).local_world, 4);
  environment["SLURM_NTASKS_PER_NODE"] = "1";
  EXPECT_EQ(launch_in(environment).local_world, 2);  // as the local rank is 1
  environment["OMPI_COMM_WORLD_RANK"] = "0";  // started by mpirun, whose daemons srun started
  environment["OMPI_COMM_WORLD_SIZE"] = "9";
  environment["MASTER_ADDR"] = "h";
  EXPECT_EQ(launch_in(environment).source, "OpenMPI");
  environment.erase("OMPI_COMM_WORLD_RANK");
  environment["SLURM_STEP_ID"] = "4294967290";  // an interactive allocation's shell
  EXPECT_EQ(launch_in(environment).world, 1);
  environment.erase("SLURM_STEP_ID");  // a batch script's own shell
  EXPECT_EQ(launch_in(environment).world, 1);
}

TEST(LaunchTest, OpenMpiAndPmi) {
  Launch launch = launch_in({{"OMPI_COMM_WORLD_RANK", "1"}, {"OMPI_COMM_WORLD_SIZE", "2"}, {"MASTER_ADDR", "h"}});
  EXPECT_EQ(launch.source, "OpenMPI");
  EXPECT_EQ(launch.rank, 1);
  EXPECT_EQ(launch.port, 29500);
  launch = launch_in({{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}, {"MPI_LOCALRANKID", "1"}, {"MPI_LOCALNRANKS", "2"}, {"MASTER_ADDR", "h"}});
  EXPECT_EQ(launch.source, "PMI");
  EXPECT_EQ(launch.local_rank, 1);
}

TEST(LaunchTest, FlagsComeFirst) {
  const Launch launch = launch_in({{"RANK", "5"}, {"WORLD_SIZE", "8"}}, {.rank = 1, .world = 3, .local_rank = {}, .address = {}, .port = 99});
  EXPECT_EQ(launch.source, "flags");
  EXPECT_EQ(launch.rank, 1);
  EXPECT_EQ(launch.world, 3);
  EXPECT_EQ(launch.address, "127.0.0.1");
}

TEST(LaunchTest, SaysWhatIsMissingOrWrong) {
  EXPECT_EQ(refusal_in({{"RANK", "0"}}), "torchrun started this process without WORLD_SIZE");
  EXPECT_EQ(refusal_in({{"WORLD_SIZE", "2"}}), "WORLD_SIZE is set, RANK is not");
  EXPECT_EQ(refusal_in({{"RANK", "2"}, {"WORLD_SIZE", "2"}}), "RANK = 2, expected an integer from 0 to 1");
  EXPECT_EQ(refusal_in({{"RANK", "x"}, {"WORLD_SIZE", "2"}}), "RANK = x, expected an integer from 0 to 1");
  EXPECT_EQ(refusal_in({{"RANK", "0"}, {"WORLD_SIZE", "2"}}), "torchrun started this process without MASTER_ADDR");
  EXPECT_EQ(refusal_in({{"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", "2"}}), "OpenMPI started this process without MASTER_ADDR");
  EXPECT_EQ(refusal_in({}, {.rank = 0, .world = {}, .local_rank = {}, .address = {}, .port = {}}), "--rank needs --world");
  EXPECT_EQ(refusal_in({}, {.rank = 2, .world = 2, .local_rank = {}, .address = {}, .port = {}}), "--rank 2 --world 2, expected 0 <= rank < world");
  EXPECT_EQ(refusal_in({}, {.rank = 1, .world = 2, .local_rank = {}, .address = {}, .port = {}}), "--world 2 needs --port");
  EXPECT_EQ(refusal_in({}, {.rank = 1, .world = 2, .local_rank = {}, .address = {}, .port = 65536}), "--port 65536, expected 1 to 65535");
  EXPECT_EQ(refusal_in({}, {.rank = 1, .world = 2, .local_rank = 2, .address = {}, .port = 1}), "--local-rank 2 --world 2, expected 0 <= local rank < world");
  EXPECT_EQ(refusal_in({}, {.rank = {}, .world = {}, .local_rank = {}, .address = {}, .port = 1}), "--port needs --rank and --world");
  EXPECT_EQ(refusal_in({}, {.rank = {}, .world = {}, .local_rank = {}, .address = "h", .port = {}}), "--address needs --rank and --world");
}

}  // namespace
}  // namespace tandem
