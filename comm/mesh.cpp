#include "comm/mesh.h"

#include <c10/core/impl/VirtualGuardImpl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <utility>
#include <vector>

#include "comm/meeting.h"
#include "comm/process_group.h"
#include "core/log.h"

namespace tandem {
namespace {

using Clock = std::chrono::steady_clock;

}  // namespace

std::string MeshShape::str() const {
  return fmt::format("data {} (replicate {}, shard {}), tensor {}, sequence {}", data, replicate,
                     shard(), tensor, sequence);
}

Mesh::~Mesh() {
  // All at once: after an error a group may have an operation under way whose other ranks wait for
  // this one in another group, and go on to fail only when that is gone.
  std::vector<std::thread> threads;
  for (auto* group :
       {&data, &tensor, &sequence, &gradient, &shard, &replica, &world, &control, &save}) {
    if (*group && (*group)->size() > 1)
      threads.emplace_back([group = std::move(*group)]() mutable { group.reset(); });
  }
  for (auto& thread : threads) thread.join();
}

void Mesh::set_time_limit(double seconds) {
  for (auto* group : {&data, &tensor, &sequence, &gradient, &shard, &replica, &world, &control})
    (*group)->set_time_limit(seconds);
}

void Mesh::finish() {
  if (world->size() == 1) return;
  control->barrier();
  for (auto* group :
       {&data, &tensor, &sequence, &gradient, &shard, &replica, &world, &control, &save})
    shut_down(**group);
}

Mesh make_mesh(const Launch& launch, const MeshShape& shape, const MeshOptions& options) {
  if (shape.world() != launch.world)
    throw bad_usage(
        fmt::format("a mesh of data {}, tensor {}, sequence {} has {} ranks, the launch has {}",
                    shape.data, shape.tensor, shape.sequence, shape.world(), launch.world));
  if (shape.replicate < 1 || shape.data * shape.sequence % shape.replicate != 0)
    throw bad_usage(
        fmt::format("a mesh with replicate {}, which does not divide data {} * sequence {}",
                    shape.replicate, shape.data, shape.sequence));
  if (launch.world == 1) return single_process_mesh();

  const auto begin = Clock::now();
  // One budget for the store, the meeting and the groups.
  const auto deadline = begin + std::chrono::duration_cast<Clock::duration>(
                                    std::chrono::duration<double>(options.limits.setup_seconds));
  const auto meeting = meet(launch, options, deadline);

  Mesh mesh;
  mesh.shape = shape;
  mesh.traffic = std::make_shared<Traffic>();
  mesh.meeting = meeting;

  // Ranks of the same color are one group, in their order (tests/comm/thread_ranks.h has the same).
  const auto make = [&](const char* name, auto color,
                        bool on_gpu) -> std::unique_ptr<Communicator> {
    std::vector<int64_t> members;
    for (int64_t r = 0; r < launch.world; ++r) {
      if (color(r) == color(launch.rank)) members.push_back(r);
    }
    if (members.size() == 1) return make_single_communicator(name);
    GroupSpec spec;
    spec.name = name;
    spec.rank = std::find(members.begin(), members.end(), launch.rank) - members.begin();
    spec.size = static_cast<int64_t>(members.size());
    const std::chrono::duration<double> left = deadline - Clock::now();
    spec.limit_seconds = std::max(left.count(), 1.0);
    spec.checked = options.checked;
    spec.traffic = mesh.traffic;
    const auto prefixed = [&](const char* kind) {
      return c10::make_intrusive<c10d::PrefixStore>(
          fmt::format("{}/{}/{}", name, color(launch.rank), kind), meeting->store);
    };
    BackendPointer host, backend;
    try {
      if (!on_gpu || options.checked) host = make_gloo(prefixed("host"), spec, meeting->address);
      backend = on_gpu ? make_nccl(prefixed("device"), spec) : host;
      if (on_gpu) spec.device = c10::impl::VirtualGuardImpl(at::kCUDA).getDevice();
    } catch (const UserError&) {
      throw;
    } catch (const std::exception& error) {
      const std::string text = error.what();
      throw PeerLost(fmt::format("the group {} of ranks {} did not come together: {}", name,
                                 fmt::join(members, ", "), text.substr(0, text.find('\n'))));
    }
    auto group = make_group(spec, std::move(backend), std::move(host));
    group->barrier();  // connections are made at the first use of some groups: now
    return group;
  };
  const int64_t t = shape.tensor, s = shape.sequence, shard = shape.shard();
  const auto all = [](int64_t) { return int64_t{0}; };
  mesh.control = make("control", all, false);
  mesh.save = make("save", all, false);
  mesh.world = make("world", all, options.cuda);
  mesh.tensor = make(
      "tensor", [=](int64_t r) { return r / t; }, options.cuda);
  mesh.sequence = make(
      "sequence", [=](int64_t r) { return r / (t * s) * t + r % t; }, options.cuda);
  mesh.data = make(
      "data", [=](int64_t r) { return r % (t * s); }, options.cuda);
  mesh.gradient = make(
      "gradient", [=](int64_t r) { return r % t; }, options.cuda);
  mesh.shard = make(
      "shard", [=](int64_t r) { return r / t / shard * t + r % t; }, options.cuda);
  mesh.replica = make(
      "replica", [=](int64_t r) { return r / t % shard * t + r % t; }, options.cuda);
  mesh.set_time_limit(options.limits.setup_seconds);
  mesh.save->set_time_limit(options.limits.save_seconds);
  log_line(fmt::format("{} ranks ({}) met in {:.1f} s: {}", launch.world, launch.source,
                       std::chrono::duration<double>(Clock::now() - begin).count(), shape.str()));
  return mesh;
}

}  // namespace tandem
