#include "core/file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <numeric>
#include <thread>

#include "core/mapped_file.h"
#include "tests/core/helpers.h"

namespace tandem {
namespace {

/// While it lives, no file can grow above `bytes`.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int);
};

std::string read_all(const File& file) {
  std::string text(file.size(), '\0');
  file.read_at(0, std::as_writable_bytes(std::span(text)));
  return text;
}

TEST(FileTest, WhatWasWrittenIsRead) {
  const TempFolder folder;
  File out = File::create(folder / "a");
  out.write("hello ");
  out.write("world");
  out.sync();
  out.close();
  const File in = File::open_read(folder / "a");
  EXPECT_EQ(in.size(), 11u);
  std::string middle(4, '\0');
  in.read_at(4, std::as_writable_bytes(std::span(middle)));
  EXPECT_EQ(middle, "o wo");
  in.read_at(11, {});  // nothing, at the very end
}

TEST(FileTest, CreatingEmptiesAndAppendingKeeps) {
  const TempFolder folder;
  write_file(folder / "a", "a longer text");
  write_file(folder / "a", "one");
  File::open_append(folder / "a").write(" two");
  File::open_append(folder / "new").write("made");
  EXPECT_EQ(read_text(folder / "a"), "one two");
  EXPECT_EQ(read_text(folder / "new"), "made");
}

TEST(FileTest, TruncatingAnAppendedFileMovesItsEnd) {
  const TempFolder folder;
  File file = File::open_append(folder / "a");
  file.write("one two");
  file.truncate(3);
  file.write("!");
  EXPECT_EQ(read_all(file), "one!");
}

TEST(FileTest, MovingPassesTheDescriptorOn) {
  const TempFolder folder;
  write_file(folder / "a", "first");
  write_file(folder / "b", "second");
  File a = File::open_read(folder / "a");
  File b = File::open_read(folder / "b");
  a = std::move(b);
  EXPECT_EQ(a.path(), folder / "b");
  EXPECT_EQ(read_all(a), "second");
  const File c(std::move(a));
  EXPECT_EQ(read_all(c), "second");
}

TEST(FileTest, MissingFileHasExitCode66) {
  expect_user_error(66, "no/such/file: cannot open: No such file or directory",
                    [] { File::open_read("no/such/file"); });
  expect_user_error(66, "no/such/file: cannot open: No such file or directory",
                    [] { MappedFile("no/such/file"); });
  expect_user_error(66, "no/such/file: cannot open: No such file or directory",
                    [] { read_text("no/such/file"); });
}

TEST(FileTest, FolderInPlaceOfAFile) {
  const TempFolder folder;
  expect_user_error(66, folder.path() + ": is a folder, expected a file",
                    [&] { File::open_read(folder.path()); });
  expect_user_error(66, folder.path() + ": is a folder, expected a file",
                    [&] { MappedFile(folder.path()); });
  expect_user_error(74, folder.path() + ": cannot create: Is a directory",
                    [&] { File::create(folder.path()); });
}

TEST(FileTest, ShortFileSaysWhereItEnds) {
  const TempFolder folder;
  write_file(folder / "a", "0123456789");
  const File file = File::open_read(folder / "a");
  std::byte out[8];
  expect_user_error(66, (folder / "a") + ": ends after 10 bytes, expected at least 13",
                    [&] { file.read_at(5, out); });
  expect_user_error(66, (folder / "a") + ": ends after 10 bytes, expected at least 108",
                    [&] { file.read_at(100, out); });
}

TEST(FileTest, FullDiskHasExitCode74) {
  expect_user_error(74, "/dev/full: cannot write: No space left on device",
                    [] { File::create("/dev/full").write("text"); });
  expect_user_error(74, "/dev/full: cannot write: No space left on device",
                    [] { File::open_append("/dev/full").write("text"); });
}

TEST(FileTest, ShortWriteIsContinuedUntilTheError) {
  const TempFolder folder;
  File file = File::create(folder / "a");
  {
    const FileSizeLimit limit(37);  // the system takes 37 of 100 bytes, then refuses the rest
    expect_user_error(74, (folder / "a") + ": cannot write: File too large",
                      [&] { file.write(std::string(100, 'x')); });
  }
  EXPECT_EQ(file.size(), 37u);
}

TEST(FileTest, ReadOnlyFolderAndUnreadableFile) {
  const TempFolder folder;
  write_file(folder / "secret", "x");
  ASSERT_EQ(::chmod((folder / "secret").c_str(), 0), 0);
  ASSERT_EQ(::chmod(folder.path().c_str(), 0555), 0);
  {
    const WithoutPrivileges user;
    if (!user.held()) GTEST_SKIP() << "root here may not become an ordinary user";
    expect_user_error(74, (folder / "a") + ": cannot create: Permission denied",
                      [&] { File::create(folder / "a"); });
    expect_user_error(74, (folder / "a.partial") + ": cannot create: Permission denied",
                      [&] { write_atomically(folder / "a", "text"); });
    expect_user_error(74, (folder / "b") + ": cannot make the folder: Permission denied",
                      [&] { make_directories(folder / "b/c"); });
    expect_user_error(74, (folder / "secret") + ": cannot remove: Permission denied",
                      [&] { remove_tree(folder / "secret"); });
    expect_user_error(66, (folder / "secret") + ": cannot open: Permission denied",
                      [&] { File::open_read(folder / "secret"); });
    expect_user_error(74, (folder / "secret") + ": cannot open for writing: Permission denied",
                      [&] { File::open_append(folder / "secret"); });
  }
  ASSERT_EQ(::chmod(folder.path().c_str(), 0755), 0);
}

TEST(FileTest, WritingToAFileOpenedForReadingFails) {
  const TempFolder folder;
  write_file(folder / "a", "text");
  File file = File::open_read(folder / "a");
  expect_user_error(74, (folder / "a") + ": cannot write: Bad file descriptor",
                    [&] { file.write("more"); });
  expect_user_error(74, (folder / "a") + ": cannot truncate: Invalid argument",
                    [&] { file.truncate(0); });
}

TEST(FileTest, ClosingReportsAndForgets) {
  const TempFolder folder;
  File file = File::create(folder / "a");
  file.close();
  expect_user_error(74, (folder / "a") + ": cannot close: Bad file descriptor",
                    [&] { file.close(); });
}

TEST(FileTest, ReadTextReadsPipesAndChecksTheSize) {
  const TempFolder folder;
  std::string text(200'001, '\0');
  std::iota(text.begin(), text.end(), '\0');
  write_file(folder / "a", text);
  EXPECT_EQ(read_text(folder / "a"), text);
  EXPECT_EQ(read_text(folder / "a", 200'001), text);
  expect_user_error(66, (folder / "a") + ": is larger than 200000 bytes",
                    [&] { read_text(folder / "a", 200'000); });
  write_file(folder / "empty", "");
  EXPECT_EQ(read_text(folder / "empty", 0), "");

  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  ASSERT_EQ(::write(ends[1], "through a pipe", 14), 14);
  ::close(ends[1]);
  EXPECT_EQ(read_text("/dev/fd/" + std::to_string(ends[0])), "through a pipe");
  ::close(ends[0]);
}

TEST(FileTest, AtomicWriteReplacesAndLeavesNothingBehind) {
  const TempFolder folder;
  write_atomically(folder / "a", "old");
  write_atomically(folder / "a", "new");
  EXPECT_EQ(read_text(folder / "a"), "new");
  EXPECT_EQ(list_directory(folder.path()), std::vector<std::string>{"a"});
}

TEST(FileTest, FailedAtomicWriteKeepsTheOldText) {
  const TempFolder folder;
  write_atomically(folder / "a", "old");
  {
    const FileSizeLimit limit(5);
    expect_user_error(74, (folder / "a.partial") + ": cannot write: File too large",
                      [&] { write_atomically(folder / "a", "a newer text"); });
  }
  EXPECT_EQ(read_text(folder / "a"), "old");
  EXPECT_EQ(list_directory(folder.path()), std::vector<std::string>{"a"});
  make_directories(folder / "b");  // nor can a file take a folder's place
  expect_user_error(
      74, (folder / "b") + ": cannot rename " + (folder / "b.partial") + " to it: Is a directory",
      [&] { write_atomically(folder / "b", "text"); });
  EXPECT_FALSE(exists(folder / "b.partial"));
}

TEST(WriteFolderTest, MakesTheWholeFolder) {
  const TempFolder folder;
  write_file(folder / "a/w.partial/old", "of one that was killed");
  write_folder(folder / "a/w", [](const std::string& partial) {
    EXPECT_TRUE(partial.ends_with("/a/w.partial"));
    EXPECT_EQ(list_directory(partial), std::vector<std::string>{});
    write_file(partial + "/new", "text");
  });
  EXPECT_EQ(list_directory(folder / "a"), std::vector<std::string>{"w"});
  EXPECT_EQ(file_bytes(folder / "a/w/new"), "text");
  write_folder(folder / "b/", [](const std::string&) {});  // as people write folders
  EXPECT_EQ(list_directory(folder.path()), (std::vector<std::string>{"a", "b"}));
}

TEST(WriteFolderTest, AnErrorLeavesNothing) {
  const TempFolder folder;
  const auto failing = [](const std::string& partial) {
    write_file(partial + "/deep/er", "text");
    throw cannot_write(partial, "cannot go on");
  };
  expect_user_error(74, (folder / "w.partial") + ": cannot go on",
                    [&] { write_folder(folder / "w", failing); });
  EXPECT_EQ(list_directory(folder.path()), std::vector<std::string>{});
  write_file(folder / "file", "in the way");
  expect_user_error(74, (folder / "file/w.partial") + ": cannot make the folder: Not a directory",
                    [&] { write_folder(folder / "file/w", failing); });
  EXPECT_EQ(file_bytes(folder / "file"), "in the way");
}

TEST(WriteFolderTest, WhatTakesTheNameMeanwhileStays) {
  const TempFolder folder;
  expect_user_error(
      74,
      (folder / "w") + ": cannot rename " + (folder / "w.partial") + " to it: Directory not empty",
      [&] {
        write_folder(folder / "w", [&](const std::string& partial) {
          write_file(partial + "/a", "mine");
          write_file(folder / "w/a", "another's");
        });
      });
  EXPECT_EQ(file_bytes(folder / "w/a"), "another's");
  EXPECT_FALSE(exists(folder / "w.partial"));
  expect_error<std::logic_error>("write_folder: " + (folder / "w") + " exists",
                                 [&] { write_folder(folder / "w", [](const std::string&) {}); });
}

TEST(FileTest, LinksAreRemovedAndNotFollowed) {
  const TempFolder folder;
  write_file(folder / "kept/file", "text");
  make_directories(folder / "gone");
  ASSERT_EQ(::symlink((folder / "kept").c_str(), (folder / "gone/link").c_str()), 0);
  ASSERT_EQ(::symlink("nowhere", (folder / "gone/broken").c_str()), 0);
  remove_tree(folder / "gone");
  EXPECT_EQ(list_directory(folder.path()), std::vector<std::string>{"kept"});
  EXPECT_EQ(file_bytes(folder / "kept/file"), "text");
}

TEST(FileTest, Folders) {
  const TempFolder folder;
  make_directories(folder / "a/b/c");
  make_directories(folder / "a/b/c");
  write_file(folder / "a/z", "");
  write_file(folder / "a/k", "");
  EXPECT_EQ(list_directory(folder / "a"), (std::vector<std::string>{"b", "k", "z"}));
  EXPECT_TRUE(is_directory(folder / "a/b"));
  EXPECT_FALSE(is_directory(folder / "a/z"));
  EXPECT_TRUE(exists(folder / "a/z"));
  sync_directory(folder / "a");
  rename_file(folder / "a/z", folder / "a/y");
  EXPECT_FALSE(exists(folder / "a/z"));
  EXPECT_TRUE(exists(folder / "a/y"));
  remove_tree(folder / "a");
  EXPECT_FALSE(exists(folder / "a"));
  remove_tree(folder / "a");

  write_file(folder / "f", "");
  expect_user_error(74, (folder / "f/g") + ": cannot make the folder: Not a directory",
                    [&] { make_directories(folder / "f/g"); });
  expect_user_error(66, (folder / "a") + ": cannot list the folder: No such file or directory",
                    [&] { list_directory(folder / "a"); });
  expect_user_error(
      74,
      (folder / "b") + ": cannot rename " + (folder / "a") + " to it: No such file or directory",
      [&] { rename_file(folder / "a", folder / "b"); });
  expect_user_error(74, (folder / "a") + ": cannot open the folder: No such file or directory",
                    [&] { sync_directory(folder / "a"); });
}

TEST(FileTest, Paths) {
  EXPECT_EQ(parent_of("a/b"), "a");
  EXPECT_EQ(parent_of("a/b/"), "a");
  EXPECT_EQ(parent_of("a//b"), "a");
  EXPECT_EQ(parent_of("a"), ".");
  EXPECT_EQ(parent_of("a/"), ".");
  EXPECT_EQ(parent_of("/a"), "/");
  EXPECT_EQ(parent_of("/"), "/");
  EXPECT_EQ(parent_of(""), ".");
  EXPECT_EQ(join_path("a", "b"), "a/b");
  EXPECT_EQ(join_path("a/", "b"), "a/b");
  EXPECT_EQ(join_path("", "b"), "b");
}

TEST(MappedFileTest, ShowsTheBytes) {
  const TempFolder folder;
  write_file(folder / "a", "mapped");
  write_file(folder / "empty", "");
  MappedFile file(folder / "a");
  MappedFile other(folder / "empty");
  EXPECT_EQ(other.bytes().size(), 0u);
  other = std::move(file);
  EXPECT_EQ(other.path(), folder / "a");
  const auto bytes = other.bytes();
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()), "mapped");
}

TEST(MappedFileTest, FileThatShrinksIsNamed) {
  const TempFolder folder;
  write_file(folder / "a", std::string(20'000, 'x'));
  const auto read_after_truncation = [&] {
    const MappedFile file(folder / "a");
    File::open_append(folder / "a").truncate(100);
    const volatile std::byte last = file.bytes().back();
    static_cast<void>(last);
  };
  EXPECT_EXIT(read_after_truncation(), testing::ExitedWithCode(66),
              "/a: became shorter, or unreadable, while it was in use");
}

TEST(FileLockTest, OneHolderAtATime) {
  const TempFolder folder;
  write_file(folder / "lock", "a longer text of a process that has ended");
  std::string holder = "nobody";
  auto lock = FileLock::try_lock(folder / "lock", "pid 17 on here\n", &holder);
  ASSERT_NE(lock, nullptr);
  EXPECT_EQ(holder, "nobody");
  EXPECT_EQ(FileLock::try_lock(folder / "lock", "pid 18\n", &holder), nullptr);
  EXPECT_EQ(holder, "pid 17 on here\n");
  lock.reset();
  EXPECT_NE(FileLock::try_lock(folder / "lock", "pid 18\n", nullptr), nullptr);
  EXPECT_EQ(read_text(folder / "lock"), "pid 18\n");
}

TEST(FileLockTest, ARemovedFileKeepsNobodyOut) {
  const TempFolder folder;
  auto first = FileLock::try_lock(folder / "lock", "pid 17", nullptr);
  std::filesystem::rename(folder / "lock", folder / "old");  // as unlinked by a holder before
  auto second = FileLock::try_lock(folder / "lock", "pid 18", nullptr);
  ASSERT_NE(second, nullptr);
  second->remove_at_end();
  second.reset();
  EXPECT_FALSE(exists(folder / "lock"));
}

TEST(FileLockTest, OfAllThreadsOneHoldsIt) {
  const TempFolder folder;
  std::atomic<int> holders = 0, overlaps = 0, times = 0;
  const auto work = [&] {
    for (int i = 0; i < 300; ++i) {
      const auto lock = FileLock::try_lock(folder / "lock", "it", nullptr);
      if (!lock) continue;
      lock->remove_at_end();
      if (++holders > 1) ++overlaps;
      ++times;
      std::this_thread::yield();
      --holders;
    }
  };
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) threads.emplace_back(work);
  }
  EXPECT_EQ(overlaps, 0);
  EXPECT_GT(times, 0);
}

TEST(FileLockTest, AHolderWithoutANameIsAnotherProcess) {
  const TempFolder folder;
  std::string holder;
  const auto lock = FileLock::try_lock(folder / "lock", "", nullptr);
  EXPECT_EQ(FileLock::try_lock(folder / "lock", "pid 18", &holder), nullptr);
  EXPECT_EQ(holder, "another process");
}

TEST(FileLockTest, FolderThatDoesNotExist) {
  const TempFolder folder;
  expect_user_error(74,
                    (folder / "a/lock") + ": cannot open for writing: No such file or directory",
                    [&] { FileLock::try_lock(folder / "a/lock", "", nullptr); });
}

}  // namespace
}  // namespace tandem
