#include "eval/cells.h"

#include "comm/agreement.h"
#include "core/checksum.h"
#include "core/error.h"
#include "core/file.h"
#include "core/progress.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kCell = "cell";

std::string kept_lines(const std::string& path) { return exists(path) ? read_text(path) : ""; }

}  // namespace

std::string cell_hash(const Json& identity) {
  const std::string text = nlohmann::json(identity).dump();  // keys sorted
  return sha256_hex(text).substr(0, 16);
}

CellRunner::CellRunner(const std::string& path, Communicator* control,
                       std::function<void(const Json&)> on_record)
    : control_(control), on_record_(std::move(on_record)) {
  if (path.empty()) return;
  read(path);
  const auto open = [&] { out_ = std::make_unique<JsonLinesWriter>(path); };
  control_ ? on_first(*control_, open) : open();
}

void CellRunner::read(const std::string& path) {
  const auto lines = [&] { return kept_lines(path); };
  const std::string text = control_ ? text_of_first(*control_, lines) : lines();
  int64_t number = 1;
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos;
       begin = end + 1, ++number) {
    try {
      Json record = parse_json(std::string_view(text).substr(begin, end - begin));
      if (!record.is_object()) throw std::runtime_error("expected an object");
      if (!record.contains(kCell)) continue;
      std::string hash = get_string(record, kCell);
      done_.insert_or_assign(std::move(hash), std::move(record));
    } catch (const std::runtime_error& error) {
      throw bad_file(path + ":" + std::to_string(number), error.what());
    }
  }
}

std::vector<Json> CellRunner::run(const std::string& label, std::span<const Cell> cells) {
  std::vector<size_t> missing;
  for (size_t i = 0; i < cells.size(); ++i) {
    const auto found = done_.find(cell_hash(cells[i].identity));
    if (found == done_.end())
      missing.push_back(i);
    else if (rank() == 0 && on_record_)
      on_record_(found->second);
  }
  Progress progress(label, static_cast<int64_t>(missing.size()), "cells");
  for (size_t begin = 0; begin < missing.size(); begin += world()) {
    const size_t n = std::min(world(), missing.size() - begin);
    measure(cells, std::span(missing).subspan(begin, n));
    progress.update(static_cast<int64_t>(begin + n));
  }
  std::vector<Json> records;
  for (const Cell& cell : cells) records.push_back(done_.at(cell_hash(cell.identity)));
  return records;
}

void CellRunner::measure(std::span<const Cell> cells, std::span<const size_t> round) {
  std::string mine;  // this rank's record
  const auto act = [&] {
    const auto r = static_cast<size_t>(rank());
    if (r >= round.size()) return;
    const Cell& cell = cells[round[r]];
    Json record = cell.identity;
    record[kCell] = cell_hash(cell.identity);
    const Json measured = cell.measure();  // items() only refers to it
    for (const auto& [key, value] : measured.items()) record[key] = value;
    mine = record.dump(-1, ' ', false, Json::error_handler_t::replace);
  };
  control_ ? on_all_ranks(*control_, act) : act();
  std::vector<Json> records;
  for (const std::string& text :
       control_ ? texts_of_all(*control_, mine) : std::vector<std::string>{mine})
    if (!text.empty()) records.push_back(Json::parse(text));
  const auto keep = [&] {
    for (const Json& record : records)
      if (out_) out_->write(record);
    if (out_) out_->sync();
  };
  control_ ? on_first(*control_, keep) : keep();
  for (const Json& record : records) {
    if (rank() == 0 && on_record_) on_record_(record);
    done_.insert_or_assign(get_string(record, kCell), record);
  }
}

}  // namespace tandem
