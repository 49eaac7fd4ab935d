// Text to token ids and back, by the vocabulary of a model file.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "gguf/file.h"

namespace hetero {

using TokenId = int32_t;

/// Immutable after load(); any number of threads may use it.
class Tokenizer {
 public:
  /// Reads `tokenizer.ggml.*` of a model or vocabulary-only file (the file may be dropped
  /// afterwards). Model "gpt2" is byte-level BPE, with the pre-tokenizer that
  /// `tokenizer.ggml.pre` names; "llama" is SentencePiece BPE (SPM). Every malformed array, id or
  /// string is an error that names the key.
  static Result<std::unique_ptr<const Tokenizer>> load(const GgufFile& file);
  virtual ~Tokenizer() = default;

  /// Token ids of `text` (any bytes; invalid UTF-8 never fails). With `parse_special`, control
  /// and user-defined tokens written in the text become their ids; user-defined ones do so in any
  /// case. With `add_special`, BOS/EOS are added where the file says so.
  virtual Result<std::vector<TokenId>> encode(std::string_view text, bool add_special,
                                              bool parse_special) const = 0;

  /// The bytes that one token stands for (a piece may hold part of a UTF-8 character). Control
  /// tokens give nothing unless `with_special`. An id out of range gives nothing.
  virtual std::string piece(TokenId id, bool with_special) const = 0;

  /// The bytes of a whole sequence; differs from the joined pieces where the vocabulary puts a
  /// space in front of the first word (SPM), or where it cleans up the spaces before punctuation
  /// (BPE with some pre-tokenizers).
  virtual std::string decode(const std::vector<TokenId>& ids, bool with_special) const = 0;

  int64_t size() const { return size_; }
  /// -1 where the file names none; SPM then has its fixed ones (BOS 1, EOS 2).
  TokenId bos() const { return bos_; }
  TokenId eos() const { return eos_; }
  /// Generation ends at any of these: EOS, EOT, EOM and tokens known to mean them.
  bool is_end(TokenId id) const;
  bool adds_bos() const { return adds_bos_; }
  bool adds_eos() const { return adds_eos_; }

 protected:
  int64_t size_ = 0;
  TokenId bos_ = -1;
  TokenId eos_ = -1;
  bool adds_bos_ = false;
  bool adds_eos_ = false;
  std::vector<TokenId> end_tokens_;
};

/// Joins pieces of generated tokens and gives out only whole UTF-8 characters, so that a stream
/// never shows half of one. Bytes that can never become a character come out as U+FFFD.
class Utf8Stream {
 public:
  std::string push(std::string_view bytes);
  std::string finish();  // what is left, completed with U+FFFD

 private:
  std::string pending_;
};

}  // namespace hetero
