#include "text/pretokenizer.h"

#include <fmt/format.h>
#include <unicode/uchar.h>
#include <unicode/uregex.h>
#include <unicode/utf16.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <utility>

#include "text/pretokenizer_patterns.h"
#include "text/unicode.h"

namespace hetero {
namespace {

using Traits = PreTokenizer::Traits;

// Runs of digits cut into threes from the right, before the patterns. Originals say so by look-aheads
// over the rest of the run, which take quadratic time: (?=(\d{3})+(?!\d)) and \d{1,3}(?=(?:\d{3})*\b).
enum class Threes {
  kNone,
  kNumbers,  // of \p{N}
  kDigits,   // of \p{Nd}
  kWords,    // of \p{Nd}, where the run ends at the end of a word
};

struct Entry {
  std::string_view name;
  std::span<const std::string_view> patterns;
  Traits traits = {};
  Threes threes = Threes::kNone;
};

constexpr Traits kPlain = {};
constexpr Traits kVerbatim = {.cleans_spaces = false};
constexpr Traits kLlama3Traits = {.whole_words = true, .adds_bos = true};

using namespace patterns;  // NOLINT(google-build-using-namespace): the table below is all there is

constexpr Entry kEntries[] = {
    {"default", kDefault, kPlain},
    {"llama3", kLlama3, kLlama3Traits},
    {"llama-v3", kLlama3, kLlama3Traits},
    {"llama-bpe", kLlama3, kLlama3Traits},
    {"falcon3", kLlama3, kLlama3Traits},
    {"falcon-h1", kLlama3, kLlama3Traits},
    {"pixtral", kLlama3, kLlama3Traits},
    {"midm-2.0", kLlama3, kLlama3Traits},
    {"lfm2", kLlama3, kLlama3Traits},
    {"jina-v5-nano", kLlama3, kLlama3Traits},
    {"dbrx", kLlama3, kPlain},
    {"smaug-bpe", kLlama3, kPlain},
    {"glm4", kLlama3, {.whole_words = true}},
    {"glm5", kLlama3, {.whole_words = true}},
    {"chatglm-bpe", kLlama3, kPlain},
    {"jais-2", kJais2, kPlain},
    {"minicpm5", kMinicpm5, {.whole_words = true}},
    {"deepseek-llm", kDeepseekLlm, kVerbatim},
    {"deepseek-coder", kDeepseekCoder, kVerbatim},
    {"deepseek-v3", kDeepseek3, kVerbatim},
    {"hunyuan-dense", kDeepseek3, kVerbatim},
    {"hy_v4", kDeepseek3, kVerbatim},
    {"joyai-llm", kDeepseek3, kVerbatim},
    {"spark2_5", kSpark25, kVerbatim},
    {"youtu", kYoutu, {.whole_words = true, .cleans_spaces = false}},
    {"falcon", kFalcon, kPlain},
    {"starcoder", kStarcoder, kPlain},
    {"refact", kStarcoder, kPlain},
    {"command-r", kStarcoder, kVerbatim},
    {"smollm", kStarcoder, kVerbatim},
    {"codeshell", kStarcoder, kPlain},
    {"exaone", kStarcoder, kPlain},
    {"minerva-7b", kStarcoder, kPlain},
    {"mellum2", kStarcoder, kPlain},
    {"gpt-2", kGpt2, kPlain},
    {"phi-2", kGpt2, kPlain},
    {"mpt", kGpt2, kPlain},
    {"olmo", kGpt2, kPlain},
    {"jais", kGpt2, kPlain},
    {"exaone4", kGpt2, kPlain},
    {"gigachat", kGpt2, kPlain},
    {"a.x-4.0", kGpt2, kPlain},
    {"mellum", kGpt2, kPlain},
    {"modern-bert", kGpt2, kPlain},
    {"jina-es", kGpt2, kPlain},
    {"jina-de", kGpt2, kPlain},
    {"jina-v1-en", kGpt2, kPlain},
    {"jina-v2-code", kGpt2, kPlain},
    {"jina-v2-es", kGpt2, kPlain},
    {"jina-v2-de", kGpt2, kPlain},
    {"roberta-bpe", kGpt2, kPlain},
    {"trillion", kGpt2, kVerbatim},
    {"granite-docling", kGpt2, kVerbatim},
    {"qwen2", kQwen2, kVerbatim},
    {"deepseek-r1-qwen", kQwen2, kVerbatim},
    {"kormo", kQwen2, kVerbatim},
    {"f2llmv2", kQwen2, kVerbatim},
    {"hunyuan", kQwen2, kVerbatim},
    {"solar-open", kQwen2, kVerbatim},
    {"grok-2", kQwen2, kVerbatim},
    {"megrez", kQwen2, kPlain},
    {"stablelm2", kQwen2, kPlain},
    {"qwen35", kQwen35, kVerbatim},
    {"ufakzeka", kUfakzeka, kVerbatim},
    {"laguna", kLaguna, kVerbatim},
    {"gemma4", kLines, {.adds_bos = true, .cleans_spaces = false, .characters = true}},
    {"sarvam-moe", kLines, {.cleans_spaces = false, .characters = true}},
    {"bailingmoe", kBailingMoe, kVerbatim},
    {"bailingmoe2", kBailingMoe, kVerbatim},
    {"llada-moe", kBailingMoe, kVerbatim},
    {"seed-coder", kSeedCoder, kVerbatim},
    {"tekken", kTekken, {.whole_words = true, .adds_bos = true, .cleans_spaces = false}},
    {"gpt-4o", kGpt4o, kVerbatim},
    {"llama4", kGpt4o, kVerbatim},
    {"kanana2", kGpt4o, kVerbatim},
    {"talkie", kGpt4o, kVerbatim},
    {"minimax-m2", kGpt4o, kVerbatim},
    {"granite-embed-multi-97m", kGpt4o, {.whole_words = true, .cleans_spaces = false}},
    {"tiny_aya", kGpt4o, kVerbatim, Threes::kWords},
    {"cohere2moe", kGpt4o, kVerbatim, Threes::kWords},
    {"kimi-k2", kKimiK2, kVerbatim},
    {"superbpe", kSuperBpe, kVerbatim, Threes::kDigits},
    {"afmoe", kAfmoe, kVerbatim, Threes::kNumbers},
    {"exaone-moe", kExaoneMoe, kPlain},
    {"poro-chat", kBloom, kVerbatim},
    {"bloom", kBloom, kPlain},
    {"gpt3-finnish", kBloom, kPlain},
    {"viking", kViking, kVerbatim},
    {"chameleon", kChameleon, {.adds_bos = true, .cleans_spaces = false}},
};

struct CloseRegex {
  void operator()(URegularExpression* regex) const { uregex_close(regex); }
};
using Regex = std::unique_ptr<URegularExpression, CloseRegex>;

void append_utf16(std::u16string& out, char32_t code) {
  if (code >= 0x10000) {
    out.push_back(static_cast<char16_t>(0xD800 + ((code - 0x10000) >> 10)));
    out.push_back(static_cast<char16_t>(0xDC00 + ((code - 0x10000) & 0x3FF)));
  } else {
    out.push_back(static_cast<char16_t>(code));
  }
}

Result<Regex> compile(std::string_view pattern) {
  // ICU's own \s lacks U+000B and U+0085, which the models' regex engines count as white space.
  std::string icu;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const std::string_view escape = pattern.substr(i, 2);
    if (escape == R"(\s)" || escape == R"(\S)") {
      icu += escape[1] == 's' ? R"(\p{White_Space})" : R"(\P{White_Space})";
      ++i;
    } else if (pattern[i] == '\\') {
      icu += escape;
      ++i;
    } else {
      icu += pattern[i];
    }
  }
  std::u16string utf16;
  for (size_t i = 0; i < icu.size();) {
    const Utf8Char c = decode_utf8(std::string_view(icu).substr(i));
    append_utf16(utf16, c.code);
    i += c.length;
  }
  UErrorCode error = U_ZERO_ERROR;
  Regex regex(uregex_open(utf16.data(), static_cast<int32_t>(utf16.size()), 0, nullptr, &error));
  if (U_FAILURE(error)) {
    return internal_error(fmt::format("regular expression '{}': {}", pattern, u_errorName(error)));
  }
  return regex;
}

// UTF-16 code units of a text, and the byte offset of each of them and of the end.
struct Utf16Text {
  std::u16string units;
  std::vector<uint32_t> offsets;

  explicit Utf16Text(std::string_view text) {
    units.reserve(text.size());
    offsets.reserve(text.size() + 1);
    for (size_t i = 0; i < text.size();) {
      const Utf8Char c = decode_utf8(text.substr(i));
      append_utf16(units, c.code);
      offsets.resize(units.size(), static_cast<uint32_t>(i));
      i += c.length;
    }
    offsets.push_back(static_cast<uint32_t>(text.size()));
  }
};

// Appends where pieces end: in front of each group of three, and behind the run.
void cut_threes(const std::u16string& text, Threes threes, std::vector<int32_t>& ends) {
  const auto length = static_cast<int32_t>(text.size());
  const auto is_digit = [&](UChar32 c) {
    return threes == Threes::kNumbers ? (U_GET_GC_MASK(c) & U_GC_N_MASK) != 0 : u_isdigit(c) != 0;
  };
  const auto is_word = [](UChar32 c) {
    return u_hasBinaryProperty(c, UCHAR_ALPHABETIC) != 0 ||
           (U_GET_GC_MASK(c) & (U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK)) != 0;
  };
  std::vector<int32_t> run;  // where its digits begin
  for (int32_t i = 0; i < length;) {
    run.clear();
    int32_t next = i;
    UChar32 c = 0;
    while (next < length) {
      const int32_t begin = next;
      U16_NEXT(text.data(), next, length, c);
      if (!is_digit(c)) {
        next = begin;
        break;
      }
      run.push_back(begin);
    }
    if (run.empty()) {
      U16_NEXT(text.data(), i, length, c);
      continue;
    }
    i = next;
    if (threes == Threes::kWords && i < length && is_word(c)) {
      continue;
    }
    const size_t first = run.size() % 3;
    const bool isolates =
        threes != Threes::kDigits;  // the whole run, as a match does and a look-ahead does not
    for (size_t digit = isolates ? 0 : first; digit < run.size();
         digit += digit == 0 && first > 0 ? first : 3) {
      if (run[digit] > 0) {
        ends.push_back(run[digit]);
      }
    }
    if (isolates) {
      ends.push_back(i);
    }
  }
  if (length > 0 && (ends.empty() || ends.back() < length)) {
    ends.push_back(length);
  }
}

}  // namespace

struct PreTokenizer::Impl {
  std::vector<Regex> regexes;
  Threes threes = Threes::kNone;
};

PreTokenizer::PreTokenizer(std::unique_ptr<Impl> impl, const Traits& traits)
    : impl_(std::move(impl)), traits_(traits) {}
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;
PreTokenizer& PreTokenizer::operator=(PreTokenizer&&) noexcept = default;
PreTokenizer::~PreTokenizer() = default;

Result<PreTokenizer> PreTokenizer::create(std::string_view name) {
  const auto* entry =
      std::find_if(std::begin(kEntries), std::end(kEntries), [&](const Entry& e) { return e.name == name; });
  if (entry == std::end(kEntries)) {
    return unsupported(
        fmt::format("'tokenizer.ggml.pre' is '{:.64}', which is not a pre-tokenizer known here", name));
  }
  auto impl = std::make_unique<Impl>();
  impl->threes = entry->threes;
  for (const std::string_view pattern : entry->patterns) {
    HETERO_TRY(Regex regex, compile(pattern));
    impl->regexes.push_back(std::move(regex));
  }
  return PreTokenizer(std::move(impl), entry->traits);
}

Result<std::vector<std::string_view>> PreTokenizer::split(std::string_view text) const {
  if (text.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
    return invalid_argument(
        fmt::format("a text of {} bytes is too long, expected fewer than 2^31", text.size()));
  }
  const Utf16Text utf16(text);
  const auto length = static_cast<int32_t>(utf16.units.size());
  // Ends of the pieces so far, ascending; each pass cuts them further.
  std::vector<int32_t> ends;
  if (impl_->threes != Threes::kNone) {
    cut_threes(utf16.units, impl_->threes, ends);
  } else if (length > 0) {
    ends.push_back(length);
  }
  std::vector<int32_t> finer;
  for (const Regex& shared : impl_->regexes) {
    UErrorCode error = U_ZERO_ERROR;
    // A compiled expression holds the state of one search, so each call searches with its own.
    const Regex regex(uregex_clone(shared.get(), &error));
    uregex_setText(regex.get(), utf16.units.data(), length, &error);
    finer.clear();
    int32_t begin = 0;
    for (const int32_t end : ends) {
      uregex_setRegion(regex.get(), begin, end, &error);  // a look-around sees this piece alone
      int32_t done = begin;
      while (uregex_findNext(regex.get(), &error) != 0 && U_SUCCESS(error)) {
        const int32_t match_begin = uregex_start(regex.get(), 0, &error);
        const int32_t match_end = uregex_end(regex.get(), 0, &error);
        if (match_begin > done) {
          finer.push_back(match_begin);
        }
        finer.push_back(match_end);
        done = match_end;
      }
      if (done < end) {
        finer.push_back(end);
      }
      begin = end;
    }
    if (U_FAILURE(error)) {
      return internal_error(fmt::format("pre-tokenizer: {}", u_errorName(error)));
    }
    ends.swap(finer);
  }
  std::vector<std::string_view> pieces;
  pieces.reserve(ends.size());
  uint32_t begin = 0;
  for (const int32_t end : ends) {
    const uint32_t byte_end = utf16.offsets[static_cast<size_t>(end)];
    pieces.push_back(text.substr(begin, byte_end - begin));
    begin = byte_end;
  }
  return pieces;
}

}  // namespace hetero
