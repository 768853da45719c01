#pragma once
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "core/packing.h"
#include "data/document_view.h"
#include "data/loader.h"
#include "data/sampler.h"

// Exactly once, in numbers: worker processes read a mixture through Sampler, Loader and share_of, called as the trainer calls them, and write down what they got. They are killed
// again and again, and go on from the last step that was saved with another world size. Then the ledgers must add up to each window of each source once per epoch, in the order of
// a run that nobody disturbed. The proof is of these three; the trainer, with its checkpoints, does not run here.
//
//   configuration.cpp   what is read: the data, made up so that a token tells where it stood, and the sampler over it
//   rank.cpp            one worker process
//   driver.cpp          starts them, kills them, starts them again
//   verify.cpp          the checks
//   program.cpp         the command line
//
// Files of one configuration: data/ with the token files, and for the runs whole/ (one rank, not disturbed) and killed/ a checkpoint.json, a board (board.h) and, of each attempt
// and rank, attempt-A-rank-R.jsonl: one line for each step.

namespace tandem {

/// How the tokens of a source lie on disk.
enum class LedgerFormat {
  kIndexed,
  kWeighted,  // indexed, beside a file of target weights
  kPacked,    // LITPKDS packed chunks, each document's last token kLedgerEos
};
inline constexpr int64_t kLedgerEos = 0;  // a number that no other token has; padding has it too, but segment -1

struct LedgerSource {
  int64_t documents, shortest, longest;  // lengths are in [shortest, longest], short ones are more frequent
  double weight;
  ViewSpec view = {};
  LedgerFormat format = LedgerFormat::kIndexed;
};
struct LedgerConfiguration {
  const char* name;
  const char* shuffle;
  bool mask_documents;
  int64_t context_length;
  int64_t rows;  // of one step; a multiple of no world size but 1, and at least 7, so that each of four ranks has one and the last has two
  Packing packing;
  std::vector<LedgerSource> sources;
};
const std::vector<LedgerConfiguration>& ledger_configurations();
const LedgerConfiguration& ledger_configuration(const std::string& name);

/// What a rank does wrong on purpose, to see that the checks find it.
enum class LedgerFault {
  kNone,
  kSkip,    // the last rank of a step leaves a sample out
  kRepeat,  // reads one twice
  kSwap,    // reads two in the wrong order
  kDrift,   // reads something else than the attempt before
  kLate,    // after a kill all ranks go on one step too late
};
inline constexpr const char* kLedgerFaults[] = {"none", "skip", "repeat", "swap", "drift", "late"};

/// What all processes of a run agree on.
struct LedgerPlan {
  const LedgerConfiguration* configuration = nullptr;
  std::string data;  // folder of the token files
  std::string run;   // folder of the run
  uint64_t seed = 1;
  int64_t steps = 0;
  LedgerFault fault = LedgerFault::kNone;

  SampleRange step(int64_t k) const { return {k * configuration->rows, configuration->rows}; }
  int64_t samples() const { return steps * configuration->rows; }
  std::string checkpoint() const { return run + "/checkpoint.json"; }
  std::string board() const { return run + "/board"; }
  std::string part(int64_t attempt, int64_t rank) const;  ///< path of a ledger
};

/// The documents of one source. No token but kLedgerEos occurs twice in a configuration, so each tells where it stood.
struct LedgerData {
  int64_t first_token = 1;  // tokens count up from here; where a document ends with kLedgerEos its number is left out
  std::vector<int64_t> lengths;
  int64_t tokens() const;
};
/// `scale` times as many documents as the configuration says.
std::vector<LedgerData> make_ledger_data(const LedgerConfiguration& configuration, uint64_t seed, int64_t scale);
void write_ledger_data(const LedgerConfiguration& configuration, const std::vector<LedgerData>& sources, const std::string& folder);
/// Of a token as a target, in a source with weights; some have 0.
float ledger_weight(int64_t token);
/// The sampler over the written data, with the configuration's way of shuffling or another.
Sampler ledger_sampler(const LedgerPlan& plan, const std::string& shuffle);
Mixture ledger_mixture(const LedgerConfiguration& configuration);
/// The fewest steps in which each source has been through `epochs` of its epochs.
int64_t ledger_steps(const LedgerPlan& plan, int64_t epochs);

/// A row as a ledger has it.
struct LedgerEntry {
  int64_t sample = 0;
  uint32_t crc = 0;  // CRC-32C of tokens, targets, segments and weights
};
/// Of one row; without weights they are 1 for the scored targets, as beside rows that have some.
uint32_t ledger_crc(std::span<const int64_t> tokens, std::span<const int64_t> targets, std::span<const int32_t> segment, std::span<const float> weights);
uint32_t ledger_crc(const Row& row);

inline constexpr int64_t kLedgerWorlds[] = {1, 2, 4, 3};
inline constexpr int64_t kLedgerSaveEvery = 4;  // steps

/// The first step that the last checkpoint leaves to do; 0 without one.
int64_t ledger_next_step(const LedgerPlan& plan);
/// A worker: reads rank `rank`'s share of each step from the checkpoint's on until all are done and the driver lets it go.
void run_ledger_rank(const LedgerPlan& plan, int64_t attempt, int64_t rank, int64_t world);

/// What a run found. Something that should never be is a violation.
class LedgerReport {
 public:
  nlohmann::ordered_json facts = nlohmann::ordered_json::object();
  void violation(const std::string& what) { violations_.push_back(what); }
  const std::vector<std::string>& violations() const { return violations_; }

 private:
  std::vector<std::string> violations_;
};

/// Ranks that lived at the same time.
struct LedgerAttempt {
  int64_t world = 1, first_step = 0;
};
/// Runs to the end under so many kills, in a world of one rank or, one after the other, in those of kLedgerWorlds. Throws std::runtime_error where ranks fail or hang.
std::vector<LedgerAttempt> drive_ledger(const LedgerPlan& plan, int64_t kills, LedgerReport& report);
/// Checks the ledgers of `killed` against those of `whole`, against the windows and against the data.
void verify_ledger(const LedgerPlan& killed, const std::vector<LedgerAttempt>& attempts, const LedgerPlan& whole, const std::vector<LedgerData>& data, LedgerReport& report);

struct LedgerOptions {
  std::string folder;  // made; what an earlier run of the same configuration left is removed
  int64_t epochs = 3, kills = 50, scale = 1;
  uint64_t seed = 1;
  LedgerFault fault = LedgerFault::kNone;
};
/// All of it for one configuration.
LedgerReport run_ledger(const LedgerConfiguration& configuration, const LedgerOptions& options);

/// The program. A process that calls drive_ledger() must come here when its first argument is "rank".
int ledger_main(int argc, const char* const* argv);

}  // namespace tandem
