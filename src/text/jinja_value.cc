#include "text/jinja_value.h"

#include <fmt/format.h>

#include <cmath>
#include <functional>

namespace hetero::jinja {
namespace {

// Below this many entries, looking at each is as fast as an index.
constexpr size_t kIndexFrom = 8;

// Recursion that a template can cause is bounded by TemplateLimits::depth levels of this weight.
constexpr int kDepthUnits = 10;

class EmptyIterator : public IteratorObject {
 public:
  explicit EmptyIterator(Sandbox& s) : IteratorObject(s, "iterator") {}
  bool next(Value&) override { return false; }
};

class StringIterator : public IteratorObject {
 public:
  StringIterator(Sandbox& s, Value v) : IteratorObject(s, "str_iterator"), source_(std::move(v)) {}
  bool next(Value& out) override {
    const std::string_view text = source_.text();
    if (position_ >= text.size()) {
      return false;
    }
    sandbox.step();
    const size_t start = position_;
    next_code_point(text, position_);
    out = sandbox.string(std::string(text.substr(start, position_ - start)));
    return true;
  }

 private:
  const Value source_;
  size_t position_ = 0;
};

// Over everything that knows its length.
class IndexIterator : public IteratorObject {
 public:
  IndexIterator(Sandbox& s, Value v)
      : IteratorObject(s, "iterator"), source_(std::move(v)), size_(jinja::length(source_)) {}
  bool next(Value& out) override {
    if (index_ >= size_) {
      source_ = Value();
      return false;
    }
    sandbox.step();
    const size_t i = static_cast<size_t>(index_++);
    switch (source_.kind()) {
      case Kind::kDict:
        out = source_.as<DictObject>().entries[i].first;
        break;
      case Kind::kDictView:
        out = source_.as<DictViewObject>().at(i);
        break;
      case Kind::kRange:
        out = source_.as<RangeObject>().at(static_cast<Int>(i));
        break;
      default:
        out = source_.items()[i];
        break;
    }
    return true;
  }
  void drop_references() override {
    source_ = Value();
    size_ = 0;
  }

 private:
  Value source_;
  int64_t index_ = 0;
  int64_t size_;
};

bool equal_numbers(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) {
    return a.integer() == b.integer();
  }
  if (a.is(Kind::kFloat) && b.is(Kind::kFloat)) {
    return a.real() == b.real();
  }
  const double real = a.is(Kind::kFloat) ? a.real() : b.real();
  const Int whole = a.is(Kind::kFloat) ? b.integer() : a.integer();
  return std::abs(real) < 0x1p126 && std::floor(real) == real && static_cast<Int>(real) == whole;
}

bool equal_ranges(const RangeObject& a, const RangeObject& b) {
  const Int n = a.length();
  return n == b.length() && (n == 0 || (a.begin == b.begin && (n == 1 || a.step == b.step)));
}

size_t hash_text(std::string_view s) {
  return std::hash<std::string_view>()(s);
}

}  // namespace

void fail(std::string_view type, const std::string& message) {
  throw Error{Code::kInvalidArgument, fmt::format("{}: {}", type, message)};
}

Object::Object(Sandbox& s, Kind k) : sandbox(s), kind(k) {
  sandbox.adopt(this);
}

Object::~Object() {
  sandbox.bytes_ -= charged_;
  (previous_ != nullptr ? previous_->next_ : sandbox.objects_) = next_;
  if (next_ != nullptr) {
    next_->previous_ = previous_;
  }
}

void Object::charge(int64_t bytes) {
  sandbox.add_bytes(bytes);
  charged_ += bytes;
}

void Object::release() {
  if (--references_ == 0) {
    sandbox.bury(this);
  }
}

void Sandbox::adopt(Object* object) {
  object->next_ = objects_;
  if (objects_ != nullptr) {
    objects_->previous_ = object;
  }
  objects_ = object;
}

// Deleting one object may release others; doing it in a loop keeps long chains off the stack.
void Sandbox::bury(Object* object) {
  (object->previous_ != nullptr ? object->previous_->next_ : objects_) = object->next_;
  if (object->next_ != nullptr) {
    object->next_->previous_ = object->previous_;
  }
  object->previous_ = nullptr;
  object->next_ = graves_;
  graves_ = object;
  if (burying_) {
    return;
  }
  burying_ = true;
  while (graves_ != nullptr) {
    Object* dead = graves_;
    graves_ = dead->next_;
    dead->next_ = nullptr;
    adopt(dead);  // its destructor takes it out of the list again
    delete dead;
  }
  burying_ = false;
}

Sandbox::~Sandbox() {
  for (Object* o = objects_; o != nullptr; o = o->next_) {
    o->retain();  // so that nothing goes while we walk
  }
  for (Object* o = objects_; o != nullptr; o = o->next_) {
    o->drop_references();
  }
  while (objects_ != nullptr) {
    objects_->release();
  }
}

void Sandbox::step(int64_t n) {
  steps_ += n;
  if (steps_ > limits_.steps) {
    throw Error{Code::kResourceExhausted,
                fmt::format("the template needs more than the allowed {} steps", limits_.steps)};
  }
}

void Sandbox::check_text(size_t bytes) const {
  if (bytes > static_cast<uint64_t>(limits_.output_bytes)) {
    throw Error{Code::kResourceExhausted,
                fmt::format("a text is longer than the allowed {} bytes", limits_.output_bytes)};
  }
}

void Sandbox::add_bytes(int64_t bytes) {
  if (bytes > 0 && bytes_ + bytes > limits_.value_bytes) {
    throw Error{
        Code::kResourceExhausted,
        fmt::format("the template's values need more than the allowed {} bytes", limits_.value_bytes)};
  }
  bytes_ += bytes;
}

void Sandbox::enter(int weight) {
  if (depth_ + weight > limits_.depth * kDepthUnits) {
    throw Error{Code::kResourceExhausted, fmt::format("nested deeper than the allowed {}", limits_.depth)};
  }
  depth_ += weight;
}

Value Sandbox::string(std::string text, bool markup) {
  check_text(text.size());
  const int64_t bytes = static_cast<int64_t>(text.size());
  Ref<StringObject> object = make<StringObject>(std::move(text), markup);
  object->charge(bytes);
  return object;
}

Value Sandbox::pair(Value a, Value b) {
  Ref<ListObject> two = tuple();
  two->add(std::move(a));
  two->add(std::move(b));
  return two;
}

void TextBuilder::add(std::string_view s) {
  sandbox_.check_text(text_.size() + s.size());
  sandbox_.copied(s.size());
  sandbox_.add_bytes(static_cast<int64_t>(s.size()));
  charged_ += static_cast<int64_t>(s.size());
  text_ += s;
}

void TextBuilder::add(size_t count, std::string_view s) {
  if (s.empty()) {
    return;
  }
  if (count > static_cast<uint64_t>(sandbox_.limits().output_bytes) / s.size()) {
    sandbox_.check_text(SIZE_MAX);
  }
  for (size_t i = 0; i < count; ++i) {
    add(s);
  }
}

Value TextBuilder::take(bool markup) {
  sandbox_.add_bytes(-std::exchange(charged_, 0));
  return sandbox_.string(std::exchange(text_, {}), markup);
}

int64_t StringObject::length() {
  if (length_ < 0) {
    sandbox.scanned(text.size());
    length_ = count_code_points(text);
  }
  return length_;
}

size_t DictObject::index_of(const Value& key, size_t h) const {
  if (entries.size() <= kIndexFrom) {
    for (size_t i = 0; i < entries.size(); ++i) {
      if (equal(entries[i].first, key)) {
        return i;
      }
    }
    return entries.size();
  }
  const auto [first, last] = index_.equal_range(h);
  for (auto it = first; it != last; ++it) {
    sandbox.step();
    if (equal(entries[it->second].first, key)) {
      return it->second;
    }
  }
  return entries.size();
}

const Value* DictObject::find(const Value& key) const {
  const size_t i = index_of(key, hash(key));
  return i < entries.size() ? &entries[i].second : nullptr;
}

const Value* DictObject::find(std::string_view key) const {
  if (entries.size() <= kIndexFrom) {
    for (const auto& [k, v] : entries) {
      if (k.is_string() && k.text() == key) {
        return &v;
      }
    }
    return nullptr;
  }
  const auto [first, last] = index_.equal_range(hash_text(key));
  for (auto it = first; it != last; ++it) {
    const auto& [k, v] = entries[it->second];
    if (k.is_string() && k.text() == key) {
      return &v;
    }
  }
  return nullptr;
}

void DictObject::set(const Value& key, Value value) {
  const size_t h = hash(key);
  const size_t i = index_of(key, h);
  if (i < entries.size()) {
    entries[i].second = std::move(value);
    return;
  }
  charge(2 * sizeof(Value) + 48);
  entries.emplace_back(key, std::move(value));
  if (entries.size() > kIndexFrom) {
    for (size_t e = index_.size(); e < entries.size(); ++e) {
      index_.emplace(hash(entries[e].first), e);
    }
  }
}

Value DictViewObject::at(size_t i) const {
  const auto& [key, value] = dict->entries[i];
  return part == Part::kKeys ? key : part == Part::kValues ? value : sandbox.pair(key, value);
}

Int RangeObject::length() const {
  if (step > 0) {
    return begin < end ? (end - begin - 1) / step + 1 : 0;
  }
  return begin > end ? (begin - end - 1) / -step + 1 : 0;
}

void NamespaceObject::set(const std::string& name, Value v) {
  for (auto& [n, value] : members) {
    if (n == name) {
      value = std::move(v);
      return;
    }
  }
  charge(static_cast<int64_t>(sizeof(members[0]) + name.size()));
  members.emplace_back(name, std::move(v));
}

const Value* NamespaceObject::find(std::string_view name) const {
  for (const auto& [n, value] : members) {
    if (n == name) {
      return &value;
    }
  }
  return nullptr;
}

bool is_iterable(const Value& v) {
  return v.kind() == Kind::kIterator || has_length(v);
}

Ref<IteratorObject> iterate(Sandbox& sandbox, const Value& v) {
  if (!is_iterable(v)) {
    fail("TypeError", fmt::format("'{}' object is not iterable", type_name(v)));
  }
  switch (v.kind()) {
    case Kind::kUndefined:
      return Ref<IteratorObject>(sandbox.make<EmptyIterator>().get());
    case Kind::kString:
      return Ref<IteratorObject>(sandbox.make<StringIterator>(v).get());
    case Kind::kIterator:
      return Ref<IteratorObject>(&v.as<IteratorObject>());
    default:
      return Ref<IteratorObject>(sandbox.make<IndexIterator>(v).get());
  }
}

Ref<ListObject> to_list(Sandbox& sandbox, const Value& v, Kind kind) {
  Ref<IteratorObject> it = iterate(sandbox, v);
  Ref<ListObject> list = sandbox.make<ListObject>(kind);
  for (Value item; it->next(item);) {
    list->add(item);
  }
  return list;
}

bool truth(const Value& v) {
  switch (v.kind()) {
    case Kind::kNone:
    case Kind::kUndefined:
      return false;
    case Kind::kBool:
    case Kind::kInt:
      return v.integer() != 0;
    case Kind::kFloat:
      return v.real() != 0;
    case Kind::kString:
      return !v.text().empty();
    default:
      return !has_length(v) || length(v) != 0;
  }
}

bool has_length(const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined:
    case Kind::kString:
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kDict:
    case Kind::kDictView:
    case Kind::kRange:
      return true;
    default:
      return false;
  }
}

int64_t length(const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined:
      return 0;
    case Kind::kString:
      return v.as<StringObject>().length();
    case Kind::kList:
    case Kind::kTuple:
      return static_cast<int64_t>(v.items().size());
    case Kind::kDict:
      return static_cast<int64_t>(v.as<DictObject>().entries.size());
    case Kind::kDictView:
      return static_cast<int64_t>(v.as<DictViewObject>().dict->entries.size());
    case Kind::kRange:
      return static_cast<int64_t>(v.as<RangeObject>().length());
    default:
      fail("TypeError", fmt::format("object of type '{}' has no len()", type_name(v)));
  }
}

bool equal(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    return equal_numbers(a, b);
  }
  if (a.kind() != b.kind()) {
    return false;
  }
  switch (a.kind()) {
    case Kind::kNone:
    case Kind::kUndefined:
      return true;
    case Kind::kString:
      a.object()->sandbox.copied(a.text().size());
      return a.text() == b.text();
    case Kind::kList:
    case Kind::kTuple: {
      Sandbox& sandbox = a.object()->sandbox;
      const Sandbox::Depth depth(sandbox, 2);
      if (a.items().size() != b.items().size()) {
        return false;
      }
      for (size_t i = 0; i < a.items().size(); ++i) {
        sandbox.step();
        if (!identical(a.items()[i], b.items()[i]) && !equal(a.items()[i], b.items()[i])) {
          return false;
        }
      }
      return true;
    }
    case Kind::kDict: {
      Sandbox& sandbox = a.object()->sandbox;
      const Sandbox::Depth depth(sandbox, 2);
      const DictObject& left = a.as<DictObject>();
      const DictObject& right = b.as<DictObject>();
      if (left.entries.size() != right.entries.size()) {
        return false;
      }
      for (const auto& [key, value] : left.entries) {
        sandbox.step();
        const Value* other = right.find(key);
        if (other == nullptr || (!identical(value, *other) && !equal(value, *other))) {
          return false;
        }
      }
      return true;
    }
    case Kind::kRange:
      return equal_ranges(a.as<RangeObject>(), b.as<RangeObject>());
    default:
      return a.object() == b.object();
  }
}

bool identical(const Value& a, const Value& b) {
  if (a.kind() != b.kind()) {
    return false;
  }
  switch (a.kind()) {
    case Kind::kNone:
      return true;
    case Kind::kBool:
    case Kind::kInt:
      return a.integer() == b.integer();
    case Kind::kFloat:
      return a.real() == b.real();
    case Kind::kString:
      return a.text() == b.text();  // Python shares equal literals
    default:
      return a.object() == b.object();
  }
}

size_t hash(const Value& v) {
  switch (v.kind()) {
    case Kind::kNone:
      return 0x9e3779b9u;
    case Kind::kBool:
    case Kind::kInt:
      return std::hash<int64_t>()(static_cast<int64_t>(v.integer()));
    case Kind::kFloat:
      if (std::abs(v.real()) < 0x1p126 && std::floor(v.real()) == v.real()) {
        return hash(Value::integer(static_cast<Int>(v.real())));  // 1.0 and 1 are the same key
      }
      return std::hash<double>()(v.real());
    case Kind::kUndefined:
      return 0x51ed270bu;
    case Kind::kString:
      v.object()->sandbox.copied(v.text().size());
      return hash_text(v.text());
    case Kind::kTuple: {
      const Sandbox::Depth depth(v.object()->sandbox, 2);
      size_t h = 0x345678u;
      for (const Value& item : v.items()) {
        v.object()->sandbox.step();
        h = h * 1000003u ^ hash(item);
      }
      return h;
    }
    case Kind::kList:
    case Kind::kDict:
    case Kind::kDictView:
      fail("TypeError", fmt::format("unhashable type: '{}'", type_name(v)));
    default:
      return std::hash<const void*>()(v.object());
  }
}

std::string_view type_name(const Value& v) {
  switch (v.kind()) {
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kString:
      return v.as<StringObject>().markup ? "Markup" : "str";
    case Kind::kList:
      return "list";
    case Kind::kTuple:
      return "tuple";
    case Kind::kDict:
      return "dict";
    case Kind::kDictView: {
      const auto part = v.as<DictViewObject>().part;
      return part == DictViewObject::Part::kKeys     ? "dict_keys"
             : part == DictViewObject::Part::kValues ? "dict_values"
                                                     : "dict_items";
    }
    case Kind::kRange:
      return "range";
    case Kind::kNamespace:
      return "Namespace";
    case Kind::kIterator:
      return v.as<IteratorObject>().type_name;
    case Kind::kCallable:
      return "function";
    case Kind::kLoop:
      return "LoopContext";
    case Kind::kCycler:
      return "Cycler";
    case Kind::kScope:
      break;
  }
  return "object";
}

}  // namespace hetero::jinja
