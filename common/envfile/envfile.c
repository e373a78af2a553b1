#include "common/envfile/envfile.h"

#include <stdbool.h>
#include <string.h>

#include "common/buf.h"
#include "common/crypto/crypto.h"

#define VALUE_MAX ((size_t)1 << 20)
#define LINES_MAX 1000000u

struct reader {
  const char *at, *end;
  unsigned line;
};

static bool is_blank(char c) {
  return c == ' ' || c == '\t';
}

static void skip_blanks(struct reader *r) {
  while (r->at < r->end && is_blank(*r->at))
    r->at++;
}

static bool at_line_end(const struct reader *r) {
  return r->at == r->end || *r->at == '\n' || (*r->at == '\r' && (r->at + 1 == r->end || r->at[1] == '\n'));
}

/* Past the rest of a line that may only be blank, or a comment. */
static int end_line(struct reader *r, struct err *err) {
  skip_blanks(r);
  if (r->at < r->end && *r->at == '#')
    while (r->at < r->end && *r->at != '\n')
      r->at++;
  if (!at_line_end(r))
    return err_set(err, ERR_INVALID, "line %u: something follows the closing quote", r->line);
  if (r->at < r->end && *r->at == '\r')
    r->at++;
  if (r->at < r->end) {
    r->at++;
    r->line++;
  }
  return 0;
}

static bool name_char(char c, bool first) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' || (!first && ((c >= '0' && c <= '9') || c == '.' || c == '-'));
}

static int read_name(struct reader *r, char name[ENVFILE_NAME_MAX + 1], struct err *err) {
  static const char export[] = "export";
  if ((size_t)(r->end - r->at) > sizeof export && memcmp(r->at, export, sizeof export - 1) == 0 && is_blank(r->at[sizeof export - 1])) {
    r->at += sizeof export;
    skip_blanks(r);
  }
  size_t len = 0;
  while (r->at + len < r->end && name_char(r->at[len], len == 0))
    len++;
  if (len > ENVFILE_NAME_MAX)
    return err_set(err, ERR_INVALID, "line %u: a name has at most %d characters", r->line, ENVFILE_NAME_MAX);
  memcpy(name, r->at, len);
  name[len] = 0;
  r->at += len;
  skip_blanks(r);
  if (!len || r->at == r->end || *r->at != '=')
    return err_set(err, ERR_INVALID, "line %u: want NAME=VALUE: a name is a letter or _, then letters, digits, _ . -", r->line);
  r->at++;
  skip_blanks(r);
  return 0;
}

static char escaped(char c) {
  switch (c) {
  case 'n':
    return '\n';
  case 'r':
    return '\r';
  case 't':
    return '\t';
  case '"':
  case '\\':
  case '$':
    return c;
  default:
    return 0;
  }
}

static int read_quoted(struct reader *r, struct buf *to, struct err *err) {
  char quote = *r->at++;
  unsigned began = r->line;
  for (; r->at < r->end && *r->at != quote; r->at++) {
    char c = *r->at;
    if (c == '\n' && ++r->line > LINES_MAX)
      break;
    if (c == '\\' && quote == '"') {
      c = r->at + 1 < r->end ? escaped(r->at[1]) : 0;
      if (!c)
        return err_set(err, ERR_INVALID, "line %u: after a \\ want one of n r t \" \\ $", r->line);
      r->at++;
    }
    buf_add_byte(to, (uint8_t)c);
  }
  if (r->at == r->end || *r->at != quote)
    return err_set(err, ERR_INVALID, "line %u: its quote is never closed", began);
  r->at++;
  return end_line(r, err);
}

static int read_plain(struct reader *r, struct buf *to, struct err *err) {
  const char *from = r->at;
  while (!at_line_end(r) && !(*r->at == '#' && (r->at == from || is_blank(r->at[-1]))))
    r->at++;
  const char *last = r->at;
  while (last > from && is_blank(last[-1]))
    last--;
  buf_add(to, from, (size_t)(last - from));
  return end_line(r, err);
}

static int read_value(struct reader *r, struct buf *to, struct err *err) {
  unsigned line = r->line;
  bool quoted = r->at < r->end && (*r->at == '"' || *r->at == '\'');
  if ((quoted ? read_quoted(r, to, err) : read_plain(r, to, err)) < 0)
    return -1;
  if (buf_failed(to))
    return err_set(err, ERR_TOO_LARGE, "line %u: its value is longer than %zu bytes", line, VALUE_MAX);
  if (to->len && memchr(to->data, 0, to->len))
    return err_set(err, ERR_INVALID, "line %u: its value has a NUL byte", line);
  return 0;
}

static bool seen_before(struct buf *names, const char *name) {
  for (const char *p = buf_str(names), *end = p + names->len; p < end; p += strlen(p) + 1)
    if (strcmp(p, name) == 0)
      return true;
  buf_add(names, name, strlen(name) + 1);
  return false;
}

static int read_pair(struct reader *r, struct buf *names, struct buf *value, envfile_pair_fn *each, void *arg, struct err *err) {
  char name[ENVFILE_NAME_MAX + 1];
  unsigned line = r->line;
  buf_reset(value);
  if (read_name(r, name, err) < 0 || read_value(r, value, err) < 0)
    return -1;
  if (seen_before(names, name))
    return err_set(err, ERR_INVALID, "line %u: %s was there before", line, name);
  if (buf_failed(names))
    return err_set(err, ERR_TOO_LARGE, "too many names");
  return each(arg, name, buf_str(value), value->len, line, err);
}

int envfile_parse(const char *text, size_t len, envfile_pair_fn *each, void *arg, struct err *err) {
  struct reader r = {.at = text, .end = text + len, .line = 1};
  struct buf names = BUF_INIT(VALUE_MAX), value = BUF_INIT(VALUE_MAX);
  int rc = buf_reserve(&value, len < VALUE_MAX ? len : VALUE_MAX) < 0 ? err_set(err, ERR_MEMORY, "no memory") : 0;
  if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
    r.at += 3;
  while (rc == 0 && r.at < r.end) {
    skip_blanks(&r);
    if (at_line_end(&r) || *r.at == '#')
      rc = end_line(&r, err);
    else
      rc = read_pair(&r, &names, &value, each, arg, err);
  }
  if (value.data)
    crypto_wipe(value.data, value.size);
  buf_free(&value);
  buf_free(&names);
  return rc;
}
