/* The parser. Section names in comments are those of the specification, https://toml.io/en/v1.0.0 */
#include "common/toml/toml_doc.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct mark {
  uint32_t line, column;
};

struct parser {
  struct toml_doc *doc;
  const char *at, *end;
  uint32_t line;
  const char *col_at; /* the column of col_at is col; both advance together, so that a long line is counted once */
  uint32_t col;
  struct buf scratch;
  toml_fault_fn *fault;
  void *arg;
  bool memory; /* memory ended: stop, the document is thrown away */
};

struct key_part {
  char *name;
  size_t len;
  struct mark mark;
};

#define KEY_PARTS 64
struct key {
  struct key_part part[KEY_PARTS];
  unsigned count;
};

/* ---- places and faults ---- */

static struct mark mark_at(struct parser *p, const char *at) {
  if (at < p->col_at) { /* rare: back in the same line */
    uint32_t back = 0;
    for (const char *c = at; c < p->col_at; c++)
      back += ((uint8_t)*c & 0xc0) != 0x80;
    return (struct mark){p->line, p->col - back};
  }
  for (; p->col_at < at; p->col_at++)
    p->col += ((uint8_t)*p->col_at & 0xc0) != 0x80;
  return (struct mark){p->line, p->col};
}

static struct mark here(struct parser *p) {
  return mark_at(p, p->at);
}

static int fault_at(struct parser *p, struct mark mark, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static int fault_at(struct parser *p, struct mark mark, const char *fmt, ...) {
  if (p->doc->faults++ >= TOML_FAULTS_MAX || !p->fault)
    return -1;
  char message[256];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(message, sizeof message, fmt, ap);
  va_end(ap);
  p->fault(p->arg, mark.line, mark.column, message);
  return -1;
}
#define fault_here(p, ...) fault_at((p), here(p), __VA_ARGS__)

static int no_memory(struct parser *p) {
  p->memory = true;
  return -1;
}

/* A printable piece of the input for messages. */
static const char *shown(char out[48], const char *s, size_t len) {
  size_t n = 0;
  for (size_t i = 0; i < len; i++) {
    uint8_t c = (uint8_t)s[i];
    if (n > 36 && (c & 0xc0) != 0x80) {
      memcpy(out + n, "…", 3);
      n += 3;
      break;
    }
    out[n++] = c < 0x20 || c == 0x7f ? '?' : (char)c;
  }
  out[n] = 0;
  return out;
}

/* ---- characters ---- */

static int peek(const struct parser *p) {
  return p->at < p->end ? (uint8_t)*p->at : -1;
}

static bool at_text(const struct parser *p, const char *text, size_t len) {
  return (size_t)(p->end - p->at) >= len && memcmp(p->at, text, len) == 0;
}

static size_t newline_len(const struct parser *p) {
  return at_text(p, "\n", 1) ? 1 : at_text(p, "\r\n", 2) ? 2 : 0;
}

static bool newline(struct parser *p) {
  size_t n = newline_len(p);
  if (!n)
    return false;
  p->at += n;
  p->line++;
  p->col_at = p->at;
  p->col = 1;
  return true;
}

static void blanks(struct parser *p) {
  while (p->at < p->end && (*p->at == ' ' || *p->at == '\t'))
    p->at++;
}

static bool is_control(int c) {
  return (c >= 0 && c < 0x20 && c != '\t') || c == 0x7f;
}

static int control_fault(struct parser *p, const char *where) {
  int c = peek(p);
  if (c == '\r')
    return fault_here(p, "a carriage return without a line feed in %s", where);
  return fault_here(p, "control character U+%04X in %s%s", (unsigned)c, where, c == 0 ? "" : ": write it as an escape");
}

static int comment(struct parser *p) {
  if (peek(p) != '#')
    return 0;
  while (p->at < p->end && !newline_len(p)) {
    if (is_control(peek(p)))
      return control_fault(p, "a comment");
    p->at++;
  }
  return 0;
}

static int end_of_line(struct parser *p, const char *after) {
  blanks(p);
  if (comment(p) < 0)
    return -1;
  if (p->at == p->end || newline(p))
    return 0;
  return fault_here(p, "expected the end of the line after %s", after);
}

/* Blanks, comments and line ends: what may stand between the elements of an array. */
static int space(struct parser *p) {
  do {
    blanks(p);
    if (comment(p) < 0)
      return -1;
  } while (newline(p));
  return 0;
}

/* ---- String ---- */

static void put_utf8(struct buf *b, uint32_t c) {
  if (c < 0x80) {
    buf_add_byte(b, (uint8_t)c);
  } else if (c < 0x800) {
    buf_add_byte(b, (uint8_t)(0xc0 | c >> 6));
    buf_add_byte(b, (uint8_t)(0x80 | (c & 0x3f)));
  } else if (c < 0x10000) {
    buf_add_byte(b, (uint8_t)(0xe0 | c >> 12));
    buf_add_byte(b, (uint8_t)(0x80 | (c >> 6 & 0x3f)));
    buf_add_byte(b, (uint8_t)(0x80 | (c & 0x3f)));
  } else {
    buf_add_byte(b, (uint8_t)(0xf0 | c >> 18));
    buf_add_byte(b, (uint8_t)(0x80 | (c >> 12 & 0x3f)));
    buf_add_byte(b, (uint8_t)(0x80 | (c >> 6 & 0x3f)));
    buf_add_byte(b, (uint8_t)(0x80 | (c & 0x3f)));
  }
}

static int hex_digit(int c) {
  return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static int escape(struct parser *p) { /* at the character behind the backslash */
  static const char from[] = "btnfr\"\\", to[] = "\b\t\n\f\r\"\\";
  struct mark mark = mark_at(p, p->at - 1);
  int c = peek(p);
  const char *simple = c > 0 ? strchr(from, c) : NULL;
  if (simple) {
    buf_add_byte(&p->scratch, (uint8_t)to[simple - from]);
    p->at++;
    return 0;
  }
  if (c != 'u' && c != 'U')
    return fault_at(p, mark, "unknown escape in a string: known are \\b \\t \\n \\f \\r \\\" \\\\ \\uXXXX \\UXXXXXXXX");
  p->at++;
  uint32_t v = 0;
  for (int i = 0; i < (c == 'u' ? 4 : 8); i++) {
    int d = hex_digit(peek(p));
    if (d < 0)
      return fault_at(p, mark, "\\%c takes %d hexadecimal digits", c, c == 'u' ? 4 : 8);
    v = v << 4 | (uint32_t)d;
    p->at++;
  }
  if (v > 0x10ffff || (v >= 0xd800 && v < 0xe000))
    return fault_at(p, mark, "\\%c%0*X is not a Unicode scalar value", c, c == 'u' ? 4 : 8, v);
  put_utf8(&p->scratch, v);
  return 0;
}

static int single_line_string(struct parser *p, char quote) {
  struct mark start = here(p);
  p->at++;
  for (;;) {
    int c = peek(p);
    if (c < 0 || newline_len(p))
      return fault_at(p, start, "a string without its closing %s in the same line", quote == '"' ? "\"" : "'");
    if (c == quote) {
      p->at++;
      return 0;
    }
    if (is_control(c))
      return control_fault(p, "a string");
    p->at++;
    if (c == '\\' && quote == '"') {
      if (escape(p) < 0)
        return -1;
    } else {
      buf_add_byte(&p->scratch, (uint8_t)c);
    }
  }
}

/* "When the last non-whitespace character on a line is an unescaped \, it will be trimmed along with all whitespace (including
 * newlines) up to the next non-whitespace character or closing delimiter." true when it was one. */
static bool line_continuation(struct parser *p) {
  const char *behind = p->at;
  blanks(p);
  if (!newline_len(p)) {
    p->at = behind;
    return false;
  }
  while (newline(p))
    blanks(p);
  return true;
}

static int multi_line_string(struct parser *p, char quote) {
  struct mark start = here(p);
  p->at += 3;
  newline(p);
  for (;;) {
    int c = peek(p);
    if (c < 0)
      return fault_at(p, start, "a string without its closing %s", quote == '"' ? "\"\"\"" : "'''");
    if (c == quote) {
      size_t n = 0;
      while (n < 5 && p->at + n < p->end && p->at[n] == quote)
        n++;
      p->at += n;
      for (size_t i = n >= 3 ? 3 : 0; i < n; i++) /* up to two quotes may stand before the closing three */
        buf_add_byte(&p->scratch, (uint8_t)quote);
      if (n >= 3)
        return 0;
      continue;
    }
    if (newline(p)) { /* "parsers should feel free to normalize newline": to \n */
      buf_add_byte(&p->scratch, '\n');
      continue;
    }
    if (is_control(c))
      return control_fault(p, "a string");
    p->at++;
    if (c == '\\' && quote == '"') {
      if (!line_continuation(p) && escape(p) < 0)
        return -1;
    } else {
      buf_add_byte(&p->scratch, (uint8_t)c);
    }
  }
}

static struct toml_value *string(struct parser *p) {
  char quote = *p->at;
  char three[3] = {quote, quote, quote};
  buf_reset(&p->scratch);
  if ((at_text(p, three, 3) ? multi_line_string(p, quote) : single_line_string(p, quote)) < 0)
    return NULL;
  struct toml_value *v = buf_failed(&p->scratch) ? NULL : toml_new_string(p->doc, buf_str(&p->scratch), p->scratch.len);
  if (!v)
    no_memory(p);
  return v;
}

/* ---- Integer, Float ---- */

static bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

/* Copies digits of a base without their underscores, each of which must stand between two digits. */
static bool digits(const char **s, const char *end, int base, char *out, size_t *n, size_t max) {
  const char *c = *s;
  bool last_digit = false;
  for (; c < end; c++) {
    int d = hex_digit((uint8_t)*c);
    if (d >= 0 && d < base) {
      if (*n + 1 >= max)
        return false;
      out[(*n)++] = *c;
      last_digit = true;
    } else if (*c == '_' && last_digit) {
      last_digit = false;
    } else {
      break;
    }
  }
  bool any = c > *s;
  *s = c;
  return any && last_digit;
}

static struct toml_value *not_a_number(struct parser *p, struct mark mark, const char *s, size_t len) {
  char text[48];
  fault_at(p, mark, "`%s` is not a number", shown(text, s, len));
  return NULL;
}

static struct toml_value *integer_of(struct parser *p, struct mark mark, const char *s, size_t len, const char *plain, size_t n, bool negative,
                                     int base) {
  uint64_t v = 0, max = negative ? (uint64_t)INT64_MAX + 1 : INT64_MAX;
  for (size_t i = 0; i < n; i++) {
    uint64_t d = (uint64_t)hex_digit((uint8_t)plain[i]);
    if (v > (max - d) / (uint64_t)base) {
      char text[48];
      fault_at(p, mark, "`%s` does not fit in 64 bits", shown(text, s, len));
      return NULL;
    }
    v = v * (uint64_t)base + d;
  }
  struct toml_value *value = toml_new(p->doc, TOML_INTEGER);
  if (!value)
    no_memory(p);
  else
    value->integer = negative ? (int64_t)(0 - v) : (int64_t)v;
  return value;
}

static struct toml_value *float_of(struct parser *p, double number) {
  struct toml_value *value = toml_new(p->doc, TOML_FLOAT);
  if (!value)
    no_memory(p);
  else
    value->number = number;
  return value;
}

static struct toml_value *number(struct parser *p, struct mark mark, const char *s, size_t len) {
  char *plain = malloc(len + 2); /* digits without underscores, for strtod */
  if (!plain) {
    no_memory(p);
    return NULL;
  }
  size_t n = 0, max = len + 2;
  struct toml_value *value = NULL;
  const char *c = s, *end = s + len;
  if (len > 2 && s[0] == '0' && (s[1] == 'x' || s[1] == 'o' || s[1] == 'b')) {
    int base = s[1] == 'x' ? 16 : s[1] == 'o' ? 8 : 2;
    c += 2;
    if (digits(&c, end, base, plain, &n, max) && c == end)
      value = integer_of(p, mark, s, len, plain, n, false, base);
    else
      not_a_number(p, mark, s, len);
    goto out;
  }
  bool negative = *c == '-', is_float = false;
  if (*c == '-' || *c == '+')
    plain[n++] = *c++;
  size_t whole = n;
  if (!digits(&c, end, 10, plain, &n, max) || (plain[whole] == '0' && n > whole + 1)) {
    not_a_number(p, mark, s, len);
    goto out;
  }
  if (c == end) {
    value = integer_of(p, mark, s, len, plain + whole, n - whole, negative, 10);
    goto out;
  }
  if (*c == '.') {
    is_float = true;
    plain[n++] = *c++;
    if (!digits(&c, end, 10, plain, &n, max)) {
      not_a_number(p, mark, s, len);
      goto out;
    }
  }
  if (c < end && (*c == 'e' || *c == 'E')) {
    is_float = true;
    plain[n++] = *c++;
    if (c < end && (*c == '-' || *c == '+'))
      plain[n++] = *c++;
    if (!digits(&c, end, 10, plain, &n, max)) {
      not_a_number(p, mark, s, len);
      goto out;
    }
  }
  if (!is_float || c != end) {
    not_a_number(p, mark, s, len);
    goto out;
  }
  plain[n] = 0;
  value = float_of(p, strtod(plain, NULL)); /* no daemon sets a locale: the point is a point */
out:
  free(plain);
  return value;
}

/* ---- Offset Date-Time, Local Date-Time, Local Date, Local Time (RFC 3339) ---- */

static bool two_digits(const char **s, const char *end, unsigned *ret) {
  if (end - *s < 2 || !is_digit((*s)[0]) || !is_digit((*s)[1]))
    return false;
  *ret = (unsigned)((*s)[0] - '0') * 10 + (unsigned)((*s)[1] - '0');
  *s += 2;
  return true;
}

static bool literal(const char **s, const char *end, char c) {
  if (*s == end || **s != c)
    return false;
  (*s)++;
  return true;
}

static unsigned days_in(unsigned year, unsigned month) {
  static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
  return days[month - 1] + (month == 2 && leap);
}

static bool date(const char **s, const char *end, struct toml_time *t) {
  unsigned century, year, month, day;
  if (!two_digits(s, end, &century) || !two_digits(s, end, &year) || !literal(s, end, '-') || !two_digits(s, end, &month) || !literal(s, end, '-') ||
      !two_digits(s, end, &day))
    return false;
  year += century * 100;
  if (month < 1 || month > 12 || day < 1 || day > days_in(year, month))
    return false;
  t->year = (uint16_t)year;
  t->month = (uint8_t)month;
  t->day = (uint8_t)day;
  return true;
}

static bool time_of_day(const char **s, const char *end, struct toml_time *t) {
  unsigned hour, minute, second;
  if (!two_digits(s, end, &hour) || !literal(s, end, ':') || !two_digits(s, end, &minute) || !literal(s, end, ':') || !two_digits(s, end, &second))
    return false;
  if (hour > 23 || minute > 59 || second > 60) /* 60: a leap second */
    return false;
  t->hour = (uint8_t)hour;
  t->minute = (uint8_t)minute;
  t->second = (uint8_t)second;
  if (*s < end && **s == '.') {
    (*s)++;
    if (*s == end || !is_digit(**s))
      return false;
    uint32_t unit = 100000000;
    for (; *s < end && is_digit(**s); (*s)++) { /* more precision than we keep is truncated, as the specification asks */
      t->nanos += unit * (uint32_t)(**s - '0');
      t->digits += t->digits < 9;
      unit /= 10;
    }
  }
  return true;
}

static bool offset(const char **s, const char *end, struct toml_time *t) {
  if (*s < end && (**s == 'Z' || **s == 'z')) {
    (*s)++;
    return true;
  }
  if (*s == end || (**s != '+' && **s != '-'))
    return false;
  int sign = *(*s)++ == '-' ? -1 : 1;
  unsigned hour, minute;
  if (!two_digits(s, end, &hour) || !literal(s, end, ':') || !two_digits(s, end, &minute) || hour > 23 || minute > 59)
    return false;
  t->offset = (int16_t)(sign * (int)(hour * 60 + minute));
  return true;
}

static struct toml_value *date_or_time(struct parser *p, struct mark mark, const char *s, size_t len, bool with_date) {
  struct toml_time t = {0};
  const char *c = s, *end = s + len;
  enum toml_type type = TOML_TIME_LOCAL;
  bool ok = true;
  if (with_date) {
    ok = date(&c, end, &t);
    type = TOML_DATE_LOCAL;
    if (ok && c < end) {
      c++; /* T, t or a space: whoever cut the token saw to that */
      type = TOML_DATETIME_LOCAL;
    }
  }
  if (ok && type != TOML_DATE_LOCAL)
    ok = time_of_day(&c, end, &t);
  if (ok && type == TOML_DATETIME_LOCAL && c < end) {
    ok = offset(&c, end, &t);
    type = TOML_DATETIME;
  }
  if (!ok || c != end) {
    char text[48];
    fault_at(p, mark, "`%s` is not a valid %s", shown(text, s, len), with_date ? "date or date-time" : "time");
    return NULL;
  }
  struct toml_value *value = toml_new(p->doc, type);
  if (!value)
    no_memory(p);
  else
    value->time = t;
  return value;
}

/* ---- values ---- */

static const char *token_end(const char *c, const char *end) {
  while (c < end &&
         (is_digit(*c) || (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || *c == '_' || *c == '+' || *c == '-' || *c == '.' || *c == ':'))
    c++;
  return c;
}

static bool is(const char *s, size_t len, const char *text) {
  return len == strlen(text) && memcmp(s, text, len) == 0;
}

static struct toml_value *scalar(struct parser *p) {
  struct mark mark = here(p);
  const char *s = p->at, *end = token_end(s, p->end);
  size_t len = (size_t)(end - s);
  if (len == 0) {
    int c = peek(p);
    if (c < 0 || newline_len(p) || c == '#')
      fault_at(p, mark, "a value is missing");
    else if (is_control(c))
      control_fault(p, "place of a value");
    else {
      char text[48];
      size_t n = 1;
      while (s + n < p->end && ((uint8_t)s[n] & 0xc0) == 0x80)
        n++;
      fault_at(p, mark, "expected a value, found `%s`", shown(text, s, n));
    }
    return NULL;
  }
  bool dated = len >= 5 && is_digit(s[0]) && is_digit(s[1]) && is_digit(s[2]) && is_digit(s[3]) && s[4] == '-';
  bool timed = len >= 3 && is_digit(s[0]) && is_digit(s[1]) && s[2] == ':';
  if (dated && len == 10 && p->end - end >= 2 && *end == ' ' && is_digit(end[1])) {
    end = token_end(end + 1, p->end);
    len = (size_t)(end - s);
  } else if (dated && len > 10 && s[10] != 'T' && s[10] != 't') {
    char text[48];
    fault_at(p, mark, "`%s` is not a valid date or date-time", shown(text, s, len));
    return NULL;
  }
  p->at = end;
  if (dated || timed)
    return date_or_time(p, mark, s, len, dated);
  if (is(s, len, "true") || is(s, len, "false")) {
    struct toml_value *v = toml_new(p->doc, TOML_BOOL);
    if (!v)
      no_memory(p);
    else
      v->boolean = *s == 't';
    return v;
  }
  size_t sign = *s == '+' || *s == '-';
  if (is(s + sign, len - sign, "inf"))
    return float_of(p, *s == '-' ? -INFINITY : INFINITY);
  if (is(s + sign, len - sign, "nan"))
    return float_of(p, *s == '-' ? -NAN : NAN);
  if (len > sign && (is_digit(s[sign]) || s[sign] == '.'))
    return number(p, mark, s, len);
  char text[48];
  fault_at(p, mark, "`%s` is not a value: strings stand in quotes, true and false in small letters", shown(text, s, len));
  return NULL;
}

static struct toml_value *value(struct parser *p, unsigned depth);
static int key_value(struct parser *p, struct toml_value *table, unsigned depth);

static struct toml_value *array(struct parser *p, unsigned depth) {
  struct mark start = here(p);
  struct toml_value *a = toml_new(p->doc, TOML_ARRAY);
  if (!a) {
    no_memory(p);
    return NULL;
  }
  p->at++;
  for (;;) {
    if (space(p) < 0)
      return NULL;
    if (peek(p) == ']')
      break;
    if (peek(p) < 0) {
      fault_at(p, start, "an array without its closing ]");
      return NULL;
    }
    struct toml_value *item = value(p, depth + 1);
    if (!item)
      return NULL;
    if (toml_array_add(p->doc, a, item) < 0) {
      no_memory(p);
      return NULL;
    }
    if (space(p) < 0)
      return NULL;
    if (peek(p) == ',') {
      p->at++;
    } else if (peek(p) != ']') {
      if (peek(p) < 0)
        fault_at(p, start, "an array without its closing ]");
      else
        fault_here(p, "expected , or ] in an array");
      return NULL;
    }
  }
  p->at++;
  return a;
}

/* Inline Table: on one line, without a comma behind the last, and closed for good behind its brace. */
static struct toml_value *inline_table(struct parser *p, unsigned depth) {
  struct toml_value *t = toml_new(p->doc, TOML_TABLE);
  if (!t) {
    no_memory(p);
    return NULL;
  }
  t->origin = TOML_HEADER; /* open until its brace */
  p->at++;
  blanks(p);
  if (peek(p) != '}') {
    for (;;) {
      if (key_value(p, t, depth) < 0)
        return NULL;
      blanks(p);
      if (peek(p) == '}')
        break;
      if (peek(p) != ',') {
        fault_here(p, newline_len(p) || peek(p) == '#' ? "an inline table ends in the line where it began" : "expected , or } in an inline table");
        return NULL;
      }
      p->at++;
      blanks(p);
      if (peek(p) == '}') {
        fault_here(p, "no comma behind the last key of an inline table");
        return NULL;
      }
    }
  }
  p->at++;
  t->origin = TOML_CLOSED;
  return t;
}

static struct toml_value *value(struct parser *p, unsigned depth) {
  struct mark mark = here(p);
  if (depth > TOML_DEPTH) {
    fault_at(p, mark, "nested deeper than %d levels", TOML_DEPTH);
    return NULL;
  }
  int c = peek(p);
  struct toml_value *v = c == '"' || c == '\'' ? string(p) : c == '[' ? array(p, depth) : c == '{' ? inline_table(p, depth) : scalar(p);
  if (v) {
    v->line = mark.line;
    v->column = mark.column;
  }
  return v;
}

/* ---- Keys ---- */

static bool is_bare(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '-';
}

static int key_part(struct parser *p, struct key_part *part) {
  part->mark = here(p);
  int c = peek(p);
  if (c == '"' || c == '\'') {
    char three[3] = {(char)c, (char)c, (char)c};
    if (at_text(p, three, 3))
      return fault_here(p, "a key cannot be a multi-line string");
    buf_reset(&p->scratch);
    if (single_line_string(p, (char)c) < 0)
      return -1;
    part->len = p->scratch.len;
    part->name = toml_alloc(p->doc, part->len + 1);
    if (!part->name || buf_failed(&p->scratch))
      return no_memory(p);
    memcpy(part->name, buf_str(&p->scratch), part->len);
    return 0;
  }
  const char *s = p->at;
  while (p->at < p->end && is_bare(*p->at))
    p->at++;
  part->len = (size_t)(p->at - s);
  if (part->len == 0) {
    if (c < 0 || newline_len(p))
      return fault_here(p, "a key is missing");
    if (is_control(c))
      return control_fault(p, "place of a key");
    return fault_here(p, "expected a key: letters, digits, - and _, or a string in quotes");
  }
  part->name = toml_alloc(p->doc, part->len + 1);
  if (!part->name)
    return no_memory(p);
  memcpy(part->name, s, part->len);
  return 0;
}

static int key(struct parser *p, struct key *key) {
  key->count = 0;
  for (;;) {
    if (key->count == KEY_PARTS)
      return fault_here(p, "a key with more than %d parts", KEY_PARTS);
    if (key_part(p, &key->part[key->count]) < 0)
      return -1;
    key->count++;
    blanks(p);
    if (peek(p) != '.')
      return 0;
    p->at++;
    blanks(p);
  }
}

static int defined_already(struct parser *p, const struct key_part *part, const struct toml_entry *first) {
  char text[48];
  return fault_at(p, part->mark, "`%s` is defined already, in line %u", shown(text, part->name, part->len), first->line);
}

static struct toml_entry *add(struct parser *p, struct toml_value *table, const struct key_part *part, struct toml_value *v) {
  struct toml_entry *e = toml_table_add(p->doc, table, part->name, part->len, v);
  if (!e) {
    no_memory(p);
    return NULL;
  }
  e->line = part->mark.line;
  e->column = part->mark.column;
  return e;
}

static struct toml_value *new_table(struct parser *p, enum toml_origin origin, struct mark mark) {
  struct toml_value *t = toml_new(p->doc, TOML_TABLE);
  if (!t) {
    no_memory(p);
    return NULL;
  }
  t->origin = origin;
  t->line = mark.line;
  t->column = mark.column;
  return t;
}

/* The table that a dotted key's last part goes into. "Dotted keys create and define a table for each key part before the last one": so they may pass
 * through tables of their own making and define those that were only implied, but not reopen what a header or braces defined. */
static struct toml_value *descend_dotted(struct parser *p, struct toml_value *table, const struct key *key) {
  for (unsigned i = 0; i + 1 < key->count; i++) {
    const struct key_part *part = &key->part[i];
    struct toml_entry *e = toml_find(table, part->name, part->len);
    if (!e) {
      struct toml_value *t = new_table(p, TOML_DOTTED, part->mark);
      if (!t || !(e = add(p, table, part, t)))
        return NULL;
    } else if (e->value->type != TOML_TABLE || (e->value->origin != TOML_DOTTED && e->value->origin != TOML_IMPLICIT)) {
      defined_already(p, part, e);
      return NULL;
    }
    e->value->origin = TOML_DOTTED;
    table = e->value;
  }
  return table;
}

/* -1 only when the rest of the line cannot be read; a key that is defined twice is a fault, and the line goes on. */
static int key_value(struct parser *p, struct toml_value *table, unsigned depth) {
  struct key k;
  if (key(p, &k) < 0)
    return -1;
  if (peek(p) != '=')
    return fault_here(p, "expected = after a key");
  p->at++;
  blanks(p);
  struct toml_value *into = descend_dotted(p, table, &k);
  if (p->memory)
    return -1;
  struct toml_value *v = value(p, depth + k.count);
  if (!v)
    return -1;
  if (!into)
    return 0;
  const struct key_part *last = &k.part[k.count - 1];
  struct toml_entry *there = toml_find(into, last->name, last->len); /* NOLINT(clang-analyzer-core.CallAndMessage): key() has left a part at least */
  if (there) {
    defined_already(p, last, there);
    return 0;
  }
  return add(p, into, last, v) ? 0 : -1;
}

/* ---- Table, Array of Tables ---- */

/* One step of a header towards its last part: a table, or the newest element of an array of tables. */
static struct toml_value *step_into(struct parser *p, struct toml_value *table, const struct key_part *part, unsigned *depth) {
  struct toml_entry *e = toml_find(table, part->name, part->len);
  if (!e) {
    struct toml_value *t = new_table(p, TOML_IMPLICIT, part->mark);
    return t && add(p, table, part, t) ? t : NULL;
  }
  struct toml_value *v = e->value;
  if (v->type == TOML_ARRAY && v->origin == TOML_TABLES) {
    ++*depth;
    return v->array.items[v->array.count - 1];
  }
  if (v->type == TOML_TABLE && v->origin != TOML_CLOSED)
    return v;
  defined_already(p, part, e);
  return NULL;
}

static struct toml_value *open_table(struct parser *p, struct toml_value *parent, const struct key_part *last, struct mark mark) {
  struct toml_entry *e = toml_find(parent, last->name, last->len); /* NOLINT(clang-analyzer-core.CallAndMessage): the same */
  if (!e) {
    struct toml_value *t = new_table(p, TOML_HEADER, mark);
    return t && add(p, parent, last, t) ? t : NULL;
  }
  if (e->value->type != TOML_TABLE || e->value->origin != TOML_IMPLICIT) {
    defined_already(p, last, e);
    return NULL;
  }
  e->value->origin = TOML_HEADER;
  e->value->line = mark.line;
  e->value->column = mark.column;
  e->line = last->mark.line;
  e->column = last->mark.column;
  return e->value;
}

static struct toml_value *open_element(struct parser *p, struct toml_value *parent, const struct key_part *last, struct mark mark) {
  struct toml_entry *e = toml_find(parent, last->name, last->len);
  if (!e) {
    struct toml_value *a = toml_new(p->doc, TOML_ARRAY);
    if (!a) {
      no_memory(p);
      return NULL;
    }
    a->origin = TOML_TABLES;
    a->line = mark.line;
    a->column = mark.column;
    if (!(e = add(p, parent, last, a)))
      return NULL;
  } else if (e->value->type != TOML_ARRAY || e->value->origin != TOML_TABLES) {
    defined_already(p, last, e);
    return NULL;
  }
  struct toml_value *t = new_table(p, TOML_HEADER, mark);
  if (t && toml_array_add(p->doc, e->value, t) < 0) {
    no_memory(p);
    return NULL;
  }
  return t;
}

/* [a.b] or [[a.b]]. NULL when it cannot be read; *ret_depth: how deep its keys lie. A header that may not stand here still opens a
 * table, one outside of the tree, so that its keys are not blamed on the table before it. */
static struct toml_value *header(struct parser *p, unsigned *ret_depth) {
  struct mark mark = here(p);
  bool element = at_text(p, "[[", 2);
  p->at += element ? 2 : 1;
  blanks(p);
  struct key k;
  if (key(p, &k) < 0)
    return NULL;
  if (!at_text(p, element ? "]]" : "]", element ? 2 : 1)) {
    fault_here(p, "expected %s after a table's name", element ? "]]" : "]");
    return NULL;
  }
  p->at += element ? 2 : 1;
  if (end_of_line(p, "a table's name") < 0)
    return NULL;
  struct toml_value *table = &p->doc->root;
  *ret_depth = k.count + element;
  for (unsigned i = 0; table && i + 1 < k.count; i++)
    table = step_into(p, table, &k.part[i], ret_depth);
  if (table)
    table = element ? open_element(p, table, &k.part[k.count - 1], mark) : open_table(p, table, &k.part[k.count - 1], mark);
  return table || p->memory ? table : new_table(p, TOML_HEADER, mark);
}

/* ---- the document ---- */

/* After a fault: the next line that looks like the start of a header or of `key =`; within a broken multi-line value most lines don't. */
static void recover(struct parser *p, bool only_header) {
  for (;;) {
    while (p->at < p->end && !newline_len(p))
      p->at++;
    if (!newline(p))
      return;
    const char *line = p->at, *c = line;
    while (c < p->end && (*c == ' ' || *c == '\t'))
      c++;
    if (c < p->end && *c == '[') {
      while (c < p->end && (*c == '[' || *c == ']' || *c == '.' || *c == ' ' || is_bare(*c)))
        c++;
      if (c[-1] == ']' && (c == p->end || *c == '\n' || *c == '\r' || *c == '#' || *c == '\t'))
        return;
    } else if (!only_header) {
      const char *first = c;
      while (c < p->end && (is_bare(*c) || *c == '.' || *c == ' '))
        c++;
      if (c > first && c < p->end && *c == '=')
        return;
    }
  }
}

static void document(struct parser *p) {
  struct toml_value *table = &p->doc->root;
  unsigned depth = 0;
  while (p->at < p->end && !p->memory && p->doc->faults < TOML_FAULTS_MAX) {
    blanks(p);
    int c = peek(p);
    if (c < 0 || newline(p))
      continue;
    if (c == '#') {
      if (end_of_line(p, "a comment") < 0)
        recover(p, false);
    } else if (c == '[') {
      struct toml_value *next = header(p, &depth);
      if (next)
        table = next;
      else
        recover(p, true);
    } else if (key_value(p, table, depth) < 0 || end_of_line(p, "a value") < 0) {
      recover(p, false);
    }
  }
}

/* The first byte that is not UTF-8 (RFC 3629), or end. */
static const char *utf8_fault(const char *s, const char *end) {
  const uint8_t *p = (const uint8_t *)s, *e = (const uint8_t *)end;
  while (p < e) {
    if (*p < 0x80) {
      p++;
      continue;
    }
    unsigned more = *p >= 0xf0 ? 3 : *p >= 0xe0 ? 2 : 1;
    uint8_t low = *p == 0xe0 ? 0xa0 : *p == 0xf0 ? 0x90 : 0x80;  /* overlong forms */
    uint8_t high = *p == 0xed ? 0x9f : *p == 0xf4 ? 0x8f : 0xbf; /* surrogates, above U+10FFFF */
    bool ok = *p >= 0xc2 && *p <= 0xf4 && (size_t)(e - p) > more && p[1] >= low && p[1] <= high;
    for (unsigned i = 2; ok && i <= more; i++)
      ok = (p[i] & 0xc0) == 0x80;
    if (!ok)
      break;
    p += more + 1;
  }
  return (const char *)p;
}

struct toml_doc *toml_parse(const char *text, size_t len, toml_fault_fn *fault, void *arg) {
  struct parser p = {.doc = toml_doc_new(), .at = text, .end = text + len, .line = 1, .col = 1, .fault = fault, .arg = arg};
  if (!p.doc)
    return NULL;
  p.scratch = BUF_INIT(len + 16);
  if (at_text(&p, "\xef\xbb\xbf", 3))
    p.at += 3;
  p.col_at = p.at;
  const char *bad = utf8_fault(p.at, p.end);
  if (bad < p.end) {
    while (p.at < bad)
      if (!newline(&p))
        p.at++;
    fault_here(&p, "byte 0x%02X is not UTF-8", (uint8_t)*bad);
  } else {
    document(&p);
  }
  p.doc->root.line = p.doc->root.column = 1;
  buf_free(&p.scratch);
  if (p.memory) {
    toml_free(p.doc);
    return NULL;
  }
  return p.doc;
}
