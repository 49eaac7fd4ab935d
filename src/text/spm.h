// SentencePiece BPE (tokenizer.ggml.model "llama"): scores instead of merge ranks, spaces written
// as U+2581, bytes as fallback.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "text/merge.h"
#include "text/vocab_tokenizer.h"

namespace hetero {

class SpmTokenizer final : public VocabTokenizer {
 public:
  static Result<std::unique_ptr<SpmTokenizer>> create(const GgufFile& file, Vocabulary vocabulary);

  void set_unknown(TokenId id) { unknown_ = id; }
  std::string piece(TokenId id, bool with_special) const override;
  std::string decode(const std::vector<TokenId>& ids, bool with_special) const override;

 protected:
  Status encode_text(std::string_view text, bool at_start, std::vector<TokenId>& ids) const override;

 private:
  explicit SpmTokenizer(Vocabulary vocabulary) : VocabTokenizer(std::move(vocabulary)) {}
  std::string normalize(std::string_view text, bool at_start) const;
  void encode_part(std::string_view part, Merger& merger, std::vector<TokenId>& ids) const;

  bool add_space_prefix_ = true;
  bool remove_extra_whitespaces_ = false;
  TokenId unknown_ = -1;
  size_t longest_token_ = 0;
  // No token has a space behind another character, so no merge joins two words.
  bool words_are_separate_ = true;
  std::array<TokenId, 256> byte_tokens_{};  // -1: none
};

}  // namespace hetero
