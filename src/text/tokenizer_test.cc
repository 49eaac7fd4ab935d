#include "text/tokenizer.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "cases.h"
#include "gguf/writer.h"
#include "text/unicode.h"

namespace hetero {
namespace {

using Ids = std::vector<TokenId>;
using nlohmann::json;

std::string hex(std::string_view bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (const char byte : bytes) {
    out += kDigits[static_cast<uint8_t>(byte) >> 4];
    out += kDigits[static_cast<uint8_t>(byte) & 15];
  }
  return out;
}

std::unique_ptr<const Tokenizer> load_or_fail(const std::string& path) {
  auto file = GgufFile::open(path);
  EXPECT_TRUE(file.ok()) << file.status().message();
  if (!file.ok()) {
    return nullptr;
  }
  auto tokenizer = Tokenizer::load(**file);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

Ids encode(const Tokenizer& t, std::string_view text, bool add_special = false, bool parse_special = false) {
  auto ids = t.encode(text, add_special, parse_special);
  EXPECT_TRUE(ids.ok()) << ids.status().message();
  return ids.ok() ? *ids : Ids{-2};
}

// --- The shared vocabularies ---------------------------------------------------------------------

TEST(TokenizerCases, EveryVocabularyGivesTheReferenceIdsAndBytes) {
  HETERO_NEED_CASES("tokenizer");
  int vocabularies = 0;
  for (const auto& entry : std::filesystem::directory_iterator(cases_dir() + "/tokenizer")) {
    const std::string path = entry.path().string();
    const std::string suffix = ".extended.json";
    if (path.size() < suffix.size() || path.substr(path.size() - suffix.size()) != suffix) {
      continue;
    }
    SCOPED_TRACE(path);
    ++vocabularies;
    const json extended = json::parse(std::ifstream(path));
    const auto t = load_or_fail(cases_dir() + "/tokenizer/" + extended["vocab"].get<std::string>());
    ASSERT_NE(t, nullptr);
    for (const json& c : extended["cases"]) {
      const auto text = c["text"].get<std::string>();
      const Ids ids = encode(*t, text);
      EXPECT_EQ(ids, c["ids"].get<Ids>()) << text;
      EXPECT_EQ(encode(*t, text, true, true), c["ids_special"].get<Ids>()) << text;
      EXPECT_EQ(hex(t->decode(ids, true)), c["detok_hex"].get<std::string>()) << text;
    }
    std::ifstream upstream(path.substr(0, path.size() - suffix.size()) + ".upstream.json");
    if (upstream) {
      for (const json& c : json::parse(upstream)) {
        EXPECT_EQ(encode(*t, c["text"].get<std::string>()), c["ids"].get<Ids>()) << c["text"];
      }
    }
  }
  EXPECT_GT(vocabularies, 0);
}

TEST(TokenizerCases, MegabyteOfOneCharacterIsNotQuadratic) {
  HETERO_NEED_CASES("tokenizer");
  for (const char* name : {"llama-bpe", "llama-spm"}) {
    const auto t = load_or_fail(cases_dir() + "/tokenizer/ggml-vocab-" + name + ".gguf");
    ASSERT_NE(t, nullptr);
    for (const char c : {'a', ' ', '\n', '\xFF'}) {
      // The test program's time limit is far above what this takes, and far below a quadratic loop.
      const Ids ids = encode(*t, std::string(1'000'000, c));
      EXPECT_GT(ids.size(), 1'000u) << name;
      EXPECT_LE(ids.size(), 1'000'001u) << name;
    }
  }
}

TEST(TokenizerCases, MalformedVocabulariesAreRefusedOrHarmless) {
  HETERO_NEED_CASES("hostile");
  const json manifest = json::parse(std::ifstream(cases_dir() + "/hostile/manifest.json"));
  int seen = 0;
  const std::function<void(const json&)> visit = [&](const json& node) {
    if (node.is_object() && node.value("stage", json()) == "vocab" && node.contains("file")) {
      ++seen;
      const auto name = node["file"].get<std::string>();
      SCOPED_TRACE(name);
      auto file = GgufFile::open(cases_dir() + "/hostile/" + name);
      if (!file.ok()) {
        EXPECT_NE(node["expect"], "accept");
        return;
      }
      auto t = Tokenizer::load(**file);
      if (!t.ok()) {
        EXPECT_NE(node["expect"], "accept");
        EXPECT_NE(t.status().message().find("tokenizer.ggml."), std::string::npos) << t.status().message();
        EXPECT_NE(t.status().message().find(name), std::string::npos) << t.status().message();
        return;
      }
      EXPECT_NE(node["expect"], "reject");
      const Ids ids = encode(**t, "the abc \xFF\x80 <s>", true, true);
      EXPECT_FALSE((*t)->decode(ids, true).empty());
      for (TokenId id = 0; id < (*t)->size(); ++id) {
        EXPECT_LE((*t)->piece(id, true).size(), size_t{1} << 20);
      }
      return;
    }
    if (node.is_structured()) {
      for (const json& child : node) {
        visit(child);
      }
    }
  };
  visit(manifest);
  EXPECT_GT(seen, 10);
}

// --- Small vocabularies made here ----------------------------------------------------------------

class MadeVocabulary : public ::testing::Test {
 protected:
  struct Token {
    std::string text;
    int32_t type = 1;
    float score = 0;
  };

  void TearDown() override { std::filesystem::remove(path_); }

  // A byte for each byte, then `extra`.
  void make_bpe(const std::vector<Token>& extra, const std::vector<std::string>& merges,
                const std::string& pre = "gpt-2") {
    for (int byte = 0; byte < 256; ++byte) {
      tokens_.push_back({});
      append_utf8(tokens_.back().text, byte_alphabet_char(static_cast<uint8_t>(byte)));
    }
    tokens_.insert(tokens_.end(), extra.begin(), extra.end());
    writer_.set_string("tokenizer.ggml.model", "gpt2");
    writer_.set_string("tokenizer.ggml.pre", pre);
    writer_.set_strings("tokenizer.ggml.merges", merges);
  }

  // <unk> <s> </s>, byte tokens from 3 on, then `extra` from 259 on.
  void make_spm(const std::vector<Token>& extra, const char* model = "llama") {
    tokens_ = {{"<unk>", 2}, {"<s>", 3}, {"</s>", 3}};
    for (int byte = 0; byte < 256; ++byte) {
      char text[8];
      std::snprintf(text, sizeof(text), "<0x%02X>", static_cast<unsigned>(byte));
      tokens_.push_back({text, 6});
    }
    tokens_.insert(tokens_.end(), extra.begin(), extra.end());
    writer_.set_string("tokenizer.ggml.model", model);
  }

  Result<std::unique_ptr<const Tokenizer>> try_load() {
    std::vector<std::string> texts;
    std::vector<int32_t> types;
    std::vector<float> scores;
    for (const Token& token : tokens_) {
      texts.push_back(token.text);
      types.push_back(token.type);
      scores.push_back(token.score);
    }
    writer_.set_string("general.architecture", "llama");
    writer_.set_strings("tokenizer.ggml.tokens", texts);
    writer_.set_ints("tokenizer.ggml.token_type", types);
    writer_.set_floats("tokenizer.ggml.scores", scores);
    path_ = ::testing::TempDir() + "vocabulary_" + std::to_string(::getpid()) + ".gguf";
    EXPECT_TRUE(writer_.write(path_).ok());
    HETERO_TRY(const auto file, GgufFile::open(path_));
    return Tokenizer::load(*file);
  }

  std::unique_ptr<const Tokenizer> load() {
    auto t = try_load();
    EXPECT_TRUE(t.ok()) << t.status().message();
    return t.ok() ? *std::move(t) : nullptr;
  }

  void expect_refused(const std::string& mentions) {
    const auto t = try_load();
    ASSERT_FALSE(t.ok());
    EXPECT_NE(t.status().message().find(mentions), std::string::npos) << t.status().message();
    EXPECT_NE(t.status().message().find(path_), std::string::npos) << t.status().message();
  }

  std::vector<Token> tokens_;
  GgufWriter writer_;
  std::string path_;
};

TEST_F(MadeVocabulary, BpeMergesByRankThenFromTheLeft) {
  make_bpe({{"ab"}, {"bc"}, {"abc"}, {"aa"}}, {"b c", "a b", "ab c", "a bc", "a a"});
  const auto t = load();
  ASSERT_NE(t, nullptr);
  EXPECT_EQ(encode(*t, "abc"), (Ids{258}));  // bc first, then a bc
  EXPECT_EQ(encode(*t, "ab"), (Ids{256}));
  EXPECT_EQ(encode(*t, "aaaaa"), (Ids{259, 259, 'a'}));
  EXPECT_EQ(encode(*t, ""), Ids{});
}

TEST_F(MadeVocabulary, BpeMergeThroughATextWithoutATokenStillReachesItsTokens) {
  make_bpe({{"abcd"}}, {"a b", "c d", "ab cd"});
  const auto t = load();
  ASSERT_NE(t, nullptr);
  EXPECT_EQ(encode(*t, "abcd"), (Ids{256}));
  EXPECT_EQ(encode(*t, "abc"), (Ids{'a', 'b', 'c'}));  // "ab" has no token: its bytes
}

TEST_F(MadeVocabulary, WholeWordsSkipMergesOnlyWhereThePreTokenizerSaysSo) {
  make_bpe({{"abc"}}, {}, "llama-bpe");
  const auto t = load();
  ASSERT_NE(t, nullptr);
  EXPECT_EQ(encode(*t, "abc"), (Ids{256}));
  EXPECT_FALSE(t->adds_bos());  // llama-bpe adds it by default, but the file names none
  EXPECT_EQ(t->bos(), -1);
}

TEST_F(MadeVocabulary, Gemma4MergesCharactersAndWritesSpaces) {
  make_spm({{"\u2581"}, {"a"}, {"b"}, {"\u2581a"}, {"ab"}, {"\n\n"}}, "gemma4");  // from 259 on
  writer_.set_strings("tokenizer.ggml.merges", {"a b", "\u2581 a"});
  const auto t = load();
  ASSERT_NE(t, nullptr);
  EXPECT_EQ(encode(*t, "a ab"), (Ids{260, 259, 263}));  // no space in front; "ab" before "_ a"
  EXPECT_EQ(encode(*t, " a\n\n\u00e9"), (Ids{262, 264, 3 + 0xC3, 3 + 0xA9}));
  EXPECT_EQ(encode(*t, "\n"), (Ids{3 + '\n'}));
  EXPECT_EQ(t->decode(encode(*t, " a b\n\u00e9"), false), " a b\n\u00e9");
}

TEST_F(MadeVocabulary, EveryByteStringSurvivesBothKindsOfTokenizer) {
  std::mt19937 random(1);
  for (const bool bpe : {true, false}) {
    tokens_.clear();
    writer_ = {};
    if (bpe) {
      make_bpe({}, {}, "qwen2");  // does not clean up spaces
    } else {
      make_spm({{"▁", 1, -1}});
    }
    const auto t = load();
    ASSERT_NE(t, nullptr);
    for (int i = 0; i < 300; ++i) {
      std::string text;
      for (uint64_t n = random() % 40; n > 0; --n) {
        // Much of what makes up multi-byte characters, so that some are whole and some are not.
        constexpr uint8_t kBytes[] = {0,    ' ',  ' ',  'a',  0x80, 0x9F, 0xA0, 0xC0,
                                      0xC3, 0xE2, 0x96, 0x81, 0xED, 0xF0, 0xFF};
        text += static_cast<char>(kBytes[random() % sizeof(kBytes)]);
      }
      if (!bpe && text.find("\xE2\x96\x81") != std::string::npos) {
        continue;  // SPM's own mark for a space
      }
      EXPECT_EQ(hex(t->decode(encode(*t, text), true)), hex(text));
    }
  }
}

TEST_F(MadeVocabulary, BytesThatNeverOccurInUtf8AndHaveNoTokenBecomeTheReplacementCharacter) {
  make_bpe({}, {});
  tokens_[0xFF].text = "ninety";      // no token for this byte,
  tokens_[0xC1].type = 4;             // and here one for the character U+00C1
  tokens_[0x07].text = "ninetynine";  // nor for this one, which can occur
  const auto t = load();
  ASSERT_NE(t, nullptr);
  const Ids replacement = {0xEF, 0xBF, 0xBD};
  EXPECT_EQ(encode(*t, "\xFF"), replacement);
  EXPECT_EQ(encode(*t, "\xC1"), replacement);
  EXPECT_EQ(encode(*t, "Á"), (Ids{0xC1}));
  EXPECT_EQ(encode(*t, "a\x07"), (Ids{'a'}));
}

TEST_F(MadeVocabulary, ControlTokensNeedParsingAndUserDefinedOnesDoNot) {
  make_bpe({{"<|x|>", 3}, {"<tag>", 4}, {"<tag>>", 4}, {"<|im_end|>", 1}}, {});
  const auto t = load();
  ASSERT_NE(t, nullptr);
  EXPECT_EQ(encode(*t, "a<|x|><tag>b", false, true), (Ids{'a', 256, 257, 'b'}));
  EXPECT_EQ(encode(*t, "<|x|><tag>"), (Ids{'<', '|', 'x', '|', '>', 257}));
  EXPECT_EQ(encode(*t, "<tag>>>"), (Ids{258, '>'})) << "the longest one";
  EXPECT_EQ(encode(*t, "<tag"), (Ids{'<', 't', 'a', 'g'}));
  EXPECT_EQ(encode(*t, "<|im_end|>", false, true), (Ids{259})) << "known to be a control token";
  EXPECT_EQ(t->piece(256, true), "<|x|>");
  EXPECT_EQ(t->piece(256, false), "");
  EXPECT_EQ(t->piece(257, false), "<tag>");
  EXPECT_EQ(t->piece(-1, true), "");
  EXPECT_EQ(t->piece(260, true), "");
  EXPECT_EQ(t->decode({-1, 'a', 1 << 30}, true), "a");
}

TEST_F(MadeVocabulary, BosAndEosAreAddedWhereTheFileSaysSo) {
  make_bpe({{"<b>", 3}, {"<e>", 3}}, {});
  writer_.set_uint("tokenizer.ggml.bos_token_id", 256);
  writer_.set_uint("tokenizer.ggml.eos_token_id", 257);
  writer_.set_bool("tokenizer.ggml.add_bos_token", true);
  writer_.set_bool("tokenizer.ggml.add_eos_token", true);
  const auto t = load();
  ASSERT_NE(t, nullptr);
  EXPECT_TRUE(t->adds_bos());
  EXPECT_TRUE(t->adds_eos());
  EXPECT_EQ(encode(*t, "a", true), (Ids{256, 'a', 257}));
  EXPECT_EQ(encode(*t, "a", false), (Ids{'a'}));
  EXPECT_EQ(encode(*t, "", true), (Ids{256, 257}));
  EXPECT_TRUE(t->is_end(257));
  EXPECT_FALSE(t->is_end(256));
  EXPECT_FALSE(t->is_end(-1));
}

TEST_F(MadeVocabulary, TokensKnownToEndATurnEndGeneration) {
  make_bpe({{"<|im_end|>", 3}, {"<|eot_id|>", 4}, {"<|end|>", 3}, {"<mine>", 3}, {"<other>", 3}}, {});
  writer_.set_uint("tokenizer.ggml.eot_token_id", 259);
  const auto t = load();
  ASSERT_NE(t, nullptr);
  for (TokenId id = 256; id < 261; ++id) {
    EXPECT_EQ(t->is_end(id), id != 260) << id;
  }
}

TEST_F(MadeVocabulary, EndOfAMessageIsNotTheEndWhereTheFormatHasMarksForThat) {
  make_bpe({{"<|end|>", 3}, {"<|return|>", 3}, {"<|call|>", 3}}, {});
  const auto t = load();
  ASSERT_NE(t, nullptr);
  EXPECT_FALSE(t->is_end(256));
  EXPECT_TRUE(t->is_end(257));
}

TEST_F(MadeVocabulary, DecodingCleansSpacesBeforePunctuationForWordLevelPreTokenizers) {
  make_bpe({}, {}, "gpt-2");
  const auto t = load();
  ASSERT_NE(t, nullptr);
  const auto round = [&](std::string_view text) { return t->decode(encode(*t, text), true); };
  EXPECT_EQ(round("a . b ? c ! d , e ; f"), "a. b? c! d, e ; f");
  EXPECT_EQ(round("a ' b"), "a'b");
  EXPECT_EQ(round("it 's I 'm we 've they 're he 'd ca n't"), "it's I'm we've they're he 'd ca n't");
  EXPECT_EQ(round(" ."), ".");
  EXPECT_EQ(round(""), "");
}

TEST_F(MadeVocabulary, SpmMergesTheBestScoreFirst) {
  make_spm(
      {{"▁", 1, -9}, {"a", 1, -9}, {"b", 1, -9}, {"c", 1, -9}, {"ab", 1, -3}, {"bc", 1, -2}, {"▁a", 1, -1}});
  const auto t = load();
  ASSERT_NE(t, nullptr);
  EXPECT_EQ(encode(*t, "abc"), (Ids{265, 264}));  // ▁a (-1) and bc (-2)
  EXPECT_EQ(encode(*t, "cab", true), (Ids{1, 259, 262, 263}));
  EXPECT_EQ(t->decode({1, 265, 264}, false), "abc");  // without BOS and the prefix
  EXPECT_EQ(t->decode({1, 265, 264}, true), "<s> abc");
  EXPECT_EQ(t->piece(265, false), " a");
  EXPECT_EQ(encode(*t, "<s>a</s> b", false, true), (Ids{1, 265, 2, 259, 259, 261}));
  EXPECT_EQ(encode(*t, "<0x41>").size(), 7u) << "text never spells a byte token";
}

TEST_F(MadeVocabulary, SpmTokensWithASpaceInsideAreFound) {
  make_spm({{"▁", 1, -9}, {"a", 1, -9}, {"b", 1, -9}, {"a▁", 1, -2}, {"a▁b", 1, -1}});
  const auto t = load();
  ASSERT_NE(t, nullptr);
  EXPECT_EQ(encode(*t, "a b"), (Ids{259, 263}));
}

TEST_F(MadeVocabulary, SpmWithoutSpacePrefixKeepsTheTextAsItIs) {
  make_spm({{"▁", 1, -9}, {"a", 1, -9}});
  writer_.set_bool("tokenizer.ggml.add_space_prefix", false);
  writer_.set_bool("tokenizer.ggml.add_bos_token", false);
  const auto t = load();
  ASSERT_NE(t, nullptr);
  EXPECT_EQ(encode(*t, "a a", true), (Ids{260, 259, 260}));
  EXPECT_EQ(t->decode({259, 260}, false), " a");
}

TEST_F(MadeVocabulary, SpmRemovesExtraWhitespaceWhereTheFileSaysSo) {
  make_spm({{"▁", 1, -9}, {"a", 1, -9}});
  writer_.set_bool("tokenizer.ggml.remove_extra_whitespaces", true);
  const auto t = load();
  ASSERT_NE(t, nullptr);
  EXPECT_EQ(encode(*t, "  a   a  "), (Ids{259, 260, 259, 260}));
  EXPECT_EQ(encode(*t, "   "), Ids{});
}

TEST_F(MadeVocabulary, SpmWithoutByteTokensFallsBackToUnknown) {
  tokens_ = {{"<unk>", 2}, {"<s>", 3}, {"</s>", 3}, {"▁", 1, -1}};
  writer_.set_string("tokenizer.ggml.model", "llama");
  const auto t = load();
  ASSERT_NE(t, nullptr);
  EXPECT_EQ(encode(*t, "é"), (Ids{3, 0})) << "one for the character";
}

TEST_F(MadeVocabulary, Phi3SpecialTokensSwallowTheSpaceBehindThem) {
  make_spm({{"▁", 1, -9}, {"a", 1, -9}, {"<|end|>", 3}});
  writer_.set_string("general.name", "Phi-3 mini");
  const auto t = load();
  ASSERT_NE(t, nullptr);
  EXPECT_EQ(encode(*t, "<|end|> \n a", false, true), (Ids{261, 259, 260}));
  EXPECT_EQ(encode(*t, "<s> a", false, true), (Ids{1, 259, 259, 260}));
}

TEST_F(MadeVocabulary, UnknownPreTokenizerIsNamed) {
  make_bpe({}, {}, "nope-9000");
  expect_refused("nope-9000");
}

TEST_F(MadeVocabulary, MergeWithoutExactlyOneSpaceIsRefused) {
  make_bpe({}, {"a b", "a  b"});
  expect_refused("'tokenizer.ggml.merges'[1]");
}

TEST_F(MadeVocabulary, DuplicateTokensAreRefused) {
  make_bpe({{"dup"}, {"dup"}}, {});
  expect_refused("[256] and [257]");
}

TEST_F(MadeVocabulary, TokenTypeOutOfRangeIsRefused) {
  make_bpe({{"x1", 7}}, {});
  expect_refused("'tokenizer.ggml.token_type'[256] is 7");
}

TEST_F(MadeVocabulary, AddedBosWithoutAnIdIsRefused) {
  make_bpe({}, {});
  writer_.set_bool("tokenizer.ggml.add_bos_token", true);
  expect_refused("tokenizer.ggml.bos_token_id");
}

TEST_F(MadeVocabulary, IdsOutsideTheVocabularyAreRefused) {
  make_bpe({}, {});
  writer_.set_uint("tokenizer.ggml.eot_token_id", 256);
  expect_refused("'tokenizer.ggml.eot_token_id' is 256");
}

TEST_F(MadeVocabulary, OverlongSpecialTokenIsRefused) {
  make_bpe({{std::string(5000, 'a'), 4}}, {});
  expect_refused("5000 bytes");
}

TEST_F(MadeVocabulary, EmbeddingWithOtherRowsIsRefused) {
  make_bpe({}, {});
  writer_.add_tensor("token_embd.weight", DType::kF32, {1, 257}, std::vector<std::byte>(257 * 4));
  expect_refused("257 rows");
}

}  // namespace
}  // namespace hetero
