#include "eval/task_template.h"

#include <gtest/gtest.h>

#include <stdexcept>

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

const Json& document() {
  static const Json json = Json::parse(R"({
    "question": "Which?", "choices": {"text": ["one", "two", "three"], "label": ["A", "B", "C"]},
    "answerKey": " B", "n": 3, "rows": [[1, 2], [3]], "text": "a long  way", "yes": true,
    "empty": [], "none": null})");
  return json;
}

std::string text(const std::string& source) { return Template(source).text(document()); }
std::string value(const std::string& source) { return Template(source).value(document()).dump(); }
std::string error(const std::string& source) {
  try {
    Template(source).value(document());
  } catch (const std::runtime_error& e) {
    return e.what();
  }
  ADD_FAILURE() << source << " is taken";
  return "";
}

TEST(TaskTemplateTest, FieldsStandInText) {
  EXPECT_EQ(text("Question: {{question}}\nAnswer:"), "Question: Which?\nAnswer:");
  EXPECT_EQ(text("{{ choices.text[1] }}-{{choices.text[-1]}}-{{n}}"), "two-three-3");
  EXPECT_EQ(text(""), "");
  EXPECT_EQ(text("no } or { matters"), "no } or { matters");
  EXPECT_EQ(text("{{yes}}"), "True");
}

TEST(TaskTemplateTest, OneExpressionAloneKeepsItsType) {
  EXPECT_EQ(value("{{choices.text}}"), R"(["one","two","three"])");
  EXPECT_EQ(value("{{n}}"), "3");
  EXPECT_EQ(value("{{n}} "), "\"3 \"");
  EXPECT_EQ(value("{{n}}{{n}}"), "\"33\"");
  EXPECT_EQ(value("{{rows[0][1]}}"), "2");
}

TEST(TaskTemplateTest, ListsAreTakenApartAndJoined) {
  EXPECT_EQ(value("{{[question, 'no', \"it's\", 4, -1]}}"), R"(["Which?","no","it's",4,-1])");
  EXPECT_EQ(value("{{[]}}"), "[]");
  EXPECT_EQ(value("{{choices.text[1:]}}"), R"(["two","three"])");
  EXPECT_EQ(value("{{choices.text[:-1]}}"), R"(["one","two"])");
  EXPECT_EQ(value("{{choices.text[-9:9]}}"), R"(["one","two","three"])");
  EXPECT_EQ(value("{{choices.text[2:1]}}"), "[]");
  EXPECT_EQ(value("{{choices.text + ['four']}}"), R"(["one","two","three","four"])");
  EXPECT_EQ(text("{{text.split(' ')[:-1]|join(' ')}}"), "a long ");
  EXPECT_EQ(text("{{' '+text.split(' ')[-1]}}"), " way");
  EXPECT_EQ(text("{{['', 'x', ''] | join('-')}}{{empty|join(',')}}"), "-x-");
}

TEST(TaskTemplateTest, MethodsDoWhatPythonsDo) {
  EXPECT_EQ(value("{{choices.label.index(answerKey.lstrip())}}"), "1");
  EXPECT_EQ(value("{{rows.index([3])}}"), "1");
  EXPECT_EQ(text("[{{('  ' + text + '\\n').strip()}}]"), "[a long  way]");
  EXPECT_EQ(text("{{text.replace('  ', ' ').capitalize()}}."), "A long way.");
  EXPECT_EQ(text("{{'x\\\\\\'' + \"\\\"\" + answerKey.rstrip()}}"), "x\\'\" B");
}

TEST(TaskTemplateTest, WhatADocumentHasNotIsAnError) {
  EXPECT_EQ(error("{{questoin}}"),
            "has no field questoin; it has: answerKey, choices, empty, n, none, question, rows, "
            "text, yes");
  EXPECT_EQ(error("{{choices.texts}}"), "has no field texts; it has: label, text");
  EXPECT_EQ(error("{{question.text}}"), R"(field text of "\"Which?\"", expected an object)");
  EXPECT_EQ(error("{{choices.text[3]}}"), "entry 3 of a list of 3");
  EXPECT_EQ(error("{{choices.label.index('D')}}"),
            R"("\"D\"" is not in the list "[\"A\",\"B\",\"C\"]")");
  EXPECT_EQ(error("x{{none}}"), R"("null" stands in a text, expected a text or a number)");
  EXPECT_EQ(error("x{{rows}}"), R"("[[1,2],[3]]" stands in a text, expected a text or a number)");
  EXPECT_EQ(error("{{n + 1}}"), R"("3" + "1", expected two texts or two lists)");
  EXPECT_EQ(error("{{n.strip()}}"), R"(strip() of "3", expected a text)");
}

TEST(TaskTemplateTest, SyntaxErrorsSayWhere) {
  EXPECT_EQ(error("ab{{question"), "column 13: expected }} or an operator");
  EXPECT_EQ(error("{{}}"), "column 3: expected a name");
  EXPECT_EQ(error("{{question}"), "column 11: expected }} or an operator");
  EXPECT_EQ(error("{% if x %}"), "column 1: {% %} is not understood, only {{ }}");
  EXPECT_EQ(error("{{question.lower()}}"),
            "column 18: unknown lower(), known here: capitalize, index, lstrip, replace, rstrip, "
            "split, strip");
  EXPECT_EQ(error("{{text.split()}}"), "column 15: split() has 0 arguments, expected 1");
  EXPECT_EQ(error("{{rows|length}}"), "column 14: expected (");
  EXPECT_EQ(error("{{'a}}"), "column 7: the text in quotes does not end");
  EXPECT_EQ(error("{{[n}}"), "column 5: expected , or ]");
  EXPECT_EQ(error("{{'\\d'}}"), "column 5: unknown escape, known here: \\n \\\\ \\' \\\"");
  EXPECT_EQ(error("{{" + std::string(40, '(') + "n}}"), "column 35: too many brackets in brackets");
}

}  // namespace
}  // namespace tandem
