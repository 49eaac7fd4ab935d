// Errors as values. Every call that can fail for a reason outside our own code returns Status or
// Result<T>; asserts are for our own bugs only, and the library never prints, throws across a
// folder or aborts.
#pragma once

#include <cassert>
#include <optional>
#include <string>
#include <utility>

namespace hetero {

enum class Code {
  kOk,
  kInvalidArgument,    // a wrong call: option, prompt, id out of range
  kMalformed,          // a file whose contents break its format
  kUnsupported,        // well formed, but not something this engine can do
  kNotFound,           // a file, tensor, device or name that is not there
  kUnavailable,        // hardware or a library is absent on this machine
  kResourceExhausted,  // out of memory, context full
  kDeviceLost,         // a processor failed while working
  kCancelled,          // the user stopped it
  kIo,                 // the operating system refused a file operation
  kInternal,           // a bug of ours that was caught
};

/// Success, or a code and one line that names the file, tensor or option, what was expected and
/// what was found. Cheap to copy when ok.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == Code::kOk; }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }

  /// The same error with "prefix: " in front; ok stays ok.
  Status with_prefix(const std::string& prefix) const {
    return ok() ? *this : Status(code_, prefix + ": " + message_);
  }

 private:
  Code code_ = Code::kOk;
  std::string message_;
};

inline Status invalid_argument(std::string m) { return {Code::kInvalidArgument, std::move(m)}; }
inline Status malformed(std::string m) { return {Code::kMalformed, std::move(m)}; }
inline Status unsupported(std::string m) { return {Code::kUnsupported, std::move(m)}; }
inline Status not_found(std::string m) { return {Code::kNotFound, std::move(m)}; }
inline Status unavailable(std::string m) { return {Code::kUnavailable, std::move(m)}; }
inline Status resource_exhausted(std::string m) { return {Code::kResourceExhausted, std::move(m)}; }
inline Status device_lost(std::string m) { return {Code::kDeviceLost, std::move(m)}; }
inline Status cancelled(std::string m) { return {Code::kCancelled, std::move(m)}; }
inline Status io_error(std::string m) { return {Code::kIo, std::move(m)}; }
inline Status internal_error(std::string m) { return {Code::kInternal, std::move(m)}; }

/// A T or the Status that says why there is none.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}  // NOLINT(google-explicit-constructor)
  Result(Status error) : error_(std::move(error)) { assert(!error_.ok()); }  // NOLINT

  bool ok() const { return value_.has_value(); }
  const Status& status() const { return error_; }

  T& value() & {
    assert(ok());
    return *value_;
  }
  const T& value() const& {
    assert(ok());
    return *value_;
  }
  T&& value() && {
    assert(ok());
    return *std::move(value_);
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  std::optional<T> value_;
  Status error_;
};

}  // namespace hetero

#define HETERO_CONCAT_INNER(a, b) a##b
#define HETERO_CONCAT(a, b) HETERO_CONCAT_INNER(a, b)

/// Returns the error of a Status expression to the caller.
#define HETERO_RETURN_IF_ERROR(expr)            \
  do {                                          \
    if (auto status_ = (expr); !status_.ok()) { \
      return status_;                           \
    }                                           \
  } while (0)

/// `HETERO_TRY(auto x, f());` declares x from a Result, or returns its error to the caller.
#define HETERO_TRY(declaration, expr) HETERO_TRY_INNER(declaration, expr, HETERO_CONCAT(result_, __LINE__))
#define HETERO_TRY_INNER(declaration, expr, result) \
  auto result = (expr);                             \
  if (!result.ok()) {                               \
    return result.status();                         \
  }                                                 \
  declaration = std::move(result).value()
