#include <gtest/gtest.h>

#include <map>
#include <set>

#include "core/version.h"
#include "nn/checkpoint.h"
#include "tests/train/helpers.h"
#include "train/drift.h"
#include "train/train_step.h"

namespace tandem {
namespace {

std::map<std::string, std::string> final_checkpoint(const TempFolder& folder,
                                                    const std::string& run) {
  return bytes_of_folder(checkpoint_folder(folder / run, 9));
}

void flip_last_byte(const std::string& path) {
  std::string bytes = file_bytes(path);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  write_file(path, bytes);
}

class ResumeTest : public testing::Test {
 protected:
  ResumeTest() { train_tiny(folder_, "whole"); }
  /// Losses, norms, validations and every byte of the last checkpoint are those of the run that
  /// never stopped.
  void expect_same_as_whole(const std::string& run) {
    EXPECT_EQ(metrics_of(folder_ / run), metrics_of(folder_ / "whole"));
    EXPECT_TRUE(final_checkpoint(folder_, run) == final_checkpoint(folder_, "whole"));
  }
  std::string refusal(const std::vector<std::string>& words) {
    return error_of([&] { train_tiny(folder_, "part", words); }, kExitUsage);
  }
  std::string log() const { return read_text(folder_ / "part/log.txt"); }
  TempFolder folder_;
};

TEST_F(ResumeTest, EqualsNeverHavingStopped) {
  for (const int64_t stop_at : {1, 3, 4, 8}) {  // 4 and 8 have a validation
    const TrainOutcome outcome = train_tiny(folder_, "part", {}, stop_at);
    EXPECT_EQ(outcome.exit_code, 0);
    EXPECT_EQ(outcome.step, stop_at);
  }
  EXPECT_EQ(train_tiny(folder_, "part").step, 9);
  expect_same_as_whole("part");
  EXPECT_EQ(read_json(folder_ / "part/run.json").at("starts").size(), 5u);
}

TEST_F(ResumeTest, EqualsNeverHavingStoppedInBfloat16) {
  const std::vector<std::string> words = {"training.dtype=bfloat16", "data.mask_documents=true",
                                          "data.shuffle=documents"};
  train_tiny(folder_, "a", words);
  train_tiny(folder_, "b", words, 5);
  train_tiny(folder_, "b", words);
  EXPECT_EQ(metrics_of(folder_ / "a"), metrics_of(folder_ / "b"));
  EXPECT_TRUE(final_checkpoint(folder_, "a") == final_checkpoint(folder_, "b"));
}

TEST_F(ResumeTest, GoesBackToTheLastCheckpoint) {
  train_tiny(folder_, "part", {}, 5);
  std::filesystem::remove_all(
      checkpoint_folder(folder_ / "part", 5));  // as if killed before it was there
  EXPECT_EQ(metrics_of(folder_ / "part").size(),
            6u);  // metrics are ahead of the checkpoint of step 4
  train_tiny(folder_, "part");
  expect_same_as_whole("part");
}

TEST_F(ResumeTest, AValidationThatAStopPreventedIsMadeUpFor) {
  train_tiny(folder_, "part", {}, 4);
  const std::string path = folder_ / "part/metrics.jsonl";
  const std::string text = read_text(path);
  write_file(path, text.substr(0, text.find("{\"step\":4,\"validation_loss\"")));
  train_tiny(folder_, "part");
  expect_same_as_whole("part");
}

TEST_F(ResumeTest, AValidationOfTheLastStepThatASignalPreventedIsMadeUpFor) {
  train_tiny(folder_, "part", {}, 8);
  for (int start = 0; start < 2; ++start) {  // in the last step, then in its validation
    EXPECT_EQ(train_tiny(folder_, "part", {}, {}, raising_factory(SIGTERM)).exit_code, 143);
    EXPECT_EQ(checkpoint_steps(folder_ / "part").back(), 9);
    EXPECT_EQ(metrics_of(folder_ / "part").size(), 11u);  // 9 steps, validations of 4 and 8
  }
  EXPECT_EQ(train_tiny(folder_, "part").exit_code, 0);
  expect_same_as_whole("part");
  train_tiny(folder_, "part");
  EXPECT_NE(log().find("finished, at step 9 of 9"), std::string::npos) << log();
}

TEST_F(ResumeTest, AStopThatIsPassedAlreadyStopsAtOnce) {
  train_tiny(folder_, "part", {}, 5);
  const TrainOutcome outcome = train_tiny(folder_, "part", {}, 3);
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(outcome.step, 5);
  EXPECT_NE(log().find("stopped after step 5 of 9, as --stop-at 3 says; the same command without "
                       "it goes on"),
            std::string::npos)
      << log();
}

/// Writes a checkpoint anew, its sums right, with another state.json.
void change_state(const std::string& folder, const std::string& key,
                  const nlohmann::ordered_json& value) {
  CheckpointContents contents;
  {
    const Checkpoint old(folder);
    contents.step = old.step();
    contents.config_yaml = old.config_yaml();
    contents.state = old.state();
    for (const auto& name : old.weight_names())
      contents.weights.push_back(whole_piece("", name, old.weight(name)));
  }
  contents.state[key] = value;
  std::filesystem::remove_all(folder);
  write_checkpoint(folder, contents);
}

TEST_F(ResumeTest, AStateThatContradictsItsCheckpointIsRefused) {
  const std::string checkpoint = checkpoint_folder(folder_ / "part", 2);
  const auto message_with = [&](const std::string& key, const nlohmann::ordered_json& value) {
    std::filesystem::remove_all(folder_ / "part");
    train_tiny(folder_, "part", {}, 2);
    change_state(checkpoint, key, value);
    return error_of([&] { train_tiny(folder_, "part"); });
  };
  const std::string path = checkpoint + "/state.json: ";
  EXPECT_EQ(message_with("step", 3), path + "step = 3, expected an integer in [2, 2]");
  EXPECT_EQ(message_with("next_sample", -7),
            path + "next_sample = -7, expected an integer in [0, 9223372036854775807]");
  EXPECT_EQ(message_with("data_hash", nullptr), path + "data_hash = null, expected a string");
}

TEST_F(ResumeTest, WarnsOfAnotherPlace) {
  train_tiny(folder_, "part", {}, 2);
  const std::string path = folder_ / "part/run.json";
  auto run = read_json(path);
  auto& start = run["starts"][0];
  EXPECT_EQ(start.at("tandem"), kTandemVersion);
  const std::string compiler = start.at("compiler").dump();
  start["compiler"] = "another";
  write_file(path, run.dump());
  train_tiny(folder_, "part", {}, 3);
  EXPECT_NE(log().find("warning: compiler was \"another\", is " + compiler +
                       "; further steps may differ in their last bits"),
            std::string::npos)
      << log();
  EXPECT_EQ(log().find("libtorch was"), std::string::npos);
}

TEST_F(ResumeTest, FallsBackPastDamage) {
  train_tiny(folder_, "part", {}, 6);
  const std::string model = checkpoint_folder(folder_ / "part", 6) + "/model.safetensors";
  flip_last_byte(model);
  train_tiny(folder_, "part");
  expect_same_as_whole("part");
  EXPECT_NE(log().find("warning: " + model + ": tensor "), std::string::npos) << log();
  EXPECT_NE(log().find("going on after step 4"), std::string::npos);
  EXPECT_TRUE(exists(checkpoint_folder(folder_ / "part", 6) + ".damaged"));
}

TEST_F(ResumeTest, NothingButDamageIsAnError) {
  train_tiny(folder_, "part", {}, 1);
  flip_last_byte(checkpoint_folder(folder_ / "part", 1) + "/state.json");
  EXPECT_EQ(error_of([&] { train_tiny(folder_, "part"); }),
            (folder_ / "part") + ": none of its 1 checkpoints verifies");
}

TEST_F(ResumeTest, AFinishedRunSaysSo) {
  const auto before = final_checkpoint(folder_, "whole");
  const TrainOutcome outcome = train_tiny(folder_, "whole");
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(outcome.step, 9);
  EXPECT_TRUE(before == final_checkpoint(folder_, "whole"));
  EXPECT_NE(
      read_text(folder_ / "whole/log.txt").find((folder_ / "whole") + ": finished, at step 9 of 9"),
      std::string::npos);
}

TEST_F(ResumeTest, RefusesWhatWouldChangeTheNumbers) {
  train_tiny(folder_, "part", {}, 2);
  const std::string begin = (folder_ / "part") + ": cannot be resumed with another config: ",
                    end = "; go back, or start another run with --out";
  EXPECT_EQ(refusal({"training.seed=6"}), begin + "training.seed was 5, is 6" + end);
  EXPECT_EQ(refusal({"optimizer.lr=0.02"}), begin + "optimizer.lr was 0.01, is 0.02" + end);
  EXPECT_EQ(refusal({"training.dtype=bfloat16"}),
            begin + "training.dtype was float32, is bfloat16" + end);
  EXPECT_EQ(refusal({"model.n_layers=3"}), begin + "model.n_layers was 2, is 3" + end);
  EXPECT_EQ(refusal({"data.mask_documents=true", "training.tokens_per_step=104"}),
            begin +
                "data.mask_documents was false, is true; training.tokens_per_step was 78, is 104" +
                end);
  EXPECT_EQ(refusal({"lr_schedule.name=linear"}),
            begin + "lr_schedule.name was cosine, is linear" + end);
  EXPECT_EQ(refusal({"lr_schedule={name: constant}"}),
            begin +
                "lr_schedule.name was cosine, is constant; lr_schedule.warmup_steps was 2, is 0; "
                "lr_schedule.steps was 9, is absent; "
                "lr_schedule.min_lr was 0.001, is 0" +
                end);
  EXPECT_EQ(refusal({"init.from=x"}),
            begin + "init.from was absent, is x; init.as was absent, is weights" + end);
  train_tiny(folder_, "part");
  expect_same_as_whole("part");
}

TEST_F(ResumeTest, MoreStepsNeedAScheduleThatDoesNotFollow) {
  const std::vector<std::string> follows = {
      "lr_schedule={name: cosine, warmup_steps: 2, min_lr: 0.001}"};
  train_tiny(folder_, "part", follows, 2);
  EXPECT_EQ(refusal({follows[0], "training.steps=12"}),
            (folder_ / "part") +
                ": cannot be resumed with another config: lr_schedule.steps was 9, is 12; the "
                "schedule ends with training.steps, so "
                "other steps would have had other learning rates: to keep it write "
                "lr_schedule.steps=9; go back, or start another run with --out");
  EXPECT_EQ(train_tiny(folder_, "part", {"training.steps=12"}).step,
            12);  // tiny_yaml has lr_schedule.steps=9
}

TEST_F(ResumeTest, AllowsWhatDoesNotChangeThem) {
  train_tiny(folder_, "part", {}, 3);
  const std::vector<std::string> words = {"checkpoint.every=3", "metrics.log_every=1",
                                          "metrics.tensorboard=false", "validation.every=9"};
  EXPECT_EQ(train_tiny(folder_, "part", words).step, 9);
  EXPECT_NE(log().find("changed since the checkpoint: checkpoint.every was 2, is 3"),
            std::string::npos)
      << log();
  EXPECT_EQ(Checkpoint(checkpoint_folder(folder_ / "part", 9))
                .weight("head.weight")
                .equal(Checkpoint(checkpoint_folder(folder_ / "whole", 9)).weight("head.weight")),
            true);
}

TEST_F(ResumeTest, WarnsOfAnotherOrderOfSums) {
  train_tiny(folder_, "part", {}, 3);
  train_tiny(folder_, "part", {"training.micro_batch_size=3"});
  EXPECT_NE(log().find("warning: training.micro_batch_size was 2, is 3; further steps differ in "
                       "their last bits"),
            std::string::npos)
      << log();
  const auto metrics = metrics_of(folder_ / "part"), whole = metrics_of(folder_ / "whole");
  ASSERT_EQ(metrics.size(), whole.size());
  for (size_t i = 0; i < metrics.size(); ++i) {
    const char* key = whole[i].contains("loss") ? "loss" : "validation_loss";
    EXPECT_NEAR(metrics[i].at(key).get<double>(), whole[i].at(key).get<double>(), 1e-3);
  }
}

TEST_F(ResumeTest, ThreadsStayAsRecorded) {
  train_tiny(folder_, "part", {"training.threads=2"}, 2);
  // A config that does not write the key takes what the first start recorded.
  train_tiny(folder_, "part",
             {"training={context_length: 13, tokens_per_step: 78, micro_batch_size: 2, steps: 9, "
              "seed: 5}"},
             3);
  EXPECT_EQ(read_json(folder_ / "part/run.json").at("starts")[1].at("threads"), 2);
  train_tiny(folder_, "part", {"training.threads=1"}, 4);
  EXPECT_NE(log().find("warning: training.threads was 2, is 1; "), std::string::npos);
}

TEST_F(ResumeTest, RefusesOtherData) {
  train_tiny(folder_, "part", {}, 2);
  std::filesystem::copy(folder_ / "train.bin", folder_ / "moved.bin");
  std::filesystem::copy(folder_ / "train.idx", folder_ / "moved.idx");
  train_tiny(folder_, "part", {"data.train=[{path: " + (folder_ / "moved") + "}]"},
             3);  // the same contents elsewhere
  flip_last_byte(folder_ / "train.bin");
  const std::string message = refusal({});
  EXPECT_TRUE(message.starts_with(
      (folder_ / "part") +
      ": cannot be resumed: the contents of data.train changed, their hash was "))
      << message;
}

TEST_F(ResumeTest, RefusesAnotherReadingOfASource) {
  std::string raw;  // of 60 documents of 1 to 14 tokens that end with 7
  for (int d = 0; d < 60; ++d) {
    for (int i = 0; i < d % 14; ++i) raw += {static_cast<char>(20 + i), '\0'};
    raw += {'\7', '\0'};
  }
  if (raw.size() % 4 != 0) raw += {'\1', '\0'};  // so that it could be uint32
  write_file(folder_ / "raw.bin", raw);
  const auto source = [&](const std::string& keys) {
    return std::vector<std::string>{"data.train=[{path: " + (folder_ / "raw.bin") + ", " + keys +
                                    "}]"};
  };
  const std::string key = (folder_ / "part") +
                          ": cannot be resumed with another config: " + "data.train[0].",
                    end = "; go back, or start another run with --out";
  train_tiny(folder_, "part",
             source("dtype: uint16, eos_id: 7, min_length: 3, upsample: {from: 9, times: 2}"), 2);
  EXPECT_EQ(
      refusal(source("dtype: uint16, eos_id: 7, min_length: 4, upsample: {from: 9, times: 2}")),
      key + "min_length was 3, is 4" + end);
  EXPECT_EQ(
      refusal(source("dtype: uint16, eos_id: 7, min_length: 3, upsample: {from: 9, times: 3}")),
      key + "upsample.times was 2, is 3" + end);
  EXPECT_EQ(
      refusal(source("dtype: uint16, eos_id: 7, min_length: 3")),
      key + "upsample.from was 9, is absent; data.train[0].upsample.times was 2, is absent" + end);
  EXPECT_EQ(
      refusal(source("dtype: uint16, eos_id: 20, min_length: 3, upsample: {from: 9, times: 2}")),
      key + "eos_id was 7, is 20" + end);
  EXPECT_EQ(
      refusal(source("dtype: uint32, eos_id: 7, min_length: 3, upsample: {from: 9, times: 2}")),
      key + "dtype was uint16, is uint32" + end);
}

TEST(DriftTest, ConfigsFromBeforeDocumentsCouldBeChosenStillFit) {
  const TempFolder folder;
  TrainConfig config = tiny_config(folder.path());
  const ConfigNode written = write_config(config);
  // All keys of a source that such a config has.
  EXPECT_EQ(inline_yaml(*written.find("data")->find("train")),
            "[{path: " + (folder / "train") + ", target_weights: false, weight: 1}]");
  EXPECT_EQ(inline_yaml(*written.find("data")->find("validation")),
            "[{path: " + (folder / "valid") + ", target_weights: false}]");
  TrainConfig old = make_train_config(tiny_factory());
  read_config(parse_yaml(to_yaml(written), "config.yaml"), old);
  EXPECT_TRUE(find_drift(write_config(old), written).empty());
}

TEST(DriftTest, EveryKeyOfTheConfigHasAVerdict) {
  const TempFolder folder;
  TrainConfig config = tiny_config(
      folder.path(),
      {"training.batch_ramp={from: 26, steps: 3}", "init={from: x}", "checkpoint.keep_every=4",
       "lr_schedule={name: warmup_stable_decay, steps: 9, decay_steps: 3}",
       "optimizer.groups=[{parameters: [embedding.weight], weight_decay: 0}]"});
  std::map<Verdict, std::set<std::string>> keys;
  for (const Drift& drift : find_drift(ConfigNode::make_map(), write_config(config)))
    keys[drift.verdict].insert(drift.key);
  EXPECT_EQ(keys[Verdict::kWarn],
            (std::set<std::string>{"parallelism.bucket_mb", "parallelism.reduce_dtype", "parallelism.replicate", "parallelism.sequence", "parallelism.shard", "parallelism.tensor", "training.micro_batch_size", "training.threads"}));
  EXPECT_EQ(keys[Verdict::kAllow], (std::set<std::string>{"bad_steps.max_rollbacks",
                                                          "bad_steps.max_skips",
                                                          "bad_steps.non_finite",
                                                          "bad_steps.spike",
                                                          "bad_steps.spike_threshold",
                                                          "bad_steps.spike_window",
                                                          "checkpoint.async",
                                                          "checkpoint.every",
                                                          "checkpoint.keep",
                                                          "checkpoint.keep_every",
                                                          "checkpoint.on_error",
                                                          "communication.checked",
                                                          "communication.compare_replicas_every",
                                                          "communication.heartbeat_seconds",
                                                          "communication.save_seconds",
                                                          "communication.setup_seconds",
                                                          "communication.step_seconds",
                                                          "data.tokenizer",
                                                          "data.train[0].path",
                                                          "data.validation[0].path",
                                                          "data.validation[0].target_weights",
                                                          "metrics.log_every",
                                                          "metrics.tensorboard",
                                                          "parallelism.overlap",
                                                          "training.recompute",
                                                          "training.steps",
                                                          "validation.every",
                                                          "validation.tokens"}));
  for (const char* key :
       {"model.d_model", "init.from", "data.train[0].weight", "data.train[0].target_weights",
        "data.shuffle", "data.mask_documents", "training.context_length",
        "training.tokens_per_step", "training.batch_ramp.from", "training.seed", "training.dtype",
        "training.deterministic", "optimizer.lr", "optimizer.groups[0].weight_decay",
        "optimizer.groups[0].lr_scale", "lr_schedule.steps", "lr_schedule.decay_steps"}) {
    EXPECT_EQ(keys[Verdict::kRefuse].count(key), 1u) << key;
  }
}

TEST(DriftTest, KeysThatNobodyThoughtOfAreRefused) {
  ConfigNode before = ConfigNode::make_map();
  apply_override(before, "training.seed=1");
  ConfigNode now = before;
  apply_override(now, "something.new=77");
  apply_override(now, "checkpoints=7");
  const auto drifts = find_drift(before, now);
  ASSERT_EQ(drifts.size(), 2u);
  for (const Drift& drift : drifts) {
    EXPECT_EQ(drift.verdict, Verdict::kRefuse) << drift.key;
    EXPECT_EQ(drift.old_value, "absent");
  }
  EXPECT_EQ(drifts[0].new_value, "77");
}

}  // namespace
}  // namespace tandem
