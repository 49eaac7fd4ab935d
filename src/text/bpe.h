// BPE: on bytes (tokenizer.ggml.model "gpt2"), or on characters with byte tokens for what is missing
// ("gemma4").
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "text/merge.h"
#include "text/pretokenizer.h"
#include "text/vocab_tokenizer.h"

namespace hetero {

class BpeTokenizer final : public VocabTokenizer {
 public:
  static Result<std::unique_ptr<BpeTokenizer>> create(const GgufFile& file, Vocabulary vocabulary);

  const PreTokenizer::Traits& traits() const { return pretokenizer_.traits(); }
  std::string piece(TokenId id, bool with_special) const override;
  std::string decode(const std::vector<TokenId>& ids, bool with_special) const override;

 protected:
  Status encode_text(std::string_view text, bool at_start, std::vector<TokenId>& ids) const override;

 private:
  // What a pair of symbols becomes, with open addressing: encoding spends its time here.
  class MergeTable {
   public:
    void reserve(size_t merges);
    void insert(int32_t left, int32_t right, int32_t rank, int32_t id);  // the first one stays
    std::optional<Merge> find(int32_t left, int32_t right) const;

   private:
    struct Slot {
      uint64_t key = kFree;
      int32_t rank = 0;
      int32_t id = 0;
    };
    static constexpr uint64_t kFree = ~uint64_t{0};
    static uint64_t key(int32_t left, int32_t right) {
      return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
    }
    size_t slot(uint64_t key) const;
    std::vector<Slot> slots_;
  };

  BpeTokenizer(Vocabulary vocabulary, PreTokenizer pretokenizer);
  void encode_word(std::string_view word, Merger& merger, std::string& spelled,
                   std::vector<TokenId>& ids) const;
  void encode_characters(std::string_view word, Merger& merger, std::vector<TokenId>& ids) const;

  PreTokenizer pretokenizer_;
  // A symbol is a token id, or from size() on a text that merges pass through but no token has.
  std::array<int32_t, 256> byte_symbols_{};
  MergeTable merges_;
  std::vector<TokenId> replacement_;  // U+FFFD
};

}  // namespace hetero
