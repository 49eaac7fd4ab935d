// The regular expressions behind the names of `tokenizer.ggml.pre`. Names and patterns are those
// of the models' tokenizer.json files, as llama.cpp (src/llama-vocab.cpp) assigns them to names.
// Where that list approximates an original (tekken, gpt-4o, case folding), the original is used.
// Two habits: \s and \S stand for Unicode white space (pretokenizer.cc translates them for ICU), and
// no pattern may backtrack more than linearly on any text.
#pragma once

#include <string_view>

namespace hetero::patterns {

#define HETERO_CONTRACTION R"((?:'[sSſ]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]))"
#define HETERO_SPACES R"(|\s*[\r\n]+|\s+(?!\S)|\s+)"
#define HETERO_UPPER R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])"
#define HETERO_LOWER R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])"
#define HETERO_ASCII_PUNCTUATION R"([!"#$%\&'()*+,\-./:;<=>?@\[\\\]\^_`{|}~])"

inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kQwen2Pattern =
    HETERO_CONTRACTION R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)" HETERO_SPACES;

inline constexpr std::string_view kGpt2[] = {kGpt2Pattern};
inline constexpr std::string_view kStarcoder[] = {R"(\p{N})", kGpt2Pattern};
inline constexpr std::string_view kFalcon[] = {R"([\p{P}\$\+<=>\^~\|`]+)", kGpt2Pattern,
                                               R"([0-9][0-9][0-9])"};
inline constexpr std::string_view kDefault[] = {R"([\p{P}\$\+<=>\^~\|]+)", kGpt2Pattern, R"(\p{N}+)",
                                                R"([0-9][0-9][0-9])"};

inline constexpr std::string_view kLlama3[] = {
    HETERO_CONTRACTION R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)" HETERO_SPACES};
inline constexpr std::string_view kJais2[] = {
    HETERO_CONTRACTION R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+)"
                       R"(|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S))"
                       R"(|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s)"};
inline constexpr std::string_view kMinicpm5[] = {
    R"(\p{N}{1,3})",
    HETERO_CONTRACTION R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*)" HETERO_SPACES};

inline constexpr std::string_view kQwen2[] = {kQwen2Pattern};
inline constexpr std::string_view kQwen35[] = {
    HETERO_CONTRACTION
    R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*)" HETERO_SPACES};
inline constexpr std::string_view kUfakzeka[] = {
    R"([^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)" HETERO_SPACES};
inline constexpr std::string_view kLines[] = {R"([^\n]+|[\n]+)"};
inline constexpr std::string_view kLaguna[] = {kLines[0], kQwen2Pattern};
inline constexpr std::string_view kBailingMoe[] = {
    R"('(?:[sSſdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]|\s+(?!\S)|\s+)"};
inline constexpr std::string_view kSeedCoder[] = {
    HETERO_CONTRACTION R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+)" HETERO_SPACES};

// One alternative a line.
// clang-format off
inline constexpr std::string_view kTekken[] = {
    R"([^\r\n\p{L}\p{N}]?)" HETERO_UPPER "*" HETERO_LOWER "+"
    R"(|[^\r\n\p{L}\p{N}]?)" HETERO_UPPER "+" HETERO_LOWER "*"
    R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*)" HETERO_SPACES};
inline constexpr std::string_view kGpt4o[] = {
    R"([^\r\n\p{L}\p{N}]?)" HETERO_UPPER "*" HETERO_LOWER "+" HETERO_CONTRACTION "?"
    R"(|[^\r\n\p{L}\p{N}]?)" HETERO_UPPER "+" HETERO_LOWER "*" HETERO_CONTRACTION "?"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*)" HETERO_SPACES};
inline constexpr std::string_view kYoutu[] = {
    "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥\\u3040-ゟ\\u30A0-ヿ]+",
    R"([^\r\n\p{L}\p{N}]?)" HETERO_UPPER "*" HETERO_LOWER "+" HETERO_CONTRACTION "?"
    R"(|[^\r\n\p{L}\p{N}]?)" HETERO_UPPER "+" HETERO_LOWER "*" HETERO_CONTRACTION "?"
    R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*)" HETERO_SPACES};
// Han characters are words of their own; ICU writes the set's difference with &&.
inline constexpr std::string_view kKimiK2[] = {
    R"([\p{Han}]+)"
    R"(|[^\r\n\p{L}\p{N}]?[[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]&&[^\p{Han}]]*[[\p{Ll}\p{Lm}\p{Lo}\p{M}]&&[^\p{Han}]]+)" HETERO_CONTRACTION "?"
    R"(|[^\r\n\p{L}\p{N}]?[[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]&&[^\p{Han}]]+[[\p{Ll}\p{Lm}\p{Lo}\p{M}]&&[^\p{Han}]]*)" HETERO_CONTRACTION "?"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)" HETERO_SPACES};
// clang-format on

inline constexpr std::string_view kExaoneMoe[] = {
    HETERO_CONTRACTION
    R"(|[^\r\n\p{L}\p{N}]?\p{L}[\p{L}\p{M}]*(?: \p{L}[\p{L}\p{M}]*)*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?)"
    R"(|\s*[\r\n]|\s+(?!\S)|\s+)"};
inline constexpr std::string_view kSuperBpe[] = {R"(\p{N}+)"};
inline constexpr std::string_view kAfmoe[] = {
    R"([\u4E00-\u9FFF\u3400-\u4DBF\uF900-\uFAFF\u3040-\u30FF\uFF65-\uFF9F\u2F00-\u2FDF\u0E40-\u0EFF\u1780-\u17FF)"
    R"(\u1000-\u109F\uAA60-\uAA7F\uA9E0-\uA9FF\uAC00-\uD7AF\u1100-\u11FF]+)",
    HETERO_ASCII_PUNCTUATION
    R"([A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*)" HETERO_SPACES};

// The letters are those of the cased scripts, as the original spells them out.
inline constexpr std::string_view kDeepseekLlm[] = {
    R"([\r\n])",
    R"(\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅ)"
    R"(ὐ-ὗὙὛὝὟ-\u1F7Dᾀ-ᾴᾶ-ᾼ\u1FBEῂ-ῄῆ-ῌῐ-\u1FD3ῖ-\u1FDBῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212A-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇ)"
    R"(Ꞌ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+)",
    R"(\s?[!-/\:-~！-／：-～‘-‟\u3000-。]+)",
    R"((?<!\s)\s+\z)",  // the look-behind keeps a long run of spaces from being tried at every place
    R"([一-龥\u0800-一가-\uD7FF]+)",
    R"(\p{N}+)"};
inline constexpr std::string_view kDeepseekCoder[] = {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)",
                                                      R"([一-龥\u0800-一가-\uD7FF]+)", R"(\p{N})"};
inline constexpr std::string_view kDeepseek3[] = {
    R"(\p{N}{1,3})", "[一-龥\\u3040-ゟ\\u30A0-ヿ]+",
    HETERO_ASCII_PUNCTUATION
    R"([A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*)" HETERO_SPACES};
inline constexpr std::string_view kSpark25[] = {
    R"(\p{N}{1,3})", "[一-龥\\u3040-ゟ\\u30A0-ヿ]+",
    HETERO_ASCII_PUNCTUATION
    R"([A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+)",
    R"(\p{N})"};

inline constexpr std::string_view kBloom[] = {R"( ?[^(\s|.,!?…。，、।۔،)]+)"};
inline constexpr std::string_view kViking[] = {R"( ?[^(\s|.,!?…。，、।۔،)]+)", R"(\p{N})"};
inline constexpr std::string_view kChameleon[] = {R"(<sentinel:[0-9]+>)",      R"((?:IMGIMG)[A-I]{1,4}Z)",
                                                  R"([\t\n]|    |  )",         R"(\p{N})",
                                                  R"([\p{P}!-/\:-@\[-`\{-~])", kGpt2Pattern};

#undef HETERO_CONTRACTION
#undef HETERO_SPACES
#undef HETERO_UPPER
#undef HETERO_LOWER
#undef HETERO_ASCII_PUNCTUATION

}  // namespace hetero::patterns
