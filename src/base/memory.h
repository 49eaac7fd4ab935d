// Page-aligned memory straight from the operating system, and files mapped into memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "base/status.h"

namespace hetero {

using Bytes = int64_t;

/// Zeroed, page-aligned, private memory. Pages that are never touched cost nothing. Owns its
/// mapping; movable. Any thread may use the contents under the usual rules for plain memory.
class PageMemory {
 public:
  PageMemory() = default;
  static Result<PageMemory> allocate(Bytes size);
  PageMemory(PageMemory&& other) noexcept;
  PageMemory& operator=(PageMemory&& other) noexcept;
  ~PageMemory();

  /// Asks for large pages, for memory that will be written and read as a whole. May be refused.
  void use_huge_pages();

  std::byte* data() const { return data_; }
  Bytes size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  Bytes size_ = 0;
};

/// Called now and then while a file is read: bytes done, and bytes in all.
using ReadProgress = std::function<void(Bytes done, Bytes total)>;

/// A whole file in memory, read-only. Mapped, it must not shrink while it is open (reading past its
/// new end raises SIGBUS, as with every mapping); read, it is a private copy.
class MappedFile {
 public:
  MappedFile() = default;
  /// Maps the file, or reads it where its file system cannot map.
  static Result<MappedFile> open(const std::string& path);
  /// Reads all of it into memory of its own: for disks on which page faults are slow.
  static Result<MappedFile> read(const std::string& path, const ReadProgress& progress = {});
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  const std::byte* data() const { return data_; }
  Bytes size() const { return size_; }
  const std::string& path() const { return path_; }

  /// Gives back the memory of whole pages within the range, which lies in the file: they come back
  /// from the file when they are read again. Does nothing where the file was read, not mapped.
  void release(const std::byte* begin, Bytes size) const;
  /// The same for whoever does not know the file: does nothing where no file is mapped.
  static void release_any(const std::byte* data, Bytes size);
  /// How much of it is in this process's memory now; 0 where that is unknown.
  Bytes resident() const;

 private:
  static Result<MappedFile> load(const std::string& path, bool map, const ReadProgress& progress);

  std::string path_;
  const std::byte* data_ = nullptr;
  Bytes size_ = 0;
  bool mapped_ = false;
};

/// Resident set size of this process now and at its highest, in bytes; 0 where it is unknown.
Bytes resident_bytes();
Bytes peak_resident_bytes();

}  // namespace hetero
