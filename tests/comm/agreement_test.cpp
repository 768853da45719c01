#include "comm/agreement.h"

#include <gtest/gtest.h>

#include "tests/comm/thread_ranks.h"

namespace tandem {
namespace {

/// "TYPE CODE MESSAGE" of what `call` throws; empty when it does not.
std::string thrown_by(const std::function<void()>& call) {
  try {
    call();
  } catch (const UserError& error) {
    return "UserError " + std::to_string(error.exit_code()) + " " + error.what();
  } catch (const std::logic_error& error) {
    return std::string("logic_error ") + error.what();
  } catch (const std::runtime_error& error) {
    return std::string("runtime_error ") + error.what();
  }
  return "";
}

TEST(AgreementTest, TextsOfAnyLengthReachTheOthers) {
  const std::vector<std::string> texts = {"", std::string("two\0parts", 9), std::string(1000, 'x')};
  run_ranks(3, [&](Communicator& group) {
    const auto rank = static_cast<size_t>(group.rank());
    EXPECT_EQ(texts_of_all(group, texts[rank]), texts);
    EXPECT_EQ(texts_on_first(group, texts[rank]), rank == 0 ? texts : std::vector<std::string>{});
    EXPECT_EQ(texts_of_all(group, ""), (std::vector<std::string>{"", "", ""}));
    for (const auto& text : texts)
      EXPECT_EQ(text_of_first(group, [&] { return rank == 0 ? text : "not asked for"; }), text);
  });
}

TEST(AgreementTest, OnlyTheFirstRankActs) {
  run_ranks(3, [](Communicator& group) {
    int acts = 0;
    on_first(group, [&] { ++acts; });
    EXPECT_EQ(acts, group.rank() == 0 ? 1 : 0);
  });
}

TEST(AgreementTest, TheFirstRanksErrorIsEverybodys) {
  run_ranks(3, [](Communicator& group) {
    EXPECT_EQ(thrown_by([&] { on_first(group, [] { throw cannot_write("a/b", "is full"); }); }),
              "UserError 74 a/b: is full");
    EXPECT_EQ(thrown_by([&] { on_first(group, [] { throw std::logic_error("wrong"); }); }),
              group.rank() == 0 ? "logic_error wrong" : "runtime_error rank 0: wrong");
    on_first(group, [] {});  // and they still meet
  });
}

TEST(AgreementTest, TheLowestFailingRanksErrorIsEverybodys) {
  run_ranks(4, [](Communicator& group) {
    const auto fails_from = [&](int64_t rank, const auto& fail) {
      return thrown_by([&] {
        on_all_ranks(group, [&] {
          if (group.rank() >= rank) fail();
        });
      });
    };
    const auto full = [&] { throw cannot_write("file " + std::to_string(group.rank()), "full"); };
    EXPECT_EQ(fails_from(0, full), "UserError 74 file 0: full (rank 0)");
    EXPECT_EQ(fails_from(2, full), "UserError 74 file 2: full (rank 2)");
    EXPECT_EQ(fails_from(4, full), "");
    EXPECT_EQ(fails_from(3, [] { throw std::logic_error("wrong"); }),
              group.rank() == 3 ? "logic_error wrong" : "runtime_error rank 3: wrong");
  });
}

TEST(AgreementTest, OneRankThrowsAsItIs) {
  const auto alone = make_single_communicator("alone");
  EXPECT_EQ(thrown_by([&] { on_all_ranks(*alone, [] { throw bad_usage("no"); }); }),
            "UserError 2 no");
  EXPECT_EQ(thrown_by([&] { on_first(*alone, [] { throw std::logic_error("wrong"); }); }),
            "logic_error wrong");
  EXPECT_EQ(texts_of_all(*alone, "a"), std::vector<std::string>{"a"});
}

// Nobody can be told, as the group is gone: the others find out by themselves.
TEST(AgreementTest, ALostPeerIsNotTold) {
  EXPECT_EQ(thrown_by([] {
              run_ranks(2, [](Communicator& group) {
                on_all_ranks(group, [&] {
                  if (group.rank() == 1) throw PeerLost("rank 0 is gone");
                });
              });
            }),
            "UserError 75 rank 0 is gone");
}

}  // namespace
}  // namespace tandem
