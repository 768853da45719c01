#include "data/unpacked_file.h"

#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <cctype>
#include <new>
#include <span>

#include "core/checksum.h"
#include "core/error.h"
#include "core/file.h"

namespace tandem {
namespace {

constexpr size_t kPieceBytes = size_t{1} << 18;

}  // namespace

/// The bytes as they lie on disk; the ones below unpack them.
class UnpackedFile::Source {
 public:
  explicit Source(const std::string& path) : file_(File::open_read(path)) {}
  virtual ~Source() = default;
  virtual std::string_view next() { return read_packed(); }
  uint64_t packed_bytes_read() const { return packed_bytes_; }
  std::string sha256() { return hash_.hex(); }

 protected:
  std::string_view read_packed() {
    const auto buffer = std::as_writable_bytes(std::span(packed_));
    const size_t n = file_.read_next(buffer);
    hash_.update(buffer.first(n));
    packed_bytes_ += n;
    return std::string_view(packed_).substr(0, n);
  }
  UserError damaged(const std::string& what) const { return bad_file(file_.path(), what); }

 private:
  File file_;
  Sha256 hash_;
  uint64_t packed_bytes_ = 0;
  std::string packed_ = std::string(kPieceBytes, '\0');
};

namespace {

class ZstdSource final : public UnpackedFile::Source {
 public:
  explicit ZstdSource(const std::string& path) : Source(path), stream_(ZSTD_createDStream()) {
    if (!stream_) throw std::bad_alloc();
  }

  std::string_view next() override {
    ZSTD_outBuffer out{unpacked_.data(), unpacked_.size(), 0};
    while (out.pos == 0) {
      if (in_.pos == in_.size && !output_waits_) {
        const std::string_view packed = read_packed();
        if (packed.empty()) {
          if (inside_frame_) throw damaged("zstd data ends in the middle of a frame");
          return {};
        }
        in_ = {packed.data(), packed.size(), 0};
      }
      const size_t left = ZSTD_decompressStream(stream_.get(), &out, &in_);
      if (ZSTD_getErrorCode(left) == ZSTD_error_frameParameter_windowTooLarge) {
        // A few bytes may ask for 2 GiB: the library's limit stays.
        throw damaged("zstd data with a window of more than 128 MiB; pack it again without --long");
      }
      if (ZSTD_isError(left)) {
        throw damaged(std::string("damaged zstd data: ") + ZSTD_getErrorName(left));
      }
      inside_frame_ = left != 0;
      // Within a frame a full buffer may mean that more is ready without new input.
      output_waits_ = inside_frame_ && out.pos == out.size;
    }
    return {unpacked_.data(), out.pos};
  }

 private:
  struct FreeStream {
    void operator()(ZSTD_DStream* stream) const { ZSTD_freeDStream(stream); }
  };
  std::string unpacked_ = std::string(kPieceBytes, '\0');
  std::unique_ptr<ZSTD_DStream, FreeStream> stream_;
  ZSTD_inBuffer in_{nullptr, 0, 0};
  bool inside_frame_ = false, output_waits_ = false;
};

/// A gzip file is one or more members back to back (RFC 1952); their texts are joined. Zeros behind
/// a member are what tapes and block devices fill up with; gzip ignores them too.
class GzipSource final : public UnpackedFile::Source {
 public:
  explicit GzipSource(const std::string& path) : Source(path) {
    constexpr int kGzipOnly = 16 + MAX_WBITS;
    if (inflateInit2(&stream_, kGzipOnly) != Z_OK) throw std::bad_alloc();
  }
  ~GzipSource() override { inflateEnd(&stream_); }

  std::string_view next() override {
    stream_.next_out = reinterpret_cast<Bytef*>(unpacked_.data());
    stream_.avail_out = kPieceBytes;
    while (stream_.avail_out == kPieceBytes) {
      if (stream_.avail_in == 0 && !output_waits_) {
        const std::string_view packed = read_packed();
        if (packed.empty()) {
          if (inside_member_) throw damaged("gzip data ends in the middle of a member");
          return {};
        }
        stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
        stream_.avail_in = static_cast<uInt>(packed.size());
      }
      if (!inside_member_) {
        while (stream_.avail_in > 0 && *stream_.next_in == 0) ++stream_.next_in, --stream_.avail_in;
        if (stream_.avail_in == 0) continue;
        inflateReset(&stream_);
      }
      const int result = inflate(&stream_, Z_NO_FLUSH);
      if (result != Z_OK && result != Z_BUF_ERROR && result != Z_STREAM_END) {
        throw damaged(std::string("damaged gzip data: ") +
                      (stream_.msg != nullptr ? stream_.msg : zError(result)));
      }
      inside_member_ = result != Z_STREAM_END;
      output_waits_ = inside_member_ && stream_.avail_out == 0;
    }
    return {unpacked_.data(), kPieceBytes - stream_.avail_out};
  }

 private:
  std::string unpacked_ = std::string(kPieceBytes, '\0');
  z_stream stream_{};
  bool inside_member_ = true, output_waits_ = false;  // a file of 0 bytes is no gzip file
};

}  // namespace

UnpackedFile::UnpackedFile(const std::string& path) {
  if (has_ending(path, ".gz")) {
    source_ = std::make_unique<GzipSource>(path);
  } else if (has_ending(path, ".zst")) {
    source_ = std::make_unique<ZstdSource>(path);
  } else {
    source_ = std::make_unique<Source>(path);
  }
}
UnpackedFile::UnpackedFile(UnpackedFile&&) noexcept = default;
UnpackedFile::~UnpackedFile() = default;

std::string_view UnpackedFile::next() { return source_->next(); }
uint64_t UnpackedFile::packed_bytes_read() const { return source_->packed_bytes_read(); }
std::string UnpackedFile::sha256() { return source_->sha256(); }

bool has_ending(std::string_view path, std::string_view ending) {
  const auto same = [](unsigned char a, unsigned char b) {
    return std::tolower(a) == std::tolower(b);
  };
  return path.size() >= ending.size() &&
         std::equal(ending.begin(), ending.end(), path.end() - std::ssize(ending), same);
}

std::string unpacked_name(const std::string& path) {
  for (const std::string_view end : {".gz", ".zst"}) {
    if (has_ending(path, end)) return path.substr(0, path.size() - end.size());
  }
  return path;
}

}  // namespace tandem
