#include "cli/rank_process.h"

#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/cuda.h>

#include <cstdlib>

#include "cli/load_model.h"
#include "core/checksum.h"
#include "core/log.h"
#include "train/sharding.h"

namespace tandem {
namespace {

Mesh connect(const Launch& launch, const TrainConfig& config, torch::Device device) {
  const ParallelismConfig& parallelism = config.parallelism;
  const CommunicationConfig& communication = config.communication;
  MeshOptions options;
  options.limits = {communication.setup_seconds, communication.step_seconds,
                    communication.save_seconds};
  options.checked = communication.checked;
  options.cuda = device.is_cuda();
  TrainConfig written = config;
  const std::string text = to_yaml(write_config(written));
  options.fingerprint = sha256_hex(std::as_bytes(std::span(text)));
  return make_mesh(launch,
                   mesh_shape(shard_level(parallelism.shard), launch.world, parallelism.tensor,
                              parallelism.sequence, parallelism.replicate),
                   options);
}

}  // namespace

RankProcess::RankProcess(const Launch& launch, const TrainConfig& config, torch::Device device) {
  set_log_quiet(launch.rank != 0);
  mesh_ = connect(launch, config, device);
  GatherOptions watch;
  watch.rank = launch.rank;
  watch.world = launch.world;
  watch.address = launch.address;
  watch.heartbeat_seconds = config.communication.heartbeat_seconds;
  watch.connect_seconds = config.communication.setup_seconds;
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
