#include "comm/mesh.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <utility>
#include <vector>

#include "comm/process_group.h"
#include "core/log.h"

namespace tandem {

struct Mesh::Meeting {
  StorePointer store;  // under the prefix of this attempt
};

namespace {

using Clock = std::chrono::steady_clock;

std::chrono::milliseconds milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
}

std::vector<uint8_t> bytes_of(const std::string& text) { return {text.begin(), text.end()}; }
std::string text_of(const std::vector<uint8_t>& bytes) { return {bytes.begin(), bytes.end()}; }

std::string host_name() {
  char host[256] = "localhost";
  gethostname(host, sizeof host - 1);
  return host;
}

/// Connects to the store of rank 0 or of the launcher.
StorePointer open_store(const Launch& launch, double seconds) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(launch.port);
  options.isServer = launch.rank == 0 && !launch.store_is_served;
  options.waitWorkers = false;
  options.timeout = milliseconds(seconds);
  try {
    auto store = c10::make_intrusive<c10d::TCPStore>(launch.address, options);
    return c10::make_intrusive<c10d::PrefixStore>("tandem/" + launch.attempt, store);
  } catch (const std::exception& error) {
    std::string text = error.what();
    const std::string where = fmt::format("{}:{}", launch.address, launch.port);
    if (options.isServer)
      throw bad_usage(fmt::format("rank 0 cannot serve the meeting of ranks at {}: {}", where,
                                  text.substr(0, text.find('\n'))));
    throw PeerLost(fmt::format("rank {} did not reach rank 0 at {} within {} s: {}", launch.rank,
                               where, seconds, text.substr(0, text.find('\n'))));
  }
}

/// What ranks say when they come: world size, fingerprint, host.
std::string announcement(const Launch& launch, const MeshOptions& options) {
  return fmt::format("{}\n{}\n{}", launch.world, options.fingerprint, host_name());
}
std::string line_of(const std::string& text, size_t line) {
  size_t begin = 0;
  for (; line > 0; --line) begin = text.find('\n', begin) + 1;
  return text.substr(begin, text.find('\n', begin) - begin);
}

/// What each rank said, empty where one did not come in time.
std::vector<std::string> words_of_all(const StorePointer& store, const Launch& launch,
                                      double seconds) {
  const auto deadline = Clock::now() + milliseconds(seconds);
  std::vector<std::string> said(static_cast<size_t>(launch.world));
  for (;;) {
    bool complete = true;
    for (int64_t r = 0; r < launch.world; ++r) {
      auto& text = said[static_cast<size_t>(r)];
      const std::string key = fmt::format("rank/{}", r);
      if (text.empty() && store->check({key})) text = text_of(store->get(key));
      complete = complete && !text.empty();
    }
    if (complete || Clock::now() > deadline) return said;
    usleep(20'000);
  }
}

/// What is wrong with what ranks said: some did not come, or one was started with something else.
void check_words(const std::vector<std::string>& said, double seconds) {
  std::vector<size_t> missing;
  for (size_t r = 0; r < said.size(); ++r) {
    if (said[r].empty()) missing.push_back(r);
  }
  if (!missing.empty())
    throw PeerLost(fmt::format("rank{} {} of {} did not come within {} s",
                               missing.size() == 1 ? "" : "s", fmt::join(missing, ", "),
                               said.size(), seconds));
  for (size_t r = 1; r < said.size(); ++r) {
    const char* differs = line_of(said[r], 0) != line_of(said[0], 0)   ? "world size"
                          : line_of(said[r], 1) != line_of(said[0], 1) ? "config"
                                                                       : nullptr;
    if (!differs) continue;
    throw bad_usage(fmt::format("rank {} ({}) was started with another {} than rank 0 ({})", r,
                                line_of(said[r], 2), differs, line_of(said[0], 2)));
  }
}

/// Waits until every rank has come, and compares what they say with what rank 0 does. All come to
/// the same end of it.
void meet(const StorePointer& store, const Launch& launch, const MeshOptions& options) {
  const double seconds = options.limits.setup_seconds;
  std::vector<std::string> said;
  try {
    store->set(fmt::format("rank/{}", launch.rank), bytes_of(announcement(launch, options)));
    said = words_of_all(store, launch, seconds);
    store->add("read", 1);
  } catch (const std::exception& error) {
    const std::string text = error.what();
    throw PeerLost(
        fmt::format("rank 0 left while ranks were meeting: {}", text.substr(0, text.find('\n'))));
  }
  try {
    check_words(said, seconds);
  } catch (const UserError&) {
    // The store goes with rank 0: it stays until those who came have read the same.
    const auto came =
        std::count_if(said.begin(), said.end(), [](const auto& s) { return !s.empty(); });
    const auto deadline = Clock::now() + std::chrono::seconds(2);
    while (launch.rank == 0 && store->add("read", 0) < came && Clock::now() < deadline)
      usleep(5'000);
    throw;
  }
}

}  // namespace

std::string MeshShape::str() const {
  return fmt::format("data {}, sequence {}, tensor {} (replicate {}, shard {})", data, sequence,
                     tensor, replicate, shard());
}

Mesh::~Mesh() {
  for (auto* group :
       {&data, &tensor, &sequence, &gradient, &shard, &replica, &world, &control, &save})
    group->reset();
}

void Mesh::set_time_limit(double seconds) {
  for (auto* group : {&data, &tensor, &sequence, &gradient, &shard, &replica, &world, &control})
    (*group)->set_time_limit(seconds);
}

void Mesh::finish() {
  if (world->size() > 1) control->barrier();
}

void publish(Mesh::Meeting& meeting, const std::string& key, const std::string& value) {
  meeting.store->set(key, bytes_of(value));
}

std::string lookup(Mesh::Meeting& meeting, const std::string& key, double seconds) {
  try {
    meeting.store->wait({key}, milliseconds(seconds));
    return text_of(meeting.store->get(key));
  } catch (const std::exception& error) {
    const std::string text = error.what();
    throw PeerLost(fmt::format("nobody said {} within {} s: {}", key, seconds,
                               text.substr(0, text.find('\n'))));
  }
}

Mesh make_mesh(const Launch& launch, const MeshShape& shape, const MeshOptions& options) {
  if (shape.world() != launch.world)
    throw bad_usage(fmt::format("a mesh of {} has {} ranks, the launch has {}", shape.str(),
                                shape.world(), launch.world));
  TORCH_CHECK(shape.replicate >= 1 && shape.data * shape.sequence % shape.replicate == 0,
              "make_mesh: replicate ", shape.replicate,
              " does not divide data * sequence = ", shape.data * shape.sequence);
  if (launch.world == 1) return single_process_mesh();

  const auto begin = Clock::now();
  const auto meeting = std::make_shared<Mesh::Meeting>();
  meeting->store = open_store(launch, options.limits.setup_seconds);
  meet(meeting->store, launch, options);

  Mesh mesh;
  mesh.shape = shape;
  mesh.traffic = std::make_shared<Traffic>();
  mesh.meeting = meeting;
  // Where this process listens: on loopback when rank 0 does.
  const bool loopback = launch.address == "localhost" || launch.address.starts_with("127.");
  const std::string address = loopback ? "127.0.0.1" : host_name();

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
    spec.limit_seconds = options.limits.setup_seconds;
    spec.checked = options.checked;
    spec.traffic = mesh.traffic;
    const auto prefixed = [&](const char* kind) {
      return c10::make_intrusive<c10d::PrefixStore>(
          fmt::format("{}/{}/{}", name, color(launch.rank), kind), meeting->store);
    };
    BackendPointer host, backend;
    try {
      if (!on_gpu || options.checked) host = make_gloo(prefixed("host"), spec, address);
      if (on_gpu)
        spec.device = at::Device(at::kCUDA, static_cast<at::DeviceIndex>(launch.local_rank));
      backend = on_gpu ? make_nccl(prefixed("device"), spec) : host;
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
  mesh.save->set_time_limit(options.limits.save_seconds);
  log_line(fmt::format("{} ranks ({}) met in {:.1f} s: {}", launch.world, launch.source,
                       std::chrono::duration<double>(Clock::now() - begin).count(), shape.str()));
  return mesh;
}

}  // namespace tandem
