// The values that a template works with: Python's, as far as templates can see them. One render
// owns one Sandbox, which counts what the template spends and owns every object it makes.
//
// Objects are counted by reference and belong to one thread. A namespace or a macro's scope can
// refer to itself; such cycles live until the Sandbox goes, which empties what is left.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/status.h"
#include "text/chat_template.h"
#include "text/jinja_text.h"

namespace hetero::jinja {

/// Thrown inside the template engine only; ChatTemplate turns it into a Status. `line` is filled
/// in by the innermost node that is being evaluated.
struct Error {
  Code code = Code::kMalformed;
  std::string message;
  int line = 0;
};

/// Throws what Python would call `type`: fail("TypeError", "...").
[[noreturn]] void fail(std::string_view type, const std::string& message);

enum class Kind : uint8_t {
  kNone,
  kBool,
  kInt,
  kFloat,
  kUndefined,  // from here on with an object behind it
  kString,
  kList,
  kTuple,
  kDict,
  kDictView,
  kRange,
  kNamespace,
  kIterator,
  kCallable,
  kLoop,
  kCycler,
  kScope,  // never a value of its own
};

class Sandbox;

class Object {
 public:
  Object(Sandbox& sandbox, Kind kind);
  virtual ~Object();
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;

  /// Lets go of other objects, to break a cycle when the render is over.
  virtual void drop_references() {}
  /// str() of what has no text of its own.
  virtual std::string describe() { return "<object>"; }
  /// Counts `bytes` more against the sandbox for as long as the object lives.
  void charge(int64_t bytes);

  Sandbox& sandbox;
  const Kind kind;

 private:
  friend class Sandbox;
  template <class T>
  friend class Ref;
  friend class Value;
  void retain() { ++references_; }
  void release();

  int64_t references_ = 0;
  int64_t charged_ = 0;
  Object* previous_ = nullptr;
  Object* next_ = nullptr;
};

template <class T>
class Ref {
 public:
  Ref() = default;
  explicit Ref(T* object) : object_(object) {
    if (object_ != nullptr) {
      object_->retain();
    }
  }
  Ref(const Ref& other) : Ref(other.object_) {}
  Ref(Ref&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  Ref& operator=(Ref other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~Ref() {
    if (object_ != nullptr) {
      object_->release();
    }
  }
  T* get() const { return object_; }
  T* operator->() const { return object_; }
  T& operator*() const { return *object_; }
  explicit operator bool() const { return object_ != nullptr; }

 private:
  T* object_ = nullptr;
};

class Value {
 public:
  Value() : kind_(Kind::kNone), bits_{} {}
  static Value boolean(bool b) { return Value(Kind::kBool, b ? 1 : 0); }
  static Value integer(Int i) { return Value(Kind::kInt, i); }
  static Value real(double d) {
    Value v(Kind::kFloat, 0);
    v.bits_.real = d;
    return v;
  }
  template <class T, class = std::enable_if_t<std::is_base_of_v<Object, T>>>
  Value(const Ref<T>& object) : Value(object.get()) {}  // NOLINT(google-explicit-constructor)
  explicit Value(Object* object) : kind_(object->kind) {
    bits_.object = object;
    object->retain();
  }
  Value(const Value& other) : kind_(other.kind_), bits_(other.bits_) {
    if (is_object()) {
      bits_.object->retain();
    }
  }
  Value(Value&& other) noexcept : kind_(std::exchange(other.kind_, Kind::kNone)), bits_(other.bits_) {}
  Value& operator=(Value other) noexcept {
    std::swap(kind_, other.kind_);
    std::swap(bits_, other.bits_);
    return *this;
  }
  ~Value() {
    if (is_object()) {
      bits_.object->release();
    }
  }

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool is_object() const { return kind_ >= Kind::kUndefined; }
  bool is_none() const { return kind_ == Kind::kNone; }
  bool is_undefined() const { return kind_ == Kind::kUndefined; }
  bool is_string() const { return kind_ == Kind::kString; }
  bool is_integral() const { return kind_ == Kind::kInt || kind_ == Kind::kBool; }
  bool is_number() const { return is_integral() || kind_ == Kind::kFloat; }
  bool is_sequence() const { return kind_ == Kind::kList || kind_ == Kind::kTuple; }

  Int integer() const { return bits_.integer; }  // of kInt and kBool
  double real() const { return bits_.real; }     // of kFloat
  double number() const { return is(Kind::kFloat) ? bits_.real : static_cast<double>(bits_.integer); }
  Object* object() const { return bits_.object; }
  template <class T>
  T& as() const {
    return static_cast<T&>(*bits_.object);
  }
  std::string_view text() const;            // of kString
  const std::vector<Value>& items() const;  // of kList and kTuple

 private:
  union Bits {
    Int integer = 0;
    double real;
    Object* object;
  };
  Value(Kind kind, Int i) : kind_(kind) { bits_.integer = i; }

  Kind kind_;
  Bits bits_;
};

struct StringObject : Object {
  StringObject(Sandbox& s, std::string t, bool m) : Object(s, Kind::kString), text(std::move(t)), markup(m) {}
  /// Code points; counted once.
  int64_t length();
  const std::string text;
  const bool markup;  // came through `safe` or `escape`

 private:
  int64_t length_ = -1;
};

/// A list or a tuple. Templates run as in Jinja's immutable sandbox: once made, neither changes.
struct ListObject : Object {
  ListObject(Sandbox& s, Kind k) : Object(s, k) {}
  void add(Value v) {
    charge(sizeof(Value));
    items.push_back(std::move(v));
  }
  void drop_references() override { items.clear(); }
  std::vector<Value> items;
};

/// A dict in insertion order; like a list, it does not change once made.
struct DictObject : Object {
  explicit DictObject(Sandbox& s) : Object(s, Kind::kDict) {}
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
  void set(const Value& key, Value value);
  void drop_references() override { entries.clear(); }
  std::vector<std::pair<Value, Value>> entries;

 private:
  size_t index_of(const Value& key, size_t hash) const;
  std::unordered_multimap<size_t, size_t> index_;  // hash -> entry; only past a few entries
};

struct DictViewObject : Object {
  enum class Part { kKeys, kValues, kItems };
  DictViewObject(Sandbox& s, Ref<DictObject> d, Part p)
      : Object(s, Kind::kDictView), dict(std::move(d)), part(p) {}
  Value at(size_t i) const;
  void drop_references() override { dict = {}; }
  Ref<DictObject> dict;
  const Part part;
};

struct RangeObject : Object {
  RangeObject(Sandbox& s, Int b, Int e, Int st) : Object(s, Kind::kRange), begin(b), end(e), step(st) {}
  Int length() const;
  Value at(Int i) const { return Value::integer(begin + i * step); }
  const Int begin, end, step;
};

struct UndefinedObject : Object {
  UndefinedObject(Sandbox& s, std::string m, std::string e = "UndefinedError")
      : Object(s, Kind::kUndefined), message(std::move(m)), error(std::move(e)) {}
  [[noreturn]] void raise() const { fail(error, message); }
  const std::string message;
  const std::string error;  // SecurityError for what the sandbox hides
};

struct NamespaceObject : Object {
  explicit NamespaceObject(Sandbox& s) : Object(s, Kind::kNamespace) {}
  void set(const std::string& name, Value v);
  const Value* find(std::string_view name) const;
  void drop_references() override { members.clear(); }
  std::vector<std::pair<std::string, Value>> members;
};

/// A one-way stream of values: Python's iterators and generators.
struct IteratorObject : Object {
  IteratorObject(Sandbox& s, std::string_view t) : Object(s, Kind::kIterator), type_name(t) {}
  /// False at the end, and ever after.
  virtual bool next(Value& out) = 0;
  const std::string_view type_name;
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

class Renderer;

struct CallableObject : Object {
  CallableObject(Sandbox& s, std::string n) : Object(s, Kind::kCallable), name(std::move(n)) {}
  virtual Value call(Renderer& r, Arguments& args) = 0;
  const std::string name;
};

/// Counts what one render spends and throws kResourceExhausted once a limit is passed.
class Sandbox {
 public:
  explicit Sandbox(const TemplateLimits& limits) : limits_(limits) {}
  ~Sandbox();
  Sandbox(const Sandbox&) = delete;
  Sandbox& operator=(const Sandbox&) = delete;

  void step(int64_t n = 1);
  /// Work on `bytes` of text: cheap where it is copied, more where it is looked at.
  void copied(size_t bytes) { step(static_cast<int64_t>(bytes >> 9)); }
  void scanned(size_t bytes) { step(static_cast<int64_t>(bytes >> 5)); }
  void check_text(size_t bytes) const;
  void add_bytes(int64_t bytes);
  const TemplateLimits& limits() const { return limits_; }

  template <class T, class... Args>
  Ref<T> make(Args&&... args) {
    Ref<T> object(new T(*this, std::forward<Args>(args)...));
    object->charge(static_cast<int64_t>(sizeof(T)));
    return object;
  }
  Value string(std::string text, bool markup = false);
  Value undefined(std::string message) { return make<UndefinedObject>(std::move(message)); }
  Ref<ListObject> list() { return make<ListObject>(Kind::kList); }
  Ref<ListObject> tuple() { return make<ListObject>(Kind::kTuple); }
  Value pair(Value a, Value b);

  /// Bounds recursion on the C++ stack, whatever recurses.
  class Depth {
   public:
    Depth(Sandbox& sandbox, int weight) : sandbox_(sandbox), weight_(weight) { sandbox_.enter(weight); }
    ~Depth() { sandbox_.depth_ -= weight_; }
    Depth(const Depth&) = delete;
    Depth& operator=(const Depth&) = delete;

   private:
    Sandbox& sandbox_;
    const int weight_;
  };

 private:
  friend class Object;
  void enter(int weight);
  void adopt(Object* object);
  void bury(Object* object);

  const TemplateLimits limits_;
  int64_t steps_ = 0;
  int64_t bytes_ = 0;
  int depth_ = 0;
  Object* objects_ = nullptr;
  Object* graves_ = nullptr;
  bool burying_ = false;
};

/// Text under construction: output, or a long string. Never passes the limit of one text.
class TextBuilder {
 public:
  explicit TextBuilder(Sandbox& sandbox) : sandbox_(sandbox) {}
  ~TextBuilder() { sandbox_.add_bytes(-charged_); }
  TextBuilder(const TextBuilder&) = delete;
  TextBuilder& operator=(const TextBuilder&) = delete;
  void add(std::string_view s);
  void add(size_t count, std::string_view s);
  const std::string& text() const { return text_; }
  Value take(bool markup = false);

 private:
  Sandbox& sandbox_;
  std::string text_;
  int64_t charged_ = 0;
};

/// The values of a value that can be iterated; an error that says what it is otherwise.
Ref<IteratorObject> iterate(Sandbox& sandbox, const Value& v);
Ref<ListObject> to_list(Sandbox& sandbox, const Value& v, Kind kind = Kind::kList);
bool is_iterable(const Value& v);

bool truth(const Value& v);
/// len(); an error for what has none.
int64_t length(const Value& v);
bool has_length(const Value& v);
bool equal(const Value& a, const Value& b);
bool identical(const Value& a, const Value& b);
size_t hash(const Value& v);
/// "list", "NoneType": the name of the Python type.
std::string_view type_name(const Value& v);
/// str() and repr().
Value to_string(Sandbox& sandbox, const Value& v);
Value repr(Sandbox& sandbox, const Value& v);
void print(TextBuilder& out, const Value& v);

struct JsonStyle {
  bool ascii = false;
  bool sort_keys = false;
  bool indented = false;
  std::string indent;
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
Value to_json(Sandbox& sandbox, const Value& v, const JsonStyle& style);
Value from_json(Sandbox& sandbox, const nlohmann::ordered_json& json);

inline std::string_view Value::text() const {
  return as<StringObject>().text;
}
inline const std::vector<Value>& Value::items() const {
  return as<ListObject>().items;
}

}  // namespace hetero::jinja
