#include "base/memory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

namespace hetero {

Result<PageMemory> PageMemory::allocate(Bytes size) {
  PageMemory memory;
  if (size <= 0) {
    return memory;
  }
  void* p =
      mmap(nullptr, static_cast<size_t>(size), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) {
    return resource_exhausted(fmt::format("cannot allocate {} bytes: {}", size, std::strerror(errno)));
  }
  memory.data_ = static_cast<std::byte*>(p);
  memory.size_ = size;
  return memory;
}

PageMemory::PageMemory(PageMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

PageMemory& PageMemory::operator=(PageMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

void PageMemory::use_huge_pages() {
#if defined(MADV_HUGEPAGE)
  if (data_ != nullptr) {
    (void)madvise(data_, static_cast<size_t>(size_), MADV_HUGEPAGE);
  }
#endif
}

PageMemory::~PageMemory() {
  if (data_ != nullptr) {
    munmap(data_, static_cast<size_t>(size_));
  }
}

namespace {

/// Where files are mapped: begin -> end.
struct Mappings {
  std::mutex mutex;
  std::map<uintptr_t, uintptr_t> ranges;
};
Mappings& mappings() {
  static Mappings all;
  return all;
}

uintptr_t address(const void* p) {
  return reinterpret_cast<uintptr_t>(p);
}

/// Fills `data` from the file's beginning.
Status read_all(int fd, const std::string& path, std::byte* data, Bytes size, const ReadProgress& progress) {
  constexpr Bytes kPiece = Bytes{8} << 20;
  for (Bytes done = 0; done < size;) {
    const ssize_t got = ::read(fd, data + done, static_cast<size_t>(std::min(kPiece, size - done)));
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      return io_error(fmt::format("{}: cannot read at byte {}: {}", path, done, std::strerror(errno)));
    }
    if (got == 0) {
      return io_error(
          fmt::format("{}: ends at byte {}, expected {}; it changed while it was read", path, done, size));
    }
    done += got;
    if (progress) {
      progress(done, size);
    }
  }
  return {};
}

}  // namespace

Result<MappedFile> MappedFile::open(const std::string& path) {
  return load(path, true, {});
}

Result<MappedFile> MappedFile::read(const std::string& path, const ReadProgress& progress) {
  return load(path, false, progress);
}

Result<MappedFile> MappedFile::load(const std::string& path, bool map, const ReadProgress& progress) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    const Code code = errno == ENOENT ? Code::kNotFound : Code::kIo;
    return Status(code, fmt::format("{}: cannot open: {}", path, std::strerror(errno)));
  }
  struct stat st {};
  Status error;
  MappedFile file;
  file.path_ = path;
  if (fstat(fd, &st) != 0) {
    error = io_error(fmt::format("{}: cannot stat: {}", path, std::strerror(errno)));
  } else if (!S_ISREG(st.st_mode)) {
    error = io_error(fmt::format("{}: expected a regular file", path));
  } else if (st.st_size > 0) {
    const auto size = static_cast<size_t>(st.st_size);
    void* p = map ? mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    const bool read = !map || (p == MAP_FAILED && errno == ENODEV);  // a file system that cannot map
    if (read) {
      p = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }
    if (p == MAP_FAILED) {
      error = read ? resource_exhausted(fmt::format("{}: cannot allocate {} bytes for it: {}", path, size,
                                                    std::strerror(errno)))
                   : io_error(fmt::format("{}: cannot map: {}", path, std::strerror(errno)));
    } else {
      file.data_ = static_cast<const std::byte*>(p);
      file.size_ = st.st_size;
      file.mapped_ = !read;
      if (!read) {
        const std::lock_guard lock(mappings().mutex);
        mappings().ranges[address(p)] = address(p) + size;
      }
      if (read) {
        error = read_all(fd, path, static_cast<std::byte*>(p), file.size_, progress);
      }
    }
  }
  ::close(fd);
  if (!error.ok()) {
    return error;
  }
  return file;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      mapped_(std::exchange(other.mapped_, false)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(mapped_, other.mapped_);
  return *this;
}

void MappedFile::release(const std::byte* begin, Bytes size) const {
  const Bytes page = sysconf(_SC_PAGESIZE);
  const Bytes from = (begin - data_ + page - 1) / page * page;
  // The file's last page is whole, even if the file ends within it.
  const Bytes end = begin - data_ + size;
  const Bytes to = end == size_ ? end : end / page * page;
  if (mapped_ && from < to) {
    (void)madvise(const_cast<std::byte*>(data_) + from, static_cast<size_t>(to - from), MADV_DONTNEED);
  }
}

Bytes MappedFile::resident() const {
  if (!mapped_) {
    return size_;
  }
  std::FILE* f = std::fopen("/proc/self/smaps", "r");
  if (f == nullptr) {
    return 0;
  }
  // "7f0000000000-7f0000001000 r--s ... path", followed by lines like "Rss:   4 kB".
  Bytes sum = 0;
  bool ours = false;
  char line[512];
  while (std::fgets(line, sizeof(line), f) != nullptr) {
    unsigned long begin = 0;
    unsigned long end = 0;
    long long kilobytes = 0;
    if (std::sscanf(line, "%lx-%lx ", &begin, &end) == 2) {
      const auto base = reinterpret_cast<uintptr_t>(data_);
      ours = begin >= base && begin < base + static_cast<uintptr_t>(size_);
    } else if (ours && std::sscanf(line, "Rss: %lld kB", &kilobytes) == 1) {
      sum += kilobytes * 1024;
    }
  }
  std::fclose(f);
  return sum;
}

void MappedFile::release_any(const std::byte* data, Bytes size) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin = (address(data) + page - 1) / page * page;
  const uintptr_t end = (address(data) + static_cast<uintptr_t>(size)) / page * page;
  if (begin >= end) {
    return;
  }
  const std::lock_guard lock(mappings().mutex);
  auto range = mappings().ranges.upper_bound(begin);
  if (range != mappings().ranges.begin() && (--range)->second >= end) {
    (void)madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
  }
}

MappedFile::~MappedFile() {
  if (mapped_) {
    const std::lock_guard lock(mappings().mutex);
    mappings().ranges.erase(address(data_));
  }
  if (data_ != nullptr) {
    munmap(const_cast<std::byte*>(data_), static_cast<size_t>(size_));
  }
}

Bytes resident_bytes() {
  std::FILE* f = std::fopen("/proc/self/statm", "r");
  if (f == nullptr) {
    return 0;
  }
  long long total = 0;
  long long resident = 0;
  const int fields = std::fscanf(f, "%lld %lld", &total, &resident);
  std::fclose(f);
  return fields == 2 ? resident * sysconf(_SC_PAGESIZE) : 0;
}

Bytes peak_resident_bytes() {
  rusage usage{};
  return getrusage(RUSAGE_SELF, &usage) == 0 ? usage.ru_maxrss * Bytes{1024} : 0;
}

}  // namespace hetero
