#include "cli/rank_process.h"

#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/cuda.h>

#include <cstdlib>

#include "cli/load_model.h"
#include "core/checksum.h"
#include "core/log.h"

namespace tandem {
namespace {

Mesh connect(const Launch& launch, const MeshShape& shape,
             const CommunicationConfig& communication, const std::string& work,
             torch::Device device) {
  MeshOptions options;
  options.limits = {communication.setup_seconds, communication.step_seconds,
                    communication.save_seconds};
  options.checked = communication.checked;
  options.cuda = device.is_cuda();
  options.fingerprint = sha256_hex(work);
  return make_mesh(launch, shape, options);
}

}  // namespace

RankProcess::RankProcess(const Launch& launch, const MeshShape& shape,
                         const CommunicationConfig& communication, const std::string& work,
                         torch::Device device) {
  set_log_quiet(launch.rank != 0);
  mesh_ = connect(launch, shape, communication, work, device);
  GatherOptions watch;
  watch.rank = launch.rank;
  watch.world = launch.world;
  watch.address = launch.address;
  watch.heartbeat_seconds = communication.heartbeat_seconds;
  watch.connect_seconds = communication.setup_seconds;
  Rendezvous rendezvous;
  rendezvous.publish = [this](const std::string& key, const std::string& value) {
    publish(*mesh_.meeting, key, value);
  };
  rendezvous.lookup = [this](const std::string& key, double seconds) {
    return lookup(*mesh_.meeting, key, seconds);
  };
  liveness_.emplace(watch, rendezvous, [](const std::string& line) {
    set_log_quiet(false);  // every rank says why it leaves
    log_line(line);
  });
}

int RankProcess::run(const std::function<int()>& act) {
  try {
    const int code = act();
    mesh_.finish();
    liveness_->goodbye(code);
    return code;
  } catch (const PeerLost& error) {
    liveness_->leave(error.what());
  } catch (const UserError& error) {
    liveness_->goodbye(error.exit_code(), error.what());
    throw;
  } catch (const std::exception& error) {
    liveness_->goodbye(kExitInternal, error.what());
    throw;
  }
}

void add_launch_options(CLI::App& app, LaunchFlags& flags) {
  app.add_option("--rank", flags.rank,
                 "Number of this process among --world; by default torchrun, Slurm, OpenMPI or PMI "
                 "tell");
  app.add_option("--world", flags.world, "Processes that work together");
  app.add_option("--local-rank", flags.local_rank, "Number among those of this machine: its GPU");
  app.add_option("--address", flags.address, "Where rank 0 is; default: 127.0.0.1");
  app.add_option("--port", flags.port, "Where ranks meet there")->check(CLI::Range(1, 65535));
}

torch::Device device_of_rank(const std::string& word, const Launch& launch) {
  torch::Device device = parse_device(word);
  if (!device.is_cuda()) return device;
  const auto n_gpus = static_cast<int64_t>(torch::cuda::device_count());
  if (launch.world > 1) {
    // srun --gpus-per-task=1 shows each task its own GPU alone.
    const bool own_gpu = n_gpus == 1 && launch.local_world > 1 && launch.source == "Slurm" &&
                         std::getenv("CUDA_VISIBLE_DEVICES") != nullptr;
    if (launch.local_rank >= n_gpus && !own_gpu)
      throw bad_usage("local rank " + std::to_string(launch.local_rank) + " has no GPU: found " +
                      std::to_string(n_gpus) + ", and NCCL takes one rank a GPU");
    device = torch::Device(torch::kCUDA,
                           static_cast<torch::DeviceIndex>(own_gpu ? 0 : launch.local_rank));
  }
  c10::impl::VirtualGuardImpl(torch::kCUDA).setDevice(device);
  return device;
}

}  // namespace tandem
