#include "eval/task_requests.h"

#include <gtest/gtest.h>

#include "tests/data/temp_folder.h"

namespace tandem {

inline void PrintTo(const TextRequest& request, std::ostream* out) {
  *out << "[" << request.context << "|" << request.continuation << "]";
}

namespace {

using Requests = std::vector<TextRequest>;

class TaskRequestsTest : public testing::Test {
 protected:
  TaskDocuments documents(const std::string& lines, const TaskDefinition& task = {}) {
    const std::string path = folder_ / std::to_string(n_files_++) + ".jsonl";
    write_file(path, lines);
    return read_documents(path, task, 0);
  }
  // The only document of a built-in task.
  TaskItem item(const std::string& name, const std::string& line) {
    const Task task = load_task(name);
    return make_items(task, documents(line + "\n", task.definition), {}, 0, 1234).at(0);
  }
  std::string error(const Task& task, const std::string& lines, int64_t n_fewshot = 0) {
    return error_of([&] {
      const auto asked = documents(lines, task.definition),
                 examples = documents(lines, task.definition);
      make_items(task, asked, examples, n_fewshot, 1);
    });
  }
  TempFolder folder_;
  int n_files_ = 0;
};

TEST_F(TaskRequestsTest, Arc) {
  const auto it =
      item("arc_easy", R"({"id": "7", "question": "What is wet?", "choices": )"
                       R"({"text": ["Stone", "Éau"], "label": ["1", "2"]}, "answerKey": "2"})");
  EXPECT_EQ(it.requests, (Requests{{"Question: What is wet?\nAnswer:", " Stone"},
                                   {"Question: What is wet?\nAnswer:", " Éau"}}));
  EXPECT_EQ(it.gold, std::vector<size_t>{1});
  EXPECT_EQ(it.characters, (std::vector<double>{5, 3}));  // without the space in front
  EXPECT_EQ(it.bytes, (std::vector<double>{5, 4}));
  EXPECT_EQ(load_task("arc_challenge").definition.prompt, load_task("arc_easy").definition.prompt);
}

TEST_F(TaskRequestsTest, BoolQ) {
  const auto it =
      item("boolq", R"({"question": "is it so", "passage": "It is.", "idx": 0, "label": 1})");
  EXPECT_EQ(it.requests, (Requests{{"It is.\nQuestion: is it so?\nAnswer:", " no"},
                                   {"It is.\nQuestion: is it so?\nAnswer:", " yes"}}));
  EXPECT_EQ(it.gold, std::vector<size_t>{1});
}

TEST_F(TaskRequestsTest, HellaSwag) {
  const auto it = item(
      "hellaswag", R"({"ind": 4, "activity_label": "Roof", "ctx_a": "A man is on a roof.", )"
                   R"("ctx_b": "he", "ctx": "unused", "endings": ["falls [x] off.", "rips it."], )"
                   R"("label": "1"})");
  EXPECT_EQ(it.requests, (Requests{{"Roof: A man is on a roof. He", " falls off."},
                                   {"Roof: A man is on a roof. He", " rips it."}}));
  EXPECT_EQ(it.gold, std::vector<size_t>{1});
}

TEST_F(TaskRequestsTest, OpenBookQa) {
  const auto it =
      item("openbookqa", R"({"id": "8", "question_stem": "The sun is", "choices": )"
                         R"({"text": ["hot", "cold"], "label": ["A", "B"]}, "answerKey": "A"})");
  EXPECT_EQ(it.requests, (Requests{{"The sun is", " hot"}, {"The sun is", " cold"}}));
  EXPECT_EQ(it.gold, std::vector<size_t>{0});
}

TEST_F(TaskRequestsTest, Piqa) {
  const auto it =
      item("piqa", R"({"goal": "To boil", "sol1": "Heat.", "sol2": "Cool.", "label": 0})");
  EXPECT_EQ(it.requests, (Requests{{"Question: To boil\nAnswer:", " Heat."},
                                   {"Question: To boil\nAnswer:", " Cool."}}));
  EXPECT_EQ(it.gold, std::vector<size_t>{0});
}

TEST_F(TaskRequestsTest, WinoGrande) {
  const auto it =
      item("winogrande", R"({"sentence": "Ann beat Bo as _ was fast.", "option1": "Ann", )"
                         R"("option2": "Bo", "answer": "1"})");
  EXPECT_EQ(it.requests,
            (Requests{{"Ann beat Bo as Ann", " was fast."}, {"Ann beat Bo as Bo", " was fast."}}));
  EXPECT_EQ(it.gold, std::vector<size_t>{0});
}

TEST_F(TaskRequestsTest, SciQ) {
  const auto it =
      item("sciq", R"({"question": "What burns?", "distractor3": "c", "distractor1": "a", )"
                   R"("distractor2": "b", "correct_answer": "wood", "support": " Wood burns."})");
  const std::string context = "Wood burns.\nQuestion: What burns?\nAnswer:";
  EXPECT_EQ(it.requests,
            (Requests{{context, " a"}, {context, " b"}, {context, " c"}, {context, " wood"}}));
  EXPECT_EQ(it.gold, std::vector<size_t>{3});
}

TEST_F(TaskRequestsTest, LambadaScoresTheLastWord) {
  for (const char* name : {"lambada_openai", "lambada_standard"}) {
    EXPECT_EQ(item(name, R"({"text": "She said  yes"})").requests,
              (Requests{{"She said ", " yes"}}));
  }
}

TEST_F(TaskRequestsTest, WikiTextCountsThePageAsItIs) {
  const auto it = item("wikitext", R"({"page": " One , two . \n"})");
  EXPECT_EQ(it.requests, (Requests{{"", " One, two.\n"}}));
  EXPECT_EQ(it.counted_words, 6);
  EXPECT_EQ(it.counted_bytes, 14);
}

constexpr const char* kPairs = R"yaml(
name: pairs
prompt: "Q {{q}}"
choices: "{{c}}"
target: "{{a}}"
metrics: [acc]
)yaml";

std::string six_documents() {
  std::string lines;
  for (int i = 0; i < 6; ++i)
    lines += "{\"q\": " + std::to_string(i) +
             ", \"c\": [\"x\", \"y\"], \"a\": " + std::to_string(i % 2) + "}\n";
  return lines;
}

// random.Random(1234).sample(range(6), 3), four times: [3, 0, 4], [0, 4, 5], [5, 0, 4], [2, 1, 0];
// of two: [3, 0], [0, 5], [4, 0], [5, 0].
TEST_F(TaskRequestsTest, ExamplesAreThoseThatPythonDraws) {
  Task task = parse_task(kPairs, "pairs.yaml");
  const auto all = documents(six_documents());
  const auto contexts = [&] {
    std::vector<std::string> list;
    for (const TaskItem& it : make_items(task, all, all, 2, 1234))
      list.push_back(it.requests[0].context);
    list.resize(4);
    return list;
  };
  const std::vector<std::string> answers = {"x\n\n", "y\n\n", "x\n\n", "y\n\n", "x\n\n", "y\n\n"};
  const auto context = [&](size_t a, size_t b, size_t asked) {
    return "Q " + std::to_string(a) + " " + answers[a] + "Q " + std::to_string(b) + " " +
           answers[b] + "Q " + std::to_string(asked);
  };
  EXPECT_EQ(contexts(), (std::vector<std::string>{context(3, 4, 0), context(0, 4, 1),
                                                  context(5, 0, 2), context(2, 1, 3)}));
  task.definition.fewshot_leave_out = false;
  EXPECT_EQ(contexts(), (std::vector<std::string>{context(3, 0, 0), context(0, 5, 1),
                                                  context(4, 0, 2), context(5, 0, 3)}));
}

TEST_F(TaskRequestsTest, ADocumentThatComesTwiceIsNoExampleOfItself) {
  const Task task = parse_task(kPairs, "pairs.yaml");
  const std::string twin = "{\"q\": 9, \"c\": [\"x\", \"y\"], \"a\": 0}\n";
  const auto pool = documents(twin + twin + twin + six_documents().substr(0, 68));
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const auto context = make_items(task, documents(twin), pool, 1, seed)[0].requests[0].context;
    EXPECT_EQ(context.find("Q 9"), context.size() - 3) << context;
  }
}

TEST_F(TaskRequestsTest, ExamplesOfOtherKinds) {
  const Task lambada = load_task("lambada_openai");
  const auto text = documents("{\"text\": \"a b\"}\n");
  EXPECT_EQ(make_items(lambada, text, text, 1, 1)[0].requests,
            (Requests{{"a  b\n\na", " b"}}));  // the delimiter and the target's own space
  const Task winogrande = load_task("winogrande");
  const auto sentence = documents(R"({"sentence": "A _ c", "option1": "x", "option2": "y", )"
                                  R"("answer": "2"})"
                                  "\n",
                                  winogrande.definition);
  Task task = winogrande;
  task.definition.fewshot_leave_out = false;
  EXPECT_EQ(make_items(task, sentence, sentence, 1, 1)[0].requests,
            (Requests{{"A y c\n\nA x", " c"}, {"A y c\n\nA y", " c"}}));
  EXPECT_EQ(error_of([&] { make_items(load_task("wikitext"), text, text, 2, 1); }, kExitUsage),
            "--num-fewshot 2: wikitext scores whole texts, which take no examples");
}

TEST_F(TaskRequestsTest, GoldMayBeAPlaceAListATextOrABool) {
  const auto gold = [&](const std::string& answer) {
    const std::string line = R"({"q": 1, "c": ["x", "yes", "z"], "a": )" + answer + "}\n";
    return make_items(parse_task(kPairs, "p"), documents(line), {}, 0, 1).at(0).gold;
  };
  using Places = std::vector<size_t>;
  EXPECT_EQ(gold("2"), Places{2});
  EXPECT_EQ(gold("\"2\""), Places{2});
  EXPECT_EQ(gold("\"yes\""), Places{1});
  EXPECT_EQ(gold("true"), Places{1});
  EXPECT_EQ(gold("[0, 2]"), (Places{0, 2}));
}

TEST_F(TaskRequestsTest, BadDocumentsAreNamed) {
  const Task task = parse_task(kPairs, "pairs.yaml");
  const std::string good = R"({"q": 1, "c": ["x", "y"], "a": 0})";
  EXPECT_EQ(error(task, good + "\n" + R"({"q": 1, "c": ["x", "y"]})" + "\n"),
            folder_ / "0.jsonl:2: has no field a; it has: c, q");
  EXPECT_EQ(error(task, R"({"q": 1, "c": ["x", "y"], "a": 2})"),
            folder_ / "2.jsonl:1: target = \"2\", expected a place of the 2 choices");
  EXPECT_EQ(error(task, R"({"q": 1, "c": "x", "a": 0})"),
            folder_ / "4.jsonl:1: choices is not a list of texts");
  EXPECT_EQ(error(task, good, 1), folder_ / "7.jsonl: holds 1 documents, 1 examples need 2");
  EXPECT_EQ(error_of([&] { documents("[1]\n"); }), folder_ / "8.jsonl:1: expected an object");
  EXPECT_EQ(error_of([&] { documents(""); }), folder_ / "9.jsonl: holds no documents");
  EXPECT_EQ(error_of([&] {
              documents("{\"sentence\": \"no blank\", \"answer\": \"1\"}\n",
                        load_task("winogrande").definition);
            }),
            folder_ / "10.jsonl:1: sentence has no blank, _");
}

TEST_F(TaskRequestsTest, DefinitionsAreChecked) {
  const auto refused = [](const std::string& yaml) {
    return error_of([&] { parse_task(yaml, "t.yaml"); }, kExitUsage);
  };
  const std::string choice = "name: t\nprompt: p\nchoices: \"{{c}}\"\ntarget: \"{{a}}\"\n";
  EXPECT_EQ(refused(choice), "t.yaml:1: default metrics = [], expected at least one metric");
  EXPECT_EQ(refused(choice + "metrics: [ppl]"),
            "t.yaml:5: metrics = ppl, expected one of acc, acc_bytes, acc_norm, as the "
            "kind is multiple_choice");
  EXPECT_EQ(refused(choice + "metrics: [acc]\nkind: likelihood"),
            "t.yaml:3: choices = {{c}}, expected nothing, as the kind is likelihood");
  EXPECT_EQ(refused("name: t/u\nmetrics: [acc]"),
            "t.yaml:1: name = t/u, expected letters, digits, _ and -, as files are named after it");
  EXPECT_EQ(refused("name: t\nprompt: \"{{a\"\nchoices: x\ntarget: y\nmetrics: [acc]"),
            "t.yaml: prompt = {{a: column 4: expected }} or an operator");
  EXPECT_EQ(
      refused(choice + "metrics: [acc]\nprocess: winogrand"),
      "t.yaml:6: process = winogrand, expected one of: hellaswag, none, wikitext, winogrande");
  EXPECT_EQ(error_of([] { load_task("arc_eazy"); }, kExitUsage),
            "unknown task arc_eazy; did you mean arc_easy? known here: arc_challenge, arc_easy, "
            "boolq, hellaswag, lambada_openai, lambada_standard, openbookqa, piqa, sciq, wikitext, "
            "winogrande, and files that end in .yaml");
  for (const std::string& name : builtin_tasks()) EXPECT_EQ(load_task(name).definition.name, name);
}

// Ids are bytes; 256 is BOS.
class TaskEncodingTest : public testing::Test {
 protected:
  static std::vector<int64_t> ids(const std::string& text) { return {text.begin(), text.end()}; }
  const std::unique_ptr<Tokenizer> bytes_ = load_tokenizer("bytes");
  RequestRules rules_{.tokenizer = bytes_.get(), .max_length = 8};
};

TEST_F(TaskEncodingTest, SpacesThatEndTheContextAreScored) {
  const auto request = encode_request({"ab \n", " c"}, rules_);
  EXPECT_EQ(request.context, ids("ab"));
  EXPECT_EQ(request.continuation, ids(" \n c"));
  EXPECT_FALSE(request.truncated);
}

TEST_F(TaskEncodingTest, WithoutAContextBosStandsInFront) {
  for (const std::string context : {"", " "}) {
    const auto request = encode_request({context, "xy"}, rules_);
    EXPECT_EQ(request.context, std::vector<int64_t>{256});
    EXPECT_EQ(request.continuation, ids(context + "xy"));
  }
  rules_.add_bos = true;
  EXPECT_EQ(encode_request({"a", "b"}, rules_).context, (std::vector<int64_t>{256, 'a'}));
  EXPECT_EQ(encode_request({"a", "b"}, rules_).continuation, ids("b"));
}

TEST_F(TaskEncodingTest, LongContextsLoseTheirFront) {
  auto request = encode_request({"abcdef", "xyz"}, rules_);
  EXPECT_FALSE(request.truncated);  // 8 inputs, the last id is a target only
  request = encode_request({"abcdefg", "xyz"}, rules_);
  EXPECT_TRUE(request.truncated);
  EXPECT_EQ(request.context, ids("bcdefg"));
  EXPECT_EQ(request.continuation, ids("xyz"));
  EXPECT_THROW(encode_request({"a", "123456789"}, rules_), std::runtime_error);
  EXPECT_THROW(encode_request({"a", ""}, rules_), std::runtime_error);
}

TEST_F(TaskEncodingTest, WindowsScoreEachIdOnce) {
  const auto windows = rolling_windows("abcdefghijk", rules_);
  ASSERT_EQ(windows.size(), 2u);
  EXPECT_EQ(windows[0].context, std::vector<int64_t>{256});
  EXPECT_EQ(windows[0].continuation, ids("abcdefgh"));
  EXPECT_EQ(windows[1].context, ids("cdefgh"));  // nine ids with those that are scored
  EXPECT_EQ(windows[1].continuation, ids("ijk"));
  EXPECT_EQ(rolling_windows("abcdefgh", rules_).size(), 1u);
  const auto exact = rolling_windows("abcdefghijklmnop", rules_);
  ASSERT_EQ(exact.size(), 2u);
  EXPECT_EQ(exact[1].context, ids("h"));
  EXPECT_TRUE(rolling_windows("", rules_).empty());
}

TEST_F(TaskEncodingTest, PromptsLeaveRoomForWhatIsGenerated) {
  const auto prompt = encode_prompt("abcdef", rules_, 3);
  EXPECT_EQ(prompt.context, ids("bcdef"));
  EXPECT_TRUE(prompt.truncated);
  EXPECT_EQ(encode_prompt("", rules_, 3).context, std::vector<int64_t>{256});
  EXPECT_EQ(error_of([&] { encode_prompt("a", rules_, 8); }, kExitUsage),
            "max_new_tokens = 8 leaves no room for a prompt in 8 tokens (--max-length)");
}

}  // namespace
}  // namespace tandem
