#pragma once
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "comm/communicator.h"
#include "core/json_lines.h"

namespace tandem {

/// One result of an evaluation, the unit that is measured, recorded, skipped when it is already there, and given to one rank.
struct Cell {
  /// All that decides the numbers; begins with about(). Two cells of one identity have one result.
  nlohmann::ordered_json identity;
  /// The fields that follow in the record. Called by one rank alone, so it must not speak to others.
  std::function<nlohmann::ordered_json()> measure;
};

/// The record of a cell in a result file: identity, then "cell" (the identity's hash, 16 hex digits), then what was measured.
std::string cell_hash(const nlohmann::ordered_json& identity);

/// Measures the cells of an evaluation that a result file does not hold yet, and appends each to it when it is there: a killed evaluation goes on where it was.
class CellRunner {
 public:
  /// `path`: JSON lines, made when missing; empty: nothing is kept. Lines without "cell" are left alone. The ranks of `control` share the work (null: this process does all); rank 0 alone reads
  /// and writes the file. `on_record` is called on rank 0 with each record, found or measured. Throws UserError on all ranks where the file cannot be read or written.
  CellRunner(const std::string& path, Communicator* control, std::function<void(const nlohmann::ordered_json& record)> on_record);
  /// Their records, in order, on every rank. Shows progress under `label`. Where a cell throws, throws on all ranks what the lowest rank's did; cells of
  /// earlier rounds (one cell a rank) are kept.
  std::vector<nlohmann::ordered_json> run(const std::string& label, std::span<const Cell> cells);
  /// Whether its record is there, so that what only its measurement needs need not be made.
  bool has(const nlohmann::ordered_json& identity) const { return done_.contains(cell_hash(identity)); }

 private:
  void read(const std::string& path);
  void measure(std::span<const Cell> cells, std::span<const size_t> round);
  int64_t rank() const { return control_ ? control_->rank() : 0; }
  size_t world() const { return control_ ? static_cast<size_t>(control_->size()) : 1; }
  Communicator* control_;
  std::function<void(const nlohmann::ordered_json&)> on_record_;
  std::unique_ptr<JsonLinesWriter> out_;                   // on rank 0, where something is kept
  std::map<std::string, nlohmann::ordered_json> done_;     // by cell hash
};

}  // namespace tandem
